package node

import (
	"testing"

	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
	"grapevine/ledger"
)

// A block that nobody judged is told as such; a verdict that can't be read is an
// error, not the same.
func TestCodesOfBlocks(t *testing.T) {
	w := newWorld(t)
	genesis := w.genesis("ch", 0)
	raw, err := proto.Marshal(genesis)
	require.NoError(t, err)
	v, err := block.Genesis(raw)
	require.NoError(t, err)
	db, err := ledger.Open("ledger", ledger.Options{InMemory: true})
	require.NoError(t, err)
	l, err := db.Create("ch", v)
	require.NoError(t, err)
	b, err := judged{&Channel{ledger: l}}.withCodes(genesis)
	require.NoError(t, err)
	require.Equal(t, []byte{byte(peer.TxValidationCode_NOT_VALIDATED)}, b.Metadata.Metadata[2])
	require.NoError(t, Judge(t.Context(), l, nil))
	b, err = judged{&Channel{ledger: l}}.withCodes(genesis)
	require.NoError(t, err)
	require.Equal(t, []byte{byte(peer.TxValidationCode_VALID)}, b.Metadata.Metadata[2])
	require.NoError(t, db.Close())
	_, err = judged{&Channel{ledger: l}}.withCodes(genesis)
	require.ErrorIs(t, err, ledger.ErrClosed)
}

package node

import (
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
	"grapevine/block/tx"
	"grapevine/msp"
)

// signedBlock is a block that the ordering service's signer vouches for,
// whatever it follows.
func signedBlock(t *testing.T, c *Channel, s msp.Signer, number uint64, prev byte, text string) *block.Checked {
	t.Helper()
	env, err := tx.SignedEnvelope(common.HeaderType_MESSAGE, c.Name(), &common.ConfigValue{Value: []byte(text)}, s, time.Now())
	require.NoError(t, err)
	raw, err := proto.Marshal(env)
	require.NoError(t, err)
	b := &common.Block{
		Header: &common.BlockHeader{Number: number, PreviousHash: make([]byte, 32)},
		Data:   &common.BlockData{Data: [][]byte{raw}},
	}
	b.Header.PreviousHash[0] = prev
	sum := block.DataHash(b.Data)
	b.Header.DataHash = sum[:]
	require.NoError(t, block.Sign(b, s, 0, nil))
	checked, err := block.CheckBlock(c.Config().Rules(), b)
	require.NoError(t, err)
	return checked
}

// TestForkStopsTheChannelAlone is B5 and S2: of two blocks that the orderers
// signed for one place none is chosen, and other channels go on.
func TestForkStopsTheChannelAlone(t *testing.T) {
	w := newWorld(t)
	cfg, _ := w.config(0, "peer0.org1")
	n := start(t, cfg, w.genesis("forked", 0), w.genesis("other", 0))
	orderer, err := w.orderer.Identity("orderer1", "orderer")
	require.NoError(t, err)
	forked, err := n.Channel("forked")
	require.NoError(t, err)
	other, err := n.Channel("other")
	require.NoError(t, err)

	// Of two blocks that follow different ones, the link decides.
	forked.sync.Offer(signedBlock(t, forked, orderer, 3, 1, "a"), n.PeerID(), "push")
	forked.sync.Offer(signedBlock(t, forked, orderer, 3, 2, "b"), n.PeerID(), "push")
	require.NoError(t, forked.Halted())

	forked.sync.Offer(signedBlock(t, forked, orderer, 2, 7, "one"), n.PeerID(), "push")
	forked.sync.Offer(signedBlock(t, forked, orderer, 2, 7, "another"), n.PeerID(), "push")
	select {
	case <-forked.done:
	case <-time.After(20 * time.Second):
		t.Fatal("the channel goes on")
	}
	require.ErrorIs(t, forked.Halted(), block.Fork)
	require.NoError(t, other.Halted())
	require.EqualValues(t, 1, forked.Ledger().Height(), "what was held is still read")
}

package node

import (
	"errors"
	"io"
	"testing"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/stretchr/testify/require"

	"grapevine/wire"
)

// TestBlocksForMembersOnly is Y17: who isn't a member of a channel asks for its
// blocks in vain, and can't tell it from a channel that there isn't. The refusal is
// counted once, as the wall's: it stands before every protocol of a channel.
func TestBlocksForMembersOnly(t *testing.T) {
	ctx := patience(t)
	w := newWorld(t)
	cfg, reg := w.config(0, "peer0.org1")
	shared := w.genesis("shared", 0, 1)
	n := start(t, cfg, shared, w.genesis("theirs", 0))
	theirs, err := n.Channel("theirs")
	require.NoError(t, err)
	stranger := start(t, func() Config { c, _ := w.config(1, "peer0.org2"); return c }(), shared)
	require.NoError(t, stranger.host.Connect(ctx, at(t, n, "tcp")))
	ask := func(tag [32]byte) (answer []byte, code network.StreamErrorCode) {
		s, err := stranger.host.NewStream(ctx, n.PeerID(), wire.DoorID)
		require.NoError(t, err)
		defer func() { _ = s.Reset() }()
		require.NoError(t, wire.WriteFrame(s, []byte(wire.ProtocolID(tag, wire.KindBlocks))))
		req, err := wire.Marshal(&wire.BlocksRequest{Count: 1, Nonce: 7})
		require.NoError(t, err)
		_ = wire.WriteFrame(s, req) // it may be refused by now
		answer, err = io.ReadAll(s)
		var e *network.StreamError
		require.True(t, errors.As(err, &e), err)
		return answer, e.ErrorCode
	}
	rejected := func(reason string) float64 {
		return counted(t, reg, "grapevine_rejected_total", "reason", reason)
	}
	members, unknown := rejected("channel.not_member"), rejected("channel.unknown")
	a, codeA := ask(theirs.tag)
	b, codeB := ask([32]byte{1, 2, 3})
	require.Empty(t, a)
	require.Equal(t, b, a)
	require.Equal(t, codeB, codeA)
	require.EqualValues(t, 1, rejected("channel.not_member")-members)
	require.EqualValues(t, 1, rejected("channel.unknown")-unknown)
}

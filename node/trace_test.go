package node

import (
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	"grapevine/blocksync"
	"grapevine/wire"
)

// TestTraces: what came is remembered, as it came first, and for no more than
// some blocks.
func TestTraces(t *testing.T) {
	tr := &traces{}
	came := func(n uint64, kind string) {
		tr.came(blocksync.Arrival{Number: n, Hash: [32]byte{byte(n)}, From: "peer", Kind: kind})
	}
	came(1, "push")
	came(2, "pull")
	came(3, "orderer")
	came(1, "pull")
	require.Equal(t, wire.TraceAnswer_PATH_INLINE, tr.tell(1).Path)
	require.Equal(t, wire.TraceAnswer_PATH_PULL, tr.tell(2).Path)
	require.Equal(t, wire.TraceAnswer_PATH_ORDERER, tr.tell(3).Path)
	require.Empty(t, tr.tell(3).From)
	require.Equal(t, wire.TraceAnswer_PATH_UNSPECIFIED, tr.tell(4).Path)
	for n := uint64(4); n < 10*tracesKept; n++ {
		came(n, "push")
	}
	require.LessOrEqual(t, len(tr.of), 2*tracesKept)
	require.NotEqual(t, wire.TraceAnswer_PATH_UNSPECIFIED, tr.tell(10*tracesKept-1).Path)
	for range 2 * tracesAtOnce {
		tr.allow()
	}
	require.False(t, tr.allow(), "a flood is answered no more")
}

// TestSightingClock: times of a member whose clock goes wrong are put right.
func TestSightingClock(t *testing.T) {
	at := time.UnixMilli(1_000_000)
	var s Sighting
	s.take(&wire.TraceAnswer{
		Path: wire.TraceAnswer_PATH_STRIPED, Came: micros(at.Add(time.Hour)), From: []byte(peer.ID("x")), Bytes: 150, Size: 100,
	}, time.Hour)
	require.True(t, at.Equal(s.Came))
	require.Zero(t, s.Durable)
	require.InDelta(t, 1.5, s.Copies, 1e-9)
	require.Equal(t, "striped", s.Path)
}

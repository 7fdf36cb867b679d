package itest

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"grapevine/election"
	"grapevine/node"
)

// stragglers has a peer that lacks gap blocks catch up from another peer alone,
// nobody pulling from the ordering service, and from the ordering service alone,
// with no other peer there (L10).
func stragglers(t *testing.T, ctx context.Context, gap int) {
	listen, endpoint, err := Loopback(2)
	require.NoError(t, err)
	w, err := NewWorld(2, endpoint(0), endpoint(1))
	require.NoError(t, err)
	dir := t.TempDir()
	s, err := NewSwarm(w, SwarmConfig{
		Dir: dir, Peers: 1, Listen: listen, Endpoint: endpoint, Log: testLog(),
		Tune: func(i int, c *node.Config) { c.Leader, c.Judge = election.Standby, i == 0 },
	})
	require.NoError(t, err)
	for range gap {
		_, err := w.Order(0)
		require.NoError(t, err)
	}
	raw, err := w.Raw()
	require.NoError(t, err)
	straggler, other := s.Peers[0], s.Peers[1]
	require.NoError(t, fill(filepath.Join(other.cfg.Dir, "ledger"), raw))
	defer func() { require.NoError(t, s.StopAll()) }()
	catchUp := func(from string) {
		began := time.Now()
		require.NoError(t, s.Start(ctx, straggler))
		require.NoError(t, straggler.Channel.Ledger().Wait(ctx, w.Height()))
		require.Equal(t, w.Tip(), straggler.Channel.Ledger().Tip())
		took := time.Since(began)
		t.Logf("%d blocks from %s alone in %v, %.0f a second", gap, from, took.Round(time.Millisecond), float64(gap)/took.Seconds())
	}
	require.NoError(t, s.Start(ctx, other))
	catchUp("peers")
	require.NoError(t, s.StopAll())

	require.NoError(t, os.RemoveAll(straggler.cfg.Dir))
	straggler.cfg.Leader = election.Static
	catchUp("orderers")
}

func TestStragglers(t *testing.T) {
	for _, gap := range []int{1, 40, 1500} {
		stragglers(t, longPatience(t), gap)
	}
}

// TestSoakStragglers is L10's gap of 100,000.
func TestSoakStragglers(t *testing.T) {
	if os.Getenv("GRAPEVINE_SOAK") == "" {
		t.Skip("GRAPEVINE_SOAK isn't set")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute)
	defer cancel()
	stragglers(t, ctx, 100_000)
}

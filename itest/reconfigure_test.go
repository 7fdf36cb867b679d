package itest

import (
	"context"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"
)

// swarm makes a world of three organisations and k peers of each on loopback,
// all on disk, and doesn't start them.
func swarm(t *testing.T, k int, edit ...func(*SwarmConfig)) *Swarm {
	t.Helper()
	listen, endpoint := loopback(t, 3*k)
	w, err := NewWorld(3, endpoint(0), endpoint(1), endpoint(2))
	require.NoError(t, err)
	c := SwarmConfig{Dir: t.TempDir(), Peers: k, Listen: listen, Endpoint: endpoint, Log: testLog()}
	for _, f := range edit {
		f(&c)
	}
	s, err := NewSwarm(w, c)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.StopAll()) })
	return s
}

// order makes n blocks of a few hundred bytes to a few thousand.
func order(t *testing.T, w *World, n int) {
	t.Helper()
	for i := range n {
		_, err := w.Order(100 << (i % 6))
		require.NoError(t, err)
	}
}

// A configuration block is taken up by all nodes as it is committed: they know
// the new anchor peer, and go on verifying what follows.
func TestConfigurationIsTakenUp(t *testing.T) {
	ctx := longPatience(t)
	s := swarm(t, 2)
	require.NoError(t, s.StartAll(ctx))
	order(t, s.World, 5)
	where := s.Peers[3].cfg.ExternalEndpoint // the first organisation's second peer
	_, err := s.World.SetAnchor(0, where)
	require.NoError(t, err)
	order(t, s.World, 5)
	require.NoError(t, s.Await(ctx, s.World.Height()))
	require.NoError(t, s.Same())
	for _, p := range s.Peers {
		c := p.Channel.Config()
		require.EqualValues(t, 1, c.Sequence())
		require.EqualValues(t, 6, c.Number())
		require.Equal(t, []string{where}, c.Orgs()[0].Anchors)
	}
	// It is in force after a restart too.
	p := s.Peers[4]
	require.NoError(t, s.Stop(p))
	order(t, s.World, 1)
	require.NoError(t, s.Start(ctx, p))
	require.NoError(t, s.Await(ctx, s.World.Height()))
	require.EqualValues(t, 6, p.Channel.Config().Number())
}

// T30: an organisation that a configuration block removes is cut within two
// seconds of the commit, under load, and receives no block afterwards.
func TestRemovedOrganisationIsCut(t *testing.T) {
	ctx := longPatience(t)
	s := swarm(t, 2, func(c *SwarmConfig) { c.Leaders = 1 })
	require.NoError(t, s.StartAll(ctx))
	order(t, s.World, 3)
	require.NoError(t, s.Await(ctx, s.World.Height()))

	const out = 2 // the third organisation, with peers 2 and 5
	gone := map[peer.ID]bool{s.Peers[2].Node.PeerID(): true, s.Peers[5].Node.PeerID(): true}
	_, err := s.World.Remove(out)
	require.NoError(t, err)
	last := s.World.Height()
	order(t, s.World, 20)
	for i, p := range s.Peers {
		if i%3 == out {
			continue
		}
		require.NoError(t, p.Channel.Ledger().Wait(ctx, last))
		cut, cancel := context.WithTimeout(ctx, 2*time.Second)
		require.NoError(t, until(cut, func() bool {
			for id := range gone {
				if p.Node.Host().Network().Connectedness(id) == network.Connected {
					return false
				}
			}
			return true
		}), "%s keeps a peer of the removed organisation", p.Name)
		cancel()
		for _, id := range p.Channel.Connected() {
			require.False(t, gone[id])
		}
	}
	for i, p := range s.Peers {
		if i%3 != out {
			require.NoError(t, p.Channel.Ledger().Wait(ctx, s.World.Height()))
		} else {
			// What was under way when it was cut may have come; nothing since.
			require.Less(t, p.Channel.Ledger().Height(), s.World.Height())
		}
	}
}

// until polls where no event tells.
func until(ctx context.Context, ok func() bool) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

package itest

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"grapevine/block"
	"grapevine/election"
	"grapevine/ledger"
	"grapevine/node"
)

// keepOrdering makes n blocks beside the test; the returned channel is closed
// when all are made.
func keepOrdering(t *testing.T, w *World, n int) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range n {
			if _, err := w.Order(500); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	return done
}

// A follower that stops under load and comes back on the same folder holds what
// it had acknowledged, and ends equal to the others.
func TestFollowerRestartsUnderLoad(t *testing.T) {
	ctx := longPatience(t)
	s := swarm(t, 2)
	require.NoError(t, s.StartAll(ctx))
	p := s.Peers[3]
	for round := range 3 {
		done := keepOrdering(t, s.World, 60)
		require.NoError(t, p.Channel.Ledger().Wait(ctx, uint64(60*round+10)))
		told := p.Channel.Ledger().Tip()
		require.NoError(t, s.Stop(p))
		<-done
		require.NoError(t, s.Start(ctx, p))
		require.GreaterOrEqual(t, p.Channel.Ledger().Height(), told.Height)
		kept, err := p.Channel.Ledger().ByHash(told.Hash)
		require.NoError(t, err)
		require.Equal(t, told.Height-1, kept)
		require.NoError(t, s.Await(ctx, s.World.Height()))
		require.NoError(t, s.Same())
	}
}

// With its only leader away a channel stands still, and goes on when it is
// back.
func TestLeaderRestarts(t *testing.T) {
	ctx := longPatience(t)
	s := swarm(t, 2, func(c *SwarmConfig) { c.Leaders = 1 })
	require.NoError(t, s.StartAll(ctx))
	order(t, s.World, 10)
	require.NoError(t, s.Await(ctx, s.World.Height()))
	require.NoError(t, s.Stop(s.Peers[0]))
	stand := s.World.Height()
	order(t, s.World, 10)
	for _, p := range s.Peers[1:] {
		require.Equal(t, stand, p.Channel.Ledger().Height())
	}
	require.NoError(t, s.Start(ctx, s.Peers[0]))
	order(t, s.World, 10)
	require.NoError(t, s.Await(ctx, s.World.Height()))
	require.NoError(t, s.Same())
}

// Everybody stops, as in a power cut that kills the processes, and comes back.
func TestAllRestart(t *testing.T) {
	ctx := longPatience(t)
	s := swarm(t, 2)
	require.NoError(t, s.StartAll(ctx))
	<-keepOrdering(t, s.World, 40)
	require.NoError(t, s.StopAll())
	order(t, s.World, 10)
	require.NoError(t, s.StartAll(ctx))
	order(t, s.World, 10)
	require.NoError(t, s.Await(ctx, s.World.Height()))
	require.NoError(t, s.Same())
}

// A node that joins when the chain is long takes it from its peers.
func TestLatecomerCatchesUp(t *testing.T) {
	ctx := longPatience(t)
	s := swarm(t, 2)
	late := s.Peers[5]
	for _, p := range s.Peers[:5] {
		require.NoError(t, s.Start(ctx, p))
	}
	order(t, s.World, 300)
	require.NoError(t, s.Await(ctx, s.World.Height()))
	require.NoError(t, s.Start(ctx, late))
	require.NoError(t, s.Await(ctx, s.World.Height()))
	require.NoError(t, s.Same())
	require.Equal(t, "state", late.Channel.Status().SourceKind)
}

// S13: every node leads, so every block is pulled six times; each ledger holds
// each once, and what the nodes hand out is one chain.
func TestManyLeadersNeverDouble(t *testing.T) {
	ctx := longPatience(t)
	s := swarm(t, 2, func(c *SwarmConfig) {
		c.Tune = func(_ int, n *node.Config) { n.Leader = election.Static }
	})
	require.NoError(t, s.StartAll(ctx))
	order(t, s.World, 100)
	require.NoError(t, s.Await(ctx, s.World.Height()))
	require.NoError(t, s.Same())
	for _, p := range s.Peers {
		next, previous := uint64(0), []byte(nil)
		for b, err := range p.Channel.Blocks(ctx, 0) {
			require.NoError(t, err)
			require.Equal(t, next, b.Header.Number)
			require.Equal(t, previous, b.Header.PreviousHash)
			hash := block.HeaderHash(b.Header)
			next, previous = next+1, hash[:]
			if next == s.World.Height() {
				break
			}
		}
		require.True(t, p.Channel.Status().Leading)
	}
}

// T45 and its neighbours: a folder is of one node of one network, and of one
// process at a time. Who is refused changes nothing in it.
func TestFolderIsOfOneNode(t *testing.T) {
	ctx := longPatience(t)
	s := swarm(t, 1)
	require.NoError(t, s.StartAll(ctx))
	order(t, s.World, 3)
	require.NoError(t, s.Await(ctx, s.World.Height()))
	p := s.Peers[0]
	open := func(edit func(c *node.Config)) error {
		c := p.cfg
		c.Metrics, c.Listen = nil, []string{"/ip4/127.0.0.1/tcp/0"}
		if edit != nil {
			edit(&c)
		}
		n, err := node.Open(c)
		if err == nil {
			require.NoError(t, n.Close())
		}
		return err
	}
	require.ErrorIs(t, open(nil), ledger.ErrLocked)

	require.NoError(t, s.Stop(p))
	err := open(func(c *node.Config) { c.NetworkID = "another" })
	require.ErrorIs(t, err, ledger.ErrForeign)
	require.ErrorContains(t, err, p.cfg.Dir)
	require.ErrorIs(t, open(func(c *node.Config) { c.Signer = s.Peers[1].cfg.Signer }), ledger.ErrForeign)
	alien := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(alien, "ledger"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(alien, "ledger", "letter.txt"), []byte("not a ledger"), 0o600))
	require.ErrorIs(t, open(func(c *node.Config) { c.Dir = alien }), ledger.ErrForeign)

	require.NoError(t, s.Start(ctx, p))
	require.NoError(t, s.Same())
}

func TestJoinAndLeave(t *testing.T) {
	ctx := longPatience(t)
	s := swarm(t, 2)
	require.NoError(t, s.StartAll(ctx))
	order(t, s.World, 10)
	require.NoError(t, s.Await(ctx, s.World.Height()))
	other, err := NewWorld(3)
	require.NoError(t, err)
	p := s.Peers[4]
	n := p.Node

	again, err := n.Join(ctx, s.World.Genesis)
	require.NoError(t, err)
	require.Same(t, p.Channel, again, "joining twice changes nothing")
	_, err = n.Join(ctx, other.Genesis)
	require.ErrorIs(t, err, node.ErrJoined)

	require.NoError(t, n.Leave(ctx, ChannelName, false))
	require.ErrorIs(t, n.Leave(ctx, ChannelName, false), node.ErrNoChannel)
	require.Empty(t, n.Channels())
	_, err = n.Channel(ChannelName)
	require.ErrorIs(t, err, node.ErrNoChannel)
	_, err = n.Join(ctx, other.Genesis)
	require.ErrorIs(t, err, node.ErrJoined, "its blocks are still those of the first")
	order(t, s.World, 5)
	p.Channel, err = n.Join(ctx, s.World.Genesis)
	require.NoError(t, err)
	require.GreaterOrEqual(t, p.Channel.Ledger().Height(), uint64(11), "the blocks were kept")
	require.NoError(t, s.Await(ctx, s.World.Height()))

	require.NoError(t, n.Leave(ctx, ChannelName, true))
	order(t, s.World, 5)
	p.Channel, err = n.Join(ctx, s.World.Genesis)
	require.NoError(t, err)
	require.NoError(t, s.Await(ctx, s.World.Height()))
	require.NoError(t, s.Same())

	// What was left stays left over a restart.
	require.NoError(t, n.Leave(ctx, ChannelName, false))
	p.stop()
	require.NoError(t, <-p.done)
	require.NoError(t, n.Close())
	p.Node = nil
	c := p.cfg
	c.Metrics = nil
	n, err = node.Open(c)
	require.NoError(t, err)
	require.Empty(t, n.Channels())
	require.NoError(t, n.Close())
}

func TestRunOnce(t *testing.T) {
	s := swarm(t, 1)
	p := s.Peers[0]
	n, err := node.Open(p.cfg)
	require.NoError(t, err)
	require.NoError(t, n.Close(), "without Run")
	require.Error(t, n.Run(t.Context()), "after Close")
	_, err = n.Join(t.Context(), s.World.Genesis)
	require.Error(t, err, "after Close")

	require.NoError(t, s.Start(t.Context(), p))
	require.NoError(t, p.Channel.Ledger().Wait(t.Context(), 1))
	require.NoError(t, until(longPatience(t), func() bool { return p.Channel.Status().Leading }))
	require.Error(t, p.Node.Run(t.Context()), "a second time")
	require.NoError(t, s.Stop(p), "the first goes on until it is told")
}

// 200 times open and close, with and without Run, some joined and left on the
// way: no goroutine, socket or lock stays.
func TestFlaps(t *testing.T) {
	s := swarm(t, 1)
	before := goleak.IgnoreCurrent()
	cfg := s.Peers[1].cfg
	cfg.InMemory = true
	for i := range 200 {
		n, err := node.Open(cfg)
		require.NoError(t, err)
		if i%2 == 0 {
			_, err = n.Join(t.Context(), s.World.Genesis)
			require.NoError(t, err)
		}
		if i%4 < 2 {
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- n.Run(ctx) }()
			if i%8 == 1 {
				// May come before, while and after the node runs and ends.
				go cancel()
				_, _ = n.Join(t.Context(), s.World.Genesis)
			}
			if i%8 == 4 {
				require.NoError(t, n.Leave(t.Context(), ChannelName, i%16 == 4))
			}
			cancel()
			require.NoError(t, <-done)
		}
		require.NoError(t, n.Close())
	}
	goleak.VerifyNone(t, before)
}

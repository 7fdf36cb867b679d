package blocksync

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/stretchr/testify/require"
)

// L10: a straggler catches up from peers alone, over configuration blocks, with
// live blocks coming meanwhile.
func TestStragglerCatchesUp(t *testing.T) {
	orderers()
	synctest.Test(t, func(t *testing.T) {
		w := simulate(t, 4)
		defer w.close()
		c := newChain(t).grow(150, 300).reconfigure().reconfigure().grow(99, 300).reconfigure().grow(200, 300)
		n := newNode(t, w.hosts[0], c, 1)
		defer n.close()
		for _, h := range w.hosts[1:] {
			s := newNode(t, h, c, 440)
			defer s.close()
			s.start()
			for _, raw := range c.raw[440:] { // live
				s.Offer(s.check(raw), "x", "push")
			}
		}
		n.start()
		for _, h := range w.hosts[1:] {
			n.Height(h.ID(), 440)
		}
		n.reach(440, 10*time.Second)
		for _, raw := range c.raw[440:445] {
			n.Offer(n.check(raw), "x", "push")
		}
		n.Offer(n.check(c.raw[450]), w.hosts[1].ID(), "push") // the ones before are lost: pulled from who sent it
		n.reach(451, 2*time.Second)
		require.Empty(t, n.refusals())
		n.Height(w.hosts[2].ID(), uint64(len(c.raw)))
		n.reach(uint64(len(c.raw)), 2*time.Second)
		require.Equal(t, c.tip, n.led.Tip())
	})
}

// A large body is announced, and pulled from who has it; the announcer of a
// body that he doesn't give is passed over.
func TestAnnouncedBody(t *testing.T) {
	orderers()
	synctest.Test(t, func(t *testing.T) {
		w := simulate(t, 3)
		defer w.close()
		c := newChain(t).grow(1, 10).grow(1, 1<<20)
		n := newNode(t, w.hosts[0], c, 2)
		defer n.close()
		leader := newNode(t, w.hosts[1], c, 2)
		defer leader.close()
		serveWith(w.hosts[2], c, func(s network.Stream, _ *wireRequest, _ *chain) { time.Sleep(5 * time.Second) })
		n.start()
		leader.start()
		leader.Offer(leader.check(c.raw[2]), leader.host.ID(), "orderer/o:7050")
		began := time.Now()
		n.Announced(2, c.hash(2), 1<<20, w.hosts[2].ID(), leader.host.ID())
		n.reach(3, 5*time.Second)
		require.Less(t, time.Since(began), 2*time.Second)
		time.Sleep(6 * time.Second)
	})
}

// One block larger than the buffer passes alone.
func TestABlockLargerThanTheBuffer(t *testing.T) {
	orderers()
	synctest.Test(t, func(t *testing.T) {
		w := simulate(t, 2)
		defer w.close()
		c := newChain(t).grow(3, 10_000).grow(1, 300_000).grow(20, 10_000)
		n := newNode(t, w.hosts[0], c, 1, func(conf *Config) { conf.BufferBytes = 64 << 10 })
		defer n.close()
		s := newNode(t, w.hosts[1], c, len(c.raw))
		defer s.close()
		n.start()
		n.Height(s.host.ID(), uint64(len(c.raw)))
		n.reach(uint64(len(c.raw)), 20*time.Second)
		require.Equal(t, c.tip, n.led.Tip())
	})
}

// A third of the peers lie, are silent or forge: the straggler gets there.
func TestCatchUpAmongHostilePeers(t *testing.T) {
	orderers()
	synctest.Test(t, func(t *testing.T) {
		w := simulate(t, 6)
		defer w.close()
		c := newChain(t).grow(400, 1000)
		forged := newChain(t).grow(400, 999)
		n := newNode(t, w.hosts[0], c, 5)
		defer n.close()
		for _, h := range w.hosts[1:4] {
			s := newNode(t, h, c, len(c.raw))
			defer s.close()
		}
		forger := newNode(t, w.hosts[4], forged, len(forged.raw)) // validly signed, of another history
		defer forger.close()
		serveWith(w.hosts[5], c, func(s network.Stream, _ *wireRequest, _ *chain) { time.Sleep(time.Minute) })
		n.start()
		for _, h := range w.hosts[1:] {
			n.Height(h.ID(), uint64(len(c.raw)))
		}
		n.reach(uint64(len(c.raw)), time.Minute)
		require.Equal(t, c.tip, n.led.Tip())
		bad := 0
		for _, r := range n.refusals() {
			if r == "reject block.bad_link" {
				bad++
			}
		}
		require.LessOrEqual(t, bad, 2, "what a banned peer brought was kept")
		time.Sleep(2 * time.Minute)
	})
}

// Over real sockets: TCP, TLS and yamux.
func TestCatchUpOnLoopback(t *testing.T) {
	c := newChain(t).grow(100, 10_000).reconfigure().grow(3, 1<<20)
	w := loopback(t, 3)
	defer w.close()
	n := newNode(t, w.hosts[0], c, 1)
	defer n.close()
	n.start()
	for _, h := range w.hosts[1:] {
		s := newNode(t, h, c, len(c.raw))
		defer s.close()
		n.Height(h.ID(), uint64(len(c.raw)))
	}
	n.reach(uint64(len(c.raw)), time.Minute)
	require.Equal(t, c.tip, n.led.Tip())
	require.Empty(t, n.refusals())
}

// A peer that leaves in the middle is replaced, and nothing of it stays.
func TestPeerLeavesInTheMiddle(t *testing.T) {
	orderers()
	synctest.Test(t, func(t *testing.T) {
		w := simulate(t, 3)
		defer w.close()
		c := newChain(t).grow(300, 10_000)
		n := newNode(t, w.hosts[0], c, 1)
		defer n.close()
		for _, h := range w.hosts[1:] {
			s := newNode(t, h, c, len(c.raw))
			defer s.close()
		}
		n.start()
		n.Height(w.hosts[1].ID(), 301)
		time.Sleep(60 * time.Millisecond)
		n.Height(w.hosts[2].ID(), 301)
		time.Sleep(60 * time.Millisecond)
		n.PeerGone(w.hosts[1].ID())
		require.NoError(t, w.hosts[0].Network().ClosePeer(w.hosts[1].ID()))
		n.reach(301, 10*time.Second)
		time.Sleep(time.Second) // for the ends of streams
		synctest.Wait()
		_, _, fetching := n.Buffered()
		require.Zero(t, fetching)
		for _, r := range n.refusals() {
			require.NotContains(t, r, "ban", fmt.Sprint(n.refusals()))
		}
	})
}

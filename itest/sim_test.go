package itest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/x/simlibp2p"
	"github.com/marcopolo/simnet"
	"github.com/stretchr/testify/require"

	"grapevine/itest/figures"
	"grapevine/node"
)

const (
	simLatency = 25 * time.Millisecond // one way
	simBits    = 100 * simlibp2p.OneMbps
	// never is how long a packet takes that vanishes: simnet loses none.
	never = 1000 * time.Hour
	// simPatience is virtual: how long anything may take before a play fails.
	simPatience = 5 * time.Minute
)

// A sim is a swarm of real nodes in virtual time, on links of 100 Mbit/s and
// 25 ms one way. Processors are free: what it measures is the network's part.
type sim struct {
	*Swarm
	t     *testing.T
	ctx   context.Context
	gone  atomic.Pointer[func(a, b int) bool] // whose packets vanish
	mu    sync.Mutex
	came  map[uint64][]time.Time // when each block was durable at each node, by number; owned by mu
	watch sync.WaitGroup
}

// A stage is where a play begins.
type stage struct {
	orgs, peers int
	anchored    func(org int) bool          // whose first peers are anchors; nil: all
	tune        func(i int, c *node.Config) // may be nil
	empty       bool                        // nobody is started
	disk        bool                        // ledgers are on the disk, which takes real time alone
}

// simulate plays with real nodes in a bubble: orgs organisations of peers each,
// which have met, the first peer of the first alone pulling from the ordering
// service.
func simulate(t *testing.T, orgs, peers int, play func(s *sim)) {
	t.Helper()
	simulateOn(t, stage{orgs: orgs, peers: peers}, play)
}

// simulateOn does so on another stage.
func simulateOn(t *testing.T, g stage, play func(s *sim)) {
	t.Helper()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // golang/go#78156
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		s := &sim{t: t, ctx: ctx, came: map[uint64][]time.Time{}}
		nw := &simnet.Simnet{LatencyFunc: s.latency, Logger: testLog()}
		link := simnet.LinkSettings{BitsPerSecond: simBits}
		anchors := make([]string, g.orgs)
		for i := range anchors {
			if g.anchored == nil || g.anchored(i) {
				anchors[i] = simAt(i)
			}
		}
		w, err := NewWorld(g.orgs, anchors...)
		require.NoError(t, err)
		s.Swarm, err = NewSwarm(w, SwarmConfig{
			Dir: dir, Peers: g.peers, InMemory: !g.disk, Leaders: 1, Log: testLog(), Endpoint: simAt, Tune: g.tune,
			Listen: func(i int) []string {
				return []string{fmt.Sprintf("/ip4/%s/udp/8000/quic-v1", simnet.IntToPublicIPv4(i))}
			},
			Libp2p: func(int) []libp2p.Option {
				return []libp2p.Option{simlibp2p.QUICSimnet(nw, simnet.NodeBiDiLinkSettings{Uplink: link, Downlink: link}), libp2p.DisableMetrics()}
			},
		})
		require.NoError(t, err)
		nw.Start()
		defer func() { // also when the play failed
			cancel()
			s.watch.Wait()
			require.NoError(t, s.StopAll())
			nw.Close()
		}()
		if g.empty {
			play(s)
			return
		}
		require.NoError(t, s.StartAll(ctx))
		for _, p := range s.Peers {
			s.watch.Go(func() { p.Commits(ctx, 1, s.arrived) })
		}
		s.ready()
		play(s)
	})
}

// simAt is the address of a node.
func simAt(i int) string { return fmt.Sprintf("%s:8000", simnet.IntToPublicIPv4(i)) }

func (s *sim) latency(p *simnet.Packet) time.Duration {
	if f := s.gone.Load(); f != nil && (*f)(nodeAt(p.From), nodeAt(p.To)) {
		return never
	}
	return simLatency
}

// nodeAt is the number of the node behind an address of simnet's numbering.
func nodeAt(a net.Addr) int {
	ip := a.(*net.UDPAddr).IP.To4()
	return int(ip[1])<<16 | int(ip[2])<<8 | int(ip[3]) - 1
}

func (s *sim) arrived(n uint64, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.came[n] = append(s.came[n], at)
}

// until waits, in virtual time, for what nobody tells of.
func (s *sim) until(what string, ok func() bool) {
	s.t.Helper()
	for late := time.Now().Add(simPatience); !ok(); time.Sleep(50 * time.Millisecond) {
		require.True(s.t, time.Now().Before(late), "waiting until %s", what)
	}
}

// partition lets packets pass inside each side only.
func (s *sim) partition(side func(i int) int) {
	s.lose(func(a, b int) bool { return side(a) != side(b) })
}

// silence makes a share of the pairs of nodes unable to hear each other, while
// all else goes on. The same pairs for the same seed.
func (s *sim) silence(share float64, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 0))
	mute := map[[2]int]bool{}
	for b := range s.Peers {
		for a := range b {
			mute[[2]int{a, b}] = rng.Float64() < share
		}
	}
	s.lose(func(a, b int) bool { return mute[[2]int{min(a, b), max(a, b)}] })
}

func (s *sim) lose(f func(a, b int) bool) { s.gone.Store(&f) }

func (s *sim) heal() { s.gone.Store(nil) }

// order orders count blocks of a size, one each pause, and returns the number
// of the first.
func (s *sim) order(count, size int, pause time.Duration) (first uint64) {
	s.t.Helper()
	first = s.World.Height()
	for range count {
		b, err := s.World.OrderBody(size)
		require.NoError(s.t, err)
		if b.Header.Number == 1 { // it measured what a transaction takes
			first = 2
		}
		time.Sleep(pause)
	}
	return first
}

// settle waits until all nodes are at the tip, equal, and returns how long each
// took from now.
func (s *sim) settle() []time.Duration {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, simPatience)
	defer cancel()
	began := time.Now()
	took := make([]time.Duration, len(s.Peers))
	errs := make([]error, len(s.Peers))
	var g sync.WaitGroup
	for i, p := range s.Peers {
		g.Go(func() {
			errs[i] = p.Channel.Ledger().Wait(ctx, s.World.Height())
			took[i] = time.Since(began)
		})
	}
	g.Wait()
	for i, err := range errs {
		require.NoError(s.t, err, "%s is at %d of %d", s.Peers[i].Name, s.Peers[i].Channel.Ledger().Height(), s.World.Height())
	}
	require.NoError(s.t, s.Same())
	synctest.Wait() // the watchers have noted it
	return took
}

// delays returns how long each block from first on took to each node but the
// leader.
func (s *sim) delays(first uint64) (out []time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := first; n < s.World.Height(); n++ {
		at := s.came[n]
		require.Len(s.t, at, len(s.Peers), "block %d", n)
		var each []time.Duration
		for _, t := range at {
			each = append(each, t.Sub(s.World.Ordered(n)))
		}
		out = append(out, figures.Sorted(each)[1:]...)
	}
	return out
}

// ready waits until all nodes are connected to each other and have a mesh.
func (s *sim) ready() {
	s.t.Helper()
	s.until("all have met", s.Met)
	s.until("all have a mesh", s.Meshed)
}

// behind counts the nodes that aren't at the tip.
func (s *sim) behind() (n int) {
	for _, p := range s.Peers {
		if p.Channel.Ledger().Height() < s.World.Height() {
			n++
		}
	}
	return n
}

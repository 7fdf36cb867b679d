package itest

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/metrics"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/stretchr/testify/require"

	"grapevine/membership"
	"grapevine/node"
)

// TestSimFullView starts N real nodes of one organisation on loopback, which
// know one bootstrap peer, and takes the time until everybody sees everybody;
// then what they cost while nothing happens. More than ten nodes, and the
// figures of idle ones, only with GRAPEVINE_SIM set.
func TestSimFullView(t *testing.T) {
	long := os.Getenv("GRAPEVINE_SIM") != ""
	for _, n := range []int{10, 25, 50} {
		if n > 10 && !long {
			continue
		}
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			listen, endpoint := loopback(t, n)
			w, err := NewWorld(1)
			require.NoError(t, err)
			counters := make([]*meter, n)
			s, err := NewSwarm(w, SwarmConfig{
				Dir: t.TempDir(), Peers: n, InMemory: true, Listen: listen, Endpoint: endpoint, Log: testLog(),
				Libp2p: func(i int) []libp2p.Option {
					counters[i] = new(meter)
					return []libp2p.Option{libp2p.BandwidthReporter(counters[i])}
				},
				Tune: func(i int, c *node.Config) {
					if i > 0 {
						c.Bootstrap = []string{endpoint(0)}
					}
				},
			})
			require.NoError(t, err)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			defer func() { require.NoError(t, s.StopAll()) }()
			seen := make([]time.Duration, n)
			began := time.Now()
			var g sync.WaitGroup
			for i, p := range s.Peers {
				require.NoError(t, s.Start(t.Context(), p))
				g.Go(func() {
					for p.living() < n {
						if ctx.Err() != nil {
							return
						}
						<-time.After(20 * time.Millisecond)
					}
					seen[i] = time.Since(began)
				})
			}
			started := time.Since(began)
			g.Wait()
			require.NoError(t, ctx.Err(), "%v", func() (out []int) {
				for _, p := range s.Peers {
					out = append(out, p.living())
				}
				return out
			}())
			var last time.Duration
			for _, d := range seen {
				last = max(last, d)
			}
			t.Logf("%d nodes: started after %v, full view at the last after %v", n, started.Round(time.Millisecond), last.Round(time.Millisecond))
			if long {
				idle(t, s, counters)
			}
		})
	}
}

// living is how many members a peer believes alive, itself included.
func (p *Peer) living() (n int) {
	for _, m := range p.Channel.Members() {
		if m.State == membership.Alive {
			n++
		}
	}
	return n
}

// idle measures what nodes cost while nothing happens.
func idle(t *testing.T, s *Swarm, counters []*meter) {
	<-time.After(20 * time.Second) // what the start stirred up settles
	cpu := func() time.Duration {
		var u syscall.Rusage
		require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	sum := func() (bytes int64, c membership.Stats) {
		for i, p := range s.Peers {
			bytes += counters[i].n.Load()
			m := p.Channel.MemberStats()
			c.Checks += m.Checks
			c.Words += m.Words
			c.Suspicions += m.Suspicions
		}
		return bytes, c
	}
	const d = 33.0 // a beat
	c0 := cpu()
	b0, m0 := sum()
	<-time.After(d * time.Second)
	c1 := cpu()
	b1, m1 := sum()
	n := float64(len(s.Peers))
	t.Logf("%.0f idle nodes, each second and node: %.2f ms of CPU, %.0f bytes of streams in and out, %.1f words, %.2f checks of signatures; %d suspicions",
		n, (c1-c0).Seconds()*1000/d/n, float64(b1-b0)/d/n, float64(m1.Words-m0.Words)/d/n, float64(m1.Checks-m0.Checks)/d/n, m1.Suspicions-m0.Suspicions)
}

// A meter counts the bytes of all streams, both ways.
type meter struct {
	metrics.Reporter // the rest isn't asked
	n                atomic.Int64
}

func (m *meter) LogSentMessage(int64)                                   {}
func (m *meter) LogRecvMessage(int64)                                   {}
func (m *meter) LogSentMessageStream(n int64, _ protocol.ID, _ peer.ID) { m.n.Add(n) }
func (m *meter) LogRecvMessageStream(n int64, _ protocol.ID, _ peer.ID) { m.n.Add(n) }

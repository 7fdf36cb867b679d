package node

import (
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/x/simlibp2p"
	"github.com/marcopolo/simnet"
	"github.com/stretchr/testify/require"

	"grapevine/msp/ca"
)

// A bubble is a world in virtual time, whose nodes are joined by links of
// 100 Mbit/s and 25 ms one way.
type bubble struct {
	*world
	nw    *simnet.Simnet
	count int
}

// play plays in a bubble. The network carries from the first node's start.
func play(t *testing.T, f func(t *testing.T, b *bubble)) {
	t.Helper()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // golang/go#78156
	synctest.Test(t, func(t *testing.T) {
		b := &bubble{world: newWorld(t), nw: &simnet.Simnet{LatencyFunc: simnet.StaticLatency(25 * time.Millisecond), Logger: slog.New(slog.DiscardHandler)}}
		t.Cleanup(func() { b.nw.Close() }) // after the nodes, whose own come later
		f(t, b)
	})
}

// node is the configuration of a node at an address of its own, and that
// address. All that are made before the network starts may talk.
func (b *bubble) node(org int, name string) (Config, string) {
	ip := simnet.IntToPublicIPv4(b.count)
	b.count++
	c, _ := b.config(org, name)
	c.InMemory = true
	c.Listen = []string{fmt.Sprintf("/ip4/%s/udp/8000/quic-v1", ip)}
	link := simnet.LinkSettings{BitsPerSecond: 100 * simlibp2p.OneMbps}
	c.Libp2p = []libp2p.Option{
		simlibp2p.QUICSimnet(b.nw, simnet.NodeBiDiLinkSettings{Uplink: link, Downlink: link}), libp2p.DisableMetrics(),
	}
	return c, fmt.Sprintf("%s:8000", ip)
}

// said keeps what a node logs.
type said struct {
	slog.Handler
	mu   sync.Mutex
	text strings.Builder
}

func newSaid() *said {
	s := &said{}
	s.Handler = slog.NewTextHandler(lockedWriter{s}, nil)
	return s
}

type lockedWriter struct{ s *said }

func (w lockedWriter) Write(b []byte) (int, error) {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	return w.s.text.Write(b)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// L7, T32: a connection ends within a second of the certificate behind it, and
// nobody gets in with that certificate again.
func TestExpiryCutsTheConnection(t *testing.T) {
	play(t, func(t *testing.T, b *bubble) {
		end := time.Now().Add(30 * time.Minute).Truncate(time.Second)
		c, _ := b.node(0, "peer0.org1")
		n := func() *Node { c, _ := b.node(1, "peer0.org2"); return start(t, c, b.genesis("mychannel", 0, 1)) }()
		c.Signer = b.signed(0, ca.Request{CN: "peer0.org1", NotBefore: time.Now().Add(-time.Hour), NotAfter: end})
		brief := start(t, c, b.genesis("mychannel", 0, 1))
		b.nw.Start()
		synctest.Wait()
		conns := watch(n.host.Network())
		require.NoError(t, brief.host.Connect(t.Context(), at(t, n, "")))
		require.Equal(t, arrival{brief.PeerID(), true}, <-conns)

		time.Sleep(time.Until(end))
		synctest.Wait()
		require.Equal(t, network.Connected, n.host.Network().Connectedness(brief.PeerID()), "valid to the last second")
		time.Sleep(time.Second + 100*time.Millisecond)
		require.Equal(t, network.NotConnected, n.host.Network().Connectedness(brief.PeerID()))
		for len(conns) > 0 {
			<-conns
		}

		for range 3 {
			_ = brief.host.Connect(t.Context(), at(t, n, "")) // may seem to work to the dialler
			require.Error(t, n.host.Connect(t.Context(), at(t, brief, "")))
			time.Sleep(time.Minute)
		}
		require.Empty(t, conns)
		require.Empty(t, n.host.Network().Conns())
	})
}

// Two hosts show one identity: the newer stays, the older is told, says so and
// keeps away for a minute, so that they don't take turns for ever.
func TestTwinsDontFlap(t *testing.T) {
	play(t, func(t *testing.T, b *bubble) {
		c, where := b.node(0, "peer0.org1")
		log := newSaid()
		c.Log = slog.New(log)
		n := start(t, c)
		signer := b.identity(0, "peer1.org1")
		var twins [2]*Node
		var logs [2]*said
		for i := range twins {
			c, _ := b.node(0, "peer1.org1")
			logs[i] = newSaid()
			c.Signer, c.Bootstrap, c.Log = signer, []string{where}, slog.New(logs[i])
			twins[i] = start(t, c)
		}
		b.nw.Start()
		conns := watch(n.host.Network())
		settle := func() (older, newer int) {
			time.Sleep(5 * time.Second)
			if len(n.host.Network().Peers()) == 2 { // the older is let speak
				time.Sleep(lastWords + time.Second)
			}
			for len(conns) > 0 {
				<-conns
			}
			if n.host.Network().Connectedness(twins[0].PeerID()) == network.Connected {
				return 1, 0
			}
			return 0, 1
		}
		older, newer := settle()
		require.Equal(t, network.NotConnected, n.host.Network().Connectedness(twins[older].PeerID()))
		require.Equal(t, network.Connected, n.host.Network().Connectedness(twins[newer].PeerID()))
		require.Contains(t, log.String(), "two hosts show one identity")
		require.Contains(t, logs[older].String(), "another host shows this node's identity")
		require.NotContains(t, logs[newer].String(), "another host")

		time.Sleep(shunTime - 10*time.Second)
		require.Empty(t, conns, "silence")
		for range 5 {
			time.Sleep(shunTime)
			older, newer = settle()
			require.Equal(t, network.NotConnected, n.host.Network().Connectedness(twins[older].PeerID()))
			require.Equal(t, network.Connected, n.host.Network().Connectedness(twins[newer].PeerID()))
		}
	})
}

// A binding is renewed long before it ends, and shown again to whoever is
// connected, so that no connection ends with the former one.
func TestBindingsAreRenewed(t *testing.T) {
	play(t, func(t *testing.T, b *bubble) {
		const life = 40 * time.Minute
		g := b.genesis("mychannel", 0, 1)
		c, where := b.node(0, "peer0.org1")
		c.BindingLife = life
		n := start(t, c, g)
		c, _ = b.node(0, "peer1.org1")
		c.BindingLife, c.Bootstrap = life, []string{where}
		keeper := start(t, c, g)
		b.nw.Start()
		time.Sleep(time.Second)
		first := n.host.Network().ConnsToPeer(keeper.PeerID())
		require.Len(t, first, 1)
		shown := n.own.until.Load()
		time.Sleep(2 * life)
		require.Contains(t, n.host.Network().ConnsToPeer(keeper.PeerID()), first[0], "the same connection still")
		require.False(t, first[0].IsClosed())
		require.Greater(t, n.own.until.Load(), shown+int64(life/time.Second))
	})
}

// A peer that was suspended right after the handshake, before it could say that
// it is there, isn't counted as a member for as long as its connection lasts.
func TestSuspendedNewcomerIsNoMember(t *testing.T) {
	play(t, func(t *testing.T, b *bubble) {
		g := b.genesis("mychannel", 0)
		sleeper, where := b.node(0, "peer0.org1")
		c, _ := b.node(0, "peer1.org1")
		c.Bootstrap = []string{where}
		var suspended atomic.Bool
		b.nw.LatencyFunc = func(p *simnet.Packet) time.Duration {
			if suspended.Load() && p.From.String() == where {
				return time.Hour
			}
			return 25 * time.Millisecond
		}
		asleep := start(t, sleeper, g)
		n := start(t, c, g)
		conns := watch(n.host.Network())
		b.nw.Start()
		require.Equal(t, arrival{asleep.PeerID(), true}, <-conns)
		suspended.Store(true)
		members := func() int {
			c, err := n.Channel("mychannel")
			require.NoError(t, err)
			return c.Status().Members
		}
		time.Sleep(100 * time.Millisecond)
		require.Equal(t, 2, members())
		time.Sleep(5 * time.Second)
		require.Equal(t, network.Connected, n.host.Network().Connectedness(asleep.PeerID()))
		require.Equal(t, 1, members())
		suspended.Store(false)
		time.Sleep(5 * time.Second)
		require.Equal(t, 2, members())
	})
}

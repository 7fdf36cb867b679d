package blocksync

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/x/simlibp2p"
	"github.com/marcopolo/simnet"
	"github.com/stretchr/testify/require"

	"grapevine/block"
	"grapevine/ledger"
	"grapevine/wire"
)

const testProtocol = "/test/blocks"

// net is a set of hosts, in virtual time or on loopback.
type net struct {
	t     testing.TB
	hosts []host.Host
	sim   *simnet.Simnet
}

// simulate makes n connected hosts on a simulated network, inside a synctest
// bubble: 10 ms one way, 1 Gbit/s.
func simulate(t testing.TB, n int) *net {
	w := &net{t: t, sim: &simnet.Simnet{LatencyFunc: simnet.StaticLatency(10 * time.Millisecond)}}
	link := simnet.LinkSettings{BitsPerSecond: 1000 * simlibp2p.OneMbps}
	for i := range n {
		w.add(libp2p.ListenAddrStrings(fmt.Sprintf("/ip4/%s/udp/8000/quic-v1", simnet.IntToPublicIPv4(i))),
			simlibp2p.QUICSimnet(w.sim, simnet.NodeBiDiLinkSettings{Uplink: link, Downlink: link}))
	}
	w.sim.Start()
	w.connect()
	return w
}

// loopback makes n connected hosts over TCP, TLS and yamux.
func loopback(t testing.TB, n int) *net {
	w := &net{t: t}
	for range n {
		w.add(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"))
	}
	w.connect()
	return w
}

func (w *net) add(o ...libp2p.Option) {
	h, err := libp2p.New(append(o, libp2p.DisableIdentifyAddressDiscovery(), libp2p.DisableRelay(),
		libp2p.DisableMetrics(), libp2p.ResourceManager(&network.NullResourceManager{}))...)
	require.NoError(w.t, err)
	w.hosts = append(w.hosts, h)
}

func (w *net) connect() {
	for i, a := range w.hosts {
		for _, b := range w.hosts[:i] {
			require.NoError(w.t, a.Connect(context.Background(), peer.AddrInfo{ID: b.ID(), Addrs: b.Addrs()}))
		}
	}
}

func (w *net) close() {
	for _, h := range w.hosts {
		require.NoError(w.t, h.Close())
	}
	if w.sim != nil {
		w.sim.Close()
	}
}

// node is one peer of the channel: a ledger, a sync, and what follows the
// configuration.
type node struct {
	*Sync
	t     testing.TB
	host  host.Host
	db    *ledger.DB
	led   *ledger.Ledger
	rules atomic.Pointer[block.Rules]
	end   context.CancelFunc
	over  chan error

	mu      sync.Mutex
	refused []string // guarded by mu: reason codes with their verdicts
}

// newNode makes a node that holds the chain's blocks below height and serves;
// it neither pulls nor commits before start.
func newNode(t testing.TB, h host.Host, c *chain, height int, more ...func(*Config)) *node {
	n := &node{t: t, host: h, over: make(chan error, 1)}
	var err error
	n.db, err = ledger.Open("", ledger.Options{InMemory: true})
	require.NoError(t, err)
	genesis, err := block.Genesis(c.raw[0])
	require.NoError(t, err)
	n.led, err = n.db.Create(channelName, genesis)
	require.NoError(t, err)
	n.rules.Store(rulesAfter(0, 0))
	n.fill(c, height)
	conf := Config{
		Ledger: n.led, Rules: n.rules.Load, Committed: n.follow, Self: "self",
		Open: func(ctx context.Context, p peer.ID) (network.Stream, error) {
			return h.NewStream(ctx, p, testProtocol)
		},
		Refused: func(_ peer.ID, r *wire.Reason) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.refused = append(n.refused, fmt.Sprintf("%s %s", r.Verdict(), r.Code()))
		},
	}
	for _, f := range more {
		f(&conf)
	}
	n.Sync = New(conf)
	if h != nil {
		h.SetStreamHandler(testProtocol, func(s network.Stream) { n.Serve(s, s.Conn().RemotePeer()) })
	}
	return n
}

// fill appends the chain's blocks up to height.
func (n *node) fill(c *chain, height int) {
	for _, raw := range c.raw[n.led.Height():height] {
		checked, err := block.Check(n.rules.Load(), raw)
		require.NoError(n.t, err)
		v, err := block.Verify(n.rules.Load(), n.led.Tip(), checked)
		require.NoError(n.t, err)
		require.NoError(n.t, n.led.Append(v))
		require.NoError(n.t, n.follow([]block.Verified{v}))
	}
}

// follow takes up configurations.
func (n *node) follow(bs []block.Verified) error {
	for i, b := range bs {
		if b.IsConfig() {
			require.Equal(n.t, len(bs)-1, i, "a configuration doesn't end its batch")
			n.rules.Store(rulesAfter(b.Number(), n.rules.Load().Sequence+1))
		}
	}
	return nil
}

func (n *node) start() {
	ctx, cancel := context.WithCancel(context.Background())
	n.end = cancel
	go func() { n.over <- n.Run(ctx) }()
}

func (n *node) close() {
	if n.end != nil {
		n.end()
		require.ErrorIs(n.t, <-n.over, context.Canceled)
	}
	require.NoError(n.t, n.db.Close())
}

// reach waits until the node holds a height.
func (n *node) reach(height uint64, most time.Duration) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), most)
	defer cancel()
	require.NoError(n.t, n.led.Wait(ctx, height), "at height %d, want %d; refused: %v", n.led.Height(), height, n.refusals())
}

func (n *node) refusals() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.refused)
}

// check is a block as the push path brings it.
func (n *node) check(raw []byte) *block.Checked {
	c, err := block.Check(n.rules.Load(), raw)
	require.NoError(n.t, err)
	return c
}

type peerID = peer.ID

func testPeer(i int) peer.ID { return peer.ID(fmt.Sprintf("peer%06d", i)) }

type (
	wireRequest   = wire.BlocksRequest
	networkStream = network.Stream
)

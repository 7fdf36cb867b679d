package node

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/renameio/v2"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/x/rate"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"

	"grapevine/msp"
	"grapevine/wire"
)

// The host's limits, as functions of how many peers it is made for. Handshakes
// that are not accepted yet live in the transient scope. What an identity may
// use is bounded behind the handshake, for one address may stand for a whole
// organisation.
const (
	transientConns = 256
	doorStreams    = 8        // per peer and channel: mesh both ways, ranges, later cast
	peerMemory     = 64 << 20 // bytes of stream buffers per peer
	limitChannels  = 64       // channels that the limits are made for
)

// quicDelay is how long a dial by QUIC waits for one by TCP, unless that fails
// at once. It must be longer than a handshake on a busy machine: else both are
// made, which costs twice and leaves two connections.
const quicDelay = time.Second

// hostKey loads the Ed25519 host key from dir, or makes one there.
func hostKey(dir string) (crypto.PrivKey, error) {
	path := filepath.Join(dir, "host.key")
	raw, err := os.ReadFile(path)
	if err == nil {
		key, err := crypto.UnmarshalPrivateKey(raw)
		if err == nil && key.Type() != crypto.Ed25519 {
			err = errors.New("not an Ed25519 key")
		}
		if err != nil {
			return nil, fmt.Errorf("reading the host key %s: %w", path, err)
		}
		return key, nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("reading the host key: %w", err)
	}
	key, _, err := crypto.GenerateEd25519Key(nil)
	if err != nil {
		return nil, err
	}
	if raw, err = crypto.MarshalPrivateKey(key); err != nil {
		return nil, err
	}
	if err := renameio.WriteFile(path, raw, 0o600); err != nil {
		return nil, fmt.Errorf("keeping the host key: %w", err)
	}
	return key, nil
}

// A stack is the libp2p side of a node, be it a peer or an orderer: its host,
// whom it lets in, and what it shows of itself.
type stack struct {
	log     *slog.Logger
	own     *credentials
	guard   *guard
	host    host.Host
	quic    *quicTransport
	renewed chan struct{}                // holds that the own binding was renewed
	told    func(peer.ID) []ma.Multiaddr // where a host says that it can be reached; may be nil
	renewal sync.Mutex                   // serialises Renew
	binding sync.Mutex                   // serialises renew
	home    atomic.Pointer[msp.MSP]      // the own organisation as its folder defines it; swapped whole by define
}

// define puts a definition of the own organisation in force.
func (s *stack) define(m *msp.MSP) {
	s.home.Store(m)
	s.guard.setJudge("", membersOf(m))
}

func newStack(log *slog.Logger) stack { return stack{log: log, renewed: make(chan struct{}, 1)} }

// A hostSpec is what a libp2p host of ours is made of.
type hostSpec struct {
	own      *credentials
	guard    *guard
	listen   []string       // what the host will listen on
	external []ma.Multiaddr // what identify tells; nothing else is told
	maxPeers int
	metrics  prometheus.Registerer // of libp2p's own figures; nil: none are kept
	extra    []libp2p.Option
}

// newHost builds the host: TCP with our handshake and yamux, QUIC with the same
// binding; no relay, no hole punching, no discovery beyond what we dial. A host
// that won't listen on TCP doesn't dial it either. It doesn't listen yet, so
// that nobody connects before those who must hear of it are there.
func newHost(s hostSpec) (host.Host, *quicTransport, error) {
	template, err := s.own.renew(s.guard.now())
	if err != nil {
		return nil, nil, err
	}
	limits, err := resources(s.maxPeers)
	if err != nil {
		return nil, nil, fmt.Errorf("setting limits: %w", err)
	}
	conns, err := connmgr.NewConnManager(2*s.maxPeers, 4*s.maxPeers, connmgr.WithGracePeriod(time.Minute))
	if err != nil {
		return nil, nil, err
	}
	var q quicTransport
	opts := []libp2p.Option{
		libp2p.Identity(s.own.host),
		libp2p.NoListenAddrs,
		libp2p.Transport(newQUIC(template, &q)),
		libp2p.Security(wire.SecurityID, newSecurity(s.own, s.guard)),
		libp2p.ConnectionGater(s.guard),
		libp2p.ResourceManager(limits),
		libp2p.ConnectionManager(conns),
		libp2p.AddrsFactory(func([]ma.Multiaddr) []ma.Multiaddr { return s.external }),
		libp2p.SwarmOpts(swarm.WithDialRanker(tcpFirst)),
		// libp2p concludes from many dials that failed that the machine has no
		// QUIC or no IPv6, and then lets one in a hundred through: after a long
		// partition that would keep its sides apart.
		libp2p.UDPBlackHoleSuccessCounter(nil),
		libp2p.IPv6BlackHoleSuccessCounter(nil),
		libp2p.DisableRelay(),
		libp2p.ForceReachabilityPublic(),
		libp2p.DisableIdentifyAddressDiscovery(),
		libp2p.Ping(false),
		libp2p.UserAgent("grapevine"),
	}
	if slices.ContainsFunc(s.listen, func(a string) bool { return strings.Contains(a, "/tcp/") }) {
		opts = append(opts, libp2p.Transport(tcp.NewTCPTransport))
	}
	if s.metrics != nil {
		opts = append(opts, libp2p.PrometheusRegisterer(s.metrics))
	} else {
		opts = append(opts, libp2p.DisableMetrics())
	}
	h, err := libp2p.New(append(append(opts, s.extra...), quietYamux)...)
	if err != nil {
		return nil, nil, fmt.Errorf("opening the libp2p host: %w", err)
	}
	return h, &q, nil
}

// aliveAfter is how long a connection may be silent before yamux asks whether it
// is still there, and measureEvery how often it measures a round trip, for the
// growth of windows. Members ping each other anyway, on each connection more
// often than that, up to so many as are made: else yamux's own pings were most of
// what an idle node says.
const (
	aliveAfter   = time.Minute
	measureEvery = 10 * time.Minute
)

// quietYamux is libp2p's yamux but for its pings, unless an option before it
// names another multiplexer.
func quietYamux(c *libp2p.Config) error {
	if len(c.Muxers) > 0 {
		return nil
	}
	y := *yamux.DefaultTransport.Config()
	y.KeepAliveInterval, y.MeasureRTTInterval = aliveAfter, measureEvery
	return libp2p.Muxer(yamux.ID, (*yamux.Transport)(&y))(c)
}

// listen opens each address, or says which one it can't; libp2p itself is
// content with any.
func listen(h host.Host, addrs []string) error {
	s, ok := h.Network().(interface{ AddListenAddr(ma.Multiaddr) error })
	if !ok {
		return errors.New("the host's network can't listen on one address alone")
	}
	for _, text := range addrs {
		a, err := ma.NewMultiaddr(text)
		if err == nil {
			err = s.AddListenAddr(a)
		}
		if err != nil {
			return fmt.Errorf("listening on %s: %w", text, err)
		}
	}
	return nil
}

// resources bounds connections, streams and memory; never the null manager.
func resources(n int) (network.ResourceManager, error) {
	conns := rcmgr.LimitVal(2*n + 64)
	streams := rcmgr.LimitVal(doorStreams * n * 4)
	perPeer := rcmgr.LimitVal(doorStreams * limitChannels)
	door := protocol.ID(wire.DoorID)
	cfg := rcmgr.PartialLimitConfig{
		System:       rcmgr.ResourceLimits{Conns: conns, ConnsInbound: conns, ConnsOutbound: conns, FD: conns + 256, Streams: streams, StreamsInbound: streams, StreamsOutbound: streams},
		Transient:    rcmgr.ResourceLimits{Conns: transientConns, ConnsInbound: transientConns, ConnsOutbound: transientConns, FD: transientConns, Streams: streams, StreamsInbound: streams, StreamsOutbound: streams},
		PeerDefault:  rcmgr.ResourceLimits{Conns: 8, ConnsInbound: 8, ConnsOutbound: 8, Streams: perPeer, StreamsInbound: perPeer, StreamsOutbound: perPeer, Memory: peerMemory},
		Protocol:     map[protocol.ID]rcmgr.ResourceLimits{door: {Streams: streams, StreamsInbound: streams, StreamsOutbound: streams}},
		ProtocolPeer: map[protocol.ID]rcmgr.ResourceLimits{door: {Streams: perPeer, StreamsInbound: perPeer, StreamsOutbound: perPeer}},
	}
	subnet := func(bits int) []rcmgr.ConnLimitPerSubnet {
		return []rcmgr.ConnLimitPerSubnet{{PrefixLength: bits, ConnCount: 2*n + 64}}
	}
	loopback := []rate.PrefixLimit{
		{Prefix: netip.MustParsePrefix("127.0.0.0/8")}, {Prefix: netip.MustParsePrefix("::1/128")},
	}
	perAddress := rate.Limit{RPS: 10, Burst: 2*n + 64}
	return rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(cfg.Build(rcmgr.DefaultLimits.AutoScale())),
		rcmgr.WithLimitPerSubnet(subnet(32), subnet(56)),
		rcmgr.WithConnRateLimiters(&rate.Limiter{
			NetworkPrefixLimits: loopback,
			SubnetRateLimiter: rate.SubnetLimiter{
				IPv4SubnetLimits: []rate.SubnetLimit{{PrefixLength: 32, Limit: perAddress}},
				IPv6SubnetLimits: []rate.SubnetLimit{{PrefixLength: 56, Limit: perAddress}},
			},
		}))
}

// tcpFirst dials TCP at once, and QUIC if that fails or takes long: one TCP
// stream carries several times what a QUIC stream does on the same machine.
func tcpFirst(addrs []ma.Multiaddr) []network.AddrDelay {
	out := make([]network.AddrDelay, len(addrs))
	for i, a := range addrs {
		out[i].Addr = a
		if _, err := a.ValueForProtocol(ma.P_TCP); err != nil {
			out[i].Delay = quicDelay
		}
	}
	return out
}

package node

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
	"grapevine/channel"
	"grapevine/deliver"
	"grapevine/ledger"
	"grapevine/msp"
	"grapevine/orderer"
	"grapevine/wire"
)

// OrdererConfig is what an ordering node is made of.
type OrdererConfig struct {
	// Dir holds the host key, the ledger and Raft's log.
	Dir string
	// Name is shown to people.
	Name string
	// NetworkID is that of the peers; see [Config].
	NetworkID string

	// Signer signs the blocks. Chain are its intermediates, MSP the definition
	// of its organisation, whose members alone may connect by libp2p.
	Signer msp.Signer
	Chain  [][]byte
	MSP    *msp.MSP

	// Listen are libp2p multiaddrs, between orderers only.
	Listen []string
	// Address is the gRPC listener, host:port, for peers and clients.
	Address string
	// Certificate is the gRPC server's. With ClientRoots, clients must show one
	// of theirs.
	Certificate tls.Certificate
	ClientRoots *x509.CertPool

	InMemory bool
	Libp2p   []libp2p.Option
	Log      *slog.Logger
	Metrics  prometheus.Registerer
	// HostMetrics registers libp2p's own figures, which are one set for all
	// hosts of a process and stay when a node is closed; nil: none are kept.
	HostMetrics prometheus.Registerer
}

// Orderer is one ordering node. Its methods are safe for concurrent use; Run
// may be called once.
type Orderer struct {
	stack
	cfg      OrdererConfig
	metrics  *metrics
	db       *ledger.DB
	listener net.Listener
	server   *orderer.Server
	deliver  *deliver.Handler
	started  time.Time
	broken   chan error

	mu     sync.Mutex
	chains map[string]*ordered // owned by mu
	spawn  func(*ordered)      // set while Run runs, owned by mu
	closed bool                // owned by mu
}

// ordered is one channel of an ordering node.
type ordered struct {
	name   string
	ledger *ledger.Ledger
	chain  *orderer.Chain
	conf   atomic.Pointer[channel.Config] // in force; swapped by the chain's loop alone
}

// OpenOrderer opens the ledger, binds the sockets and opens every channel
// joined before. It starts no loop of ours.
func OpenOrderer(cfg OrdererConfig) (*Orderer, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	o := &Orderer{stack: newStack(cfg.Log), cfg: cfg, chains: map[string]*ordered{}, started: time.Now(), broken: make(chan error, 1)}
	if err := o.open(); err != nil {
		return nil, errors.Join(err, o.Close())
	}
	return o, nil
}

func (o *Orderer) open() error {
	if o.cfg.Dir == "" || o.cfg.Signer == nil || o.cfg.MSP == nil || o.cfg.NetworkID == "" {
		return errors.New("ordering node configuration: Dir, NetworkID, Signer and MSP must be set")
	}
	if err := os.MkdirAll(o.cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("opening the data folder: %w", err)
	}
	var err error
	if o.metrics, err = newMetrics(o.cfg.Metrics); err != nil {
		return err
	}
	o.db, err = ledger.Open(filepath.Join(o.cfg.Dir, "ledger"), ledger.Options{
		InMemory:  o.cfg.InMemory,
		Logger:    logger{o.log},
		OnFailure: func(err error) { o.broken <- fmt.Errorf("%w: %w", ErrDurability, err) },
	})
	if err != nil {
		return fmt.Errorf("opening the ledger: %w", err)
	}
	if err := bind(o.db, o.cfg.Dir, o.cfg.NetworkID, o.cfg.Signer.Identity()); err != nil {
		return err
	}
	if err := o.openHost(); err != nil {
		return err
	}
	if o.listener, err = net.Listen("tcp", o.cfg.Address); err != nil {
		return fmt.Errorf("listening for gRPC: %w", err)
	}
	o.deliver = &deliver.Handler{
		Channels: o.readable, MutualTLS: o.cfg.ClientRoots != nil, Logger: o.log,
		Refused: func(ch string, r *wire.Reason) { o.metrics.refused(ch, r) },
	}
	o.server = orderer.NewServer(orderer.ServerConfig{
		Chains: o.chain, Deliver: o.deliver.Serve,
		Certificate: o.cfg.Certificate, ClientRoots: o.cfg.ClientRoots, Logger: o.log,
	})
	for _, name := range o.db.Channels() {
		led, err := o.db.Channel(name)
		if err == nil {
			err = o.add(led)
		}
		if err != nil {
			return fmt.Errorf("opening channel %s: %w", name, err)
		}
	}
	return nil
}

// openHost opens the libp2p host, which only members of the orderer's own
// organisation get through to.
func (o *Orderer) openHost() error {
	key, err := hostKey(o.cfg.Dir)
	if err != nil {
		return err
	}
	o.own = &credentials{host: key, signer: o.cfg.Signer, chain: o.cfg.Chain, networkID: o.cfg.NetworkID, life: bindingLife}
	o.guard = newGuard(o.cfg.NetworkID, o.metrics.handshakeRefused)
	o.guard.supplant = o.supplant
	o.guard.setJudge("", membersOf(o.cfg.MSP))
	o.host, o.quic, err = newHost(hostSpec{own: o.own, guard: o.guard, listen: o.cfg.Listen, maxPeers: maxOrderers, metrics: o.cfg.HostMetrics, extra: o.cfg.Libp2p})
	if err != nil {
		return err
	}
	o.host.Network().Notify(&network.NotifyBundle{
		ConnectedF:    func(_ network.Network, c network.Conn) { o.guard.connected(c.RemotePeer()) },
		DisconnectedF: func(_ network.Network, c network.Conn) { o.guard.disconnected(c.RemotePeer()) },
	})
	return listen(o.host, o.cfg.Listen)
}

// maxOrderers is what an orderer's host is made for.
const maxOrderers = 32

// Run orders and serves until ctx ends or something ends by itself.
func (o *Orderer) Run(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	o.mu.Lock()
	if o.closed || o.spawn != nil {
		o.mu.Unlock()
		return errors.New("the ordering node is closed or runs already")
	}
	o.spawn = func(c *ordered) { g.Go(func() error { return c.chain.Run(gctx) }) }
	for _, c := range o.chains {
		o.spawn(c)
	}
	o.mu.Unlock()
	g.Go(func() error { return o.server.Run(gctx, o.listener) })
	g.Go(func() error { return o.watchIdentities(gctx) })
	g.Go(func() error { return o.showBindings(gctx) })
	g.Go(func() error {
		select {
		case err := <-o.broken:
			return err
		case <-gctx.Done():
			return gctx.Err()
		}
	})
	err := g.Wait()
	o.mu.Lock()
	o.spawn, o.closed = nil, true
	o.mu.Unlock()
	if ctx.Err() != nil && (err == nil || errors.Is(err, ctx.Err())) {
		return nil
	}
	return err
}

// Close ends what OpenOrderer opened. Run must have returned, or never been
// called.
func (o *Orderer) Close() error {
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	var errs []error
	if o.listener != nil {
		if err := o.listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if o.host != nil {
		errs = append(errs, o.host.Close(), o.quic.Close())
	}
	if o.db != nil {
		errs = append(errs, o.db.Close())
	}
	o.metrics.unregister()
	return errors.Join(errs...)
}

// Join makes this node order the channel of a genesis block. Joining again with
// the same block changes nothing.
func (o *Orderer) Join(genesis *common.Block) error {
	raw, err := proto.Marshal(genesis)
	if err != nil {
		return fmt.Errorf("genesis block: %w", err)
	}
	v, err := block.Genesis(raw)
	if err != nil {
		return fmt.Errorf("genesis block: %w", err)
	}
	conf, err := channel.Parse(genesis)
	if err != nil {
		return fmt.Errorf("genesis block: %w", err)
	}
	if n := len(conf.Consenters()); n > 1 {
		return fmt.Errorf("channel %s names %d consenters: %w", conf.Channel(), n, ErrCluster)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	led, err := o.db.Channel(conf.Channel())
	if errors.Is(err, ledger.ErrNotFound) {
		led, err = o.db.Create(conf.Channel(), v)
	}
	if err != nil {
		return fmt.Errorf("channel %s: %w", conf.Channel(), err)
	}
	if err := sameGenesis(led, v.Hash()); err != nil {
		return err
	}
	if o.chains[conf.Channel()] != nil {
		return nil
	}
	return o.add(led)
}

// ErrCluster says that ordering by more than one node isn't part of this build.
var ErrCluster = errors.New("this build orders with one node only")

// add opens the chain over a ledger. mu is held, or the node is being opened.
func (o *Orderer) add(led *ledger.Ledger) error {
	c := &ordered{name: led.Name(), ledger: led}
	raw, _, err := led.ConfigBlock()
	if err != nil {
		return err
	}
	b, err := block.Decode(raw)
	if err != nil {
		return err
	}
	conf, err := channel.Parse(b)
	if err != nil {
		return err
	}
	c.conf.Store(conf)
	c.chain, err = orderer.NewChain(orderer.ChainConfig{
		Name:    led.Name(),
		Channel: func() orderer.Channel { return c.conf.Load() },
		Ledger:  led, Signer: o.cfg.Signer,
		Dir:       filepath.Join(o.cfg.Dir, "raft", led.Name()),
		NodeID:    o.host.ID().String(),
		Committed: func(bs []block.Verified) error { return o.committed(c, bs) },
		Transient: func(err error) bool { return errors.Is(err, ledger.ErrFull) },
		Logger:    o.log.With("channel", led.Name()),
	})
	if err != nil {
		return err
	}
	o.chains[c.name] = c
	if o.spawn != nil {
		o.spawn(c)
	}
	return nil
}

func (o *Orderer) committed(c *ordered, bs []block.Verified) error {
	for _, v := range bs {
		if !v.IsConfig() {
			continue
		}
		next, err := c.conf.Load().Next(v.Block())
		if err != nil {
			return fmt.Errorf("taking up configuration block %d: %w", v.Number(), err)
		}
		c.conf.Store(next)
	}
	return nil
}

func (o *Orderer) chain(name string) (*orderer.Chain, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	c := o.chains[name]
	if c == nil {
		return nil, false
	}
	return c.chain, true
}

// readable is what Deliver sees of a channel.
func (o *Orderer) readable(name string) (deliver.Channel, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	c := o.chains[name]
	if c == nil {
		return deliver.Channel{}, false
	}
	return deliver.Channel{Source: c.ledger, Errored: c.chain.Errored, Access: func() deliver.Access {
		conf := c.conf.Load()
		path := "/Channel/Readers"
		if conf.Maintenance() {
			path = "/Channel/Orderer/Readers"
		}
		return deliver.Access{Sequence: conf.Sequence(), Readers: conf.Policy(path), MSPs: conf.MSPs()}
	}}, true
}

// Address is the gRPC listener's, with the port that was chosen.
func (o *Orderer) Address() string { return o.listener.Addr().String() }

// PeerID is the libp2p peer ID of the node's host key.
func (o *Orderer) PeerID() peer.ID { return o.host.ID() }

// Started is when the node was opened.
func (o *Orderer) Started() time.Time { return o.started }

// Channel returns the ledger of a channel that this node orders, and the
// configuration in force.
func (o *Orderer) Channel(name string) (*ledger.Ledger, *channel.Config, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if c := o.chains[name]; c != nil {
		return c.ledger, c.conf.Load(), nil
	}
	return nil, nil, fmt.Errorf("channel %s: %w", name, ErrNoChannel)
}

// An OrdererChannel is what an ordering node tells of one channel.
type OrdererChannel struct {
	Name   string
	Tip    block.Tip
	Leader bool
	Halted error
}

// Channels tells of the channels that this node orders, sorted by name.
func (o *Orderer) Channels() []OrdererChannel {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []OrdererChannel
	for _, c := range o.chains {
		out = append(out, OrdererChannel{Name: c.name, Tip: c.ledger.Tip(), Leader: closed(c.chain.Ready()), Halted: c.ledger.Halted()})
	}
	slices.SortFunc(out, func(a, b OrdererChannel) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

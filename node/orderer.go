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

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

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
	// Dir holds the host key and the ledger.
	Dir string
	// RaftDir holds Raft's logs; empty: raft in Dir.
	RaftDir string
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
	ClientRoots func() *x509.CertPool // asked for at each handshake

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
	evidence *evidences
	signer   *msp.Renewable // in place of cfg.Signer and cfg.Chain
	door     *channel.Door
	tls      atomic.Pointer[[]tls.Certificate] // own TLS certificates, the newest first; swapped whole
	listener net.Listener
	server   *orderer.Server
	deliver  *deliver.Handler
	started  time.Time
	broken   chan error

	mu       sync.Mutex
	chains   map[string]*ordered // owned by mu
	joins    map[string]*joining // channels whose block 0 is looked for, owned by mu
	pins     map[string]pin      // blocks that channels were joined by and haven't come to, owned by mu
	removing map[string]bool     // owned by mu
	spawn    func(*ordered)      // set while Run runs, owned by mu
	seek     func(*joining)      // likewise
	closed   bool                // owned by mu
}

// A pin is a block that a chain must lead to.
type pin struct {
	number uint64
	hash   [32]byte
}

// OpenOrderer opens the ledger, binds the sockets and opens every channel
// joined before. It starts no loop of ours.
func OpenOrderer(cfg OrdererConfig) (*Orderer, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	o := &Orderer{stack: newStack(cfg.Log), cfg: cfg, chains: map[string]*ordered{}, joins: map[string]*joining{}, pins: map[string]pin{}, removing: map[string]bool{}, started: time.Now(), broken: make(chan error, 1)}
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
	pair := o.cfg.Certificate
	if len(pair.Certificate) == 0 {
		return errors.New("ordering node configuration: Certificate must be set")
	}
	var err error
	if pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
		return fmt.Errorf("ordering node configuration: Certificate: %w", err)
	}
	o.tls.Store(&[]tls.Certificate{pair})
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
	o.evidence = openEvidence(o.cfg.Dir, o.log)
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
		Chains: o.chain, Deliver: o.deliver.Serve, Codec: deliver.Codec(),
		Certificate: func() *tls.Certificate { return &o.pairs()[0] }, ClientRoots: o.clientRoots(), Logger: o.log,
		Refused: func(ch string, r *wire.Reason) { o.metrics.refused(ch, r) },
	})
	if err := o.recover(); err != nil {
		return err
	}
	for _, name := range o.db.Channels() {
		led, err := o.db.Channel(name)
		if err == nil {
			err = o.add(led)
		}
		if err != nil {
			return fmt.Errorf("opening channel %s: %w", name, err)
		}
	}
	return listen(o.host, o.cfg.Listen)
}

// openHost opens the libp2p host, which only members of the orderer's own
// organisation get through to.
func (o *Orderer) openHost() error {
	key, err := hostKey(o.cfg.Dir)
	if err != nil {
		return err
	}
	o.signer = msp.NewRenewable(o.cfg.Signer, o.cfg.Chain)
	o.own = &credentials{host: key, signer: o.signer, networkID: o.cfg.NetworkID, life: bindingLife}
	o.guard = newGuard(o.cfg.NetworkID, o.metrics.handshakeRefused)
	o.guard.supplant = o.supplant
	o.define(o.cfg.MSP)
	o.host, o.quic, err = newHost(hostSpec{own: o.own, guard: o.guard, listen: o.cfg.Listen, maxPeers: maxOrderers, metrics: o.cfg.HostMetrics, extra: o.cfg.Libp2p})
	if err != nil {
		return err
	}
	o.host.Network().Notify(&network.NotifyBundle{
		ConnectedF: func(_ network.Network, c network.Conn) {
			if !o.guard.connected(c.RemotePeer()) {
				_ = c.Close() // nobody vouches for it
			}
		},
		DisconnectedF: func(_ network.Network, c network.Conn) { o.guard.disconnected(c.RemotePeer()) },
	})
	o.door = channel.NewDoor(o.host)
	o.door.OnRefused(func(_ peer.ID, r *wire.Reason) { o.metrics.refused("", r) })
	return nil
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
	o.spawn = func(c *ordered) {
		ctx, cancel := context.WithCancel(gctx)
		c.stop = cancel
		g.Go(func() error {
			defer close(c.done)
			defer cancel()
			return c.run(ctx)
		})
	}
	o.seek = func(j *joining) {
		ctx, cancel := context.WithCancel(gctx)
		j.cancel = cancel
		g.Go(func() error {
			defer close(j.done)
			defer cancel()
			return o.findGenesis(ctx, j)
		})
	}
	for _, c := range o.chains {
		o.spawn(c)
	}
	for _, j := range o.joins {
		o.seek(j)
	}
	o.mu.Unlock()
	g.Go(func() error { return o.server.Run(gctx, o.listener) })
	g.Go(func() error { return o.watchIdentities(gctx) })
	g.Go(func() error { return o.showBindings(gctx) })
	g.Go(func() error { return o.watchExpiry(gctx, o.metrics, o.Certificates) })
	g.Go(func() error {
		select {
		case err := <-o.broken:
			return err
		case <-gctx.Done():
			return gctx.Err()
		}
	})
	g.Go(func() error {
		<-gctx.Done()
		o.mu.Lock()
		defer o.mu.Unlock()
		o.spawn, o.seek, o.closed = nil, nil, true // while the group still counts: nothing is started behind its back
		return nil
	})
	err := g.Wait()
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
	for _, c := range o.chains {
		errs = append(errs, c.close())
	}
	if o.door != nil {
		errs = append(errs, o.door.Close())
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

// add opens the chain over a ledger. mu is held, or the node is being opened.
func (o *Orderer) add(led *ledger.Ledger) error {
	c, err := newOrdered(o, led)
	if err != nil {
		return err
	}
	o.chains[c.name] = c
	if o.spawn != nil {
		o.spawn(c)
	}
	return nil
}

func (o *Orderer) chain(name string) (*orderer.Chain, bool) {
	c := o.find(name)
	if c == nil {
		return nil, false
	}
	return c.chain, true
}

func (o *Orderer) readable(name string) (deliver.Channel, bool) {
	c := o.find(name)
	if c == nil {
		return deliver.Channel{}, false
	}
	return c.readable(), true
}

// raftDir is where a channel's part of Raft's log lies.
func (o *Orderer) raftDir(name string) string {
	return filepath.Join(cmp.Or(o.cfg.RaftDir, filepath.Join(o.cfg.Dir, "raft")), name)
}

func (o *Orderer) find(name string) *ordered {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.chains[name]
}

// pairs are the node's TLS certificates, the newest first; those before it are
// kept, for the configuration may name them still.
func (o *Orderer) pairs() []tls.Certificate { return *o.tls.Load() }

// keys are those of its TLS certificates.
func (o *Orderer) keys() (out []orderer.Key) {
	for _, p := range o.pairs() {
		out = append(out, orderer.KeyOf(p.Leaf))
	}
	return out
}

// pairOf is the TLS certificate that names this node among the consenters; the
// newest if none does.
func (o *Orderer) pairOf(among []orderer.Consenter) *tls.Certificate {
	all := o.pairs()
	for i := range all {
		if slices.ContainsFunc(among, func(c orderer.Consenter) bool { return c.Holds(orderer.KeyOf(all[i].Leaf)) }) {
			return &all[i]
		}
	}
	return &all[0]
}

// clientRoots are those of gRPC's clients; nil if none is asked for a
// certificate. Other orderers are clients, too, under the TLS roots of their own
// organisations.
func (o *Orderer) clientRoots() func() *x509.CertPool {
	if o.cfg.ClientRoots == nil {
		return nil
	}
	return func() *x509.CertPool {
		pool := o.cfg.ClientRoots().Clone()
		o.mu.Lock()
		defer o.mu.Unlock()
		for _, c := range o.chains {
			for _, v := range c.conf.Load().Orderers() {
				for _, pem := range v.RootsPEM {
					pool.AppendCertsFromPEM(pem)
				}
			}
		}
		return pool
	}
}

// Address is the gRPC listener's, with the port that was chosen.
func (o *Orderer) Address() string { return o.listener.Addr().String() }

// Following is how many streams of this node wait for all blocks to come: one
// for each peer that pulls from it, on each channel.
func (o *Orderer) Following() int { return o.deliver.Following() }

// Identity is the node's MSP identity.
func (o *Orderer) Identity() *msp.Identity { return o.signer.Identity() }

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
		out = append(out, OrdererChannel{Name: c.name, Tip: c.ledger.Tip(), Leader: closed(c.chain.Ready()), Halted: c.halted()})
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

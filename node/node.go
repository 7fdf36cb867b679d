// Package node is the whole peer: it opens the host, the ledger and the rooms
// of each channel, joins them by hand, supervises them, and is Grapevine's
// public API.
//
//	n, err := node.Open(cfg)                       // opens the ledger, binds the sockets, starts no loop
//	ch, err := n.Join(ctx, genesis)                // also while running
//	g.Go(func() error { return n.Run(ctx) })       // every loop of the peer
//	for b, err := range ch.Blocks(ctx, 0) { ... }  // in order, waits at the tip
package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
	"grapevine/channel"
	"grapevine/channel/cast"
	"grapevine/ledger"
	"grapevine/membership"
	"grapevine/msp"
	"grapevine/wire"
)

// Errors of a node.
var (
	// ErrDurability: the disk failed an acknowledged write. The process should
	// end with exit code 74; nothing that was acknowledged is lost.
	ErrDurability = errors.New("the disk failed")
	// ErrNoChannel: this node has not joined the channel.
	ErrNoChannel = errors.New("no such channel on this node")
	// ErrLeaving: the channel is being left; it can be joined again soon.
	ErrLeaving = errors.New("the channel is being left; try again soon")
	// ErrJoined: the channel is joined already, from another genesis block.
	ErrJoined = errors.New("joined already, from another genesis block")
)

// Node is one peer. Its methods are safe for concurrent use; Run may be called
// once.
type Node struct {
	stack
	cfg       Config
	metrics   *metrics
	door      *channel.Door
	coder     cast.Coder // of all channels, as is budget
	budget    *cast.Budget
	db        *ledger.DB
	evidence  *evidences
	signer    *msp.Renewable // in place of cfg.Signer and cfg.Chain
	meet      *meeting
	clients   *clients // nil: none are served
	relays    relays
	started   time.Time
	internal  string        // the endpoint told to the own organisation; set by open
	broken    chan error    // holds the disk's failure, once
	damage    chan struct{} // the store found damage; holds one
	clash     clashes
	farewells chan farewell // to dropDisplaced

	mu       sync.Mutex
	channels map[string]*Channel // owned by mu
	leaving  map[string]bool     // those that Leave is at work on; owned by mu
	spawn    func(*Channel)      // starts a channel's loops on Run's group; nil while Run doesn't run; owned by mu
	closed   bool                // owned by mu
}

// Open opens the ledger, binds the sockets and opens every channel joined
// before. It starts no loop of ours.
func Open(cfg Config) (*Node, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("node configuration: %w", err)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	n := &Node{stack: newStack(cfg.Log), cfg: cfg, channels: map[string]*Channel{}, leaving: map[string]bool{}, started: time.Now(), budget: cast.NewBudget(cast.DefaultBudget), broken: make(chan error, 1), damage: make(chan struct{}, 1), farewells: make(chan farewell, 64)}
	if err := n.open(); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

func (n *Node) open() error {
	if err := os.MkdirAll(n.cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("opening the data folder: %w", err)
	}
	var err error
	if n.metrics, err = newMetrics(n.cfg.Metrics, transfers{n}, wholeness{n}, castFigures{n}, heldSnapshots{n}); err != nil {
		return err
	}
	n.db, err = ledger.Open(filepath.Join(n.cfg.Dir, "ledger"), ledger.Options{
		InMemory:  n.cfg.InMemory,
		Logger:    logger{n.log},
		OnFailure: func(err error) { n.broken <- fmt.Errorf("%w: %w", ErrDurability, err) },
		OnDamage: func(string) {
			select {
			case n.damage <- struct{}{}:
			default:
			}
		},
		Rescue: true,
	})
	if err != nil {
		return fmt.Errorf("opening the ledger: %w", err)
	}
	if err := bind(n.db, n.cfg.Dir, n.cfg.NetworkID, n.cfg.Signer.Identity()); err != nil {
		return err
	}
	n.evidence = openEvidence(n.cfg.Dir, n.log)
	key, err := hostKey(n.cfg.Dir)
	if err != nil {
		return err
	}
	n.signer = msp.NewRenewable(n.cfg.Signer, n.cfg.Chain)
	n.own = &credentials{host: key, signer: n.signer, networkID: n.cfg.NetworkID, life: n.cfg.BindingLife}
	n.guard = newGuard(n.cfg.NetworkID, n.metrics.handshakeRefused)
	n.guard.supplant = n.supplanted
	if err := n.loadBans(); err != nil {
		return err
	}
	if n.cfg.MSP != nil {
		n.define(n.cfg.MSP)
	}
	external, err := wire.ParseEndpoint(n.cfg.ExternalEndpoint)
	if err != nil {
		return err
	}
	if n.internal, err = n.cfg.internal(); err != nil {
		return err
	}
	n.host, n.quic, err = newHost(hostSpec{
		own: n.own, guard: n.guard, listen: n.cfg.Listen, external: external,
		maxPeers: n.cfg.MaxPeers, metrics: n.cfg.HostMetrics, extra: n.cfg.Libp2p,
	})
	if err != nil {
		return err
	}
	n.told = n.toldOf
	n.meet = newMeeting(n)
	n.host.Network().Notify(&network.NotifyBundle{ConnectedF: n.connected, DisconnectedF: n.disconnected})
	n.door = channel.NewDoor(n.host)
	n.door.OnRefused(func(_ peer.ID, r *wire.Reason) { n.metrics.refused("", r) }) // of no channel, or of none that it may know
	for _, name := range n.db.Channels() {
		if n.left(name) {
			continue
		}
		if err := n.reopen(name); err != nil {
			return fmt.Errorf("opening channel %s: %w", name, err)
		}
	}
	if err := errors.Join(n.openClients(), n.openRelay()); err != nil {
		return err
	}
	return listen(n.host, n.cfg.Listen)
}

// Run runs every loop of the peer. It returns when ctx ends, or with the error
// of what ended by itself: [ErrDurability] if the disk failed.
func (n *Node) Run(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	n.mu.Lock()
	if n.closed || n.spawn != nil {
		n.mu.Unlock()
		return errors.New("the node is closed or runs already")
	}
	n.spawn = func(c *Channel) {
		ctx, cancel := context.WithCancel(gctx)
		c.stop = cancel
		g.Go(func() error {
			defer close(c.done)
			defer cancel()
			err := c.run(ctx)
			if errors.Is(err, errReopen) {
				return n.reopenChannel(c)
			}
			return err
		})
	}
	for _, c := range n.channels {
		n.spawn(c)
	}
	n.mu.Unlock()
	g.Go(func() error {
		<-gctx.Done()
		n.mu.Lock()
		defer n.mu.Unlock()
		n.spawn, n.closed = nil, true // while the group still counts: nothing is started behind its back
		return nil
	})
	g.Go(func() error { return n.watchDisk(gctx) })
	g.Go(func() error { return n.watchDamage(gctx) })
	g.Go(func() error { return n.watchIdentities(gctx) })
	g.Go(func() error { return n.showBindings(gctx) })
	g.Go(func() error { return n.watchExpiry(gctx, n.metrics, n.Certificates) })
	g.Go(func() error { return n.meet.run(gctx) })
	if n.clients != nil {
		g.Go(func() error { return n.clients.server.Run(gctx, n.clients.listener) })
	}
	for i, s := range n.relays.servers {
		g.Go(func() error { return s.Run(gctx, n.relays.listeners[i]) })
	}
	g.Go(func() error { return n.dropDisplaced(gctx) })
	err := g.Wait()
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

// Close ends what Open opened; every socket, file and goroutine. Run must have
// returned, or never been called.
func (n *Node) Close() error {
	n.mu.Lock()
	n.closed = true
	all := n.channels
	n.channels = map[string]*Channel{}
	n.mu.Unlock()
	var errs []error
	for _, c := range all {
		errs = append(errs, c.close())
	}
	if n.clients != nil {
		if err := n.clients.listener.Close(); !errors.Is(err, net.ErrClosed) { // Run closes it too
			errs = append(errs, err)
		}
	}
	errs = append(errs, n.relays.close())
	if n.door != nil {
		errs = append(errs, n.door.Close())
	}
	if n.host != nil {
		errs = append(errs, n.host.Close(), n.quic.Close())
	}
	if n.db != nil {
		errs = append(errs, n.db.Close())
	}
	n.metrics.unregister()
	return errors.Join(errs...)
}

// Join joins the channel of a genesis block, or of a later configuration block,
// with which the orderers are asked for block 0; who hands it over is trusted. It
// may be called before and while the node runs. Joining again with the same
// block changes nothing.
func (n *Node) Join(ctx context.Context, genesis *common.Block) (*Channel, error) {
	return n.JoinBy(ctx, genesis, n.cfg.Sync)
}

// JoinBy is Join, and says how to come to what the others hold; "" is as the
// configuration says. By a snapshot, the channel is opened again when it stands
// there: ask [Node.Channel] for it then. A ledger that has more than block 0 goes on
// from where it is.
func (n *Node) JoinBy(ctx context.Context, genesis *common.Block, by SyncMode) (*Channel, error) {
	if genesis.GetHeader().GetNumber() > 0 {
		return n.joinLater(ctx, genesis, by)
	}
	raw, err := proto.Marshal(genesis)
	if err != nil {
		return nil, fmt.Errorf("genesis block: %w", err)
	}
	v, err := block.Genesis(raw)
	if err != nil {
		return nil, fmt.Errorf("genesis block: %w", err)
	}
	conf, err := channel.Parse(genesis)
	if err != nil {
		return nil, fmt.Errorf("genesis block: %w", err)
	}
	name := conf.Channel()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, errors.New("the node is closed")
	}
	if n.leaving[name] {
		return nil, fmt.Errorf("channel %s: %w", name, ErrLeaving)
	}
	if c := n.channels[name]; c != nil {
		if c.genesis != v.Hash() {
			return nil, fmt.Errorf("channel %s: %w", name, ErrJoined)
		}
		return c, nil
	}
	led, err := n.db.Channel(name)
	if errors.Is(err, ledger.ErrNotFound) {
		led, err = n.db.Create(name, v)
	}
	if err != nil {
		return nil, fmt.Errorf("channel %s: %w", name, err)
	}
	if err := sameGenesis(led, v.Hash()); err != nil {
		return nil, err
	}
	if by = cmp.Or(by, n.cfg.Sync); by != "" && by != SyncGenesis && led.Height() == 1 {
		if err := n.db.PutMeta(syncKey(name), []byte(by)); err != nil {
			return nil, err
		}
	}
	if err := n.db.PutMeta(leftKey(name), nil); err != nil {
		return nil, err
	}
	return n.add(led)
}

// add opens the rooms of a channel over its ledger. mu is held, or the node is
// being opened.
func (n *Node) add(led *ledger.Ledger) (*Channel, error) {
	c, err := newChannel(n, led)
	if err != nil {
		return nil, err
	}
	n.channels[c.name] = c
	n.share()
	n.meet.stir()
	if n.spawn != nil {
		n.spawn(c)
	}
	return c, nil
}

// share divides the buffer of blocks that wait among the channels. mu is held,
// or the node is being opened.
func (n *Node) share() {
	for _, c := range n.channels {
		c.sync.Share(n.cfg.BufferBytes / int64(len(n.channels)))
	}
}

func (n *Node) reopen(name string) error {
	led, err := n.db.Channel(name)
	if err != nil {
		return err
	}
	_, err = n.add(led)
	return err
}

// Leave tells the channel's members that this one goes, and ends the channel's
// loops and streams. With purge its blocks are deleted; without, the node finds
// them when it joins again. Ctx bounds the telling alone: what has begun ends.
func (n *Node) Leave(ctx context.Context, name string, purge bool) error {
	n.mu.Lock()
	c := n.channels[name]
	if c == nil {
		n.mu.Unlock()
		return fmt.Errorf("channel %s: %w", name, ErrNoChannel)
	}
	delete(n.channels, name)
	n.leaving[name] = true
	n.share()
	runs := c.stop != nil
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.leaving, name)
	}()
	if runs {
		if err := c.members.Leave(ctx); err != nil {
			n.log.Warn("not all others were told that this peer leaves; they will find out", "channel", name, "err", err)
		}
		c.stop()
		<-c.done
	}
	n.metrics.forget(name)
	if err := c.close(); err != nil {
		return err
	}
	n.rejudge() // of some, no other channel may know
	if purge {
		return n.db.Drop(name)
	}
	return n.db.PutMeta(leftKey(name), []byte{1})
}

func leftKey(name string) string { return "left/" + name }

// left says whether a channel's blocks were kept after it was left.
func (n *Node) left(name string) bool {
	v, err := n.db.Meta(leftKey(name))
	return err == nil && len(v) > 0
}

// Channel returns a joined channel.
func (n *Node) Channel(name string) (*Channel, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if c := n.channels[name]; c != nil {
		return c, nil
	}
	return nil, fmt.Errorf("channel %s: %w", name, ErrNoChannel)
}

// Channels returns the joined channels, sorted by name.
func (n *Node) Channels() []*Channel {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make([]*Channel, 0, len(n.channels))
	for _, c := range n.channels {
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b *Channel) int { return cmp.Compare(a.name, b.name) })
	return out
}

// Host is the libp2p host, for those who embed it beside protocols of their
// own.
func (n *Node) Host() host.Host { return n.host }

// PeerID is the libp2p peer ID of the node's host key.
func (n *Node) PeerID() peer.ID { return n.host.ID() }

// Role is "peer" or "relay".
func (n *Node) Role() string { return n.cfg.Role }

// Identity is the node's MSP identity.
func (n *Node) Identity() *msp.Identity { return n.signer.Identity() }

func (n *Node) connected(_ network.Network, c network.Conn) {
	if !n.guard.connected(c.RemotePeer()) {
		if n.guard.isDisplaced(c.RemotePeer()) {
			n.closeDisplaced(c)
		} else if err := c.Close(); err != nil {
			n.log.Debug("closing a connection that nobody vouches for", "peer", c.RemotePeer(), "err", err)
		}
		return
	}
	for _, ch := range n.Channels() {
		ch.consider(c.RemotePeer())
	}
}

func (n *Node) disconnected(_ network.Network, c network.Conn) {
	if wasSupplanted(c) {
		n.log.Error("another host shows this node's identity, and a peer keeps to that one: is the same MSP folder used twice?",
			"peer", c.RemotePeer(), "again", shunTime, "code", membership.Clone.Code())
		id := n.Identity()
		n.clash.note(Clash{PKIID: id.PKIID(), Name: id.Name(), MSPID: id.MSPID(), Older: n.host.ID(), Seen: n.guard.now()})
		n.meet.shun(c.RemotePeer())
	}
	if n.guard.disconnected(c.RemotePeer()) {
		for _, ch := range n.Channels() {
			ch.gone(c.RemotePeer())
		}
		n.meet.wake()
	}
}

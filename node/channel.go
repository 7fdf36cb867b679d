package node

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"

	"grapevine/block"
	"grapevine/blocksync"
	"grapevine/channel"
	"grapevine/channel/cast"
	"grapevine/election"
	"grapevine/ledger"
	"grapevine/membership"
	"grapevine/msp"
	"grapevine/wire"
)

// window is how many blocks ahead of the ledger a peer listens, and how far a
// leader runs ahead of its own.
const window = 128

// Channel is one joined channel: its rooms, joined by hand. Its methods are
// safe for concurrent use.
type Channel struct {
	node    *Node
	name    string
	tag     [32]byte
	genesis [32]byte
	log     *slog.Logger

	ledger  *ledger.Ledger
	conf    atomic.Pointer[channel.Config] // in force; swapped by takeUp alone
	turned  *turn                          // told at each swap of conf
	view    *channel.View
	mesh    *channel.Mesh
	cast    *cast.Cast
	traces  traces
	sync    *blocksync.Sync
	members *membership.Members
	elect   *election.Election
	source  Source
	cutter  cutter
	fresh   newcomer
	sources *sources
	fabric  *fabricPeer // nil: none is followed
	fronts  []*gates    // one for each address of the relay
	repairs *repairs
	stirred chan struct{} // holds one: something happened to a member
	concord *concord
	pulled  atomic.Uint64 // number of the block that the present pull brings next
	deaf    atomic.Int32  // orderers, in a row, that didn't answer beside it

	leaderless time.Duration // counted; owned by meeting.run
	crowded    bool          // several static leaders were warned of; owned by meeting.run

	proven error              // that the orderers forked the chain, from an earlier life
	forks  *forks             // of what the orderers sign
	stop   context.CancelFunc // of run; set by the node before run starts
	done   chan struct{}      // closed when run has ended

	mu       sync.Mutex
	admitted map[peer.ID]admission // what the configuration in force says of whom; owned by mu
	book     map[peer.ID]contact   // of members not heard of since the start; owned by mu
	halted   error                 // why the channel stopped; owned by mu
}

// An admission is the verdict on one identity under one configuration.
type admission struct {
	conf  *channel.Config
	id    *msp.Identity
	admit bool
}

func newChannel(n *Node, led *ledger.Ledger) (*Channel, error) {
	c := &Channel{
		node: n, name: led.Name(), ledger: led, log: n.log.With("channel", led.Name()),
		turned: newTurn(), done: make(chan struct{}), admitted: map[peer.ID]admission{},
		book: map[peer.ID]contact{}, repairs: newRepairs(), concord: newConcord(n.cfg.Signer.Identity().MSPID()),
		stirred: make(chan struct{}, 1),
	}
	if err := c.configure(); err != nil {
		return nil, err
	}
	c.forks = newForks(n.cfg.NetworkID, led, c.conf.Load, n.evidence, c.log)
	if err := c.forks.stopped(); err != nil {
		c.proven, c.halted = err, err
		led.Halt(err)
	}
	if err := c.judgeOnwards(); err != nil {
		return nil, err
	}
	c.cutter.ready = make(chan struct{}, 1)
	c.fresh.bad = map[[32]byte]bool{}
	var err error
	if c.fresh.mode, err = n.modeOf(led); err != nil {
		return nil, fmt.Errorf("reading how to come to what others hold: %w", err)
	}
	if every := n.cfg.Snapshots.Every; every > 0 && n.cfg.Judge {
		led.CutEvery(every, c.cutter.cut)
	}
	c.source = c.newSource()
	c.sources = c.newSources()
	if c.fabric, err = c.newFabricPeer(); err != nil {
		return nil, err
	}
	for range n.cfg.Relay.Fronts {
		c.fronts = append(c.fronts, new(gates))
	}
	n.metrics.at(c.name, led.Height())
	n.metrics.leading(c.name, false)
	c.tag = wire.ChannelTag(n.cfg.NetworkID, c.genesis[:])
	c.view = n.door.Open(c.tag, c.isMember)
	if err := errors.Join(c.readBook(), c.rooms()); err != nil {
		return nil, errors.Join(err, c.view.Close())
	}
	n.guard.setJudge(c.name, c.judge)
	for _, p := range n.host.Network().Peers() {
		c.consider(p)
	}
	return c, nil
}

// configure reads the configuration in force from the ledger.
func (c *Channel) configure() error {
	raw, err := c.ledger.Genesis()
	if err != nil {
		return fmt.Errorf("reading block 0: %w", err)
	}
	g, err := block.Genesis(raw)
	if err != nil {
		return fmt.Errorf("block 0: %w", err)
	}
	c.genesis = g.Hash()
	raw, number, err := c.ledger.ConfigBlock()
	if err != nil {
		return fmt.Errorf("reading the newest configuration block: %w", err)
	}
	b, err := block.Decode(raw)
	if err != nil {
		return fmt.Errorf("configuration block %d: %w", number, err)
	}
	conf, err := channel.Parse(b)
	if err != nil {
		return fmt.Errorf("configuration block %d: %w", number, err)
	}
	c.conf.Store(conf)
	return nil
}

// rooms opens mesh, sync and membership, and hands each what it needs of the
// others.
func (c *Channel) rooms() error {
	n := c.node
	rules := func() *block.Rules { return c.conf.Load().Rules() }
	refused := func(r *wire.Reason) {
		n.metrics.refused(c.name, r)
		c.log.Debug("refused", "reason", r.Code())
	}
	c.sync = blocksync.New(c.syncConfig(rules, refused))
	c.view.Handle(wire.KindSnapshots, c.serveSnapshots)
	c.view.Handle(wire.KindBlocks, func(s network.Stream) { c.sync.Serve(s, s.Conn().RemotePeer()) })
	incarnation, err := n.incarnation(c.name)
	if err != nil {
		return fmt.Errorf("reading the last incarnation: %w", err)
	}
	c.members, err = membership.New(membership.Config{
		Self: n.signer, Chain: n.signer.Chain, Tag: c.tag, PeerID: n.host.ID(),
		Endpoint: n.cfg.ExternalEndpoint, Internal: n.internal, Loopback: n.loopback(), Role: n.cfg.Role, Version: n.cfg.Version,
		Incarnation: incarnation, Period: n.cfg.Alive, Suspicion: n.cfg.Suspicion, Expiry: n.cfg.AliveExpiry,
		Tip:   func() (uint64, [32]byte) { t := c.ledger.Tip(); return t.Height, t.Hash },
		State: c.ownState, OnState: c.stated,
		Lead: c.tellsLead,
		Open: func(ctx context.Context, p peer.ID) (network.Stream, error) {
			return c.view.Stream(network.WithNoDial(ctx, "members are met by the node"), p, wire.KindMembers)
		},
		Publish: func(ctx context.Context, a *wire.SignedAlive) error { return c.mesh.PublishAlive(ctx, a) },
		Admit: func(id *msp.Identity, intermediates [][]byte, now time.Time) error {
			return c.conf.Load().Member(id, intermediates, now)
		},
		Bound: n.guard.identity,
		OnHeight: func(p peer.ID, height uint64) {
			c.sync.Height(p, height)
			c.elect.Told(p, height)
		},
		Changed: c.changed,
		Probed:  n.metrics.probed(c.name),
		Refused: func(p peer.ID, r *wire.Reason) {
			refused(r)
			c.log.Debug("refused a member's word", "peer", p, "reason", r.Code())
		},
		Load:  func() ([]byte, error) { return n.remembered(c.name) },
		Store: func(v []byte) error { return n.db.PutMeta(marksKey(c.name), v) },
		Bumped: func(i uint64) error {
			return n.db.PutMeta(incarnationKey(c.name), binary.BigEndian.AppendUint64(nil, i))
		},
	})
	if err != nil {
		return err
	}
	if c.elect, err = c.newElection(refused); err != nil {
		return err
	}
	c.view.Handle(wire.KindElection, func(s network.Stream) { c.elect.Serve(s, s.Conn().RemotePeer()) })
	c.view.Handle(wire.KindSighting, c.sources.serve)
	c.view.Handle(wire.KindTrace, c.serveTrace)
	c.view.Handle(wire.KindMembers, func(s network.Stream) { c.members.Serve(s, s.Conn().RemotePeer()) })
	if err := c.newCast(); err != nil {
		return err
	}
	c.mesh, err = channel.NewMesh(c.view, channel.MeshConfig{
		Channel: c.name, Tag: c.tag, Members: c.expected(), Rules: rules, Height: c.ledger.Height, Window: window,
		Identify: n.Identify,
		Known:    c.known,
		Self:     n.signer,
		Roots:    cast.CheckRoots,
		Lied:     c.contradicted,
		Deliver:  c.announced,
		Ahead:    c.sync.Height,
		Below:    c.forks.below,
		Alive:    c.members.Receive,
		Refused:  refused,
		Logger:   c.log,
	})
	return err
}

// expected is how many members the mesh is made for: those of the host's
// limits are too many for a small channel, so it is what is known at the start:
// organisations, of about five peers each.
func (c *Channel) expected() int {
	return len(c.node.cfg.Bootstrap) + 5*len(c.conf.Load().Orgs())
}

// run runs the channel's loops. What stops the channel alone is kept in halted
// and told; the node goes on with its other channels.
func (c *Channel) run(ctx context.Context) error {
	if c.proven != nil {
		c.log.Error("the channel stays stopped; the node's other channels go on", "err", c.proven)
		return nil
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.mesh.Run(gctx) })
	g.Go(func() error { return c.cast.Run(gctx) })
	g.Go(func() error { return c.members.Run(gctx) })
	g.Go(func() error { return c.keepBook(gctx) })
	if c.bySnapshot() {
		g.Go(func() error { return c.comeBySnapshot(gctx) })
		return c.ended(ctx, g.Wait())
	}
	g.Go(func() error { return c.scout(gctx) })
	g.Go(func() error { return c.makeSnapshots(gctx) })
	g.Go(func() error { return c.pruneOld(gctx) })
	g.Go(func() error { return c.sync.Run(gctx) })
	g.Go(func() error { return c.tellProgress(gctx) })
	g.Go(func() error { return c.elect.Run(gctx, c.lead) })
	g.Go(func() error { return c.sources.run(gctx) })
	if c.fabric != nil {
		g.Go(func() error { return c.fabric.run(gctx) })
	}
	g.Go(func() error { return c.watchFronts(gctx) })
	g.Go(func() error { return c.judgeKept(gctx) })
	g.Go(func() error { return c.keepWhole(gctx) })
	g.Go(func() error { return c.agree(gctx) })
	g.Go(func() error { return c.forks.await(gctx) })
	return c.ended(ctx, c.forks.settle(g.Wait()))
}

// ended sees to what ended a channel's loops; errReopen is the node's to see to.
func (c *Channel) ended(ctx context.Context, err error) error {
	if ctx.Err() != nil && (err == nil || errors.Is(err, ctx.Err())) {
		return nil
	}
	if errors.Is(err, errReopen) {
		return errReopen
	}
	c.mu.Lock()
	c.halted = err
	c.mu.Unlock()
	c.ledger.Halt(err)
	c.log.Error("the channel has stopped; the node's other channels go on", "err", err)
	return nil
}

func (c *Channel) close() error {
	c.ledger.CutEvery(0, nil)
	cut := c.cutter.close()
	c.node.guard.setJudge(c.name, nil)
	for _, p := range c.node.host.Network().Peers() {
		c.node.host.ConnManager().Unprotect(p, "member:"+c.name)
	}
	return errors.Join(cut, c.view.Close())
}

// Name is the channel's name.
func (c *Channel) Name() string { return c.name }

// Config is the configuration in force.
func (c *Channel) Config() *channel.Config { return c.conf.Load() }

// Blocks yields the channel's blocks from a number on, verified and durable,
// in order; it waits at the tip, and ends when ctx does. The blocks are read
// only.
func (c *Channel) Blocks(ctx context.Context, from uint64) iter.Seq2[*common.Block, error] {
	return c.ledger.Blocks(ctx, from)
}

// Ledger is what the channel keeps.
func (c *Channel) Ledger() *ledger.Ledger { return c.ledger }

// Halted says why the channel stopped, or nil.
func (c *Channel) Halted() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.halted != nil {
		return c.halted
	}
	return c.ledger.Halted()
}

// committed takes up what just became durable, in order, before sync verifies
// what follows.
func (c *Channel) committed(bs []block.Verified) error {
	for _, v := range bs {
		if !v.IsConfig() {
			continue
		}
		if err := c.takeUp(v); err != nil {
			return fmt.Errorf("taking up configuration block %d: %w", v.Number(), err)
		}
	}
	c.node.metrics.at(c.name, bs[len(bs)-1].Number()+1)
	c.concord.nudge()
	c.members.Grown()
	c.traces.durable(bs)
	return nil
}

// takeUp puts a configuration block in force: everything that asks conf sees
// it, and every open connection is judged again.
func (c *Channel) takeUp(v block.Verified) error {
	next, err := c.conf.Load().Next(v.Block())
	if err != nil {
		return err
	}
	c.conf.Store(next)
	c.turned.tell()
	c.log.Info("configuration in force", "sequence", next.Sequence(), "block", next.Number())
	for _, p := range c.node.host.Network().Peers() {
		c.consider(p)
	}
	c.members.Rejudge()
	c.node.rejudge()
	c.node.meet.stir() // other anchor peers
	return nil
}

// known finds a member by its PKI-ID: connected, or heard of by its heartbeats.
func (c *Channel) known(id msp.PKIID) (peer.ID, *msp.Identity, bool) {
	if p, who, ok := c.node.guard.find(id); ok && c.isMember(p) {
		return p, who, true
	}
	m, who, ok := c.members.Find(id)
	return m.Peer, who, ok
}

// judge is this channel's say in who is a valid member of the network.
func (c *Channel) judge(id *msp.Identity, intermediates [][]byte, now time.Time) error {
	conf := c.conf.Load()
	m := conf.MSP(id.MSPID())
	if m == nil {
		return errNotMine
	}
	if conf.Member(id, intermediates, now) == nil { // which is remembered
		return nil
	}
	return m.ValidateLive(id, intermediates, now)
}

// isMember says whether the host p may take part, under the configuration in
// force. It is asked for every stream, so verdicts are kept.
func (c *Channel) isMember(p peer.ID) bool {
	id, intermediates, ok := c.node.guard.identity(p)
	if !ok {
		return false
	}
	conf := c.conf.Load()
	c.mu.Lock()
	a, ok := c.admitted[p]
	c.mu.Unlock()
	if ok && a.conf == conf && a.id == id {
		return a.admit
	}
	err := conf.Member(id, intermediates, c.node.guard.now())
	c.mu.Lock()
	c.admitted[p] = admission{conf, id, err == nil}
	c.mu.Unlock()
	if err != nil {
		c.log.Debug("not a member of the channel", "peer", p, "msp", id.MSPID(), "subject", id.Name(), "err", err)
	}
	return err == nil
}

// consider lets a connected host in, or puts it out, as the configuration in
// force says.
func (c *Channel) consider(p peer.ID) {
	if c.isMember(p) {
		c.node.host.ConnManager().Protect(p, "member:"+c.name)
		c.view.Arrive(p)
		c.members.Arrived(p)
		c.cast.Arrived(p, c.orgOf(p))
		c.spare(p)
		c.elect.Arrived(p)
		return
	}
	c.node.host.ConnManager().Unprotect(p, "member:"+c.name)
	c.members.Gone(p)
	c.cast.Gone(p)
	c.elect.Gone(p)
	c.view.Expel(p)
	c.sync.PeerGone(p)
}

func (c *Channel) gone(p peer.ID) {
	c.mu.Lock()
	delete(c.admitted, p)
	c.mu.Unlock()
	c.members.Gone(p)
	c.cast.Gone(p)
	c.elect.Gone(p)
	c.sync.PeerGone(p)
}

// changed is told what happens to members.
func (c *Channel) changed(e membership.Event) {
	c.node.metrics.member(c.name, e)
	c.node.meet.stir()
	select {
	case c.stirred <- struct{}{}:
	default:
	}
	c.electorate(e)
	c.unstated(e)
	level := slog.LevelInfo
	switch e.Kind {
	case membership.Suspected, membership.Recovered, membership.Refuted:
		level = slog.LevelDebug
	case membership.Cloned:
		c.node.clashed(e)
		c.log.Error("two live hosts show one identity: is the same MSP folder used twice?", "name", e.Member.Name, "msp", e.Member.MSPID,
			"counts", e.Member.Peer, "older", e.Other, "code", membership.Clone.Code())
		return
	}
	c.log.Log(context.Background(), level, "member "+e.Kind.String(), "name", e.Member.Name, "msp", e.Member.MSPID, "peer", e.Member.Peer)
}

func marksKey(ch string) string { return "alive/" + ch }

func incarnationKey(ch string) string { return "incarnation/" + ch }

// remembered is what membership keeps of a channel across restarts: the newest
// message accepted of each identity.
func (n *Node) remembered(ch string) ([]byte, error) {
	v, err := n.db.Meta(marksKey(ch))
	if errors.Is(err, ledger.ErrNotFound) {
		return nil, nil
	}
	return v, err
}

// incarnation is this start's number on a channel: above every earlier one's,
// although the clock may have gone back.
func (n *Node) incarnation(ch string) (uint64, error) {
	key := incarnationKey(ch)
	next := uint64(n.guard.now().UnixMilli())
	v, err := n.db.Meta(key)
	switch {
	case err == nil && len(v) == 8:
		next = max(next, binary.BigEndian.Uint64(v)+1)
	case err != nil && !errors.Is(err, ledger.ErrNotFound):
		return 0, err
	}
	return next, n.db.PutMeta(key, binary.BigEndian.AppendUint64(nil, next))
}

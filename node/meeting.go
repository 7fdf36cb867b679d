package node

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"

	"grapevine/membership"
	"grapevine/msp"
	"grapevine/wire"
)

const (
	minPause = 100 * time.Millisecond // between two tries for one endpoint
	maxPause = 3 * time.Second
	dialTime = 10 * time.Second
	// lostTime is for members that are dead or were known before this start, who
	// are dialled again soon: many that are cut off must not keep the slots from
	// one that is back.
	lostTime = 3 * time.Second
	// fullMesh is up to how many connections members met by their alive
	// messages are dialled: a channel of that size is fully connected, so that
	// a body is one hop from whoever needs it.
	fullMesh = 64
	dials    = 16 // at once, of places and of lost members
	// greetings are dials of living members at once: each costs both sides two
	// handshakes' worth of computing, and a whole network may start at once.
	greetings = 4
	// shunTime is for how long a peer isn't dialled that closed a connection
	// because another host shows this node's identity: else two processes with
	// one certificate would take turns for ever.
	shunTime = time.Minute
)

// meeting keeps the node connected: to bootstrap and anchor peers for ever, and
// to members it hears of.
type meeting struct {
	node   *Node
	slots  chan struct{} // one per dial under way, of places and lost members
	greets chan struct{} // one per dial of a living member

	mu       sync.Mutex
	due      chan struct{}          // closed and replaced when a connection was lost, owned by mu
	dialling map[peer.ID]bool       // owned by mu
	shunned  map[peer.ID]time.Time  // until when, owned by mu; swept by look
	places   map[string]*place      // by endpoint, owned by mu
	heardOf  chan membership.Member // joined, or back; drops when full, for look finds them
	tries    map[peer.ID]try        // of members that aren't connected, owned by run
}

// A try says when a member is dialled again.
type try struct {
	next  time.Time
	pause time.Duration
}

// A place is an endpoint that is dialled for ever.
type place struct {
	endpoint string
	mspID    string // who must be there
	cancel   context.CancelFunc
}

func newMeeting(n *Node) *meeting {
	return &meeting{
		node: n, slots: make(chan struct{}, dials), greets: make(chan struct{}, greetings), due: make(chan struct{}),
		dialling: map[peer.ID]bool{}, shunned: map[peer.ID]time.Time{}, places: map[string]*place{}, heardOf: make(chan membership.Member, 256),
		tries: map[peer.ID]try{},
	}
}

// run dials until ctx ends. Anchor peers come and go with configurations.
func (m *meeting) run(ctx context.Context) error {
	var g sync.WaitGroup
	defer g.Wait()
	look := time.NewTicker(time.Second)
	defer look.Stop()
	for {
		m.refresh(ctx, &g)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-look.C:
			m.look(ctx, &g)
		case v := <-m.heardOf:
			m.greet(ctx, &g, v)
		}
	}
}

// refresh starts and ends the loops of places.
func (m *meeting) refresh(ctx context.Context, g *sync.WaitGroup) {
	want := map[string]string{}
	own := m.node.Identity().MSPID()
	for _, e := range m.node.cfg.Bootstrap {
		want[e] = own
	}
	for _, c := range m.node.Channels() {
		for _, o := range c.Config().Orgs() {
			if o.MSPID != own && m.node.hidden() {
				continue
			}
			for _, a := range o.Anchors {
				want[a] = o.MSPID
			}
		}
	}
	delete(want, m.node.cfg.ExternalEndpoint)
	m.mu.Lock()
	defer m.mu.Unlock()
	for e, p := range m.places {
		if want[e] != p.mspID {
			p.cancel()
			delete(m.places, e)
		}
	}
	for e, id := range want {
		if m.places[e] != nil {
			continue
		}
		pctx, cancel := context.WithCancel(ctx)
		p := &place{endpoint: e, mspID: id, cancel: cancel}
		m.places[e] = p
		g.Go(func() { m.keep(pctx, p) })
	}
}

// keep dials a place whenever nobody of it is connected, for ever.
func (m *meeting) keep(ctx context.Context, p *place) {
	pause := minPause
	var known peer.ID
	warned := false
	for ctx.Err() == nil {
		m.mu.Lock()
		due := m.due
		m.mu.Unlock()
		if known != "" && m.node.host.Network().Connectedness(known) == network.Connected {
			pause = minPause
			select {
			case <-due:
			case <-ctx.Done():
			}
			continue
		}
		if d := m.shunnedFor(known); d > 0 {
			sleep(ctx, d)
			continue
		}
		id, err := m.visit(ctx, p)
		switch {
		case err == nil, errors.Is(err, errShunned):
			known = id
		case errors.Is(err, errSelf):
			m.node.metrics.refused("", errSelf)
			m.node.log.Warn("a bootstrap or anchor peer is this node itself; it is of no use here", "endpoint", p.endpoint, "code", errSelf.Code())
			return
		case errors.Is(err, wrongOrg) && !warned:
			warned = true
			m.node.log.Warn("a bootstrap or anchor peer is of another organisation; trying again for ever", "endpoint", p.endpoint, "err", err, "code", wrongOrg.Code())
		default:
			m.node.log.Debug("dialling", "endpoint", p.endpoint, "err", err, "again", pause)
		}
		sleep(ctx, pause/2+rand.N(pause))
		pause = min(2*pause, maxPause)
	}
}

var (
	errSelf    = wire.NewReason("config.bootstrap_self", wire.Refuse)
	wrongOrg   = wire.NewReason("config.bootstrap_wrong_org", wire.Refuse)
	errShunned = errors.New("it keeps another host with this node's identity")
)

// visit finds out who listens at a place and connects to it.
func (m *meeting) visit(ctx context.Context, p *place) (peer.ID, error) {
	m.slots <- struct{}{}
	defer func() { <-m.slots }()
	info, err := m.node.probe(ctx, p.endpoint)
	if err != nil {
		return "", err
	}
	if info.ID == m.node.host.ID() {
		return "", errSelf
	}
	if err := m.vouch(info.ID, p); err != nil {
		return "", err
	}
	if m.shunnedFor(info.ID) > 0 {
		return info.ID, errShunned
	}
	if err := m.connect(ctx, info, dialTime); err != nil {
		return info.ID, err
	}
	return info.ID, m.vouch(info.ID, p) // an endpoint that names its peer wasn't probed
}

// vouch says whether the host at a place is of the organisation that it should
// be. A name or an address proves nothing; the certificate does.
func (m *meeting) vouch(h peer.ID, p *place) error {
	id, _, ok := m.node.guard.identity(h)
	if !ok || id.MSPID() == p.mspID {
		return nil
	}
	m.node.metrics.refused("", wrongOrg)
	return fmt.Errorf("%s is %s of %s, not of %s: %w", p.endpoint, id.Name(), id.MSPID(), p.mspID, wrongOrg)
}

func (m *meeting) connect(ctx context.Context, info peer.AddrInfo, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	if s, ok := m.node.host.Network().(*swarm.Swarm); ok {
		s.Backoff().Clear(info.ID) // our own pauses rule
	}
	return m.node.host.Connect(ctx, info)
}

// heard takes a member's endpoints from what happened to it.
func (m *meeting) heard(e membership.Event) {
	if e.Kind != membership.Joined && e.Kind != membership.Recovered {
		return
	}
	select {
	case m.heardOf <- e.Member:
	default:
	}
}

// look greets the members that aren't connected: those that live, and those
// that don't, or were known before this start, for ever, with pauses.
func (m *meeting) look(ctx context.Context, g *sync.WaitGroup) {
	now := time.Now()
	m.mu.Lock()
	for p, until := range m.shunned {
		if !now.Before(until) {
			delete(m.shunned, p)
		}
	}
	m.mu.Unlock()
	all := map[peer.ID]membership.Member{}
	for _, c := range m.node.Channels() {
		m.node.metrics.living(c.name, c.members.List())
		for _, v := range c.contacts() {
			all[v.Peer] = v
		}
	}
	for p := range m.tries {
		if _, ok := all[p]; !ok || m.node.host.Network().Connectedness(p) == network.Connected {
			delete(m.tries, p)
		}
	}
	most := maxPause * time.Duration(1+len(m.tries)/dials)
	for p, v := range all {
		if m.node.host.Network().Connectedness(p) == network.Connected {
			continue
		}
		t, ok := m.tries[p]
		if ok && now.Before(t.next) {
			continue
		}
		t.pause = min(max(2*t.pause, minPause), most)
		t.next = now.Add(t.pause/2 + rand.N(t.pause))
		m.tries[p] = t
		m.greet(ctx, g, v)
	}
}

// greet dials a member that was heard of. Of two that hear of each other the
// one with the lower peer ID dials at once, the other a beat later if it is
// still needed, so that there is one connection rather than two.
func (m *meeting) greet(ctx context.Context, g *sync.WaitGroup, v membership.Member) {
	h := m.node.host
	endpoint := m.node.endpoint(v)
	if endpoint == "" || v.Peer == h.ID() ||
		m.shunnedFor(v.Peer) > 0 || h.Network().Connectedness(v.Peer) == network.Connected || len(h.Network().Peers()) >= fullMesh {
		return
	}
	addrs, err := wire.ParseEndpoint(endpoint)
	if err != nil {
		return
	}
	m.mu.Lock()
	busy := m.dialling[v.Peer]
	m.dialling[v.Peer] = true
	m.mu.Unlock()
	if busy {
		return
	}
	g.Go(func() {
		defer func() {
			m.mu.Lock()
			delete(m.dialling, v.Peer)
			m.mu.Unlock()
		}()
		if h.ID() > v.Peer {
			sleep(ctx, m.node.cfg.Alive)
			if ctx.Err() != nil || h.Network().Connectedness(v.Peer) == network.Connected {
				return
			}
		}
		slots, within := m.greets, dialTime
		if v.State == membership.Dead || v.PKIID == (msp.PKIID{}) {
			slots, within = m.slots, lostTime
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		defer func() { <-slots }()
		if h.Network().Connectedness(v.Peer) == network.Connected {
			return
		}
		if err := m.connect(ctx, peer.AddrInfo{ID: v.Peer, Addrs: addrs}, within); err != nil {
			m.node.log.Debug("dialling a member", "peer", v.Peer, "endpoint", endpoint, "err", err)
		}
	})
}

// shun keeps this node from dialling p for a while.
func (m *meeting) shun(p peer.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.shunned[p] = time.Now().Add(shunTime)
}

func (m *meeting) shunnedFor(p peer.ID) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return time.Until(m.shunned[p])
}

// wake makes the places' loops look again: a connection was lost.
func (m *meeting) wake() {
	m.mu.Lock()
	defer m.mu.Unlock()
	close(m.due)
	m.due = make(chan struct{})
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

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
)

const (
	minPause = 100 * time.Millisecond // between two tries for one endpoint
	maxPause = 3 * time.Second
	dialTime = 10 * time.Second
	// fullMesh is up to how many connections members met by their alive
	// messages are dialled: a channel of that size is fully connected, so that
	// a body is one hop from whoever needs it.
	fullMesh = 64
	dials    = 16 // at once
	// shunTime is for how long a peer isn't dialled that closed a connection
	// because another host shows this node's identity: else two processes with
	// one certificate would take turns for ever.
	shunTime = time.Minute
)

// meeting keeps the node connected: to bootstrap and anchor peers for ever, and
// to members it hears of.
type meeting struct {
	node  *Node
	slots chan struct{} // one per dial under way

	mu       sync.Mutex
	due      chan struct{}          // closed and replaced when a connection was lost, owned by mu
	dialling map[peer.ID]bool       // owned by mu
	shunned  map[peer.ID]time.Time  // until when, owned by mu; swept by look
	places   map[string]*place      // by endpoint, owned by mu
	heardOf  chan membership.Member // from alive messages; drops when full, for they repeat
}

// A place is an endpoint that is dialled for ever.
type place struct {
	endpoint string
	mspID    string // who must be there
	cancel   context.CancelFunc
}

func newMeeting(n *Node) *meeting {
	return &meeting{
		node: n, slots: make(chan struct{}, dials), due: make(chan struct{}),
		dialling: map[peer.ID]bool{}, shunned: map[peer.ID]time.Time{}, places: map[string]*place{}, heardOf: make(chan membership.Member, 256),
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
			return
		default:
			m.node.log.Debug("dialling", "endpoint", p.endpoint, "err", err, "again", pause)
		}
		sleep(ctx, pause/2+rand.N(pause))
		pause = min(2*pause, maxPause)
	}
}

var (
	errSelf    = errors.New("it is this node itself")
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
	if id, _, ok := m.node.guard.identity(info.ID); ok && id.MSPID() != p.mspID {
		return "", fmt.Errorf("%s is %s of %s, not of %s", p.endpoint, id.Name(), id.MSPID(), p.mspID)
	}
	if m.shunnedFor(info.ID) > 0 {
		return info.ID, errShunned
	}
	return info.ID, m.connect(ctx, info)
}

func (m *meeting) connect(ctx context.Context, info peer.AddrInfo) error {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	if s, ok := m.node.host.Network().(*swarm.Swarm); ok {
		s.Backoff().Clear(info.ID) // our own pauses rule
	}
	return m.node.host.Connect(ctx, info)
}

// heard takes a member's endpoint from its alive message.
func (m *meeting) heard(v membership.Member) {
	if v.Endpoint == "" || v.Peer == m.node.host.ID() {
		return
	}
	select {
	case m.heardOf <- v:
	default:
	}
}

// look greets the living members that nobody has connected to yet.
func (m *meeting) look(ctx context.Context, g *sync.WaitGroup) {
	m.mu.Lock()
	for p, until := range m.shunned {
		if !time.Now().Before(until) {
			delete(m.shunned, p)
		}
	}
	m.mu.Unlock()
	for _, c := range m.node.Channels() {
		for _, v := range c.members.List() {
			if v.State == membership.Alive && v.Endpoint != "" && !v.Self {
				m.greet(ctx, g, v)
			}
		}
	}
}

// greet dials a member that was heard of. Of two that hear of each other the
// one with the lower peer ID dials at once, the other a beat later if it is
// still needed, so that there is one connection rather than two.
func (m *meeting) greet(ctx context.Context, g *sync.WaitGroup, v membership.Member) {
	h := m.node.host
	if m.shunnedFor(v.Peer) > 0 || h.Network().Connectedness(v.Peer) == network.Connected || len(h.Network().Peers()) >= fullMesh {
		return
	}
	addrs, err := multiaddrs(v.Endpoint)
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
		m.slots <- struct{}{}
		defer func() { <-m.slots }()
		if err := m.connect(ctx, peer.AddrInfo{ID: v.Peer, Addrs: addrs}); err != nil {
			m.node.log.Debug("dialling a member", "peer", v.Peer, "endpoint", v.Endpoint, "err", err)
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

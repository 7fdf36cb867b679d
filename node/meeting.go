package node

import (
	"cmp"
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
	minPause = 100 * time.Millisecond // between two tries for one place
	// maxPause bounds the pauses by default, maxTries how many of them are so
	// short, and slower is how much longer they get then.
	maxPause = 3 * time.Second
	maxTries = 120
	slower   = 5
	dialTime = 10 * time.Second
	// lostTime is for members that aren't known to live: see [membership.Circle].
	lostTime = 3 * time.Second
	dials    = 16 // places at once
	// gatherTime is how long news waits for more, before it is looked at.
	gatherTime = 20 * time.Millisecond
	// lookTime is the longest time between two looks: news that was missed.
	lookTime = 10 * time.Second
	// shunTime is for how long a peer isn't dialled that closed a connection
	// because another host shows this node's identity: else two processes with
	// one certificate would take turns for ever.
	shunTime = time.Minute
)

// meeting keeps the node connected: to bootstrap and anchor peers for ever, and
// to members it hears of.
type meeting struct {
	node  *Node
	slots chan struct{} // one per visit under way
	news  chan struct{} // holds one: look

	mu      sync.Mutex
	due     chan struct{}         // closed and replaced when a connection was lost, owned by mu
	shunned map[peer.ID]time.Time // until when, owned by mu; swept by look
	places  map[string]*place     // by endpoint, owned by mu
	circle  *membership.Circle    // owned by mu
}

// A place is an endpoint that is dialled for ever.
type place struct {
	endpoint string
	mspID    string // who must be there
	cancel   context.CancelFunc
}

func newMeeting(n *Node) *meeting {
	return &meeting{
		node: n, slots: make(chan struct{}, dials), news: make(chan struct{}, 1), due: make(chan struct{}),
		shunned: map[peer.ID]time.Time{}, places: map[string]*place{}, circle: membership.NewCircle(n.host.ID(), n.cfg.Signer.Identity().MSPID(), rand.Uint64(), cmp.Or(n.cfg.Redial, maxPause)),
	}
}

// run dials until ctx ends. Anchor peers come and go with configurations.
func (m *meeting) run(ctx context.Context) error {
	var g sync.WaitGroup
	defer g.Wait()
	next := time.NewTimer(0)
	defer next.Stop()
	at := time.Now()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-m.news:
			if soon := time.Now().Add(gatherTime); soon.Before(at) {
				at = soon
			}
		case <-next.C:
			m.refresh(ctx, &g)
			at = time.Now().Add(m.look(ctx, &g))
		}
		next.Reset(time.Until(at))
	}
}

// stir makes run look soon at who is to be dialled.
func (m *meeting) stir() {
	select {
	case m.news <- struct{}{}:
	default:
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
	pause, tries := minPause, 0
	var known peer.ID
	warned := false
	for ctx.Err() == nil {
		m.mu.Lock()
		due := m.due
		m.mu.Unlock()
		if known != "" && m.node.host.Network().Connectedness(known) == network.Connected {
			pause, tries = minPause, 0
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
		sleep(ctx, pause/2+rand.N(pause/2)) // never longer than Redial: who is let in from now on is in by then
		longest := cmp.Or(m.node.cfg.Redial, maxPause)
		if tries++; tries >= cmp.Or(m.node.cfg.Tries, maxTries) {
			longest *= slower
		}
		pause = min(2*pause, longest)
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

// look dials whom the circle wants, and returns when to look again.
func (m *meeting) look(ctx context.Context, g *sync.WaitGroup) time.Duration {
	now := time.Now()
	connected := m.node.host.Network().Peers()
	strangers := m.strangers(connected, now)
	m.mu.Lock()
	dial, wait := m.circle.Due(strangers, len(connected), now)
	m.mu.Unlock()
	for _, v := range dial {
		g.Go(func() {
			m.dial(ctx, v)
			m.mu.Lock()
			m.circle.Done(v.Peer, time.Now())
			m.mu.Unlock()
			m.stir()
		})
	}
	if wait == 0 {
		return lookTime
	}
	return min(wait, lookTime)
}

// strangers are the members of all channels that aren't connected and can be
// dialled.
func (m *meeting) strangers(connected []peer.ID, now time.Time) []membership.Member {
	seen := make(map[peer.ID]bool, 2*len(connected))
	for _, p := range connected {
		seen[p] = true
	}
	m.mu.Lock()
	for p, until := range m.shunned {
		if now.Before(until) {
			seen[p] = true
		} else {
			delete(m.shunned, p)
		}
	}
	m.mu.Unlock()
	var out []membership.Member
	for _, c := range m.node.Channels() {
		all := c.members.List()
		m.node.metrics.living(c.name, all)
		c.countLeaderless()
		c.warnOfStatic(all)
		for _, v := range c.contacts(all) {
			if !seen[v.Peer] {
				seen[v.Peer] = true
				out = append(out, v)
			}
		}
	}
	return out
}

// dial dials a member where it says that it is.
func (m *meeting) dial(ctx context.Context, v membership.Member) {
	endpoint := m.node.endpoint(v)
	addrs, err := wire.ParseEndpoint(endpoint)
	if err == nil {
		within := dialTime
		if v.State == membership.Dead || v.PKIID == (msp.PKIID{}) {
			within = lostTime
		}
		err = m.connect(ctx, peer.AddrInfo{ID: v.Peer, Addrs: addrs}, within)
	}
	if err != nil {
		m.node.log.Debug("dialling a member", "peer", v.Peer, "endpoint", endpoint, "err", err)
	}
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

// wake makes the places' loops and run look again: a connection was lost.
func (m *meeting) wake() {
	m.mu.Lock()
	defer m.mu.Unlock()
	close(m.due)
	m.due = make(chan struct{})
	m.stir()
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

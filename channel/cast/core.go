package cast

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"grapevine/wire"
)

// A core is what one member knows of a channel's casts. It is a pure state
// machine: step takes what happened and the time, and returns what to do.
//
// A leader that has a new block cuts and codes it into chunks, announces their
// hashes, and sends each chunk once, to one relay; the relay proves it and passes
// it on at once to everyone who lacks it. So the leader's link carries the block
// once, with parity, and each relay's link its share to all the others: together
// the members upload what one leader would have to alone. Any K of a segment's
// chunks give it back, so a slow or silent relay costs its share of parity, not
// time. Whoever has the block says so to those who would still send him
// something, and to some whom he may help. Where it is faster, the leader sends
// the body whole to everyone instead; pace.go says how that is known. Who sees nothing come any more asks one that is done for what he
// lacks, then another, and then gives the block to blocksync.
//
// Where it comes from. The shape is Turbine's (Solana): leader, stripes with
// parity, Merkle proofs on each; but one layer instead of a tree, for a group has
// at most 64 members, and every member is a relay. That each chunk has one
// first-hop relay which passes it to all the rest is RaptorCast's (Monad), as is
// the encoding being a function of the block alone (MIP-10); the code is
// Reed-Solomon with a fixed number of chunks instead of a fountain, so chunks of
// several leaders mix. That who is done says so, and that what is missing is
// asked for by index, is in ethp2p's published findings on erasure-coded
// broadcast. What differs from all three: streams instead of datagrams, so
// nothing is paced or sent again here; the header is signed by the orderers, so
// nobody re-encodes to be safe, a bad encoding costs one pull, and its proof is
// kept; organisations are the groups of larger channels.
//
// Invariants: nothing is kept, passed on or counted of a chunk that isn't proven
// by a verified announcement; a member passes each chunk on at most once, and no
// more than some times its share; who said that it is done is sent nothing it
// would keep; each session ends, and hands its block up or to blocksync.
type core struct {
	self  peer.ID
	org   string
	wide  bool // the channel is made for more than GroupMost members
	paces paces
	wake  time.Time
	stale bool // something may be due before wake

	typical time.Duration // latency; 0: to be computed

	members  map[peer.ID]*member
	order    []peer.ID // of members, sorted
	ours     group     // of members of the own organisation
	orgs     []group   // of members of other organisations, sorted by name
	sessions map[sessionID]*session
	over     ring // ids of sessions that ended
	parked   parking
	barred   map[peer.ID]time.Time // until when; swept by timers
	out      []effect
}

// Limits. Their sources are LIBP2P.md 5 and PROMISES S12.
const (
	perAnnouncer = 8  // sessions under way
	perChannel   = 32 // of all announcers
	keptSessions = 64 // those that are done but may be asked for included
	// GroupMost is up to how many members everyone passes on to everyone.
	GroupMost = 64
	overMost  = 256 // ended sessions that are remembered
	barTime   = time.Hour
	maxBarred = 1024
	// shareFactor and shareSpare are how much more than its share of chunks a
	// member passes on: members differ a little in whom they know.
	shareFactor = 2
	shareSpare  = 8
)

// A member is connected.
type member struct {
	id      peer.ID
	org     string
	hub     bool          // everybody seeks to be connected to it
	latency time.Duration // one way; 0: not measured
	usual   [classes]spell
	late    float64 // how often it had blocks long after the others: 0 to 1
}

// A group is the connected members of one organisation, those that are hubs apart:
// who knows one member of it knows a hub, so all else goes through the others, as
// far as there are others.
type group struct {
	org           string
	members, hubs []peer.ID
}

func (g *group) add(m *member) {
	if m.hub {
		g.hubs = append(g.hubs, m.id)
	} else {
		g.members = append(g.members, m.id)
	}
}

func (g *group) size() int { return len(g.members) + len(g.hubs) }

func newCore(self peer.ID, org string, wide bool) *core {
	return &core{
		self: self, org: org, wide: wide,
		members:  make(map[peer.ID]*member),
		sessions: make(map[sessionID]*session),
		over:     ring{size: overMost},
		parked:   newParking(),
		barred:   make(map[peer.ID]time.Time),
		paces:    newPaces(),
	}
}

// step takes one event in. The effects are valid until the next step.
func (c *core) step(e event, now time.Time) []effect {
	clear(c.out)
	c.out = c.out[:0]
	switch e := e.(type) {
	case evChunk:
		c.chunk(e, now)
	case evArrived:
		c.arrived(e, now)
	case evLeft:
		c.left(e.peer)
	case evHub:
		if m := c.members[e.peer]; m != nil && !m.hub {
			m.hub = true
			c.regroup()
		}
	case evAnnounced:
		c.announced(e.head, now)
	case evOwn:
		c.own(e, now)
	case evHave:
		c.have(e, now)
	case evPart:
		c.part(e, now)
	case evEncoded:
		c.encoded(e, now)
	case evHeaded:
		c.headed(e)
	case evDone:
		c.isDone(e, now)
	case evNeed:
		c.need(e, now)
	case evAsk:
		c.ask(e)
	case evNone:
		if s := c.sessions[e.session]; s != nil && s.asking == e.from {
			s.asking, s.due, c.stale = "", now, true
		}
	case evRebuilt:
		c.rebuilt(e)
	case evJudged:
		c.judged(e, now)
	case evTurned:
		c.turn(e.head, e.reason)
	case evSqueeze:
		c.squeeze(e.bytes)
	case evBarred:
		c.bar(e.peer, now)
	case evLink:
		if m := c.members[e.peer]; m != nil {
			m.measured(e.latency)
			c.typical = 0
		}
	case evMark:
		c.marked(e, now)
	case evTick:
	}
	if c.stale || !now.Before(c.wake) {
		c.timers(now)
	}
	return c.out
}

func (c *core) do(e effect) { c.out = append(c.out, e) }

func (c *core) refuse(p peer.ID, r *wire.Reason) { c.do(fxRefuse{p, r}) }

// id names the session of a head: 8 bytes of a hash over what its chunks depend
// on. Two that collide by intent belong to one liar.
func (h *Head) id() sessionID {
	var size [8]byte
	binary.BigEndian.PutUint64(size[:], h.Size)
	sum := wire.HashParts([]byte(wire.DomainCast), h.Hash[:], size[:], h.Roots)
	return sessionID(binary.BigEndian.Uint64(sum[:]))
}

// arrived takes a member in. It is told of what this node casts.
func (c *core) arrived(e evArrived, now time.Time) {
	if c.members[e.peer] != nil || e.peer == c.self {
		return
	}
	c.members[e.peer] = &member{id: e.peer, org: e.org}
	c.regroup()
	for _, s := range c.ordered() {
		if s.origin && !s.ended(now) {
			c.do(fxHead{to: e.peer, session: s.id, raw: s.head.Raw, hop: hopKeep})
		}
	}
}

// left forgets a member. What it was to relay goes to others.
func (c *core) left(p peer.ID) {
	if c.members[p] == nil {
		return
	}
	delete(c.members, p)
	c.regroup()
	c.parked.drop(p)
	for _, s := range c.ordered() {
		given := s.given[p]
		delete(s.given, p)
		delete(s.far, p)
		if s.origin && len(c.order) > 0 {
			for i, v := range given {
				c.give(s, v, c.order[(int(uint64(s.id)%1024)+i)%len(c.order)])
			}
		}
	}
}

func (c *core) regroup() {
	c.order, c.ours, c.orgs, c.typical = nil, group{}, nil, 0
	for id := range c.members {
		c.order = append(c.order, id)
	}
	slices.Sort(c.order)
	for _, id := range c.order {
		m := c.members[id]
		if m.org == c.org {
			c.ours.add(m)
			continue
		}
		i, ok := slices.BinarySearchFunc(c.orgs, m.org, func(g group, org string) int { return cmp.Compare(g.org, org) })
		if !ok {
			c.orgs = slices.Insert(c.orgs, i, group{org: m.org})
		}
		c.orgs[i].add(m)
	}
}

// large says whether members pass on by organisations.
func (c *core) large() bool { return c.wide || len(c.order)+1 > GroupMost }

// ordered returns the sessions, oldest first.
func (c *core) ordered() []*session {
	all := make([]*session, 0, len(c.sessions))
	for _, s := range c.sessions {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b *session) int {
		return cmp.Or(a.opened.Compare(b.opened), cmp.Compare(a.id, b.id))
	})
	return all
}

// announced opens a session, or adds one more announcer to it.
func (c *core) announced(h *Head, now time.Time) {
	id := h.id()
	if s := c.sessions[id]; s != nil {
		if s.head.Hash != h.Hash || s.head.Size != h.Size || !bytes.Equal(s.head.Roots, h.Roots) {
			c.refuse(h.Announcer, Collision)
			return
		}
		c.join(s, h.Announcer, now)
		return
	}
	if c.over.had[id] {
		return
	}
	err := c.admit(h, now)
	if err == nil {
		err = c.begin(h, now)
	}
	if err != nil {
		c.turn(h, wire.ReasonOf(err))
	}
}

// turn refuses an announcement: its block is pulled.
func (c *core) turn(h *Head, r *wire.Reason) {
	c.refuse(h.Announcer, r)
	c.do(fxPull{h, []peer.ID{h.Announcer}, true})
	c.over.add(h.id(), false)
}

// admit says whether one more session of an announcer's may be opened.
func (c *core) admit(h *Head, now time.Time) error {
	if until, ok := c.barred[h.Announcer]; ok && now.Before(until) {
		return Barred
	}
	all, of := 0, 0
	for _, s := range c.sessions {
		if s.state == gathering && !s.pulled {
			all++
			if s.head.Announcer == h.Announcer {
				of++
			}
		}
	}
	if all >= perChannel || of >= perAnnouncer {
		return fmt.Errorf("%d sessions, %d of one announcer's: %w", all, of, TooMany)
	}
	return nil
}

func (c *core) begin(h *Head, now time.Time) error {
	s, err := newSession(h, now)
	if err != nil {
		return err
	}
	if len(c.sessions) >= keptSessions {
		if c.squeeze(1); len(c.sessions) >= keptSessions {
			c.end(c.ordered()[0])
		}
	}
	c.sessions[s.id], c.stale = s, true
	c.do(fxOpened{s.bytes()})
	s.due = now.Add(c.wait(s))
	c.expect(s, s.due.Add(slack))
	for _, e := range c.parked.take(s.id) {
		c.chunk(e, now)
	}
	return nil
}

// squeeze ends sessions that are kept for others alone, the oldest first, until
// they would have held so many bytes.
func (c *core) squeeze(bytes int64) {
	for _, s := range c.ordered() {
		if bytes > 0 && s.state == having {
			bytes -= s.bytes()
			c.end(s)
		}
	}
}

// join adds an announcer: he may hand out chunks to pass on. If this node hands
// them out too, one of the two stops.
func (c *core) join(s *session, p peer.ID, now time.Time) {
	if !slices.Contains(s.announcers, p) {
		s.announcers = append(s.announcers, p)
	}
	if s.origin && p != c.self && precedes(s.id, p, c.self) {
		s.origin, c.stale = false, true
		s.standby = now.Add(c.estimate(s.shape) + slack)
	}
}

// precedes says which of two announcers of one block goes on, for each block
// another.
func precedes(id sessionID, a, b peer.ID) bool {
	return cmp.Or(cmp.Compare(spread(id, a), spread(id, b)), cmp.Compare(a, b)) < 0
}

// spread hashes a peer and a number (FNV-1a).
func spread(n sessionID, p peer.ID) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(p) {
		h = (h ^ uint64(p[i])) * 1099511628211
	}
	for range 8 {
		h = (h ^ uint64(n&0xff)) * 1099511628211
		n >>= 8
	}
	return h
}

// own takes this node's block and announces it. If another announced it before,
// this node stands by.
func (c *core) own(e evOwn, now time.Time) {
	if c.over.had[e.head.id()] {
		return // others cast it, and all is done
	}
	s := c.sessions[e.head.id()]
	fresh := s == nil
	if fresh {
		if err := c.begin(e.head, now); err != nil {
			c.refuse(c.self, wire.ReasonOf(err))
			return
		}
		s = c.sessions[e.head.id()]
	}
	s.fill(e.code)
	if s.state != having {
		c.finish(s, now, fresh)
	}
	s.mine, s.body = e.head, e.code.body
	if fresh {
		c.join(s, c.self, now)
		c.emit(s, now)
	} else {
		s.standby, c.stale = s.opened.Add(c.estimate(s.shape)+slack), true
	}
}

// have ends the gathering of a block that came another way.
func (c *core) have(e evHave, now time.Time) {
	for _, s := range c.ordered() {
		if s.head.Number == e.number && s.head.Hash == e.hash && s.state != having {
			c.finish(s, now, false)
		}
	}
}

// bar refuses an announcer for an hour, and gives up what he announced.
func (c *core) bar(p peer.ID, now time.Time) {
	if len(c.barred) >= maxBarred {
		clear(c.barred)
	}
	c.barred[p] = now.Add(barTime)
	for _, s := range c.ordered() {
		if s.head.Announcer == p && len(s.announcers) == 1 && s.state == gathering {
			c.pull(s)
		}
	}
}

// expect asks for patience with a block: it is under way.
func (c *core) expect(s *session, until time.Time) {
	if !s.expected.Equal(until) {
		s.expected = until
		c.do(fxExpect{s.head.Number, until})
	}
}

// end forgets a session. If its block isn't here, it is pulled.
func (c *core) end(s *session) {
	if s.state == gathering {
		c.pull(s)
	}
	if !s.untold.IsZero() {
		c.publish(s)
	}
	delete(c.sessions, s.id)
	c.over.add(s.id, s.state == having)
	c.do(fxClosed{s.bytes()})
}

// A ring remembers the sessions that ended last, and whether the block was here.
type ring struct {
	size int
	ids  []sessionID
	next int
	had  map[sessionID]bool
}

func (r *ring) add(id sessionID, had bool) {
	if r.had == nil {
		r.had = make(map[sessionID]bool, r.size)
	}
	_, known := r.had[id]
	r.had[id] = had
	switch {
	case known:
	case len(r.ids) < r.size:
		r.ids = append(r.ids, id)
	default:
		delete(r.had, r.ids[r.next])
		r.ids[r.next] = id
		r.next = (r.next + 1) % r.size
	}
}

func (r *ring) has(id sessionID) bool {
	_, ok := r.had[id]
	return ok
}

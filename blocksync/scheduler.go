package blocksync

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// The scheduler decides which missing blocks are asked of whom. It is a pure
// state machine: step takes what happened and the time and returns what to do.
//
// It follows the numbers from the ledger's height up to reach ahead. Each is
// missing, being fetched, or held by the window. A missing number is pulled
//
//   - at once, if it was announced as a body too large for gossip: from the
//     announcers first, then from anyone who claims the height;
//   - after a grace, if a higher block came or a peer claims it: repair is
//     silent while the push path works.
//
// Consecutive missing numbers make slices of at most sliceBlocks blocks and
// about sliceBytes bytes. A peer has as many in flight as it has earned: one at
// first, one more with each that it serves, at most four. Who is unknown is
// tried once, then the fastest are asked first. What is held and what is in
// flight stay within the budget together; only the head, the first missing
// number, may pass it, and may use one slice more than its peer has earned.
//
// When the head's slice lingers and a faster peer is idle, that one is asked
// for the same: whoever is first wins, and the other is cancelled.
//
// Heights are hints. A peer that claims what it then doesn't have, is slow,
// silent or busy is left alone for a while, longer each time; one that sends
// wrong bytes is banned. What it was asked for is missing again at once.
//
// Invariants: no number is in two slices in flight, but for the head's one
// second copy; a peer has at most its credit in flight, and one for the head; no
// slice goes to a peer that is away or doesn't claim it; once one honest peer
// claims a height and answers, every number below it comes to be held.

// Limits. Their sources are LIBP2P.md 6 and PROMISES T15.
const (
	sliceBlocks = 32
	sliceBytes  = 4 << 20
	firstSlice  = 8                      // blocks asked for while their size is unknown
	maxCredit   = 4                      // slices in flight per peer
	maxSources  = 1024                   // peers remembered; the gone, then the lowest leave first
	maxNamed    = 4                      // announcers remembered per number
	measurable  = 64 << 10               // bytes from which a slice tells a rate
	floorRate   = 128 << 10              // bytes a second; slower for slowAfter is too slow
	slowAfter   = 15 * time.Second       // and a slice without a byte for
	silentAfter = 2 * time.Second        // is given up
	parkedMost  = 10 * time.Second       // a slice may wait for a configuration block
	patience    = 250 * time.Millisecond // before the head is asked for twice
	defaultWait = 1 * time.Second        // a peer that may be fetching it itself is asked to wait
	banned      = 60 * time.Second
	awayFirst   = 1 * time.Second // after silence, slowness, a broken stream
	awayMost    = 60 * time.Second
	lackFirst   = 100 * time.Millisecond // after "busy" or "not yet"
	lackMost    = 5 * time.Second
	falseFirst  = 30 * time.Second // after a height that was not true
)

// slot is one number between the ledger's height and the reach.
type slot struct {
	held      bool
	size      int64     // bytes held, or announced
	since     time.Time // a higher block came, and this one wasn't there
	announced bool
	named     []peer.ID // who announced it
	copies    int       // slices in flight that will bring it
}

// slice is one range in flight.
type slice struct {
	id       uint64
	peer     peer.ID
	from, to uint64
	next     uint64 // first number that hasn't come
	bytes    int64
	began    time.Time
	moved    time.Time // last byte
	quiet    time.Duration
	parked   time.Time // zero unless it waits for a configuration block
	claimed  bool      // the peer had claimed the height
	doubled  bool      // another was asked for the same, because this one lingers
}

// scheduler is the state. It is not safe for concurrent use.
type scheduler struct {
	self   peer.ID
	reach  uint64
	budget int64
	grace  time.Duration

	height  uint64 // the ledger's
	top     uint64 // highest number that certainly exists, plus one
	slots   []slot // number n at n % reach
	sources map[peer.ID]*source
	slices  map[uint64]*slice
	lastID  uint64
	average float64   // bytes of a block; 0 while none came
	bytes   int64     // held
	able    []*source // scratch of idle
	out     []effect
}

func newScheduler(self peer.ID, height, reach uint64, budget int64, grace time.Duration) *scheduler {
	return &scheduler{
		self: self, reach: reach, budget: budget, grace: grace,
		height: height, top: height,
		slots:   make([]slot, reach),
		sources: make(map[peer.ID]*source),
		slices:  make(map[uint64]*slice),
	}
}

// step takes one event in. The effects are valid until the next step.
func (s *scheduler) step(e event, now time.Time) []effect {
	s.out = s.out[:0]
	switch e := e.(type) {
	case evMoved:
		if f := s.slices[e.id]; f != nil {
			f.bytes += e.bytes
			f.moved = now
		}
		return nil
	case evArrived:
		s.arrived(e, now)
		return s.out
	case evHeld:
		if s.held(e, now) {
			return s.out // as expected: nothing new is missing
		}
	case evDropped:
		s.dropped(e.number)
	case evSized:
		if v := s.at(e.number); s.within(e.number) && !v.held {
			v.size = e.size
		}
		return nil
	case evCommitted:
		s.committed(e.height, now)
	case evAnnounced:
		s.announced(e, now)
	case evHeight:
		if p := s.source(e.peer); p != nil && p.claim(e.height, now, s.grace) {
			s.do(fxLowered{e.peer})
		}
	case evGone:
		s.leave(e.peer)
	case evBad:
		s.ban(e.peer, now)
	case evParked:
		s.park(e, now)
	case evDone:
		s.done(e.id, now)
	case evFailed:
		s.failed(e, now)
	case evTick:
	}
	s.expire(now)
	s.assign(now)
	s.hasten(now)
	s.do(fxWake{s.wake(now)})
	return s.out
}

func (s *scheduler) do(e effect) { s.out = append(s.out, e) }

func (s *scheduler) at(n uint64) *slot { return &s.slots[n%s.reach] }

func (s *scheduler) within(n uint64) bool { return n >= s.height && n-s.height < s.reach }

// exists notes that number n is there for certain: what is missing below it is
// missing since now.
func (s *scheduler) exists(n uint64, now time.Time) {
	end := min(n, s.height+s.reach-1)
	for k := max(s.top, s.height); k < end; k++ {
		if v := s.at(k); !v.held && v.since.IsZero() {
			v.since = now
		}
	}
	if n < s.height+s.reach {
		s.top = max(s.top, n+1)
	}
}

// held notes a block in the window, and tells whether a slice was to bring it.
func (s *scheduler) held(e evHeld, now time.Time) (expected bool) {
	if !s.within(e.number) {
		return false
	}
	if p := s.source(e.from); p != nil {
		p.shown = max(p.shown, e.number+1)
	}
	v := s.at(e.number)
	if !v.held {
		v.held, v.size = true, e.size
		s.bytes += e.size
		if s.average == 0 {
			s.average = float64(e.size)
		}
		s.average += (float64(e.size) - s.average) / 8
	}
	s.exists(e.number, now)
	if v.copies > 0 {
		s.prune(now)
		return true
	}
	return false
}

func (s *scheduler) dropped(n uint64) {
	if v := s.at(n); s.within(n) && v.held {
		s.bytes -= v.size
		v.held = false
	}
}

func (s *scheduler) committed(height uint64, now time.Time) {
	if height <= s.height {
		return
	}
	for n := s.height; n < min(height, s.height+s.reach); n++ {
		v := s.at(n)
		if v.held {
			s.bytes -= v.size
		}
		*v = slot{}
	}
	s.height, s.top = height, max(s.top, height)
	s.prune(now)
}

func (s *scheduler) announced(e evAnnounced, now time.Time) {
	if !s.within(e.number) {
		return
	}
	v := s.at(e.number)
	for _, id := range e.from {
		p := s.source(id)
		if p == nil {
			continue
		}
		p.shown = max(p.shown, e.number+1)
		if len(v.named) < maxNamed && !has(v.named, id) {
			v.named = append(v.named, id)
		}
	}
	if !v.held {
		v.announced, v.size = true, e.size
	}
	s.exists(e.number, now)
}

func (s *scheduler) arrived(e evArrived, now time.Time) {
	f := s.slices[e.id]
	if f == nil || e.number != f.next || f.next >= f.to {
		return
	}
	f.moved = now
	f.next++
	if s.within(e.number) {
		s.at(e.number).copies--
	}
}

func (s *scheduler) park(e evParked, now time.Time) {
	f := s.slices[e.id]
	switch {
	case f == nil:
	case e.parked:
		f.parked = now
	case !f.parked.IsZero():
		f.began = f.began.Add(now.Sub(f.parked))
		f.moved, f.parked = now, time.Time{}
	}
}

// prune cancels slices that can bring nothing more. One that a second peer
// overtook has shown how slow its peer is.
func (s *scheduler) prune(now time.Time) {
	for _, f := range s.ordered() {
		useful := f.next == f.to // its end is still to come
		for n := max(f.next, s.height); n < f.to && !useful; n++ {
			useful = s.within(n) && !s.at(n).held
		}
		if useful {
			continue
		}
		s.end(f)
		if p := s.sources[f.peer]; p != nil && f.doubled {
			p.overtaken(f.bytes, now.Sub(f.began), now)
		}
		s.do(fxCancel{id: f.id})
	}
}

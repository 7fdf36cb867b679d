package blocksync

import (
	"slices"
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
//     silent while the push path works. What the push path has begun to bring
//     is expected, and waits until that says that it can't.
//
// Consecutive missing numbers make slices, of at most sliceBlocks blocks and
// about as many bytes as their peer brings in a quarter of a second. A peer's
// window is one slice at first, one more with each that it serves, at most four,
// and no more than it brings in 600 ms. Who is unknown is tried once, then who
// will bring it first is asked first: the fastest, unless he has enough to do.
// What is held and what is in flight stay within the budget together; only the
// head, the first missing number, may pass it, and may use one slice more than
// its peer has earned.
//
// When the head's slice lingers, another peer is asked for the same, one from
// which something comes just now if there is one: whoever is first wins, and the
// other is cancelled. From whom nothing comes at all meanwhile, what else he was
// asked for is taken.
//
// Heights are hints. A peer that claims what it then doesn't have, is slow,
// silent or busy is left alone for a while, longer each time; one that sends
// wrong bytes is banned. What it was asked for is missing again at once. If
// nobody else is there to be asked for the head, one that is left alone is
// asked all the same, every few seconds; one that is banned or lied is not.
//
// Invariants: no number is in two slices in flight, but for the head's copies; a peer has at most its credit in flight, and one for the head; no
// slice goes to a peer that doesn't claim it or is banned, nor, but for the
// head, to one that is left alone; once one honest peer claims a height and
// answers, every number below it comes to be held.

// Limits. Their sources are LIBP2P.md 6 and PROMISES T15.
const (
	sliceBlocks = maxCount
	sliceBytes  = 4 << 20
	sliceLeast  = 256 << 10              // bytes, however slow the peer
	sliceFirst  = 256 << 10              // of a peer not measured yet
	sliceTime   = 250 * time.Millisecond // a slice is what a peer brings in this time
	windowTime  = 600 * time.Millisecond // a peer is given no more than it brings in this time
	sluggishBy  = 16                     // so many times slower than the fastest, a peer is asked only
	sluggishFor = 10 * time.Second       // once in this time, or when nobody else can be
	firstSlice  = 4                      // blocks asked for while their size is unknown
	maxCopies   = 3                      // of the head, in flight
	maxCredit   = 4                      // slices in flight per peer
	maxSources  = 1024                   // peers remembered; the gone, then the lowest leave first
	maxNamed    = 4                      // announcers remembered per number
	measurable  = 64 << 10               // bytes from which a slice tells a rate
	floorRate   = 128 << 10              // bytes a second; slower for slowAfter is too slow
	slowAfter   = 15 * time.Second
	parkedMost  = 10 * time.Second       // a slice may wait for a configuration block
	patience    = 250 * time.Millisecond // before the head is asked for twice
	defaultWait = 1 * time.Second        // a peer that may be fetching it itself is asked to wait
	banned      = 60 * time.Second
	awayFirst   = 4 * time.Second // after silence, slowness, a broken stream
	awayMost    = 60 * time.Second
	lackFirst   = 100 * time.Millisecond // after "busy" or "not yet"
	lackMost    = 5 * time.Second
	falseFirst  = 30 * time.Second       // after a height that was not true
	anybody     = 500 * time.Millisecond // after a failure one who is left alone is asked, if nobody else is there,
	anybodyMost = 4 * time.Second        // doubled with each in a row
)

// terms are what a scheduler works by.
type terms struct {
	self    peer.ID
	reach   uint64        // how many numbers from the ledger's height on it follows
	budget  int64         // bytes held and in flight
	grace   time.Duration // how long the push path has
	quiet   time.Duration // a slice without a byte for so long is given up
	look    time.Duration // it looks at least so often, though nothing happens
	most    uint64        // blocks in a slice
	retries int           // failures in a row, from which on a peer is left alone for awayMost
	repair  bool          // gaps are pulled; else only what was announced as too large for gossip
}

// slot is one number between the ledger's height and the reach.
type slot struct {
	held      bool
	size      int64     // bytes held, being read, or announced; 0: unknown
	said      int64     // bytes announced
	since     time.Time // a higher block came, and this one wasn't there
	expected  time.Time // until when it is on its way by push
	announced bool
	named     []peer.ID // who announced it
	copies    int       // slices in flight that will bring it
}

// scheduler is the state. It is not safe for concurrent use.
type scheduler struct {
	terms

	height  uint64 // the ledger's
	top     uint64 // highest number that certainly exists, plus one
	lead    uint64 // the head: the lowest number that isn't held
	first   uint64 // none below is missing: each is held or in flight
	slots   []slot // number n at n % reach
	sources map[peer.ID]*source
	slices  map[uint64]*slice
	lastID  uint64
	average float64   // bytes of a block; 0 while none came
	bytes   int64     // held
	known   int64     // bytes in flight, of blocks whose size is known
	unknown int64     // blocks in flight, of unknown size
	heading uint64    // the slice that brings the head, 0: none
	awaited []uint64  // numbers that were expected
	able    []*source // scratch of idle
	out     []effect
}

func newScheduler(t terms, height uint64) *scheduler {
	return &scheduler{
		terms:  t,
		height: height, top: height, lead: height, first: height,
		slots:   make([]slot, t.reach),
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
			if p := s.sources[f.peer]; p != nil {
				p.got, p.moved, p.stalled = p.got+e.bytes, now, false
			}
		}
		return nil
	case evArrived:
		s.arrived(e, now)
		return nil
	case evSized:
		if s.within(e.number) && !s.at(e.number).held {
			s.change(e.number, func(v *slot) { v.size = e.size })
		}
		return nil
	case evHeld:
		if s.held(e, now) {
			return s.out // as expected: nothing new is missing
		}
	case evDropped:
		s.dropped(e.number)
	case evCommitted:
		s.committed(e.height, now)
	case evAnnounced:
		s.announced(e, now)
	case evExpected:
		if s.within(e.number) {
			s.at(e.number).expected = e.until
			if !slices.Contains(s.awaited, e.number) {
				s.awaited = append(s.awaited, e.number)
			}
		}
	case evHeight:
		p := s.source(e.peer)
		if p != nil && p.claim(e.height, now, s.grace) {
			s.do(fxLowered{e.peer})
		}
		if p == nil || e.height <= s.first {
			return s.out // there is nothing to ask it for
		}
	case evGone:
		s.leave(e.peer)
	case evBad:
		s.ban(e.peer, now)
	case evParked:
		s.park(e, now)
	case evRead:
		s.read(e.id)
	case evDone:
		s.done(e.id, now)
	case evFailed:
		s.failed(e, now)
	case evHurry:
		s.hurry(now)
	case evTick:
	}
	s.expire(now)
	s.hasten(now)
	s.assign(now)
	s.heading = 0
	if f := s.bringing(s.lead); f != nil {
		s.heading = f.id
	}
	s.do(fxWake{s.wake(now)})
	return s.out
}

func (s *scheduler) do(e effect) { s.out = append(s.out, e) }

func (s *scheduler) at(n uint64) *slot { return &s.slots[n%s.reach] }

func (s *scheduler) within(n uint64) bool { return n >= s.height && n-s.height < s.reach }

// end is the number behind the last that is followed.
func (s *scheduler) end() uint64 { return s.height + s.reach }

// change changes the slot of number n and keeps the count of what is in flight.
func (s *scheduler) change(n uint64, by func(*slot)) {
	v := s.at(n)
	s.count(v, -1)
	by(v)
	s.count(v, 1)
}

func (s *scheduler) count(v *slot, sign int64) {
	switch {
	case v.held || v.copies == 0:
	case v.size > 0:
		s.known += sign * v.size
	default:
		s.unknown += sign
	}
}

// exists notes that number n is there for certain: what is missing below it is
// missing since now.
func (s *scheduler) exists(n uint64, now time.Time) {
	for k := max(s.top, s.height); k < min(n, s.end()-1); k++ {
		if v := s.at(k); !v.held && v.since.IsZero() {
			v.since = now
		}
	}
	if n < s.end() {
		s.top = max(s.top, n+1)
	}
}

// held notes a block in the window, and tells whether that was expected and
// changes nothing but the head's progress.
func (s *scheduler) held(e evHeld, now time.Time) (expected bool) {
	if !s.within(e.number) {
		return false
	}
	if p := s.source(e.from); p != nil {
		p.shown = max(p.shown, e.number+1)
		if e.slice != 0 {
			p.blocks++
		}
	}
	if v := s.at(e.number); !v.held {
		s.change(e.number, func(v *slot) { v.held, v.size = true, e.size })
		s.bytes += e.size
		if s.average == 0 {
			s.average = float64(e.size)
		}
		s.average += (float64(e.size) - s.average) / 8
	}
	s.exists(e.number, now)
	expected = e.slice != 0 || s.at(e.number).copies > 0
	if s.at(e.number).copies > 0 {
		s.prune(now)
	}
	for s.within(s.lead) && s.at(s.lead).held {
		s.lead++
	}
	if f := s.slices[s.heading]; expected && (f == nil || !f.brings(s.lead)) {
		return false // another slice brings the head now
	}
	return expected
}

func (s *scheduler) dropped(n uint64) {
	if v := s.at(n); s.within(n) && v.held {
		s.bytes -= v.size
		s.change(n, func(v *slot) { v.held, v.size = false, 0 })
		s.lead, s.first = min(s.lead, n), min(s.first, n)
	}
}

func (s *scheduler) committed(height uint64, now time.Time) {
	if height <= s.height {
		return
	}
	for n := s.height; n < min(height, s.end()); n++ {
		if v := s.at(n); v.held {
			s.bytes -= v.size
		}
		s.change(n, func(v *slot) { *v = slot{} })
	}
	s.height, s.top = height, max(s.top, height)
	s.lead, s.first = max(s.lead, height), max(s.first, height)
	for s.within(s.lead) && s.at(s.lead).held {
		s.lead++
	}
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
		s.change(e.number, func(v *slot) { v.announced, v.size, v.said, v.expected = true, e.size, e.size, time.Time{} })
	}
	s.exists(e.number, now)
}

// hurry makes everything due that is missing, and everyone worth asking who
// wasn't found to be wrong.
func (s *scheduler) hurry(now time.Time) {
	for n := s.height; n < min(s.top, s.end()); n++ {
		if v := s.at(n); !v.since.IsZero() {
			v.since = now.Add(-s.grace)
		}
	}
	for _, p := range s.sources {
		p.away = time.Time{}
		for i := range p.hints {
			p.hints[i].at = now.Add(-s.grace)
		}
	}
}

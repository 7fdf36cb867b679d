package blocksync

import (
	"cmp"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// slice is one range in flight: from the question until all that came of it was
// taken.
type slice struct {
	id       uint64
	peer     peer.ID
	from, to uint64
	came     [sliceBlocks / 64]uint64 // bit n-from: block n was taken
	left     int                      // blocks not taken
	bytes    int64
	asked    int64 // about how many bytes it is
	began    time.Time
	moved    time.Time // last byte
	quiet    time.Duration
	parked   int       // blocks of it that wait for a configuration block
	since    time.Time // they do since then
	read     bool      // all that will come has been read; what is left of it is checked
	claimed  bool      // the peer had claimed the height
	doubled  bool      // another was asked for the same, because this one lingers
}

// brings tells whether block n is still to come from f.
func (f *slice) brings(n uint64) bool {
	at := n - f.from
	return f.from <= n && n < f.to && f.came[at/64]>>(at%64)&1 == 0
}

// each calls visit with the numbers that are followed and still to come from f.
func (s *scheduler) each(f *slice, visit func(n uint64)) {
	for n := max(f.from, s.height); n < f.to; n++ {
		if f.brings(n) && s.within(n) {
			visit(n)
		}
	}
}

func (s *scheduler) fetch(p *source, from, to uint64, wait time.Duration, now time.Time) {
	s.lastID++
	f := &slice{
		id: s.lastID, peer: p.id, from: from, to: to, left: int(to - from),
		began: now, moved: now, quiet: s.quiet + wait, claimed: from < p.height,
	}
	s.slices[f.id] = f
	s.each(f, func(n uint64) {
		f.asked += s.estimate(n)
		s.change(n, func(v *slot) { v.copies++ })
	})
	p.asked(f.asked, now)
	s.do(fxFetch{id: f.id, peer: p.id, from: from, to: to, wait: wait, body: s.at(from).announced})
}

func (s *scheduler) arrived(e evArrived, now time.Time) {
	f := s.slices[e.id]
	if f == nil || !f.brings(e.number) {
		return
	}
	at := e.number - f.from
	f.came[at/64] |= 1 << (at % 64)
	f.left--
	if !f.read {
		f.moved = now
	}
	if s.within(e.number) {
		s.change(e.number, func(v *slot) { v.copies-- })
		if v := s.at(e.number); v.copies == 0 && !v.held {
			s.first = min(s.first, e.number) // unless it is held in a moment
		}
	}
}

func (s *scheduler) park(e evParked, now time.Time) {
	f := s.slices[e.id]
	switch {
	case f == nil:
	case e.parked:
		if f.parked++; f.parked == 1 {
			f.since = now
		}
	case f.parked > 0:
		if f.parked--; f.parked == 0 {
			f.began = f.began.Add(now.Sub(f.since))
			f.moved = now
		}
	}
}

// read notes that all of a slice is here. Its peer has done its part.
func (s *scheduler) read(id uint64) {
	f := s.slices[id]
	if f == nil || f.read {
		return
	}
	f.read = true
	if p := s.sources[f.peer]; p != nil {
		p.letGo(f.asked)
		p.bytes += uint64(f.bytes)
		p.served(f.moved, maxCredit)
	}
}

// done ends a slice of which all that came was taken. A short one isn't a
// fault: a server stops at its own budget, and what is left is missing again.
func (s *scheduler) done(id uint64, now time.Time) {
	f := s.slices[id]
	if f == nil {
		return
	}
	s.read(id)
	s.drop(f, false)
	s.prune(now)
}

// drop takes a slice out; what it didn't bring is missing again. With forget,
// what it said of their sizes isn't believed any more.
func (s *scheduler) drop(f *slice, forget bool) {
	delete(s.slices, f.id)
	s.each(f, func(n uint64) {
		s.change(n, func(v *slot) {
			v.copies--
			if forget && v.copies == 0 && !v.held {
				v.size = v.said
			}
		})
		if v := s.at(n); v.copies == 0 && !v.held {
			s.first = min(s.first, n)
		}
	})
	if p := s.sources[f.peer]; p != nil && !f.read {
		p.letGo(f.asked)
	}
}

// prune cancels slices that can bring nothing more. One that a second peer
// overtook has shown how slow its peer is.
func (s *scheduler) prune(now time.Time) {
	for _, f := range s.ordered() {
		useful := f.left == 0 // its end is still to come
		s.each(f, func(n uint64) { useful = useful || !s.at(n).held })
		if useful {
			continue
		}
		s.drop(f, false)
		if p := s.sources[f.peer]; p != nil && f.doubled && !f.read {
			p.overtaken(f.bytes, now.Sub(f.began), now)
		}
		s.do(fxCancel{id: f.id})
	}
}

// expire gives up slices that stand still or crawl.
func (s *scheduler) expire(now time.Time) {
	for _, f := range s.ordered() {
		at, slow := s.deadline(f)
		if at.After(now) {
			continue
		}
		s.drop(f, true)
		if p := s.sources[f.peer]; p != nil && slow {
			p.failed(now, awayFirst, awayMost, s.retries, "too slow")
		}
		s.do(fxCancel{id: f.id, slow: slow})
	}
}

// deadline returns when slice f is given up unless more of it comes, and
// whether that is its peer's doing.
func (s *scheduler) deadline(f *slice) (at time.Time, slow bool) {
	switch {
	case f.parked > 0:
		return f.since.Add(parkedMost), false
	case f.read:
		return f.moved.Add(time.Hour), false
	}
	at = f.moved.Add(f.quiet)
	// Below the floor since the beginning: the bytes that came pay for so long.
	paid := time.Duration(float64(f.bytes) / floorRate * float64(time.Second))
	if crawl := f.began.Add(max(slowAfter, paid)); crawl.Before(at) {
		at = crawl
	}
	return at, true
}

// hasten asks another peer for what blocks the head.
func (s *scheduler) hasten(now time.Time) {
	n := s.lead
	f := s.bringing(n)
	if f == nil || f.read || s.at(n).copies >= maxCopies {
		return
	}
	copies := s.at(n).copies
	best := s.helper(n, f, now)
	if best == nil || now.Before(s.lingers(f, best)) || copies > 1 && !best.lively(now) {
		return
	}
	to := n + 1
	for to < f.to && s.at(to).copies == copies && f.brings(to) && !s.at(to).held && to < max(best.height, best.shown) {
		to++
	}
	wait := time.Duration(0)
	if n >= best.height {
		wait = defaultWait
	}
	f.doubled = true
	s.still(f, now)
	s.fetch(best, n, to, wait, now)
}

// helper returns whom to ask for number n too, which f is to bring: one from
// which something comes just now; else one that was tried, for one that wasn't
// may be as bad.
func (s *scheduler) helper(n uint64, f *slice, now time.Time) (best *source) {
	worth := func(p *source) int {
		switch {
		case p.lively(now):
			return 2
		case p.rate > 0:
			return 1
		}
		return 0
	}
	for _, p := range s.sources {
		if p.id == f.peer || n >= max(p.height, p.shown) || !s.free(p, n, now, true) || s.asked(p.id, n) {
			continue
		}
		if best == nil || worth(p) > worth(best) || worth(p) == worth(best) && s.better(p, best, n) {
			best = p
		}
	}
	return best
}

// asked tells whether a peer is to bring number n.
func (s *scheduler) asked(id peer.ID, n uint64) bool {
	for _, f := range s.slices {
		if f.peer == id && f.brings(n) {
			return true
		}
	}
	return false
}

// still takes from the peer of f, if nothing at all comes from it, what else it
// was asked for, and gives it nothing more until something does.
func (s *scheduler) still(f *slice, now time.Time) {
	p := s.sources[f.peer]
	if p == nil || now.Before(latest(p.moved, f.began).Add(patience+f.quiet-s.quiet)) {
		return
	}
	p.stalled = true
	for _, g := range s.ordered() {
		if g.peer == p.id && g != f && !g.read {
			s.drop(g, true)
			s.do(fxCancel{id: g.id})
		}
	}
}

// lingers returns from when on slice f is worth asking p for too: when it
// stands still, or p would have brought it three times over.
func (s *scheduler) lingers(f *slice, p *source) time.Time {
	still := f.moved.Add(patience + f.quiet - s.quiet)
	if p.rate == 0 {
		return still
	}
	bytes := f.bytes
	s.each(f, func(n uint64) { bytes += s.estimate(n) })
	thrice := time.Duration(3 * float64(bytes) / p.rate * float64(time.Second))
	slow := f.began.Add(max(2*patience, thrice))
	if slow.Before(still) {
		return slow
	}
	return still
}

// bringing returns the slice in flight that will bring number n, the last that
// was asked for if there are several.
func (s *scheduler) bringing(n uint64) (last *slice) {
	if !s.within(n) || s.at(n).copies == 0 {
		return nil
	}
	for _, f := range s.slices {
		if f.brings(n) && (last == nil || f.id > last.id) {
			last = f
		}
	}
	return last
}

// flying returns about how many bytes are still to come.
func (s *scheduler) flying() int64 {
	return s.known + s.unknown*s.typical()
}

// estimate returns about how many bytes number n takes.
func (s *scheduler) estimate(n uint64) int64 {
	if v := s.at(n); v.size > 0 {
		return v.size
	}
	return s.typical()
}

func (s *scheduler) typical() int64 {
	if s.average == 0 {
		return sliceFirst / firstSlice
	}
	return max(int64(s.average), 1)
}

// ordered returns the slices in flight in the order they were asked for.
func (s *scheduler) ordered() []*slice {
	all := make([]*slice, 0, len(s.slices))
	for _, f := range s.slices {
		all = append(all, f)
	}
	slices.SortFunc(all, func(a, b *slice) int { return cmp.Compare(a.id, b.id) })
	return all
}

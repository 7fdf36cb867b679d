package blocksync

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// assign hands out what is missing and due, the lowest first.
func (s *scheduler) assign(now time.Time) {
	able, most := s.idle(now)
	end := min(s.height+s.reach, max(s.top, most))
	room := s.budget - s.bytes - s.flying()
	head := true // nothing missing was passed yet
	for n := s.height; n < end && (head || len(able) > 0); {
		v := s.at(n)
		if v.held || v.copies > 0 {
			head = head && v.held
			n++
			continue
		}
		if !head && room < s.estimate(n) {
			return
		}
		p, wait := s.choose(n, now, head, able)
		head = false
		if p == nil {
			n++
			continue
		}
		to := s.cut(n, end, p, wait, room, now)
		for k := n; k < to; k++ {
			room -= s.estimate(k)
		}
		s.fetch(p, n, to, wait, now)
		n = to
		able, _ = s.idle(now)
	}
}

// idle returns who may be asked for something, and the highest claim of all who
// aren't away.
func (s *scheduler) idle(now time.Time) (able []*source, height uint64) {
	able = s.able[:0]
	for _, p := range s.sources {
		if p.gone || p.away.After(now) {
			continue
		}
		height = max(height, p.height)
		if p.flying < p.credit {
			able = append(able, p)
		}
	}
	s.able = able
	return able, height
}

// cut returns where a slice that begins at n ends.
func (s *scheduler) cut(n, end uint64, p *source, wait time.Duration, room int64, now time.Time) uint64 {
	most := uint64(sliceBlocks)
	if s.average == 0 {
		most = firstSlice
	}
	if wait > 0 {
		most = 1
	}
	bytes := s.estimate(n)
	to := n + 1
	for to < end && to-n < most {
		v := s.at(to)
		bytes += s.estimate(to)
		if v.held || v.copies > 0 || bytes > min(sliceBytes, room) || !s.due(to, p, now) {
			break
		}
		to++
	}
	return to
}

// choose returns whom to ask for number n, and how long he may wait for it; nil
// if nobody can be asked now. The head may go to a peer that isn't idle.
func (s *scheduler) choose(n uint64, now time.Time, head bool, able []*source) (best *source, wait time.Duration) {
	v := s.at(n)
	if v.announced {
		for _, id := range v.named {
			if p := s.sources[id]; p != nil && s.free(p, n, now, head) {
				return p, defaultWait
			}
		}
	}
	if best = s.claims(n, now, false, able); best == nil && head {
		best = s.claims(n, now, true, s.all())
	}
	if best != nil || n >= s.top || !s.due(n, nil, now) {
		return best, 0
	}
	for _, p := range able { // who has a higher block most likely has this one, or fetches it too
		if n < p.shown && s.free(p, n, now, false) && s.better(p, best, n) {
			best = p
		}
	}
	return best, defaultWait
}

// claims returns the best of those that claim number n and may be asked now.
func (s *scheduler) claims(n uint64, now time.Time, head bool, of []*source) (best *source) {
	for _, p := range of {
		if n < p.height && s.free(p, n, now, head) && s.due(n, p, now) && s.better(p, best, n) {
			best = p
		}
	}
	return best
}

// free tells whether p may be asked for number n at all.
func (s *scheduler) free(p *source, n uint64, now time.Time, head bool) bool {
	most := p.credit
	if head {
		most++
	}
	return !p.gone && !p.away.After(now) && n >= p.lowest && p.flying < most
}

// due tells whether number n may be pulled now, from p if it isn't nil.
func (s *scheduler) due(n uint64, p *source, now time.Time) bool {
	return !s.dueAt(n, p).After(now)
}

// dueAt returns when number n may be pulled. Below top there is proof that it
// exists; p's word may be older, or the only one.
func (s *scheduler) dueAt(n uint64, p *source) time.Time {
	at := time.Unix(math.MaxInt32, 0)
	if p != nil {
		at = p.due(n, s.grace)
	}
	if n >= s.top {
		return at
	}
	proof := time.Time{} // of one that was held and let go, or that never comes by push
	if v := s.at(n); !v.announced && !v.since.IsZero() {
		proof = v.since.Add(s.grace)
	}
	if proof.Before(at) {
		return proof
	}
	return at
}

// better tells whether p is to be asked rather than q.
func (s *scheduler) better(p, q *source, n uint64) bool {
	if q == nil {
		return true
	}
	if c := cmp.Compare(p.speed(), q.speed()); c != 0 {
		return c > 0
	}
	if p.flying != q.flying {
		return p.flying < q.flying
	}
	return spread(s.self, p.id, n) < spread(s.self, q.id, n)
}

func (s *scheduler) fetch(p *source, from, to uint64, wait time.Duration, now time.Time) {
	s.lastID++
	f := &slice{
		id: s.lastID, peer: p.id, from: from, to: to, next: from,
		began: now, moved: now, quiet: silentAfter + wait, claimed: from < p.height,
	}
	s.slices[f.id] = f
	p.flying++
	for n := from; n < to; n++ {
		s.at(n).copies++
	}
	s.do(fxFetch{id: f.id, peer: p.id, from: from, to: to, wait: wait})
}

// hasten asks a second peer for what blocks the head.
func (s *scheduler) hasten(now time.Time) {
	n := s.head()
	if !s.within(n) || s.at(n).copies != 1 {
		return
	}
	f := s.bringing(n)
	var best *source
	for _, p := range s.sources {
		if p.id != f.peer && n < max(p.height, p.shown) && p.flying < p.credit && s.free(p, n, now, false) && s.better(p, best, n) {
			best = p
		}
	}
	if best == nil || now.Before(s.lingers(f, best)) {
		return
	}
	to := n + 1
	for to < f.to && s.at(to).copies == 1 && !s.at(to).held && to < max(best.height, best.shown) {
		to++
	}
	wait := time.Duration(0)
	if n >= best.height {
		wait = defaultWait
	}
	f.doubled = true
	s.fetch(best, n, to, wait, now)
}

// lingers returns from when on slice f is worth asking p for too: when it
// stands still, or p would have brought it three times over.
func (s *scheduler) lingers(f *slice, p *source) time.Time {
	still := f.moved.Add(patience + f.quiet - silentAfter)
	if p.rate == 0 {
		return still
	}
	var bytes int64
	for n := f.next; n < f.to; n++ {
		if s.within(n) {
			bytes += s.estimate(n)
		}
	}
	thrice := time.Duration(3 * float64(f.bytes+bytes) / p.rate * float64(time.Second))
	slow := f.began.Add(max(2*patience, thrice))
	if slow.Before(still) {
		return slow
	}
	return still
}

// expire gives up slices that stand still or crawl.
func (s *scheduler) expire(now time.Time) {
	for _, f := range s.ordered() {
		at, slow := s.deadline(f)
		if at.After(now) {
			continue
		}
		s.end(f)
		if p := s.sources[f.peer]; p != nil && slow {
			p.failed(now, awayFirst, awayMost)
		}
		s.do(fxCancel{id: f.id, slow: slow})
	}
}

// deadline returns when slice f is given up unless more of it comes, and
// whether that is its peer's doing.
func (s *scheduler) deadline(f *slice) (at time.Time, slow bool) {
	if !f.parked.IsZero() {
		return f.parked.Add(parkedMost), false
	}
	at = f.moved.Add(f.quiet)
	// Below the floor since the beginning: the bytes that came pay for so long.
	paid := time.Duration(float64(f.bytes) / floorRate * float64(time.Second))
	if crawl := f.began.Add(max(slowAfter, paid)); crawl.Before(at) {
		at = crawl
	}
	return at, true
}

// wake returns when something becomes due by time alone.
func (s *scheduler) wake(now time.Time) time.Time {
	at := now.Add(time.Hour)
	sooner := func(t time.Time) {
		if t.After(now) && t.Before(at) {
			at = t
		}
	}
	for _, f := range s.slices {
		t, _ := s.deadline(f)
		sooner(t)
	}
	if n := s.head(); s.within(n) && s.at(n).copies == 1 {
		f := s.bringing(n)
		for _, p := range s.sources {
			if p.id != f.peer && n < max(p.height, p.shown) {
				sooner(s.lingers(f, p))
			}
		}
	}
	for n := s.height; n < min(s.top, s.height+s.reach); n++ {
		if v := s.at(n); !v.held && v.copies == 0 {
			sooner(s.dueAt(n, nil))
		}
	}
	for _, p := range s.sources {
		if max(p.height, p.shown) > s.height {
			sooner(p.away)
			for _, h := range p.hints {
				sooner(h.at.Add(s.grace))
			}
		}
	}
	return at
}

// head returns the first number that isn't held.
func (s *scheduler) head() uint64 {
	n := s.height
	for s.within(n) && s.at(n).held {
		n++
	}
	return n
}

// bringing returns the slice in flight that will bring number n.
func (s *scheduler) bringing(n uint64) *slice {
	for _, f := range s.slices {
		if f.next <= n && n < f.to {
			return f
		}
	}
	return nil
}

// flying returns about how many bytes are still to come.
func (s *scheduler) flying() (bytes int64) {
	for _, f := range s.slices {
		for n := max(f.next, s.height); n < f.to; n++ {
			if s.within(n) && !s.at(n).held {
				bytes += s.estimate(n)
			}
		}
	}
	return bytes
}

// estimate returns about how many bytes number n takes.
func (s *scheduler) estimate(n uint64) int64 {
	if v := s.at(n); v.size > 0 {
		return v.size
	}
	if s.average == 0 {
		return sliceBytes / sliceBlocks
	}
	return int64(s.average)
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

// all returns everyone remembered.
func (s *scheduler) all() []*source {
	all := make([]*source, 0, len(s.sources))
	for _, p := range s.sources {
		all = append(all, p)
	}
	return all
}

func has(ids []peer.ID, id peer.ID) bool { return slices.Contains(ids, id) }

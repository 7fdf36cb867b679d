package blocksync

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// never is later than anything happens.
var never = time.Unix(math.MaxInt32, 0)

// assign hands out what is missing and due, the lowest first.
func (s *scheduler) assign(now time.Time) {
	able, most := s.idle(now)
	end := min(s.end(), max(s.top, most))
	room := s.budget - s.bytes - s.flying()
	beyond := ceiling(able)
	passed := false // a missing number was left
	for n := s.first; n < end; {
		if v := s.at(n); v.held || v.copies > 0 {
			n++
			if !passed {
				s.first = n
			}
			continue
		}
		head := n == s.lead
		if !head && (n >= beyond || room < s.estimate(n)) {
			return
		}
		p, wait := s.choose(n, now, head, able)
		if p == nil {
			passed = true
			n++
			continue
		}
		to := s.cut(n, end, p, wait, room, now)
		s.fetch(p, n, to, wait, now)
		for n < to {
			room -= s.estimate(n)
			n++
		}
		able, _ = s.idle(now)
		beyond = ceiling(able)
	}
}

// idle returns who may be asked for something that isn't the head, and the highest claim of all who
// aren't banned.
func (s *scheduler) idle(now time.Time) (able []*source, height uint64) {
	able = s.able[:0]
	var fastest float64
	for _, p := range s.sources {
		if p.gone || p.barred.After(now) {
			continue
		}
		height = max(height, p.height)
		if p.there(now) {
			fastest = max(fastest, p.rate)
			able = append(able, p)
		}
	}
	able = slices.DeleteFunc(able, func(p *source) bool { return p.busy() || p.sluggish(fastest, now) })
	s.able = able
	return able, height
}

// ceiling returns the number from which on none of these has anything.
func ceiling(of []*source) (n uint64) {
	for _, p := range of {
		n = max(n, p.height, p.shown)
	}
	return n
}

// cut returns where a slice that begins at n ends.
func (s *scheduler) cut(n, end uint64, p *source, wait time.Duration, room int64, now time.Time) uint64 {
	most := min(s.most, sliceBlocks)
	if s.average == 0 {
		most = min(most, firstSlice)
	}
	if wait > 0 {
		most = 1
	}
	limit := min(p.slice(), room)
	bytes := s.estimate(n)
	to := n + 1
	for to < end && to-n < most {
		v := s.at(to)
		bytes += s.estimate(to)
		if v.held || v.copies > 0 || bytes > limit || !s.due(to, p, now) {
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
	if !s.repair && !v.announced {
		return nil, 0
	}
	if best = s.claims(n, now, false, able); best == nil && head {
		best = s.claims(n, now, true, s.all())
	}
	if best == nil && n < s.top && s.due(n, nil, now) {
		for _, p := range able { // who has a higher block most likely has this one, or fetches it too
			if n < p.shown && s.free(p, n, now, false) && s.better(p, best, n) {
				best, wait = p, defaultWait
			}
		}
	}
	if best == nil && head {
		best = s.leftAlone(n, now)
	}
	return best, wait
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

// leftAlone returns, of those that claim number n and are left alone, the one
// that was asked longest ago, if that is long enough.
func (s *scheduler) leftAlone(n uint64, now time.Time) (best *source) {
	for _, p := range s.sources {
		if s.again(p, n).After(now) || !s.due(n, p, now) {
			continue
		}
		if best == nil || p.failedAt.Before(best.failedAt) || p.failedAt.Equal(best.failedAt) && p.id < best.id {
			best = p
		}
	}
	return best
}

// again returns when p may be asked for the head, number n, though it is left
// alone.
func (s *scheduler) again(p *source, n uint64) time.Time {
	if p.gone || p.flying > 0 || n < p.lowest || n >= p.height || p.away.IsZero() {
		return never
	}
	return latest(p.failedAt.Add(min(anybody<<min(p.strikes, 8), anybodyMost)), p.barred)
}

// free tells whether p may be asked for number n at all.
func (s *scheduler) free(p *source, n uint64, now time.Time, head bool) bool {
	most := p.credit
	if head {
		most++
	}
	return p.there(now) && n >= p.lowest && p.flying < most
}

// due tells whether number n may be pulled now, from p if it isn't nil.
func (s *scheduler) due(n uint64, p *source, now time.Time) bool {
	return !s.dueAt(n, p).After(now)
}

// dueAt returns when number n may be pulled. Below top there is proof that it
// exists; p's word may be older, or the only one.
func (s *scheduler) dueAt(n uint64, p *source) time.Time {
	at := s.provenAt(n, p)
	if v := s.at(n); s.within(n) && v.expected.After(at) {
		return v.expected
	}
	return at
}

func (s *scheduler) provenAt(n uint64, p *source) time.Time {
	at := never
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
	if c := cmp.Compare(p.when(p.slice()), q.when(q.slice())); c != 0 {
		return c < 0
	}
	if p.flying != q.flying {
		return p.flying < q.flying
	}
	return spread(s.self, p.id, n) < spread(s.self, q.id, n)
}

// wake returns when something becomes due by time alone.
func (s *scheduler) wake(now time.Time) time.Time {
	at := now.Add(s.look)
	sooner := func(t time.Time) {
		if t.After(now) && t.Before(at) {
			at = t
		}
	}
	for _, f := range s.slices {
		t, _ := s.deadline(f)
		sooner(t)
	}
	s.awaited = slices.DeleteFunc(s.awaited, func(n uint64) bool {
		if !s.within(n) || !s.at(n).expected.After(now) {
			return true
		}
		sooner(s.at(n).expected)
		return false
	})
	f := s.bringing(s.lead)
	alone := f != nil && s.at(s.lead).copies < maxCopies && !f.read
	for _, p := range s.sources {
		if max(p.height, p.shown) <= s.first && (!alone || s.lead >= max(p.height, p.shown)) {
			continue
		}
		if alone && p.id != f.peer {
			sooner(s.lingers(f, p))
		}
		sooner(latest(p.away, p.barred))
		if f == nil {
			sooner(s.again(p, s.lead))
		}
		for _, h := range p.hints {
			sooner(h.at.Add(s.grace))
		}
	}
	for n := s.first; n < min(s.top, s.end()); n++ {
		if v := s.at(n); !v.held && v.copies == 0 {
			sooner(s.dueAt(n, nil))
		}
	}
	return at
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

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

package election

import (
	"bytes"
	"slices"
	"time"
)

// What the machine knows of the orderers and of blocks that don't come; see
// machine.go.

// A sample is a height that the chain had at a time, at least.
type sample struct {
	tip uint64
	at  time.Time
}

type watch struct {
	asking  bool
	next    time.Time // question, no earlier
	turn    int64     // the last one that was looked at
	answer  time.Time // that came last
	ok      bool      // it was an orderer's
	hurry   bool      // something is amiss
	hint    uint64    // height that others told
	hintAt  time.Time // and that we have lacked since then
	asked   uint64    // hint that made us ask
	samples []sample  // ascending, above what we hold
	moved   time.Time // our height grew
	lag     uint64    // behind the newest sample, at the question before
	grows   bool      // the lag doesn't shrink
	since   time.Time // the leader is another since then
	ordered uint64    // the stream's
}

func (w *watch) failed(now time.Time) { w.ok, w.answer = false, now }

// stream begins to count what our orderer brings.
func (w *watch) stream(from uint64, now time.Time) { w.ordered, w.samples, w.since = from, nil, now }

// note remembers that the chain is so high.
func (w *watch) note(tip uint64, now time.Time) {
	if n := len(w.samples); n > 0 && w.samples[n-1].tip >= tip {
		return
	}
	if len(w.samples) == maxSamples {
		w.samples = slices.Delete(w.samples, 1, 2) // the oldest one counts
	}
	w.samples = append(w.samples, sample{tip, now})
}

// overdue says whether something is known for d and isn't held.
func (w *watch) overdue(held uint64, d time.Duration, now time.Time) bool {
	for _, s := range w.samples {
		if s.tip > held && now.Sub(later(s.at, w.since)) >= d {
			return true
		}
	}
	return false
}

// observe takes the facts in.
func (m *machine) observe(f facts, now time.Time) {
	w := &m.watch
	if f.height > m.facts.height || w.moved.IsZero() {
		w.moved = now
	}
	if m.role == leader {
		if f.ordered > w.ordered {
			w.ordered = f.ordered
			m.movedAt = now
		}
		if f.height > w.ordered {
			w.note(f.height, now)
		}
	}
	held := f.height
	if m.role == leader {
		held = w.ordered
	}
	w.samples = slices.DeleteFunc(w.samples, func(s sample) bool { return s.tip <= held })
	m.facts = f
}

// reach is what we tell of ourselves.
func (m *machine) reach() reach {
	now := m.last
	switch {
	case !m.settings.candidate:
		return cut
	case !m.blind && m.role != leader && (!m.watch.ok || now.Sub(m.watch.answer) > m.freshFor()):
		return cut
	case m.role == leader && m.facts.orderer == "" && !m.blind && now.Sub(m.linked) >= unfitAfter/2:
		return cut
	case now.Before(m.barUntil), now.Before(m.resigned):
		return barred
	}
	return able
}

// freshFor is how long an orderer's answer counts: in peace up to the next.
func (m *machine) freshFor() time.Duration {
	if m.leads() != nil && !m.watch.hurry {
		return fresh + watchEvery*time.Duration(m.near+1)
	}
	return fresh
}

// slot says whether it is our turn to ask an orderer: the followers take turns
// by the clock, so that together they ask every watchEvery.
func (m *machine) slot(now time.Time) bool {
	w := &m.watch
	i := now.UnixMilli() / watchEvery.Milliseconds()
	if i == w.turn {
		return false
	}
	w.turn = i
	n, before := 1, 0
	l := m.leads()
	for id, f := range m.fellows {
		if f.here && (l == nil || id != l.id) {
			n++
			if bytes.Compare(id[:], m.self[:]) < 0 {
				before++
			}
		}
	}
	return i%int64(n) == int64(before)
}

// look asks an orderer, if there is cause.
func (m *machine) look(now time.Time) {
	w := &m.watch
	tall := m.tallest()
	w.asked = min(w.asked, max(tall, m.facts.height)) // who told more has taken it back
	if m.blind || m.role == leader || !m.settings.candidate {
		w.hint = 0
		return
	}
	if !m.hints() || tall < w.hint {
		w.hint, w.hintAt = tall, now
	}
	mine := m.slot(now)
	if w.asking || now.Before(w.next) || !mine && !m.urgent(now) && !w.answer.IsZero() {
		return
	}
	if m.hinted(now) {
		w.asked = max(w.hint, tall)
	}
	w.asking, w.hurry = true, false
	m.out = append(m.out, effect{kind: probe})
}

// hints says whether somebody told of blocks that we lack, and haven't asked for.
func (m *machine) hints() bool { return m.watch.hint > max(m.facts.height, m.watch.asked) }

// hinted says whether that is a while ago.
func (m *machine) hinted(now time.Time) bool {
	return m.hints() && now.Sub(m.watch.hintAt) >= hintTime
}

// urgent says whether something is amiss.
func (m *machine) urgent(now time.Time) bool {
	w := &m.watch
	return m.leads() == nil || now.Sub(m.heard) >= m.missed() || m.hinted(now) || w.hurry || len(w.samples) > 0 || m.disconnected(now)
}

// tallest is the highest that somebody told, but the leader.
func (m *machine) tallest() uint64 {
	t := m.facts.tallest
	if l := m.leads(); l != nil && t[0].id == l.id {
		return t[1].height
	}
	return t[0].height
}

// probed takes an orderer's answer: its chain has tip blocks, and it has signed
// the last.
func (m *machine) probed(ok bool, tip uint64, now time.Time) {
	w := &m.watch
	before := m.reach()
	w.asking, w.ok, w.answer = false, ok, now
	if m.role == leader {
		if ok && tip > w.ordered {
			w.note(tip, now)
		}
		return
	}
	w.next = now.Add(hurry)
	if !ok {
		w.next = w.next.Add(m.random(hurry))
	}
	if ok && tip > m.facts.height {
		w.note(tip, now)
		lag := tip - m.facts.height
		w.grows = w.lag > 0 && lag >= w.lag
		w.lag = lag
	} else if ok {
		w.lag, w.grows = 0, false
	}
	if m.leads() == nil && before == cut && m.reach() != cut && m.role == following {
		m.standAt = later(m.standAt, now.Add(m.random(m.elect/orderly)))
	}
}

// starved says whether we lack what the orderers have signed, and not because we
// lag behind others.
func (m *machine) starved(now time.Time) bool {
	w := &m.watch
	if !w.overdue(m.facts.height, patience, now) {
		return false
	}
	still := now.Sub(later(w.moved, w.since)) >= patience
	first := m.tallest() <= m.facts.height
	return still || first && w.grows
}

// unfit says whether we should lead in the leader's place.
func (m *machine) unfit(now time.Time) bool {
	if !m.watch.ok || now.Sub(m.watch.answer) > fresh {
		return false
	}
	return m.starved(now) || !m.lacks.IsZero() && now.Sub(m.lacks) >= unfitAfter
}

// stalled says whether our orderer brings nothing although there is something.
func (m *machine) stalled(now time.Time) bool {
	w := &m.watch
	return w.overdue(w.ordered, stallAfter, now) && now.Sub(m.movedAt) >= stallAfter
}

package election

import (
	"bytes"
	"slices"
	"time"

	"grapevine/msp"
)

// What the machine does as time passes, in each of its roles; see machine.go.

// follow watches the leader, or waits for the time to stand.
func (m *machine) follow(now time.Time) {
	if m.leads() == nil {
		m.wait(now)
		return
	}
	silent := now.Sub(m.heard)
	if !now.Before(m.retellAt) && now.Before(m.retellTo) {
		m.retellAt = now.Add(m.pace())
		m.tellAll(false)
	}
	if f := m.fellows[m.top.id]; silent >= m.late() && silent < m.alive && f != nil && f.here && m.quiet(m.top.id) {
		m.tell(m.top.id, true) // a beat is late
	}
	switch {
	case silent >= m.alive:
		m.top = nil
		m.vacate("silent", now)
		m.wait(now)
		return
	case silent >= m.missed():
		m.ask(m.pace(), now)
	case now.Sub(m.direct) >= m.missed():
		m.askSome(heedTime*3/4, now)
	}
	if m.unfit(now) {
		m.ask(2*m.pace(), now)
		if m.mayStand(now) {
			m.propose(true, now)
		}
	}
}

// wait goes on without a leader.
func (m *machine) wait(now time.Time) {
	if m.top != nil && now.Sub(m.heard) >= m.elect+m.elect/2+2*m.pace() {
		m.record(m.top.id, now).passed = now.Add(passTime) // it stood, and never led
		m.top = nil
	}
	if m.top == nil && !now.Before(m.standAt) && m.mayStand(now) {
		m.propose(false, now)
		return
	}
	every := 2 * m.pace()
	if long := now.Sub(m.vacant); long > 2*m.alive {
		every = heedTime // nobody can lead, for now
		if !m.candidate {
			every = min(max(heedTime, long/2), lastAsk) // who leads tells it; it asks for those who can't
		}
	}
	m.ask(every, now)
}

// mayStand says whether we may be candidate: we reach an orderer, and are not
// barred, or nobody else could lead: who is barred waits longer.
func (m *machine) mayStand(now time.Time) bool {
	switch m.reach() {
	case able:
		return true
	case barred:
		if m.leads() == nil {
			return now.Sub(m.vacant) >= m.elect && !m.substitute(now)
		}
		long := m.watch.overdue(m.facts.height, 2*patience, now) || !m.lacks.IsZero() && now.Sub(m.lacks) >= 2*unfitAfter
		return long && !m.substitute(now)
	}
	return false
}

// substitute says whether another living neighbour could lead rather than we
// who are barred.
func (m *machine) substitute(now time.Time) bool {
	least := able
	l := m.leads()
	if now.Sub(m.barAt) < passTime && (l != nil || now.Sub(m.vacant) < 3*m.elect) {
		least = barred // we were the last, or so each of us thinks
	}
	for id, f := range m.fellows {
		if f.here && f.reach >= least && now.Sub(f.heard) < m.alive && (l == nil || l.id != id) {
			return true
		}
	}
	return false
}

// propose begins to stand.
func (m *machine) propose(unfit bool, now time.Time) {
	m.seen = max(m.seen, m.era) + 1
	m.role = candidate
	m.mine = &claim{
		id: m.self, act: standing, term: m.seen, seq: m.number(now),
		reach: m.reach(), height: m.facts.height, unfit: unfit,
	}
	m.votes = make(map[msp.PKIID]bool)
	m.until, m.beatAt = now.Add(m.elect), now.Add(m.pace())
	m.tellAll(true)
	m.stand(now)
}

// stand waits for votes.
func (m *machine) stand(now time.Time) {
	if !now.Before(m.until) || m.elected(now) {
		m.win(now)
		return
	}
	if !now.Before(m.beatAt) {
		c := *m.mine
		c.seq, c.raw = m.number(now), nil
		m.mine, m.beatAt = &c, now.Add(m.pace())
		m.tellAll(true)
	}
}

// elected says whether all neighbours that live have voted for us, but the
// leader that is silent or that we stand against.
func (m *machine) elected(now time.Time) bool {
	for id, f := range m.fellows {
		lives := f.here && now.Sub(f.heard) < m.alive
		if lives && !m.votes[id] && (m.top == nil || m.top.id != id) {
			return false
		}
	}
	return true
}

func (m *machine) win(now time.Time) {
	if l := m.top; l != nil && m.mine.unfit && !m.disconnected(now) {
		m.bar(l.id, now)
	}
	c := *m.mine
	c.act, c.since = leading, millis(now)
	if m.seen > c.term { // another knows a higher one, and hasn't said of whom
		m.seen++
		c.term = m.seen
	}
	m.mine, m.era, m.top = &c, c.term, nil
	m.role = leader
	m.linked, m.movedAt, m.told = now, now, ""
	m.calmAt = now.Add(restless)
	m.facts.orderer, m.facts.ordered = "", m.facts.height
	m.watch.stream(m.facts.height, now)
	if !m.relief {
		m.out = append(m.out, effect{kind: begin})
	}
	m.relief = false
	m.turned(m.mine, "elected")
	m.claim(now)
}

// claim is a leader's heartbeat.
func (m *machine) claim(now time.Time) {
	c := *m.mine
	c.seq, c.raw, c.orderer = m.number(now), nil, m.facts.orderer
	m.mine, m.told = &c, c.orderer
	m.beatAt = now.Add(m.beat())
	m.tellAll(false)
}

// lead claims the term, and yields if it brings nothing.
func (m *machine) lead(now time.Time) {
	if m.facts.orderer != "" || m.blind {
		m.linked = now
	}
	switch {
	case now.Sub(m.linked) >= m.yield:
		m.watch.failed(now)
		m.barSelf(now)
		m.abdicate("no orderer", now)
	case m.stalled(now):
		m.barSelf(now)
		m.abdicate("the orderer brings nothing", now)
	case !now.Before(m.beatDue(now)), m.told != m.facts.orderer:
		m.claim(now)
	}
}

// beatDue is when a leader beats next: half a beat earlier while it isn't calm.
func (m *machine) beatDue(now time.Time) time.Time {
	if now.Before(m.calmAt) {
		return m.beatAt.Add(-m.beat() / 2)
	}
	return m.beatAt
}

// abdicate yields: it is told to all, so that nobody waits.
func (m *machine) abdicate(why string, now time.Time) {
	c := *m.mine
	c.act, c.seq, c.raw, c.orderer = yielding, m.number(now), nil, ""
	m.cease()
	m.role, m.mine = following, nil
	m.vacate(why, now)
	b := m.ballot(true) // who else could lead?
	b.claim = &c
	m.out = append(m.out, effect{kind: tell, ballot: b})
}

// cease stops pulling.
func (m *machine) cease() {
	if m.role == leader || m.relief {
		m.out = append(m.out, effect{kind: end})
	}
	m.relief = false
}

// relieve ends the relief when the leader isn't barred any more, or another.
func (m *machine) relieve(now time.Time) {
	if l := m.leads(); m.relief && m.role != leader && (l == nil || !m.barredNow(l.id, now)) {
		m.cease()
	}
}

// vacate notes that there is no leader, and when we may stand: at once if we
// are the best that we know of.
func (m *machine) vacate(why string, now time.Time) {
	m.vacant, m.lacks = now, time.Time{}
	better := 0
	for id, f := range m.fellows {
		lives := f.here && now.Sub(f.heard) < m.alive
		if lives && f.reach != cut && outranks(f.reach, f.height, id, m.reach(), m.facts.height, m.self) {
			better++
		}
	}
	m.standAt = now.Add(time.Duration(min(better, 2)) * m.elect / orderly)
	if why != "" {
		m.turned(nil, why)
	}
}

// turned says that the leader is another.
func (m *machine) turned(c *claim, why string) {
	m.out = append(m.out, effect{kind: turned, claim: c, why: why})
}

// accept follows a leader.
func (m *machine) accept(c *claim, from msp.PKIID, now time.Time) {
	before := m.leads()
	if m.role == leader {
		if c.unfit && m.facts.orderer != "" {
			m.barSelf(now) // we brought too little
		}
		if m.barredNow(c.id, now) && m.facts.orderer != "" {
			m.relief = true
		} else {
			m.cease()
		}
	}
	if before != nil && before.id != c.id && c.unfit && m.role != leader && m.starved(now) {
		m.bar(before.id, now)
	}
	m.role, m.mine = following, nil
	m.seen, m.era = max(m.seen, c.term), max(m.era, c.term)
	m.top, m.heard = c, now
	if from == c.id {
		m.direct = now
	}
	if before == nil || before.id != c.id {
		m.watch.since, m.lacks = now, time.Time{}
		m.turned(c, "claimed")
	}
	if c.orderer != "" {
		m.lacks = time.Time{}
	} else if m.lacks.IsZero() {
		m.lacks = now
	}
	if before == nil || *before.name() != *c.name() {
		m.tellAll(false)
		m.retellAt, m.retellTo = now.Add(m.pace()), now.Add(4*m.pace())
		return
	}
	m.pass(from, now)
}

// ask asks all neighbours whom they support, at most once in every.
func (m *machine) ask(every time.Duration, now time.Time) {
	if now.Before(m.askAt) {
		return
	}
	m.askAt = now.Add(every)
	m.tellAll(true)
}

// askSome asks a few: of a leader that isn't connected, one way to hear will do.
func (m *machine) askSome(every time.Duration, now time.Time) {
	if now.Before(m.askAt) {
		return
	}
	m.askAt = now.Add(every)
	here := m.sorted(func(*fellow) bool { return true })
	for range min(heralds, len(here)) {
		i := int(m.random(time.Duration(len(here))))
		m.tell(here[i], true)
		here = slices.Delete(here, i, i+1)
	}
}

// number is the next of our claims' sequence.
func (m *machine) number(now time.Time) uint64 {
	m.seq = max(m.seq+1, millis(now))
	return m.seq
}

// bar keeps another from leading while somebody else can.
func (m *machine) bar(id msp.PKIID, now time.Time) {
	r := m.record(id, now)
	r.barred, r.bars, r.barAt = longer(r.bars, r.barAt, now)
}

// barSelf does so with us.
func (m *machine) barSelf(now time.Time) {
	m.barUntil, m.bars, m.barAt = longer(m.bars, m.barAt, now)
}

func longer(bars int, at, now time.Time) (time.Time, int, time.Time) {
	if now.Sub(at) > barForgot {
		bars = 0
	}
	return now.Add(min(barTime<<min(bars, 16), lastBar)), bars + 1, now
}

func (m *machine) barredNow(id msp.PKIID, now time.Time) bool {
	r := m.records[id]
	return r != nil && now.Before(r.barred)
}

// sorted are the neighbours of a kind, in an order that is the same in each run.
func (m *machine) sorted(kind func(f *fellow) bool) []msp.PKIID {
	var ids []msp.PKIID
	for id, f := range m.fellows {
		if f.here && kind(f) {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b msp.PKIID) int { return bytes.Compare(a[:], b[:]) })
	return ids
}

// heeded are the neighbours that have asked of late.
func (m *machine) heeded(now time.Time) []msp.PKIID {
	if now.Sub(m.asked) >= heedTime {
		return nil
	}
	return m.sorted(func(f *fellow) bool { return now.Sub(f.asked) < heedTime })
}

package election

import (
	"slices"
	"time"

	"grapevine/msp"
	"grapevine/wire"
)

// What the machine makes of others' words; see machine.go.

// said takes a ballot of the peer behind a connection.
func (m *machine) said(from msp.PKIID, b ballot, now time.Time) {
	f := m.fellow(from, now)
	if f == nil {
		return
	}
	f.heard, f.reach, f.height = now, b.reach, b.height
	if m.jumps(b.term) {
		m.refuse(from, TermJump)
		return
	}
	m.seen = max(m.seen, b.term)
	if b.claim != nil {
		if r := m.hear(from, b.claim, now); r != nil {
			m.refuse(from, r)
		}
	}
	if l := m.leads(); m.role == following && l != nil && l.id == from && b.term >= l.term && (b.claim == nil || b.claim.id != from) {
		m.top = nil // a leader says its claim whenever it speaks: that it yields was lost
		m.vacate("yielded", now)
	}
	if b.vote != nil && m.role == candidate && *b.vote == *m.mine.name() {
		m.votes[from] = true
		if m.elected(now) {
			m.win(now)
		}
	}
	if b.ask {
		f.asked, m.asked, m.calmAt = now, now, now.Add(restless)
		c := m.supports()
		if known := c != nil && b.claim != nil && b.claim.id == c.id && b.claim.seq >= c.seq; !known && m.quiet(from) {
			m.tell(from, false) // without a claim too: it learns that we live, and can lead
		}
	}
}

// quiet says whether nothing is on its way to a peer in this step.
func (m *machine) quiet(id msp.PKIID) bool {
	for _, e := range m.out {
		if e.kind == tell && (e.id == id || e.id == msp.PKIID{}) {
			return false
		}
	}
	return true
}

func (m *machine) jumps(term uint64) bool {
	if m.seen == 0 {
		return term > maxFirst
	}
	return term > m.seen+maxJump
}

func (m *machine) refuse(from msp.PKIID, r *wire.Reason) {
	m.out = append(m.out, effect{kind: refuse, id: from, reason: r})
}

// hear takes a claim, and returns why it counts for nothing. What was heard
// before is passed over in silence: it comes by several ways.
func (m *machine) hear(from msp.PKIID, c *claim, now time.Time) *wire.Reason {
	if m.jumps(c.term) {
		return TermJump
	}
	m.seen = max(m.seen, c.term)
	if c.id == m.self {
		return nil // ours, of now or of an earlier life
	}
	r := m.record(c.id, now)
	if l := r.last; l != nil {
		switch {
		case c.term < l.term:
			return m.answer(from, c, StaleTerm)
		case c.term == l.term && !c.same(l):
			return Conflict
		case c.term == l.term && r.dead:
			return StaleTerm
		case c.seq <= l.seq:
			return nil
		}
	}
	if r.last == nil || r.last.term != c.term {
		r.dead = false
	}
	r.last, m.calmAt = c, now.Add(restless)
	switch c.act {
	case yielding:
		return m.yielded(from, c, r, now)
	case leading:
		return m.claimed(from, c, now)
	default:
		return m.stands(from, c, now)
	}
}

// answer tells a peer what we know better.
func (m *machine) answer(to msp.PKIID, heard *claim, r *wire.Reason) *wire.Reason {
	if c := m.supports(); c == nil || c.id != heard.id {
		m.tell(to, false)
	}
	return r
}

func (m *machine) yielded(from msp.PKIID, c *claim, r *record, now time.Time) *wire.Reason {
	r.dead = true
	if m.top == nil || m.top.id != c.id {
		if c.term < m.era {
			return StaleTerm
		}
		return nil
	}
	m.top = nil
	if m.role == candidate {
		return nil
	}
	m.vacate("yielded", now)
	for _, id := range m.heeded(now) { // its neighbours aren't all of ours
		if id != from && id != c.id {
			b := m.ballot(false)
			b.claim = c
			m.out = append(m.out, effect{kind: tell, id: id, ballot: b})
		}
	}
	return nil
}

// claimed hears that somebody leads.
func (m *machine) claimed(from msp.PKIID, c *claim, now time.Time) *wire.Reason {
	l := m.leads()
	switch {
	case l != nil && l.id == c.id && m.role == candidate: // we stand against it
		m.top, m.heard = c, now
		if c.orderer != "" {
			m.lacks = time.Time{}
		}
		if !m.unfit(now) {
			m.accept(c, from, now)
		}
		return nil
	case l != nil && l.id == c.id: // whom we follow; it may have raised its term
		m.accept(c, from, now)
		return nil
	case c.term < m.era:
		return m.answer(from, c, StaleTerm)
	case l == nil:
		if m.barredNow(c.id, now) && m.reach() == able {
			return Lost // we can do better
		}
		m.accept(c, from, now)
		return nil
	case !c.beats(l):
		return m.answer(from, c, Lost)
	}
	if c.term > l.term && !m.record(c.id, now).spend(now) {
		return m.answer(from, c, Lost) // it deposes leaders again and again
	}
	m.accept(c, from, now)
	return nil
}

// spend takes one of the times that a claimant may depose leaders. After a
// partition it is nobody's fault, and a hostile peer can behave as if it had
// been cut off; so it is bounded, and no more.
func (r *record) spend(now time.Time) bool {
	r.deposed = slices.DeleteFunc(r.deposed, func(t time.Time) bool { return now.Sub(t) > deposeTime })
	if len(r.deposed) >= depositions {
		return false
	}
	r.deposed = append(r.deposed, now)
	return true
}

// stands hears that somebody asks for votes.
func (m *machine) stands(from msp.PKIID, c *claim, now time.Time) *wire.Reason {
	if m.leads() != nil {
		switch {
		case m.healthy(now) && !c.unfit:
			return m.answer(from, c, Lost)
		case m.healthy(now): // it may know what we don't: we look, and don't hinder it
			m.watch.hurry = true
			return nil
		}
	}
	if c.term <= m.era {
		return m.answer(from, c, StaleTerm)
	}
	if r := m.record(c.id, now); now.Before(r.passed) || now.Before(r.barred) && m.reach() == able {
		return Lost
	}
	if s := m.supports(); s != nil && s.act == standing && s.id != c.id && s.beats(c) {
		return m.answer(from, c, Lost)
	}
	if m.leads() != nil { // against it: we vote, and go on until one leads
		if from == c.id {
			b := m.ballot(false)
			b.claim, b.vote = nil, c.name()
			m.out = append(m.out, effect{kind: tell, id: from, ballot: b})
		}
		return nil
	}
	if m.role == candidate {
		m.mine = nil
		m.role = following
	}
	if m.role == starting {
		m.role = following
	}
	known := m.top != nil && *m.top.name() == *c.name()
	m.top, m.heard = c, now
	if !known {
		m.tellAll(false)
	} else if from == c.id {
		m.tell(from, false)
	}
	return nil
}

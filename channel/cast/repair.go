package cast

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// slack is what a cast may take longer than computed, and how long nothing
	// has come when something seems to lack.
	slack = 50 * time.Millisecond
	// asksMost is how many members are asked for chunks before the block is
	// pulled.
	asksMost = 2
	// serveFactor bounds the chunks that one member is sent because it asks: so
	// many times a segment's, for each segment.
	serveFactor = 2
	// headsMost bounds the announcements that one member is sent because it asks.
	headsMost = 2
	// keepTime is for how long, beyond what a cast may take, a block that is here is
	// kept for who asks, and again when somebody did; whom that doesn't help pulls it.
	keepTime = 2 * time.Second
	// lifeTime is the longest that a session gathers, beyond thrice what it is given: then the block is pulled, if it wasn't before.
	lifeTime = 5 * time.Second
)

// timers does what time alone brings about, and asks to be called again.
func (c *core) timers(now time.Time) {
	next := now.Add(time.Hour)
	sooner := func(t time.Time) {
		if !t.IsZero() && t.Before(next) {
			next = t
		}
	}
	for _, s := range c.ordered() {
		end := c.expires(s)
		if !now.Before(end) {
			c.end(s)
			continue
		}
		sooner(end)
		if !s.standby.IsZero() && !now.Before(s.standby) {
			c.standIn(s, now)
		}
		sooner(s.standby)
		if !s.untold.IsZero() && !now.Before(s.untold) {
			c.publish(s)
		}
		sooner(s.untold)
		if s.state != gathering || s.pulled {
			continue
		}
		if !now.Before(s.due) {
			c.repair(s, now)
		}
		if !s.pulled {
			sooner(s.due)
		}
	}
	sooner(c.unpark(now))
	for p, until := range c.barred {
		if !now.Before(until) {
			delete(c.barred, p)
		}
	}
	c.wake, c.stale = next, false
	c.do(fxWake{next})
}

// expires returns when a session ends by itself. Who asks for what lacks puts it off,
// within bounds.
func (c *core) expires(s *session) time.Time {
	last := s.opened.Add(lifeTime + 3*c.wait(s))
	if s.state != having || !s.standby.IsZero() {
		return last
	}
	keep := keepTime + c.estimate(s.shape)
	if helped := s.helped.Add(keep); s.done.Before(s.helped) && helped.Before(last.Add(keep)) {
		return helped
	}
	return s.done.Add(keep)
}

// standIn hands the block out after all, if another announcer came first but
// less than half of the members have it by now.
func (c *core) standIn(s *session, now time.Time) {
	s.standby = time.Time{}
	if lacking, all := c.lacking(s); 2*lacking > all {
		c.join(s, c.self, now)
		c.emit(s, now)
	}
}

// repair asks somebody for what lacks, unless it still comes.
func (c *core) repair(s *session, now time.Time) {
	if still := s.moved.Add(c.quiet(s)); now.Before(still) {
		s.due = still
		c.expect(s, still.Add(c.answer(s)))
		return
	}
	if s.direct != nil {
		s.abandon()
	}
	if len(s.asked) < asksMost {
		if p := c.donor(s); p != "" {
			s.asking, s.asked = p, append(s.asked, p)
			for i, g := range s.segs {
				if !g.sealed {
					c.do(fxNeed{p, s.id, i, g.have.clone()})
				}
			}
			s.moved, s.due = now, now.Add(c.answer(s))
			c.expect(s, s.due.Add(slack))
			return
		}
	}
	c.pull(s)
}

// donor picks who is asked: one that is done, another for each session and
// member; else an announcer.
func (c *core) donor(s *session) (best peer.ID) {
	for _, p := range c.order {
		if f := s.far[p]; f == nil || !f.done || slices.Contains(s.asked, p) {
			continue
		}
		if best == "" || spread(s.id^sessionID(spread(0, c.self)), p) < spread(s.id^sessionID(spread(0, c.self)), best) {
			best = p
		}
	}
	for _, p := range s.announcers {
		if best == "" && c.members[p] != nil && !slices.Contains(s.asked, p) {
			best = p
		}
	}
	return best
}

// pull gives the block to blocksync, once. Chunks may still come.
func (c *core) pull(s *session) {
	if s.pulled {
		return
	}
	s.pulled = true
	c.expect(s, time.Time{})
	var from []peer.ID
	for _, p := range c.order {
		if f := s.far[p]; f != nil && f.done && len(from) < 3 {
			from = append(from, p)
		}
	}
	for _, p := range s.announcers {
		if _, bad := c.barred[p]; !bad {
			from = append(from, p)
		}
	}
	c.do(fxPull{s.head, from, false})
}

// need sends a member what it lacks of a segment: no more than it takes to
// complete it.
func (c *core) need(e evNeed, now time.Time) {
	s := c.sessions[e.session]
	if s != nil && e.segment >= len(s.segs) {
		c.refuse(e.from, BadFrame)
		return
	}
	if s == nil || s.state == spoilt || c.members[e.from] == nil || !s.lacks(e.from) {
		c.do(fxSay{e.from, e.session, frameNone})
		return
	}
	if s.state == having && s.direct != nil && !s.sliced {
		c.want(s, e)
		return
	}
	g, f := s.segs[e.segment], s.of(e.from)
	want := s.shape.K
	for k := range s.shape.N() {
		if e.have.has(k) {
			want--
		}
	}
	if f.served += max(want, 1); f.served > serveFactor*s.shape.N()*len(s.segs) {
		c.refuse(e.from, NeedLimit)
		return
	}
	s.helped = now
	if f.known != nil { // what was lost may be lost with the hashes it was sent with
		f.known[e.segment] = nil
	}
	first := int(spread(s.id, e.from) % uint64(s.shape.N()))
	sent := 0
	for i := range s.shape.N() {
		k := (first + i) % s.shape.N()
		if sent < want && g.have.has(k) && !e.have.has(k) {
			c.do(fxChunk{to: e.from, session: s.id, piece: piece{e.segment, k}, hop: hopKeep, own: true, urgent: true})
			sent++
		}
	}
	if sent == 0 {
		c.do(fxSay{e.from, e.session, frameNone})
	}
}

// ask sends a member the announcement of chunks that it got without.
func (c *core) ask(e evAsk) {
	s := c.sessions[e.session]
	if s == nil || c.members[e.from] == nil {
		return
	}
	f := s.of(e.from)
	if f.heads++; f.heads > headsMost {
		c.refuse(e.from, RateLimit)
		return
	}
	c.do(fxHead{e.from, s.id, s.head.Raw, hopKeep})
}

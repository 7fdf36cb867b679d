package cast

import (
	"bytes"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Path is a way to all members.
type Path string

// The ways; a block of at most wire.InlineLimit travels in its announcement.
const (
	PathDirect  Path = "direct"  // whole, from the leader to each member
	PathStriped Path = "striped" // each chunk to a relay, and from there to all
	PathOrgs    Path = "orgs"    // each chunk to a relay, to its organisation and one member of each other, and from there to those
)

// littleHead is by how much a striped body has to be larger than its
// announcement, for that to go in front of it to everyone: the topic spares some
// of the copies, and a small body leaves the link free for it.
const littleHead = 64

// enterMost is the largest body of which a leader brings enough into its own
// organisation to make it from that alone: see enter.
const enterMost = 1 << 20

// emit begins to hand the block out.
func (c *core) emit(s *session, now time.Time) {
	s.origin, s.standby, s.emitted = true, time.Time{}, now
	if len(c.order) == 0 {
		return
	}
	s.path = c.choose(s.shape, now)
	s.untold, c.stale = now.Add(c.estimate(s.shape)), true
	switch s.path {
	case PathDirect:
		c.hand(s)
	case PathStriped:
		if len(s.mine.Raw)*littleHead > s.shape.Size {
			c.publish(s)
		} else {
			c.announce(s)
		}
		c.stripe(s)
	case PathOrgs:
		c.announceOrgs(s)
		c.stripe(s)
		c.enter(s)
	}
}

// publish has the announcement told on the topic, when all should be over: for
// those whom it didn't reach in front of the body.
func (c *core) publish(s *session) {
	s.untold = time.Time{}
	c.do(fxTell{s.id, s.mine, s.path})
}

// hand sends the body whole to everyone, behind its announcement: parts that
// come without it have no place.
func (c *core) hand(s *session) {
	for i := range c.order {
		if p := c.order[(int(uint64(s.id)%1024)+i)%len(c.order)]; s.lacks(p) {
			c.do(fxHead{p, s.id, s.mine.Raw, hopKeep})
			c.do(fxBody{to: p, session: s.id, size: s.shape.Size})
		}
	}
}

// latency returns the middle of the one-way latencies that were measured: one
// member that answers late moves nothing.
func (c *core) latency() time.Duration {
	if c.typical == 0 {
		var all []time.Duration
		for _, m := range c.members {
			if m.latency > 0 {
				all = append(all, m.latency)
			}
		}
		slices.Sort(all)
		if c.typical = usualLatency; len(all) > 0 {
			c.typical = all[len(all)/2]
		}
	}
	return c.typical
}

// announce sends the announcement to everyone, in front of the chunks. Beside
// them, on the topic, it would wait until the link has carried the first of all
// relays' chunks, and nobody may pass one on before it came.
func (c *core) announce(s *session) {
	for _, p := range c.order {
		c.do(fxHead{p, s.id, s.mine.Raw, hopAll})
	}
}

// stripe sends each chunk to its relay, the first of every run first, then the
// second, and so on.
func (c *core) stripe(s *session) {
	n := len(c.order)
	run := s.run(n)
	for i := range s.segs {
		for pos := range run {
			for k := pos; k < s.shape.N(); k += run {
				at := piece{i, k}
				c.give(s, at, c.relay(s.turn(at, n)))
			}
		}
	}
}

// enter sends chunks to members of the own organisation, each to one, to be passed
// on there. Relays do so too, but who is connected to more members than one seeks is
// an anchor, and those that know it needn't know any other of its organisation. A
// small body can be made of these chunks alone. Of a large one, which costs the link
// more than a hop, they are three in five: with those of half the relays it is
// enough.
func (c *core) enter(s *session) {
	if len(c.order) < 2*GroupMost {
		return
	}
	for i := range s.segs {
		most := s.shape.K
		if s.shape.Size > enterMost {
			most = s.shape.N() * 3 / 5
		}
		for k := range most {
			at := piece{i, k}
			relay := c.relay(s.turn(at, len(c.order)))
			if p := s.gate(&c.ours, at.number(), ""); p != "" && c.members[relay].org != c.org {
				c.do(fxChunk{to: p, session: s.id, piece: at, hop: hopEnter, own: true})
			}
		}
	}
}

// run returns how many chunks that are neighbours in the tree go to one of n
// relays, so that they share most of their path's hashes: four, as far as there
// are enough runs for all.
func (s *session) run(n int) int {
	run := 4
	for run > 1 && (s.shape.N()+run-1)/run*s.shape.Segments < n {
		run /= 2
	}
	return run
}

// turn returns which of n relays a chunk goes to. Each segment begins at
// another.
func (s *session) turn(at piece, n int) int {
	run := s.run(n)
	runs := (s.shape.N() + run - 1) / run
	return (int(uint64(s.id)%uint64(n)) + at.segment*runs + at.index/run) % n
}

// give hands a chunk to a relay.
func (c *core) give(s *session, at piece, to peer.ID) {
	s.given[to] = append(s.given[to], at)
	h := hopAll
	if c.large() {
		h = hopOrgs
	}
	c.do(fxChunk{to: to, session: s.id, piece: at, hop: h, own: true})
}

// announceOrgs sends the announcement ahead of the chunks: to the own
// organisation and all relays, and through one member into each other
// organisation. The topic would take a hop more, and several copies.
func (c *core) announceOrgs(s *session) {
	gates := make(map[peer.ID]bool, len(c.orgs))
	for i := range c.orgs {
		gates[s.gate(&c.orgs[i], 1<<32, c.self)] = true
	}
	relays := min(len(c.order), s.shape.N()*s.shape.Segments)
	first := int(uint64(s.id) % uint64(len(c.order)))
	for i := range c.order {
		p := c.order[(first+i)%len(c.order)]
		switch {
		case gates[p]:
			c.do(fxHead{p, s.id, s.mine.Raw, hopEnter})
		case i < relays || c.members[p].org == c.org:
			c.do(fxHead{p, s.id, s.mine.Raw, hopKeep})
		}
	}
}

// headed passes an announcement on to the organisation, once for each session,
// if that is wanted; else, in a small channel, it promises that a body follows.
func (c *core) headed(e evHeaded) {
	var s *session
	for _, o := range c.sessions {
		if bytes.Equal(o.head.Raw, e.raw) {
			s = o
		}
	}
	switch {
	case s == nil:
		return
	case e.hop == hopKeep && !c.large() && e.from == s.head.Announcer && s.moved.Equal(s.opened):
		s.promised, c.stale = true, true
		s.due = s.opened.Add(c.wait(s))
		c.expect(s, s.due.Add(slack))
		return
	case e.hop != hopEnter || s.headed:
		return
	}
	s.headed = true
	for _, p := range c.order {
		if p != e.from && c.members[p].org == c.org && s.lacks(p) {
			c.do(fxHead{p, s.id, s.head.Raw, hopKeep})
		}
	}
}

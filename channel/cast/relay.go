package cast

import (
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"grapevine/wire"
)

// duty says whether this member is to pass a chunk on: an announcer asks it to
// pass it to all, or anyone to its organisation. More than some times its share
// nobody passes on.
func (c *core) duty(s *session, from peer.ID, h hop, at piece) (bool, *wire.Reason) {
	if h == hopKeep || s.state == spoilt || s.segs[at.segment].passed.has(at.index) {
		return false, nil
	}
	if h == hopEnter {
		if s.entered >= 2*shareFactor*c.fair(s)+shareSpare {
			return false, OverShare
		}
		return true, nil
	}
	if !slices.Contains(s.announcers, from) {
		return false, NotOrigin
	}
	if s.passed >= shareFactor*((s.shape.N()*s.shape.Segments-1)/max(1, len(c.order))+1)+shareSpare {
		return false, OverShare
	}
	return true, nil
}

// fair is how many chunks each member takes in for its organisation if all take in
// as many.
func (c *core) fair(s *session) int {
	return (s.shape.N()*s.shape.Segments-1)/(c.ours.size()+1) + 1
}

// pass passes a chunk on to those who lack it, beginning behind this member's
// own place, so that each relay begins with another.
func (c *core) pass(s *session, at piece, h hop, from peer.ID) {
	s.segs[at.segment].passed.set(at.index)
	if h == hopEnter {
		s.entered++
		if p := c.helper(s, at, from); p != "" {
			c.do(fxChunk{to: p, session: s.id, piece: at, hop: hopEnter})
			return
		}
	} else {
		s.passed++
	}
	first, _ := slices.BinarySearch(c.order, c.self)
	for i := range c.order {
		p := c.order[(first+i)%len(c.order)]
		if p != from && s.lacks(p) && (h == hopAll || c.members[p].org == c.org) {
			c.do(fxChunk{to: p, session: s.id, piece: at, hop: hopKeep})
		}
	}
	if h != hopOrgs {
		return
	}
	for i := range c.orgs {
		g := &c.orgs[(first+i)%len(c.orgs)]
		if p := s.gate(g, at.number(), from); p != "" {
			c.do(fxChunk{to: p, session: s.id, piece: at, hop: hopEnter})
		}
	}
}

// helper returns to whom of its organisation this member hands a chunk from outside,
// to be passed on by that one: if it takes in more than its part, for others know
// nobody else there. It is as many sends in all, from more links, and a hop more:
// so not before those of this link take longer than a hop.
func (c *core) helper(s *session, at piece, from peer.ID) peer.ID {
	m := c.members[from]
	if s.entered <= c.fair(s) || m == nil || m.org == c.org || c.patience(s.entered*c.ours.size()*s.shape.Chunk) < c.latency() {
		return ""
	}
	return s.gate(&c.ours, at.number(), from)
}

// gate picks the member of an organisation that takes something in for all of it:
// one that lacks it, if any does.
func (s *session) gate(g *group, n uint64, from peer.ID) peer.ID {
	if p := s.pick(g.members, n, from); p != "" {
		return p
	}
	return s.pick(g.hubs, n, from)
}

// pick picks one of the members that lack something, another for each n.
func (s *session) pick(members []peer.ID, n uint64, from peer.ID) peer.ID {
	first := int((uint64(s.id) + n*0x9e3779b97f4a7c15) >> 33)
	for i := range members {
		if p := members[(first+i)%len(members)]; p != from && s.lacks(p) {
			return p
		}
	}
	return ""
}

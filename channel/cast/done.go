package cast

import (
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"
)

// donors is how many members, beside those whom it concerns, a member tells
// that it has a block: whom they can ask if they come to lack something.
const donors = 3

// tell says to others that the block is here: to its announcers, who count; to
// whoever is about to pass a chunk of it on to here; and to some whom this
// member may help.
func (c *core) tell(s *session) {
	to := make(map[peer.ID]bool, len(s.announcers)+donors)
	for _, p := range s.announcers {
		to[p] = true
	}
	if s.direct == nil {
		for i, g := range s.segs {
			for k := range s.shape.N() {
				if !g.have.has(k) {
					to[c.sender(s, piece{i, k})] = true
				}
			}
		}
	}
	near := c.circle()
	at, _ := slices.BinarySearch(near, c.self)
	for i := range min(donors, len(near)-1) {
		to[near[(at+1+i*max(1, len(near)/donors))%len(near)]] = true
	}
	for _, p := range c.order {
		if to[p] {
			c.do(fxSay{p, s.id, frameDone})
		}
	}
}

// circle returns this member's organisation, itself included, sorted: all members,
// where they pass on to all.
func (c *core) circle() []peer.ID {
	all := make([]peer.ID, 0, len(c.order)+1)
	for _, p := range c.order {
		if !c.large() || c.members[p].org == c.org {
			all = append(all, p)
		}
	}
	at, _ := slices.BinarySearch(all, c.self)
	return slices.Insert(all, at, c.self)
}

// sender returns who passes a chunk on to this member, if its announcer knows
// the same members, and thinks none of them late: the chunk's relay, or the
// member of this organisation that takes it in from there.
func (c *core) sender(s *session, at piece) peer.ID {
	origin := s.head.Announcer
	all := slices.Clone(c.order)
	if i, ok := slices.BinarySearch(all, origin); ok {
		all = slices.Delete(all, i, i+1)
	}
	if i, ok := slices.BinarySearch(all, c.self); !ok {
		all = slices.Insert(all, i, c.self)
	}
	relay := all[s.turn(at, len(all))]
	if m := c.members[relay]; !c.large() || m == nil || m.org == c.org {
		return relay
	}
	ours := group{members: slices.Clone(c.ours.members), hubs: c.ours.hubs}
	i, _ := slices.BinarySearch(ours.members, c.self)
	ours.members = slices.Insert(ours.members, i, c.self)
	return s.gate(&ours, at.number(), origin)
}

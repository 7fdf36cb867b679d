package node

import (
	"bytes"
	"slices"

	"grapevine/msp"
)

// Members tell each other the hash of their world state. An agreement compares
// what they tell with our own at the same height. Who diverges is for the majority
// of organisations to say: an organisation counts as what most of its members tell.
// What follows from it is an alarm and nothing else, so that a liar achieves no more.
// It is pure.
type agreement struct {
	org     string // ours
	members map[msp.PKIID]*stated
}

// maxStated bounds the members whose states are remembered.
const maxStated = 4096

// stated is what a member told of its state.
type stated struct {
	org      string
	height   uint64 // told last, and not compared yet; 0: nothing
	hash     [32]byte
	at       uint64 // compared last, at this height; 0: never
	as       [32]byte
	differs  bool
	since    uint64 // the lowest height at which it was seen to differ without a break
	reported bool   // as one that diverges
}

// A Divergence says that the world states of peers differ that should be equal.
type Divergence struct {
	// Self: most organisations tell another state than ours.
	Self bool
	// Decided: a majority of organisations says who diverges. Otherwise Members are
	// those that differ from this peer.
	Decided bool
	// Members that diverge, in the order of their PKI-IDs.
	Members []Diverging
}

// Diverging is a member whose state isn't ours.
type Diverging struct {
	ID     msp.PKIID
	MSPID  string
	Height uint64   // compared at
	Hash   [32]byte // its state's
	Since  uint64   // first seen at this height
}

// None reports whether all agree.
func (d Divergence) None() bool { return !d.Self && len(d.Members) == 0 }

func newAgreement(org string) *agreement {
	return &agreement{org: org, members: map[msp.PKIID]*stated{}}
}

// tell notes what a member told, and says whether there is something to compare:
// members repeat themselves.
func (a *agreement) tell(id msp.PKIID, org string, height uint64, hash [32]byte) bool {
	m := a.members[id]
	if m == nil {
		if len(a.members) >= maxStated {
			return false
		}
		m = &stated{}
		a.members[id] = m
	}
	if m.org == org && m.height == 0 && m.at == height && m.as == hash {
		return false
	}
	m.org, m.height, m.hash = org, height, hash
	return true
}

// forget forgets a member.
func (a *agreement) forget(id msp.PKIID) { delete(a.members, id) }

// compare holds against our own what was told and can be compared by now. own
// returns our state's hash at a height, if we have it.
func (a *agreement) compare(own func(height uint64) ([32]byte, bool)) {
	for _, m := range a.members {
		if m.height == 0 {
			continue
		}
		hash, ok := own(m.height)
		if !ok {
			continue
		}
		differs := hash != m.hash
		if differs && !m.differs {
			m.since = m.height
		}
		m.at, m.as, m.differs, m.height = m.height, m.hash, differs, 0
	}
}

// judge says who diverges.
func (a *agreement) judge() Divergence {
	type state struct {
		height uint64
		hash   [32]byte
	}
	equal, differ := map[string]int{a.org: 1}, map[string]int{} // members by organisation
	votes := map[state]map[string]bool{}                        // organisations by what differs from ours
	var d Divergence
	for id, m := range a.members {
		switch {
		case m.at == 0:
			continue
		case !m.differs:
			equal[m.org]++
			continue
		}
		differ[m.org]++
		s := state{m.at, m.as}
		if votes[s] == nil {
			votes[s] = map[string]bool{}
		}
		votes[s][m.org] = true
		d.Members = append(d.Members, Diverging{id, m.org, m.at, m.as, m.since})
	}
	if len(d.Members) == 0 {
		return d
	}
	with, all := 0, len(equal)
	for org, n := range equal {
		if n >= differ[org] {
			with++
		}
	}
	for org := range differ {
		if equal[org] == 0 {
			all++
		}
	}
	slices.SortFunc(d.Members, func(x, y Diverging) int { return bytes.Compare(x.ID[:], y.ID[:]) })
	d.Decided = 2*with > all
	for _, orgs := range votes {
		n := 0
		for org := range orgs {
			if differ[org] > equal[org] {
				n++
			}
		}
		if 2*n > all {
			return Divergence{Self: true, Decided: true, Members: d.Members}
		}
	}
	return d
}

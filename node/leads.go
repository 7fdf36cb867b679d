package node

import (
	"bytes"
	"cmp"
	"context"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"grapevine/channel"
	"grapevine/election"
	"grapevine/membership"
	"grapevine/msp"
	"grapevine/wire"
)

// An OrgLead says who leads an organisation on a channel, as this node knows: of
// its own by the election, of others by what their leaders tell in their alive
// messages.
type OrgLead struct {
	Org     string
	MSPID   string
	Mode    string   // "dynamic", "static", "standby", or "unknown": it tells nothing
	Leaders []Leader // all that act as one, and first who counts
}

// A Leader is a peer that leads its organisation.
type Leader struct {
	PKIID   msp.PKIID
	Name    string
	Peer    peer.ID
	Self    bool
	Mode    election.Mode
	Term    uint64    // 0: not elected
	Since   time.Time // by its clock
	Heard   time.Time // its last word, by ours
	Orderer string    // by its name in the channel's configuration; empty: none, or not told
}

// Leads tells of every organisation of the channel who leads it, in the order of
// the configuration.
func (c *Channel) Leads() []OrgLead {
	all := c.members.List()
	var out []OrgLead
	for _, o := range c.conf.Load().Orgs() {
		out = append(out, c.leadOf(o, all))
	}
	return out
}

// OwnLead tells it of this node's own organisation.
func (c *Channel) OwnLead() OrgLead {
	own := c.node.Identity().MSPID()
	for _, o := range c.conf.Load().Orgs() {
		if o.MSPID == own {
			return c.leadOf(o, c.members.List())
		}
	}
	return OrgLead{MSPID: own}
}

// leadOf reads an organisation's leaders off what its members tell; the election
// knows more of its own.
func (c *Channel) leadOf(o channel.Org, all []membership.Member) OrgLead {
	out := OrgLead{Org: o.Name, MSPID: o.MSPID, Mode: "unknown"}
	var elected *election.Leader
	if o.MSPID == c.node.Identity().MSPID() {
		elected = c.elect.State().Leader
		out.Mode = c.elect.Mode().String()
	}
	for _, m := range all {
		if m.MSPID != o.MSPID || m.Lead == nil || m.State > membership.Suspect {
			continue
		}
		if m.State == membership.Suspect && elected != nil && elected.PKIID != m.PKIID {
			continue // it doesn't answer, and another was elected
		}
		mode := election.Mode(m.Lead.Mode - 1)
		if out.Mode == "unknown" || mode == election.Dynamic {
			out.Mode = mode.String()
		}
		known := elected != nil && elected.PKIID == m.PKIID
		if m.Lead.Since == 0 && !known {
			continue
		}
		l := Leader{
			PKIID: m.PKIID, Name: m.Name, Peer: m.Peer, Self: m.Self, Mode: mode, Term: m.Lead.Term,
			Since: time.UnixMilli(int64(m.Lead.Since)), Heard: m.LastSeen, Orderer: m.Lead.Orderer,
		}
		if known {
			l.Term, l.Since, l.Heard, l.Orderer = elected.Term, elected.Since, elected.Heard, c.public(elected.Orderer)
		}
		out.Leaders = append(out.Leaders, l)
	}
	if elected != nil && !slices.ContainsFunc(out.Leaders, func(l Leader) bool { return l.PKIID == elected.PKIID }) {
		out.Leaders = append(out.Leaders, Leader{ // its alive message is still to come
			PKIID: elected.PKIID, Name: c.MemberName(elected.PKIID), Self: elected.Self, Mode: election.Dynamic, Term: elected.Term,
			Since: elected.Since, Heard: elected.Heard, Orderer: c.public(elected.Orderer),
		})
	}
	slices.SortFunc(out.Leaders, func(a, b Leader) int {
		return cmp.Or(cmp.Compare(b.Term, a.Term), a.Since.Compare(b.Since), bytes.Compare(a.PKIID[:], b.PKIID[:]))
	})
	if len(out.Leaders) > 0 {
		out.Mode = out.Leaders[0].Mode.String()
	}
	return out
}

// tellsLead is what this node tells all members of its part: whom an
// organisation has pull concerns those who wait for its blocks. An orderer is
// named as the configuration names it, which they all have; the address behind
// it that an override gives stays here.
func (c *Channel) tellsLead() *wire.Lead {
	s := c.elect.State()
	out := &wire.Lead{Mode: uint32(s.Mode) + 1}
	if l := s.Leader; s.Leading && l != nil && l.Self {
		out.Since, out.Term, out.Orderer = uint64(l.Since.UnixMilli()), l.Term, c.public(l.Orderer)
	}
	return out
}

// public is the name of an orderer if the configuration has it.
func (c *Channel) public(orderer string) string {
	for _, o := range c.conf.Load().Orderers() {
		if o.Endpoint == orderer {
			return orderer
		}
	}
	return ""
}

// warnOfStatic says once that several static leaders of this organisation pull,
// and again after it was over.
func (c *Channel) warnOfStatic(all []membership.Member) {
	own := c.node.Identity().MSPID()
	var names []string
	for _, m := range all {
		if l := m.Lead; m.MSPID == own && l != nil && l.Since > 0 && election.Mode(l.Mode-1) == election.Static && m.State <= membership.Suspect {
			names = append(names, m.Name)
		}
	}
	many := len(names) > 1
	if many && !c.crowded {
		slices.Sort(names)
		c.log.Warn("several static leaders of one organisation pull blocks: each is a stream more at the ordering service",
			"msp", own, "leaders", strings.Join(names, " "), "code", election.ManyStatic.Code())
	}
	c.crowded = many
}

// LeaderEvents yields the changes of this organisation's leader from now on,
// until ctx ends. What a slow listener misses is in LeaderHistory.
func (c *Channel) LeaderEvents(ctx context.Context) iter.Seq[election.Change] {
	return c.elect.Events(ctx)
}

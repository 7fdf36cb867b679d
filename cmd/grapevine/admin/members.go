package admin

import (
	"encoding/hex"
	"net/http"
	"slices"

	"grapevine/membership"
	"grapevine/msp"
	"grapevine/node"
)

// members lists a channel's members as the asked node sees them, itself among
// them; who has left isn't one any more.
func (s *Server) members(r *http.Request) (any, error) {
	c, err := s.room(r)
	if err != nil {
		return nil, err
	}
	if c.peer == nil {
		return nil, s.peersHere()
	}
	out := &ChannelMemberList{Channel: c.peer.Name(), Height: c.Ledger.Height()}
	best := out.Height
	leads := map[msp.PKIID]bool{}
	for _, o := range c.peer.Leads() {
		for _, l := range o.Leaders {
			leads[l.PKIID] = true
		}
	}
	for _, m := range c.peer.Members() {
		if m.State == membership.Left {
			continue
		}
		v := s.memberOf(c.peer, m)
		v.Leader = leads[m.PKIID]
		out.Items = append(out.Items, v)
		best = max(best, m.Height)
	}
	for i := range out.Items {
		out.Items[i].Lag = best - out.Items[i].Height
	}
	slices.SortStableFunc(out.Items, func(a, b ChannelMember) int { return byOrg(a.NodeRef, b.NodeRef) })
	return out, nil
}

func (s *Server) memberOf(c *node.Channel, m membership.Member) ChannelMember {
	out := ChannelMember{
		NodeRef:  NodeRef{Name: m.Name, Org: s.org(m.MSPID), MSPID: m.MSPID, PeerID: m.Peer.String(), PKIID: m.PKIID.String()},
		Endpoint: m.Internal, State: m.State.String(), Self: m.Self, Anchor: c.IsAnchor(m), Height: m.Height,
		TipHash: hex.EncodeToString(m.TipHash[:]), LastSeen: Time{m.LastSeen},
	}
	if out.Endpoint == "" {
		out.Endpoint = m.Endpoint
	}
	return out
}

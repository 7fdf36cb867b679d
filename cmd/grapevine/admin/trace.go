package admin

import (
	"context"
	"encoding/hex"
	"net/http"
	"slices"
	"time"

	"grapevine/membership"
	"grapevine/node"
)

// trace asks the channel's members how a block came to them.
func (s *Server) trace(r *http.Request) (any, error) {
	c, err := s.room(r)
	if err != nil {
		return nil, err
	}
	if c.peer == nil {
		return nil, s.peersHere()
	}
	b, err := c.Block(r.Context(), r.PathValue("n"), false)
	if err != nil {
		return nil, err
	}
	out := &BlockTrace{Channel: c.peer.Name(), Number: b.Number, Hash: b.Hash}
	var first, last time.Time
	for _, v := range c.peer.Trace(r.Context(), b.Number) {
		out.Asked++
		if v.Path != "" {
			if out.Known++; first.IsZero() {
				first = v.Came
			}
			last = v.Came
		}
		out.Items = append(out.Items, s.sighting(c.peer, v, first, b.Hash))
	}
	out.SpreadMs = ms(last.Sub(first))
	return out, nil
}

func (s *Server) sighting(c *node.Channel, v node.Sighting, first time.Time, hash string) BlockSighting {
	m := v.Member
	out := BlockSighting{
		NodeRef: NodeRef{Name: m.Name, Org: s.org(m.MSPID), MSPID: m.MSPID, PeerID: m.Peer.String(), PKIID: m.PKIID.String()},
		Self:    m.Self, Path: v.Path, Copies: v.Copies, From: v.Orderer,
	}
	switch {
	case v.Err != nil:
		out.Message = v.Err.Error()
	case v.Path == "":
		out.Message = "it doesn't remember"
	default:
		out.At, out.AfterMs = Time{v.Came}, ms(v.Came.Sub(first))
		if !v.Durable.IsZero() {
			out.DurableMs = ms(v.Durable.Sub(v.Came))
		}
		if hex.EncodeToString(v.Hash) != hash {
			out.Message = "its block has another hash"
		}
	}
	if v.From != "" {
		out.FromPeerID, out.From = v.From.String(), v.From.String()
		members := c.Members()
		if i := slices.IndexFunc(members, func(o membership.Member) bool { return o.Peer == v.From }); i >= 0 {
			out.From = members[i].Name
		}
	}
	return out
}

// Trace has the node ask the channel's members how block n came to them.
func (r Remote) Trace(ctx context.Context, n string) (*BlockTrace, error) {
	return get[BlockTrace](ctx, r.Client, channelPath(r.Name)+"/blocks/"+n+"/trace", nil)
}

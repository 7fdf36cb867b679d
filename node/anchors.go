package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"

	"grapevine/membership"
)

// ErrHidden means that this peer has no external endpoint, so it calls on no other
// organisation.
var ErrHidden = errors.New("this peer is hidden from other organisations, so it doesn't call there")

// An Anchor is an anchor peer of a channel, and who answers there.
type Anchor struct {
	Org, MSPID string
	Endpoint   string
	Self       bool
	Peer       peer.ID       // who answers; "" if nobody does
	Name       string        // of whom
	Took       time.Duration // from dial to proven identity
	Err        error         // nil: it answers, and is of the organisation
}

// IsAnchor says whether the configuration names a member as an anchor peer.
func (c *Channel) IsAnchor(m membership.Member) bool {
	mine := places(m.Internal + " " + m.Endpoint)
	for _, o := range c.Config().Orgs() {
		if o.MSPID != m.MSPID {
			continue
		}
		for _, e := range o.Anchors {
			for place := range places(e) {
				if mine[place] {
					return true
				}
			}
		}
	}
	return false
}

// spare lets cast know if a member is an anchor peer, to which everybody is
// connected.
func (c *Channel) spare(p peer.ID) {
	id, _, ok := c.node.guard.identity(p)
	if !ok {
		return
	}
	if m, _, ok := c.members.Find(id.PKIID()); ok && c.IsAnchor(m) {
		c.cast.Hub(p)
	}
}

// Anchors calls at each anchor peer that the configuration names.
func (c *Channel) Anchors(ctx context.Context) []Anchor {
	n := c.node
	mine := places(n.internal + " " + n.cfg.ExternalEndpoint)
	var out []Anchor
	for _, o := range c.Config().Orgs() {
		for _, e := range o.Anchors {
			a := Anchor{Org: o.Name, MSPID: o.MSPID, Endpoint: e}
			for place := range places(e) {
				a.Self = a.Self || o.MSPID == n.Identity().MSPID() && mine[place]
			}
			out = append(out, a)
		}
	}
	var g errgroup.Group
	g.SetLimit(dials)
	for i := range out {
		g.Go(func() error {
			out[i].call(ctx, n)
			return nil
		})
	}
	_ = g.Wait() // none of them errs
	return out
}

// call finds out who answers.
func (a *Anchor) call(ctx context.Context, n *Node) {
	if a.Self {
		a.Peer, a.Name = n.PeerID(), n.Identity().Name()
		return
	}
	if a.MSPID != n.Identity().MSPID() && n.hidden() {
		a.Err = ErrHidden
		return
	}
	began := time.Now()
	info, err := n.probe(ctx, a.Endpoint)
	if a.Took = time.Since(began); err != nil {
		a.Err = err
		return
	}
	a.Peer, a.Self = info.ID, info.ID == n.PeerID()
	id := n.Identity()
	if !a.Self {
		var ok bool
		if id, ok = n.Identify(info.ID); !ok {
			a.Err = fmt.Errorf("probing %s: %w", a.Endpoint, ErrNoPeer)
			return
		}
	}
	if a.Name = id.Name(); id.MSPID() != a.MSPID {
		a.Err = fmt.Errorf("%s is %s of %s, not of %s: %w", a.Endpoint, id.Name(), id.MSPID(), a.MSPID, wrongOrg)
	}
}

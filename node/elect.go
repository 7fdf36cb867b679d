package node

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"grapevine/election"
	"grapevine/membership"
	"grapevine/msp"
	"grapevine/wire"
)

// newElection makes the channel's part in the election of who pulls.
func (c *Channel) newElection(refused func(*wire.Reason)) (*election.Election, error) {
	n := c.node
	conf := election.Config{
		Mode: n.cfg.Leader, Timing: n.cfg.Election, Self: n.signer, Tag: c.tag, Expects: c.expectsOthers(),
		Open: func(ctx context.Context, p peer.ID) (network.Stream, error) {
			return c.view.Stream(network.WithNoDial(ctx, "members are met by the node"), p, wire.KindElection)
		},
		Bound: n.guard.identity,
		Known: func(id msp.PKIID) (*msp.Identity, bool) { _, who, ok := c.known(id); return who, ok },
		Admit: c.admits,
		Height: func() uint64 {
			return c.ledger.Height()
		},
		Changed: c.turnedTo,
		Refused: func(p peer.ID, r *wire.Reason) {
			refused(r)
			c.log.Debug("refused a word of the election", "peer", p, "reason", r.Code())
		},
	}
	if s, ok := c.source.(interface{ Source() string }); ok {
		conf.Stream = func() (string, uint64) {
			if c.deaf.Load() > int32(len(c.conf.Load().Orderers())) {
				return "", c.pulled.Load() // the stream may be dead: nobody answers beside it
			}
			return s.Source(), c.pulled.Load()
		}
	}
	if s, ok := c.source.(interface {
		Newest(ctx context.Context) (uint64, error)
	}); ok {
		conf.Newest = func(ctx context.Context) (uint64, error) {
			number, err := s.Newest(ctx)
			return number + 1, err
		}
	}
	return election.New(conf)
}

// watched hears what the client asks other orderers than the one that blocks
// come from.
func (c *Channel) watched(newest uint64, err error) {
	if err != nil {
		c.deaf.Add(1)
		return
	}
	c.deaf.Store(0)
	c.elect.Attested(newest + 1)
}

// expectsOthers says whether peers of the own organisation are to be met.
func (c *Channel) expectsOthers() bool {
	if len(c.node.cfg.Bootstrap) > 0 {
		return true
	}
	own := c.node.Identity().MSPID()
	for _, o := range c.conf.Load().Orgs() {
		if o.MSPID != own {
			continue
		}
		for _, a := range o.Anchors {
			if a != c.node.cfg.ExternalEndpoint && a != c.node.cfg.Endpoint {
				return true
			}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, v := range c.book {
		if v.MSPID == own {
			return true
		}
	}
	return false
}

// admits judges a claimant. One that isn't connected was judged by membership,
// which forgets it when the configuration does.
func (c *Channel) admits(id *msp.Identity, now time.Time) error {
	p, _, ok := c.node.guard.find(id.PKIID())
	if !ok {
		return nil
	}
	_, intermediates, _ := c.node.guard.identity(p)
	return c.conf.Load().Member(id, intermediates, now)
}

// turnedTo is told of each change of leader.
func (c *Channel) turnedTo(e election.Change) {
	c.node.metrics.turned(c.name, e)
	c.node.metrics.leading(c.name, e.Self)
	name := "none"
	if e.Leader != (msp.PKIID{}) {
		name = c.MemberName(e.Leader)
	}
	c.log.Info("leader of the organisation: "+name, "term", e.Term, "why", e.Why)
}

// countLeaderless adds the time since the last count.
func (c *Channel) countLeaderless() {
	if d := c.elect.State().Leaderless; d > c.leaderless { // what it tells of the present vacancy may be a little less than the last time
		c.node.metrics.without(c.name, d-c.leaderless)
		c.leaderless = d
	}
}

// MemberName names a member for people: by its certificate, or, if it isn't
// known, its PKI-ID.
func (c *Channel) MemberName(id msp.PKIID) string {
	if id == c.node.Identity().PKIID() {
		return c.node.Identity().Name()
	}
	if _, who, ok := c.known(id); ok {
		return who.Name()
	}
	for _, m := range c.members.List() {
		if m.PKIID == id {
			return m.Name
		}
	}
	return id.String()
}

// electorate tells the election of members that died and came back.
func (c *Channel) electorate(e membership.Event) {
	switch e.Kind {
	case membership.Died, membership.Departed, membership.Expelled:
		c.elect.Gone(e.Member.Peer)
	case membership.Joined, membership.Recovered:
		if c.node.host.Network().Connectedness(e.Member.Peer) == network.Connected && c.isMember(e.Member.Peer) {
			c.elect.Arrived(e.Member.Peer)
		}
	}
}

// Election tells how the election of the organisation's leader stands.
func (c *Channel) Election() election.State { return c.elect.State() }

// LeaderHistory returns the last changes of leader that this node has seen,
// oldest first.
func (c *Channel) LeaderHistory() []election.Change { return c.elect.History() }

// YieldLeadership hands leadership over. It returns [election.ErrNotLeading] if
// this node doesn't lead by election.
func (c *Channel) YieldLeadership(ctx context.Context) error { return c.elect.Yield(ctx) }

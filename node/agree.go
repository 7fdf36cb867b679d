package node

import (
	"context"
	"encoding/hex"
	"sync"

	"grapevine/membership"
	"grapevine/msp"
)

// concord is the shell around a channel's agreement.
type concord struct {
	news chan struct{}

	mu    sync.Mutex // guards what follows; never held across I/O
	core  *agreement
	found Divergence
}

func newConcord(org string) *concord {
	return &concord{news: make(chan struct{}, 1), core: newAgreement(org)}
}

func (o *concord) nudge() {
	select {
	case o.news <- struct{}{}:
	default:
	}
}

// stated takes in what a member says of its world state. It never blocks.
func (c *Channel) stated(id msp.PKIID, mspID string, height uint64, hash [32]byte) {
	if !c.node.cfg.Judge {
		return
	}
	c.concord.mu.Lock()
	news := c.concord.core.tell(id, mspID, height, hash)
	c.concord.mu.Unlock()
	if news {
		c.concord.nudge()
	}
}

// unstated forgets a member that is gone.
func (c *Channel) unstated(e membership.Event) {
	switch e.Kind {
	case membership.Died, membership.Departed, membership.Expelled:
		c.concord.mu.Lock()
		c.concord.core.forget(e.Member.PKIID)
		c.concord.mu.Unlock()
		c.concord.nudge()
	}
}

// ownState is what is told of our own world state.
func (c *Channel) ownState() (uint64, [32]byte) {
	s := c.ledger.State()
	return s.Height, s.Hash
}

// stateAt is our state's hash at a height.
func (c *Channel) stateAt(height uint64) (hash [32]byte, ok bool) {
	s := c.ledger.State()
	switch {
	case height == 0 || height > s.Height:
		return hash, false
	case height == s.Height:
		return s.Hash, true
	}
	v, err := c.ledger.Verdict(height - 1)
	return v.StateHash, err == nil
}

// agree compares world states as members tell of theirs, until ctx ends.
func (c *Channel) agree(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.concord.news:
		}
		c.compareStates()
	}
}

func (c *Channel) compareStates() {
	o := c.concord
	wanted := map[uint64][32]byte{}
	o.mu.Lock()
	for _, m := range o.core.members {
		if m.height > 0 {
			wanted[m.height] = [32]byte{}
		}
	}
	o.mu.Unlock()
	for h := range wanted { // from the disk, mostly from its cache
		if hash, ok := c.stateAt(h); ok {
			wanted[h] = hash
		} else {
			delete(wanted, h)
		}
	}
	o.mu.Lock()
	o.core.compare(func(h uint64) ([32]byte, bool) { hash, ok := wanted[h]; return hash, ok })
	d := o.core.judge()
	var diverged, agreed []msp.PKIID
	var first []Diverging
	named := map[msp.PKIID]bool{}
	for _, m := range d.Members {
		named[m.ID] = true
		if s := o.core.members[m.ID]; !s.reported {
			s.reported = true
			diverged, first = append(diverged, m.ID), append(first, m)
		}
	}
	for id, s := range o.core.members {
		if s.reported && !named[id] {
			s.reported = false
			agreed = append(agreed, id)
		}
	}
	turned := d.Self != o.found.Self
	o.found = d
	o.mu.Unlock()
	for _, m := range first {
		own, _ := c.stateAt(m.Height)
		c.log.Error("a member's world state isn't ours", "member", c.MemberName(m.ID), "msp", m.MSPID, "height", m.Height,
			"hash", hex.EncodeToString(m.Hash[:]), "ours", hex.EncodeToString(own[:]), "self", d.Self, "decided", d.Decided)
	}
	if turned && d.Self {
		how := "make it anew: grapevine ledger rebuild-state " + c.name
		if c.ledger.Lowest() > 0 {
			how = "it can't be made anew from the blocks kept: leave the channel, and join it with --sync snapshot"
		}
		c.log.Error("this peer's world state isn't that of most organisations; " + how)
	}
	for _, id := range diverged {
		c.members.Report(membership.Diverged, id)
	}
	for _, id := range agreed {
		c.members.Report(membership.Agreed, id)
	}
}

// Divergence tells which members' world states aren't what they should be, as far
// as they told.
func (c *Channel) Divergence() Divergence {
	c.concord.mu.Lock()
	defer c.concord.mu.Unlock()
	return c.concord.found
}

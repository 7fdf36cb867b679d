package node

import (
	"context"
	"iter"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"grapevine/block"
	"grapevine/blocksync"
	"grapevine/channel"
	"grapevine/channel/cast"
	"grapevine/election"
	"grapevine/ledger"
	"grapevine/membership"
	"grapevine/msp"
)

// ChannelStatus is what a node knows of one of its channels at one moment.
type ChannelStatus struct {
	Name       string
	Tip        block.Tip
	Lag        uint64             // blocks behind what is proven to be there, or claimed by more than a third of the members
	Progress   blocksync.Progress // of catching up
	From       []string           // who is asked for blocks
	Mode       election.Mode
	Leading    bool          // this node pulls from the ordering service
	Leader     string        // who pulls for the organisation, as this node knows; "": nobody
	Leaderless time.Duration // nobody leads by election for so long
	Lacking    time.Duration // it pulls, and has had no orderer for so long
	Orderer    string        // endpoint that it is connected to, or ""
	SourceKind string        // of the newest block: "orderer", "push", "pull", "state", "none"
	SourceName string
	State      ledger.StateTip
	Members    int // connected and admitted members that aren't known to be dead, this node included
	Alive      int // of them, those that aren't suspect either
	Suspect    int // members that don't answer, connected or not
	Dead       int // members that are dead, for this node
	Halted     error
}

// Status tells of the channel as this node sees it now.
func (c *Channel) Status() ChannelStatus {
	st := c.ledger.State()
	s := ChannelStatus{
		Name: c.name, Tip: st.Blocks, State: st, Mode: c.elect.Mode(), Leading: c.elect.Leading(),
		Halted: c.Halted(),
	}
	c.count(&s)
	e := c.elect.State()
	if e.Leader != nil {
		s.Leader = c.MemberName(e.Leader.PKIID)
	} else if l := c.OwnLead(); len(l.Leaders) > 0 {
		s.Leader = l.Leaders[0].Name // a static one
	}
	if !e.Vacant.IsZero() {
		s.Leaderless = time.Since(e.Vacant)
	}
	if !e.Lacks.IsZero() {
		s.Lacking = time.Since(e.Lacks)
	}
	if o, ok := c.source.(interface{ Source() string }); ok && s.Leading {
		s.Orderer = o.Source()
	}
	s.SourceKind, s.SourceName = c.sync.Source()
	if p, err := peer.Decode(s.SourceName); err == nil {
		s.SourceName = c.node.nameOf(p)
	}
	if s.SourceKind == "orderer" {
		s.SourceName = s.Orderer
	}
	t := c.sync.Status()
	s.Lag, s.Progress, s.From = t.Target-min(t.Target, s.Tip.Height), t.Progress, c.From(t)
	return s
}

// Traffic counts what came to a channel since it was opened.
type Traffic struct {
	Mesh   channel.Stats
	Cast   cast.Stats
	Pulled uint64 // bytes of answers to requests for blocks
}

// Traffic tells what came to the channel so far.
func (c *Channel) Traffic() Traffic { return Traffic{c.mesh.Stats(), c.cast.Stats(), c.sync.Pulled()} }

// count counts the connected and admitted members. One that was killed or
// suspended keeps its connection for a while, longer on QUIC than its silence
// takes to be noticed: those whom membership has given up don't count.
func (c *Channel) count(s *ChannelStatus) {
	states := map[peer.ID]membership.State{}
	for _, m := range c.members.List() {
		states[m.Peer] = m.State
		switch m.State {
		case membership.Suspect:
			s.Suspect++
		case membership.Dead:
			s.Dead++
		}
	}
	s.Members, s.Alive = 1, 1
	for _, p := range c.view.Members() {
		if c.members.Silent(p) {
			continue
		}
		switch states[p] { // one that tells us nothing of itself, but answers, counts as alive
		case membership.Alive:
			s.Alive++
			fallthrough
		case membership.Suspect:
			s.Members++
		}
	}
}

// Members lists the members that this node heard of on the channel, itself
// first.
func (c *Channel) Members() []membership.Member { return c.members.List() }

// MemberEvents yields what happens to members from now on, until ctx ends. A
// listener that falls too far behind gets one event of kind Lost.
func (c *Channel) MemberEvents(ctx context.Context) iter.Seq[membership.Event] {
	return c.members.Events(ctx)
}

// MemberStats counts what finding out who lives has cost.
func (c *Channel) MemberStats() membership.Stats { return c.members.Stats() }

// Connected lists the connected and admitted members.
func (c *Channel) Connected() []peer.ID { return c.view.Members() }

// Genesis is the header hash of block 0.
func (c *Channel) Genesis() [32]byte { return c.genesis }

// Identify returns the MSP identity behind a connected host.
func (n *Node) Identify(p peer.ID) (*msp.Identity, bool) {
	id, _, ok := n.guard.identity(p)
	return id, ok
}

// nameOf names a peer for people: its certificate's subject, or its peer ID.
func (n *Node) nameOf(p peer.ID) string {
	if id, ok := n.Identify(p); ok {
		return id.Name()
	}
	if p == n.host.ID() {
		return n.Identity().Name()
	}
	return p.String()
}

// Listen are the addresses that the node listens on, with the ports that were
// chosen.
func (n *Node) Listen() []string {
	var out []string
	for _, a := range n.host.Network().ListenAddresses() {
		out = append(out, a.String())
	}
	return out
}

// Started is when the node was opened.
func (n *Node) Started() time.Time { return n.started }

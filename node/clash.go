package node

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"grapevine/membership"
	"grapevine/msp"
)

const (
	// clashTime is for how long a clash is told of after it was last seen.
	clashTime = 10 * time.Minute
	// lastWords is for how long a host stays connected after another one has shown
	// its identity: if it lives, what it says then proves it.
	lastWords = 2 * time.Second
)

// A Clash is two live hosts that show one identity: one MSP folder is used
// twice. The host that started later counts.
type Clash struct {
	PKIID        msp.PKIID
	Name, MSPID  string
	Newer, Older peer.ID // Newer is "" where only a peer's word told of it
	Seen         time.Time
}

// clashes are those seen of late. The zero value is ready.
type clashes struct {
	mu  sync.Mutex
	all map[msp.PKIID]Clash // guarded by mu
}

// note takes a clash in. It doesn't block.
func (s *clashes) note(c Clash) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = make(map[msp.PKIID]Clash)
	}
	for id, old := range s.all {
		if c.Seen.Sub(old.Seen) > clashTime {
			delete(s.all, id)
		}
	}
	if c.Newer == "" && s.all[c.PKIID].Newer != "" {
		return // that was proven
	}
	s.all[c.PKIID] = c
}

// Clashes tells of the identities that two live hosts showed within the last
// ten minutes, this node's own among them; by name.
func (n *Node) Clashes() []Clash {
	now := n.guard.now()
	n.clash.mu.Lock()
	defer n.clash.mu.Unlock()
	var out []Clash
	for _, c := range n.clash.all {
		if now.Sub(c.Seen) <= clashTime {
			out = append(out, c)
		}
	}
	slices.SortFunc(out, func(a, b Clash) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), slices.Compare(a.PKIID[:], b.PKIID[:]))
	})
	return out
}

// clashed is told by a channel's membership, which can prove it. It MUST NOT
// block.
func (n *Node) clashed(e membership.Event) {
	c := Clash{
		PKIID: e.Member.PKIID, Name: e.Member.Name, MSPID: e.Member.MSPID,
		Newer: e.Member.Peer, Older: e.Other, Seen: n.guard.now(),
	}
	n.clash.note(c)
	if c.PKIID == n.Identity().PKIID() {
		return
	}
	n.guard.displace(c.Older, c.Newer)
	n.dropSoon(c.Older, c.Newer, c.Seen)
}

// supplanted is told by the guard that a host comes with the identity of another.
func (n *Node) supplanted(old, now peer.ID, id *msp.Identity) {
	n.warnOfTwins(old, now, id)
	if !n.dropSoon(old, now, n.guard.now().Add(lastWords)) {
		n.closeDisplaced(n.host.Network().ConnsToPeer(old)...)
	}
}

// A farewell is a host whose connections are to be closed, unless it counts
// again by then.
type farewell struct {
	older, newer peer.ID
	at           time.Time
}

// dropSoon has dropDisplaced see to a host; false: it has too much to do. It
// doesn't block.
func (n *Node) dropSoon(older, newer peer.ID, at time.Time) bool {
	select {
	case n.farewells <- farewell{older, newer, at}:
		return true
	default:
		return false
	}
}

// dropDisplaced closes the connections of hosts that don't count any more.
func (n *Node) dropDisplaced(ctx context.Context) error {
	var due []farewell
	look := time.NewTimer(0)
	defer look.Stop()
	for {
		select {
		case f := <-n.farewells:
			due = append(due, f)
		case <-look.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		now := n.guard.now()
		due = slices.DeleteFunc(due, func(f farewell) bool {
			if f.at.After(now) {
				return false
			}
			if n.guard.outlived(f.older, f.newer) {
				n.closeDisplaced(n.host.Network().ConnsToPeer(f.older)...)
			}
			return true
		})
		if len(due) > 0 {
			look.Reset(lastWords / 4)
		}
	}
}

// closeDisplaced closes connections. The code tells the host not to come back at
// once.
func (s *stack) closeDisplaced(conns ...network.Conn) {
	for _, c := range conns {
		if err := c.CloseWithError(network.ConnSupplanted); err != nil {
			s.log.Debug("closing a supplanted connection", "peer", c.RemotePeer(), "err", err)
		}
	}
}

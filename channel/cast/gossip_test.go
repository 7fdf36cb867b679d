package cast

import (
	"math"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Whole-block GossipSub on the links of a play, to compare with: each member
// sends a block that is new to it, whole, to all of its mesh but whom it has it
// from. Pieces of 64 KiB share its uplink in turn, as streams do.

const (
	gossipDegree = 6
	gossipPiece  = 64 << 10
)

// fxWhole is a piece of a block on its way by gossip.
type fxWhole struct {
	to     peer.ID
	number uint64
	size   int // of the piece
	left   int // bytes behind it
}

func (fxWhole) effect() {}

// A gossip is the mesh of a play, and what its members have.
type gossip struct {
	p     *play
	peers map[peer.ID][]*actor
	size  int // of blocks
}

// newGossip makes a mesh in which each member has about degree others: a ring, so
// that all are reached, and chords.
func newGossip(p *play, degree int) *gossip {
	g := &gossip{p: p, peers: map[peer.ID][]*actor{}}
	link := func(a, b *actor) {
		if a != b && !slices.Contains(g.peers[a.id], b) {
			g.peers[a.id], g.peers[b.id] = append(g.peers[a.id], b), append(g.peers[b.id], a)
		}
	}
	n := len(p.nodes)
	order := p.rng.Perm(n)
	for i := range n {
		link(p.nodes[order[i]], p.nodes[order[(i+1)%n]])
	}
	for range 20 * n {
		a, b := p.nodes[p.rng.IntN(n)], p.nodes[p.rng.IntN(n)]
		if len(g.peers[a.id]) < min(degree, n-1) && len(g.peers[b.id]) < min(degree, n-1) {
			link(a, b)
		}
	}
	return g
}

// publish lets a member send a block to its mesh.
func (g *gossip) publish(a *actor, number uint64, from peer.ID) {
	a.got[number] = g.p.now.Sub(g.p.begin)
	if a.mute && from != "" {
		return
	}
	for _, b := range g.peers[a.id] {
		if b.id == from {
			continue
		}
		for left := g.size; left > 0; {
			n := min(left, gossipPiece)
			left -= n
			a.queue(b.id, fxWhole{b.id, number, n, left}, false)
		}
	}
	a.send()
}

// take lets a member have a piece.
func (g *gossip) take(a *actor, from peer.ID, fx fxWhole) {
	if _, ok := a.got[fx.number]; !ok && fx.left == 0 {
		g.publish(a, fx.number, from)
	}
}

// gossipFormula is LIBP2P.md 5's bound, which measured times pass by a factor of
// 1.3 to 2.8: h(L + (D/2)S/B), h hops.
func gossipFormula(n, size int) time.Duration {
	h := math.Ceil(math.Log(float64(n)) / math.Log(gossipDegree-1))
	return time.Duration(h) * (simLatency + seconds(gossipDegree/2*float64(size)/simRate))
}

// fluid is the least that any way takes from one source over equal links, as
// LIBP2P.md 5 has it.
func fluid(n, size int) time.Duration {
	once := float64(size) / simRate
	return simLatency + seconds(max(once, float64(n-1)*once/float64(n)))
}

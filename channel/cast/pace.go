package cast

import (
	"math/bits"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// What is measured. A member's part in it can make this node choose the slower
// way, or fewer relays, and nothing else: nine tenths of the members decide.
const (
	// usualLatency and usualRate are taken for granted of links that weren't
	// measured; the rate in bytes a second.
	usualLatency = 25 * time.Millisecond
	usualRate    = 100e6 / 8
	// Bounds of measured rates, bytes a second, and of the times they are taken
	// from: what is shorter is noise.
	leastRate, mostRate = 64 << 10, 16 << 30
	leastTime           = 200 * time.Microsecond
	// markBytes is how many bytes must have gone out to measure the own link.
	markBytes = 32 << 10
	// paceTime is how long a measure counts: then the way is tried again.
	paceTime = 10 * time.Minute
	// doubt is how much worse than its link a way must do before another that
	// was never tried is thought to do better than the link says.
	doubt = 2
	// lateFactor is how much longer than half of the members one must take to
	// count as late, lateShare how many of its last blocks make it no relay.
	lateFactor = 2
	lateShare  = .5
)

// paces are what a leader learns of its link and of the ways from what it hands
// out. Rates are those that explain the time which a block took to nine tenths
// of the members; since much beside links has a part in that (processors shared
// with others, flow control), each way and size of bodies has its own.
type paces struct {
	link float64 // bytes a second out of this node; 0: not measured
	ways map[way]pace
}

type way struct {
	path  Path
	class int // of sizes, each four times the last
}

type pace struct {
	rate  float64
	until time.Time
}

func newPaces() paces { return paces{ways: make(map[way]pace)} }

func wayOf(p Path, size int) way { return way{p, bits.Len(uint(size)) / 2} }

// of returns the rate at which a way is thought to work, bytes a second, now.
func (p *paces) of(path, other Path, size int, now time.Time) float64 {
	own := p.rate()
	if m, ok := p.ways[wayOf(path, size)]; ok && now.Before(m.until) {
		return m.rate
	}
	if m, ok := p.ways[wayOf(other, size)]; ok && now.Before(m.until) && m.rate*doubt < own {
		return own * doubt
	}
	return own
}

// rate returns that of the own link.
func (p *paces) rate() float64 {
	if p.link <= 0 {
		return usualRate
	}
	return p.link
}

// blend takes a new measure into an old one, which may be 0.
func blend(old, bytes float64, took time.Duration) float64 {
	r := min(max(bytes/max(took, leastTime).Seconds(), leastRate), mostRate)
	if old > 0 {
		r = (old + r) / 2
	}
	return r
}

// marked notes that a member has all that a session's origin sent it at first:
// when nine tenths have, that tells what the own link brings.
func (c *core) marked(e evMark, now time.Time) {
	s := c.sessions[e.session]
	if s == nil || !s.origin || c.members[e.from] == nil || !s.marks[e.from] {
		return
	}
	delete(s.marks, e.from)
	if len(s.marks) == s.marked/10 && s.outgoing >= markBytes {
		c.paces.link = blend(c.paces.link, float64(s.outgoing), now.Sub(s.emitted)-2*c.latency())
	}
}

// reached notes that a member has a block that this node handed out, as the
// n-th of all.
func (c *core) reached(s *session, p peer.ID, n, all int, now time.Time) {
	took := now.Sub(s.emitted)
	m := c.members[p]
	late := 0.
	if n <= (all+1)/2 {
		s.half = took
	} else if took > lateFactor*s.half+leastTime {
		late = 1
	}
	m.late += (late - m.late) / 4
	if n != all-all/10 || s.path == "" {
		return
	}
	w := wayOf(s.path, s.shape.Size)
	old := c.paces.ways[w]
	if !now.Before(old.until) {
		old.rate = 0
	}
	hops, load := c.load(s.path, s.shape)
	took -= time.Duration(hops+1) * c.latency() // and that of the done-signal
	c.paces.ways[w] = pace{blend(old.rate, load, took), now.Add(paceTime)}
	if s.path == PathDirect && int(load) >= markBytes {
		c.paces.link = blend(c.paces.link, load, took)
	}
}

// load returns over how many hops a body goes by a way, and how many bytes go
// one after the other over a link by then, by LIBP2P.md 5: with n receivers,
// body S, parity r and q chunks for each relay, nS for direct, (1+r)S(1+1/q) for
// striped.
func (c *core) load(path Path, s Shape) (hops int, bytes float64) {
	n, size := float64(len(c.order)), float64(s.Size)
	if path == PathDirect {
		return 1, n * size
	}
	hops = 2
	if path == PathOrgs {
		hops = 3
	}
	return hops, size * float64(s.N()) / float64(s.K) * (1 + n/float64(s.N()*s.Segments))
}

// choose returns the way that is thought to be the faster one.
func (c *core) choose(s Shape, now time.Time) Path {
	if c.large() {
		return PathOrgs
	}
	takes := func(path, other Path) float64 {
		hops, bytes := c.load(path, s)
		return float64(hops)*c.latency().Seconds() + bytes/c.paces.of(path, other, s.Size, now)
	}
	if takes(PathDirect, PathStriped) <= takes(PathStriped, PathDirect) {
		return PathDirect
	}
	return PathStriped
}

// estimate returns about how long a cast of this shape takes, whichever way.
func (c *core) estimate(s Shape) time.Duration {
	path := PathStriped
	if c.large() {
		path = PathOrgs
	}
	hops, _ := c.load(path, s)
	return time.Duration(hops)*c.latency() + c.patience(s.Size*s.N()/s.K)
}

// patience returns how long some bytes may take over a link.
func (c *core) patience(bytes int) time.Duration {
	return time.Duration(float64(bytes) / min(c.paces.rate(), usualRate) * float64(time.Second))
}

// relay returns the i-th place of those that chunks go to first: its member, or
// if that was late most of the time, the next who wasn't.
func (c *core) relay(i int) peer.ID {
	for k := range c.order {
		if p := c.order[(i+k)%len(c.order)]; c.members[p].late < lateShare {
			return p
		}
	}
	return c.order[i%len(c.order)]
}

package cast

import (
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
	// probeMost is how much of a body is sent to measure the own link, probeLeast
	// what tells anything.
	probeMost, probeLeast = 1 << 20, 32 << 10
	// probeEvery is the time between two, but for the first of those whose best
	// counts: nothing is faster than the link, and much makes it look slow.
	probeEvery, probesFirst = 5 * time.Second, 3
	// paceTime is how long a measure counts: then the way is tried again, if its
	// link makes that seem worth while.
	paceTime = time.Minute
	// lateFactor is how much longer than half of the members one must take to
	// count as late, lateShare how many of its last blocks make it no relay.
	lateFactor = 2
	lateShare  = .5
)

// paces are what a leader learns of its link and of the ways from what it hands
// out. Rates are those that explain the time which a block took to nine tenths
// of the members; since much beside links has a part in that (processors shared
// with others, flow control), each way and size of bodies has its own. A way
// that wasn't tried lately is judged by the link. Of that, stripes tell little,
// for each member's part of them is small and all are busy; so once in a while,
// when a block has come to most, it is sent again to one of them, whole.
type paces struct {
	link   pace      // out of this node
	probed time.Time // the last time
	probes int       // since link was measured anew
	ways   map[way]pace
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

func wayOf(p Path, size int) way { return way{p, classOf(size)} }

// of returns the rate at which a way is thought to work, bytes a second, now.
func (p *paces) of(path Path, size int, now time.Time) float64 {
	if m, ok := p.ways[wayOf(path, size)]; ok && now.Before(m.until) {
		return m.rate
	}
	return p.rate()
}

// rate returns that of the own link.
func (p *paces) rate() float64 {
	if p.link.rate <= 0 {
		return usualRate
	}
	return p.link.rate
}

// linked takes in what went over the own link in d.
func (p *paces) linked(bytes int, d time.Duration, now time.Time) {
	if r := blend(0, float64(bytes), d); r > p.link.rate || !now.Before(p.link.until) {
		if !now.Before(p.link.until) {
			p.probes = 0
		}
		p.link = pace{r, now.Add(paceTime)}
	}
	p.probes++
}

// blend takes a new measure into an old one, which may be 0: the times for a
// byte are averaged, the new one a quarter, so that one measure that was far too good
// is soon forgotten.
func blend(old, bytes float64, took time.Duration) float64 {
	r := min(max(bytes/max(took, leastTime).Seconds(), leastRate), mostRate)
	if old > 0 {
		r = 4 / (3/old + 1/r)
	}
	return r
}

// probe sends a body, or its beginning, to a member that has it, and asks behind
// it whether it has come.
func (c *core) probe(s *session, p peer.ID, now time.Time) {
	s.probed, c.paces.probed = p, now
	c.do(fxBody{to: p, session: s.id, size: min(s.shape.Size, probeMost), probe: true})
	c.do(fxMark{p, s.id})
}

// marked takes the answer.
func (c *core) marked(e evMark, now time.Time) {
	s := c.sessions[e.session]
	if s == nil || s.probed != e.from {
		return
	}
	s.probed = ""
	took := now.Sub(c.paces.probed)
	c.paces.linked(min(s.shape.Size, probeMost), max(took-2*c.latency(), took/2), now)
	if lacking, _ := c.lacking(s); lacking == 0 {
		c.end(s)
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
	hops, load := c.load(s.path, s.shape)
	took = max(took-time.Duration(hops+1)*c.latency(), took/4) // without that of the done-signal
	w := wayOf(s.path, s.shape.Size)
	way := c.paces.ways[w]
	if !now.Before(way.until) {
		way.rate = 0
	}
	c.paces.ways[w] = pace{blend(way.rate, load, took), now.Add(paceTime)}
	direct := c.paces.ways[wayOf(PathDirect, s.shape.Size)]
	switch {
	case s.shape.Size < probeLeast:
	case s.path == PathDirect:
		c.paces.linked(int(load), took, now)
	case s.path == PathStriped && !now.Before(direct.until) && (c.paces.probes < probesFirst || now.Sub(c.paces.probed) >= probeEvery):
		c.probe(s, p, now)
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
	takes := func(path Path) float64 {
		hops, bytes := c.load(path, s)
		return float64(hops)*c.latency().Seconds() + bytes/c.paces.of(path, s.Size, now)
	}
	if takes(PathDirect) <= takes(PathStriped) {
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

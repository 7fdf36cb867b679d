package cast

import (
	"bytes"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// What is taken for granted of links that weren't measured.
const (
	usualLatency = 25 * time.Millisecond
	usualRate    = 100e6 / 8 // bytes a second
)

// Path is a way to all members.
type Path string

// The ways; a block of at most wire.InlineLimit travels in its announcement.
const (
	PathDirect  Path = "direct"  // all data chunks from the leader to each member
	PathStriped Path = "striped" // each chunk to a relay, and from there to all
	PathOrgs    Path = "orgs"    // each chunk to a relay, to its organisation and one member of each other, and from there to those
)

// emit begins to hand out all chunks.
func (c *core) emit(s *session) {
	s.origin, s.standby = true, time.Time{}
	if len(c.order) == 0 {
		return
	}
	path := c.choose(s.shape)
	c.do(fxTell{s.mine, path})
	switch path {
	case PathDirect:
		for i := range s.segs {
			for k := range s.shape.K {
				for j := range c.order {
					if p := c.order[(j+k)%len(c.order)]; s.lacks(p) {
						c.do(fxChunk{to: p, session: s.id, piece: piece{i, k}, hop: hopKeep, own: true})
					}
				}
			}
		}
	case PathOrgs:
		c.announceOrgs(s)
		c.stripe(s)
	case PathStriped:
		c.stripe(s)
	}
}

// choose returns the faster way, by LIBP2P.md 5: with n receivers, body S, link
// rate B, latency L, parity r and q chunks for each relay, direct takes
// L + nS/B, striped 2L + (1+r)(S/B)(1+1/q).
func (c *core) choose(s Shape) Path {
	if c.large() {
		return PathOrgs
	}
	n := float64(len(c.order))
	once := c.seconds(s.Size)
	r := float64(s.M) / float64(s.K)
	q := float64(s.N()*s.Segments) / n
	latency := c.latency().Seconds()
	if latency+n*once <= 2*latency+(1+r)*once*(1+1/q) {
		return PathDirect
	}
	return PathStriped
}

// seconds returns how long this node's link takes for some bytes.
func (c *core) seconds(bytes int) float64 {
	rate := c.rate
	if rate <= 0 {
		rate = usualRate
	}
	return float64(bytes) / rate
}

// latency returns the middle of the one-way latencies that were measured: one
// member that answers late moves nothing.
func (c *core) latency() time.Duration {
	if c.typical == 0 {
		var all []time.Duration
		for _, m := range c.members {
			if m.latency > 0 {
				all = append(all, m.latency)
			}
		}
		slices.Sort(all)
		if c.typical = usualLatency; len(all) > 0 {
			c.typical = all[len(all)/2]
		}
	}
	return c.typical
}

// estimate returns about how long a cast of this shape takes.
func (c *core) estimate(s Shape) time.Duration {
	hops := time.Duration(2)
	if c.large() {
		hops = 3
	}
	once := c.seconds(s.Size) * float64(s.N()) / float64(s.K)
	return hops*c.latency() + time.Duration(once*float64(time.Second))
}

// stripe sends each chunk to its relay. Chunks that are neighbours in the tree
// make a run and go to one relay, as far as there are enough runs for all: so
// they share most of their path's hashes. The first of every run goes out first,
// then the second, and so on. Each segment begins at another relay.
func (c *core) stripe(s *session) {
	n := len(c.order)
	run := 4
	for run > 1 && (s.shape.N()+run-1)/run*s.shape.Segments < n {
		run /= 2
	}
	runs := (s.shape.N() + run - 1) / run
	first := int(uint64(s.id) % uint64(n))
	for i := range s.segs {
		for pos := range run {
			for j := range runs {
				if k := j*run + pos; k < s.shape.N() {
					c.give(s, piece{i, k}, c.order[(first+i*runs+j)%n])
				}
			}
		}
	}
}

// give hands a chunk to a relay.
func (c *core) give(s *session, at piece, to peer.ID) {
	s.given[to] = append(s.given[to], at)
	h := hopAll
	if c.large() {
		h = hopOrgs
	}
	c.do(fxChunk{to: to, session: s.id, piece: at, hop: h, own: true})
}

// announceOrgs sends the announcement ahead of the chunks: to the own
// organisation and all relays, and through one member into each other
// organisation. The topic would take a hop more.
func (c *core) announceOrgs(s *session) {
	gates := make(map[peer.ID]bool, len(c.orgs))
	for _, g := range c.orgs {
		gates[s.gate(g.members, 1<<32, c.self)] = true
	}
	relays := min(len(c.order), s.shape.N()*s.shape.Segments)
	first := int(uint64(s.id) % uint64(len(c.order)))
	for i := range c.order {
		p := c.order[(first+i)%len(c.order)]
		switch {
		case gates[p]:
			c.do(fxHead{p, s.id, s.mine.Raw, hopEnter})
		case i < relays || c.members[p].org == c.org:
			c.do(fxHead{p, s.id, s.mine.Raw, hopKeep})
		}
	}
}

// enter passes an announcement on to the organisation, once for each session.
func (c *core) enter(e evEnter) {
	var s *session
	for _, o := range c.sessions {
		if bytes.Equal(o.head.Raw, e.raw) {
			s = o
		}
	}
	if s == nil || s.headed {
		return
	}
	s.headed = true
	for _, p := range c.order {
		if p != e.from && c.members[p].org == c.org && s.lacks(p) {
			c.do(fxHead{p, s.id, s.head.Raw, hopKeep})
		}
	}
}

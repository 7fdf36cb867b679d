package cast

import (
	"math/bits"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// usualMost bounds how much longer than it was computed a cast is thought to
// take, because casts usually do.
const usualMost = 3

// classes is how many classes of sizes bodies fall into, each four times the
// last: the largest body has 27 bits.
const classes = 14

func classOf(size int) int { return bits.Len(uint(size)) / 2 }

// A spell is how long casts of one announcer and class took here by themselves,
// until the last of them that nobody was asked for came: links don't tell that
// where processors are shared with much else. It is estimated as TCP does the
// time of a round trip (RFC 6298): the mean, and how far from it they are.
type spell struct{ mean, dev time.Duration }

func (v *spell) add(took time.Duration) {
	if v.mean == 0 {
		v.mean, v.dev = took, took/2
		return
	}
	off := took - v.mean
	v.mean += off / 8
	v.dev += (off.Abs() - v.dev) / 4
}

// measured takes a latency. What a ping takes longer than the shortest, it has
// waited: for processors, or behind what was being sent; so longer ones count
// for little, until there are many.
func (m *member) measured(latency time.Duration) {
	if m.latency == 0 || latency < m.latency {
		m.latency = latency
		return
	}
	m.latency += (latency - m.latency) / 16
}

// flows notes that something of a session came by itself. What members send
// because they were asked isn't that.
func (s *session) flows(from peer.ID, now time.Time) {
	if !slices.Contains(s.asked, from) {
		s.flowed = now
	}
}

// usual returns what is known of casts like s; nil if its announcer is gone. It
// can make this node wait for his blocks alone.
func (c *core) usual(s *session) *spell {
	if m := c.members[s.head.Announcer]; m != nil {
		return &m.usual[classOf(s.shape.Size)]
	}
	return nil
}

// learn takes up how long a session took, if anything of it came by itself.
func (c *core) learn(s *session) {
	if u := c.usual(s); u != nil && !s.flowed.IsZero() {
		u.add(s.flowed.Sub(s.opened))
	}
}

// wait is for how long a session has time before anything lacks.
func (c *core) wait(s *session) time.Duration {
	d := c.estimate(s.shape) + slack
	if s.promised { // this member may be the last of all that get it
		return usualMost * d
	}
	if u := c.usual(s); u != nil {
		return min(max(d, u.mean+2*u.dev), usualMost*d)
	}
	return d
}

// quiet is for how long nothing may come before something lacks: what came
// slowly so far may pause for longer, above all if one member alone sends it, to
// all in turn.
func (c *core) quiet(s *session) time.Duration {
	if s.direct != nil {
		return max(4*slack, 2*c.latency(), s.moved.Sub(s.opened)/2)
	}
	return max(slack, 2*c.latency(), s.moved.Sub(s.opened)/4)
}

// answer returns how long the chunks that lack may take when they are asked
// for.
func (c *core) answer(s *session) time.Duration {
	lack := 0
	for _, g := range s.segs {
		if !g.sealed {
			lack += s.shape.K - g.count
		}
	}
	return max(2*c.latency()+slack+c.patience(lack*s.shape.Chunk), c.wait(s)/4)
}

package cast

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Limits of chunks whose announcement hasn't come: they overtook it.
const (
	parkBytes = 256 << 10 // of one member's
	parkMost  = 4 << 20   // of all
	parkTime  = time.Second
	askAfter  = 40 * time.Millisecond // then their sender is asked for it
)

// A parking holds chunks until they are known of. Nothing of them is believed.
type parking struct {
	chunks []waiting // in the order they came
	bytes  int
	of     map[peer.ID]int // bytes
}

type waiting struct {
	evChunk
	since time.Time
	asked bool // its sender, or there is no need
}

func newParking() parking { return parking{of: make(map[peer.ID]int)} }

// take returns the chunks of a session, and forgets them.
func (p *parking) take(id sessionID) (out []evChunk) {
	p.filter(func(w waiting) bool {
		if w.chunk.session == id {
			out = append(out, w.evChunk)
			return false
		}
		return true
	})
	return out
}

// drop forgets a member's.
func (p *parking) drop(from peer.ID) {
	p.filter(func(w waiting) bool { return w.from != from })
}

func (p *parking) filter(keep func(waiting) bool) {
	kept := p.chunks[:0]
	for _, w := range p.chunks {
		if keep(w) {
			kept = append(kept, w)
			continue
		}
		p.bytes -= len(w.chunk.data)
		if p.of[w.from] -= len(w.chunk.data); p.of[w.from] <= 0 {
			delete(p.of, w.from)
		}
	}
	clear(p.chunks[len(kept):])
	p.chunks = kept
}

// park keeps a chunk for a while. Its data belongs to the event, so it is
// copied.
func (c *core) park(e evChunk, now time.Time) {
	n := len(e.chunk.data)
	if c.parked.of[e.from]+n > parkBytes || c.parked.bytes+n > parkMost {
		c.refuse(e.from, Unknown)
		return
	}
	asked := false
	for _, w := range c.parked.chunks {
		asked = asked || w.from == e.from && w.chunk.session == e.chunk.session
	}
	e.chunk.data = append([]byte(nil), e.chunk.data...)
	c.parked.chunks = append(c.parked.chunks, waiting{e, now, asked})
	c.parked.of[e.from] += n
	c.parked.bytes += n
	c.stale = c.stale || !asked
}

// unpark asks for announcements that are late, drops what waited too long, and
// returns when to look again.
func (c *core) unpark(now time.Time) (next time.Time) {
	c.parked.filter(func(w waiting) bool {
		if now.Before(w.since.Add(parkTime)) {
			return true
		}
		c.refuse(w.from, Unknown)
		return false
	})
	for i := range c.parked.chunks {
		w := &c.parked.chunks[i]
		due := w.since.Add(parkTime)
		if !w.asked {
			due = w.since.Add(askAfter)
			if !now.Before(due) {
				w.asked = true
				if c.members[w.from] != nil {
					c.do(fxSay{w.from, w.chunk.session, frameAsk})
				}
				due = w.since.Add(parkTime)
			}
		}
		if next.IsZero() || due.Before(next) {
			next = due
		}
	}
	return next
}

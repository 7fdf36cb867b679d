package cast

import (
	"bytes"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"grapevine/wire"
)

// needsMost bounds the questions that wait while chunks are made for them.
const needsMost = 256

// A direct is a body that one announcer sends whole, part by part, in order:
// nothing of it is proven until all is there. Chunks and parts of one session
// don't mix, so that it never holds more than it was given.
type direct struct {
	from peer.ID
	raw  []byte // the block, as slab lays it out; places belong to from's reader
	next int    // bytes of the body that were given a place
	came int    // and are there
}

// place returns where a part of a body is to be read to, or nil and why nobody
// needs it. An error says that nobody honest would send it.
func (c *core) place(from peer.ID, id sessionID, offset, length int, now time.Time) (room []byte, why *wire.Reason, err error) {
	s := c.sessions[id]
	if s != nil {
		s.came += length
		s.flows(from, now)
	}
	switch {
	case s == nil && c.over.has(id):
		return nil, Duplicate, nil
	case s == nil:
		return nil, Unknown, nil
	case offset+length > s.shape.Size:
		return nil, nil, BadFrame
	case !slices.Contains(s.announcers, from):
		return nil, NotOrigin, nil
	case s.state != gathering || s.striped:
		return nil, Duplicate, nil
	case offset == 0 && (s.direct == nil || s.yields(from)):
		s.direct = &direct{from: from, raw: s.slab.lay()}
	}
	d := s.direct
	if d == nil || d.from != from || d.next != offset {
		return nil, Duplicate, nil
	}
	d.next += length
	return s.slab.body(d.raw)[offset:d.next:d.next], nil, nil
}

// yields says whether the announcer whose parts come will stop, because p
// announced as well.
func (s *session) yields(p peer.ID) bool {
	return p != s.direct.from && slices.Contains(s.announcers, p) && precedes(s.id, p, s.direct.from)
}

// part notes that one is in place.
func (c *core) part(e evPart, now time.Time) {
	s := c.sessions[e.session]
	if s == nil || s.state != gathering || s.direct == nil || s.direct.from != e.from {
		return
	}
	s.moved = now
	if s.direct.came += e.length; s.direct.came == s.shape.Size {
		s.state = judging
		c.do(fxJudge{s.id, s.head, s.slab, s.direct, s.came})
	}
}

// abandon gives up a body that was on its way whole: what lacks is to come in
// chunks.
func (s *session) abandon() { s.direct, s.striped = nil, true }

// wrong takes up that a body isn't the one that its sender announced. Only this
// member has seen that, so only here it counts; others may have the true one.
func (c *core) wrong(s *session, from peer.ID, now time.Time) {
	s.state, s.due, c.stale = gathering, now, true
	s.abandon()
	c.refuse(from, BadBody)
	c.bar(from, now)
}

// want keeps a question until there are chunks to answer it with. A body that
// came whole isn't cut before somebody asks.
func (c *core) want(s *session, e evNeed) {
	if len(s.wanting) >= needsMost {
		c.refuse(e.from, NeedLimit)
		return
	}
	if s.wanting = append(s.wanting, e); len(s.wanting) == 1 {
		c.do(fxEncode{s.id, s.slab.body(s.direct.raw)})
	}
}

// encoded takes the chunks of a body that came whole. If they aren't those that
// its announcement names, although the body is the true one, its announcers
// lied about them.
func (c *core) encoded(e evEncoded, now time.Time) {
	s := c.sessions[e.session]
	if s == nil || s.direct == nil || s.sliced {
		return
	}
	waiting := s.wanting
	s.wanting = nil
	switch {
	case e.code == nil: // our own trouble
	case bytes.Equal(e.code.Roots, s.head.Roots):
		s.fill(e.code)
	default:
		c.accuse(s, now)
	}
	for _, w := range waiting {
		if s.sliced {
			c.need(w, now)
		} else if c.members[w.from] != nil {
			c.do(fxSay{w.from, w.session, frameNone})
		}
	}
}

// accuse holds a session's encoding against who announced it.
func (c *core) accuse(s *session, now time.Time) {
	for _, p := range s.announcers {
		c.refuse(p, BadEncoding)
		c.bar(p, now)
	}
	if s.direct != nil {
		c.do(fxLie{head: s.head, body: s.slab.body(s.direct.raw)})
		return
	}
	c.do(fxLie{head: s.head, pieces: s.proofs()})
}

// part of a body as it is sent now, or false if there is no need of it any more.
func (c *core) bodyPart(fx fxPart) ([]byte, bool) {
	s := c.sessions[fx.session]
	if s == nil || !s.origin || c.members[fx.to] == nil || !s.lacks(fx.to) && !fx.probe {
		return nil, false
	}
	return s.body[fx.offset:min(fx.offset+partBytes, fx.end)], true
}

package cast

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"grapevine/wire"
)

// state is how far a session has come at this member.
type state int

const (
	gathering state = iota
	judging         // all data chunks are in place; is it the block?
	having          // the block is here
	spoilt          // what the chunks give is not the block
)

// session is one encoding of one block.
type session struct {
	id         sessionID
	head       *Head
	mine       *Head // this node's own announcement, if it made one
	shape      Shape
	state      state
	opened     time.Time
	moved      time.Time // a chunk came that lacked
	flowed     time.Time // the last came that nobody was asked for
	done       time.Time // the block is here since
	segs       []*segment
	slab       *slab
	direct     *direct  // the body on its way whole, or as it came; nil: chunks
	promised   bool     // its announcer said that he sends it whole
	striped    bool     // it comes in chunks; parts aren't taken any more
	sliced     bool     // all chunks are here, from this node's own encoding
	wanting    []evNeed // until it is
	came       int      // bytes of chunks and parts, those that nobody needed included
	announcers []peer.ID
	far        map[peer.ID]*far

	// As an origin.
	origin  bool                // this node hands chunks out
	body    []byte              // of this node's own block
	standby time.Time           // when it does so unless the members have the block; zero: it doesn't
	given   map[peer.ID][]piece // to relays
	path    Path
	untold  time.Time // when the announcement goes out on the topic; zero: it did
	emitted time.Time
	probed  peer.ID       // to whom it was sent to measure the own link; empty: to nobody
	half    time.Duration // how long it took to half of the members

	passed  int // chunks passed on to all, and to the organisation
	entered int
	headed  bool // the announcement was passed on to the organisation

	// Repair.
	due      time.Time // when to look whether something lacks
	expected time.Time // until when blocksync was asked to wait
	asking   peer.ID   // who was asked last, and hasn't refused
	asked    []peer.ID
	pulled   bool
	helped   time.Time // when it last served somebody who asked
}

// segment is a part of the body that is coded by itself.
type segment struct {
	tree   *tree
	chunks [][]byte // those that are here, by index
	have   bitset   // those that are proven, by chunks that came or were made here
	passed bitset
	count  int  // of have, until coding begins
	sealed bool // enough came: no more goes into the slab but what is rebuilt
	whole  bool // all data chunks are in place
}

// far is another member's part in a session.
type far struct {
	done   bool
	known  []bitset // nodes of each segment's tree that it can prove by
	served int      // chunks sent because it asked
	heads  int      // announcements sent because it asked
}

func newSession(h *Head, now time.Time) (*session, error) {
	shape, err := ShapeOf(h.Size)
	if err != nil {
		return nil, err
	}
	if err := CheckRoots(h.Size, h.Roots); err != nil {
		return nil, err
	}
	slab, err := newSlab(shape, h.Block)
	if err != nil {
		return nil, err
	}
	s := &session{
		id: h.id(), head: h, shape: shape, opened: now, moved: now, slab: slab, announcers: []peer.ID{h.Announcer},
		far: make(map[peer.ID]*far), given: make(map[peer.ID][]piece),
	}
	for i := range shape.Segments {
		s.segs = append(s.segs, &segment{
			tree: newTree(shape.N(), shape.roots(h.Roots, i)), chunks: make([][]byte, shape.N()),
			have: newBitset(8 * haveBytes), passed: newBitset(8 * haveBytes),
		})
	}
	return s, nil
}

// bytes is what a session may come to hold.
func (s *session) bytes() int64 { return s.shape.Coded() }

// of returns another member's part.
func (s *session) of(p peer.ID) *far {
	f := s.far[p]
	if f == nil {
		f = &far{}
		s.far[p] = f
	}
	return f
}

// lacks says whether p would keep a chunk.
func (s *session) lacks(p peer.ID) bool {
	f := s.far[p]
	return (f == nil || !f.done) && !slices.Contains(s.announcers, p)
}

// fill takes all chunks from this node's own encoding.
func (s *session) fill(e *Encoding) {
	s.sliced = true
	for i, g := range s.segs {
		g.tree, g.sealed, g.whole = e.segs[i].tree, true, true
		copy(g.chunks, e.segs[i].chunks)
		for k := range s.shape.N() {
			g.have.set(k)
		}
	}
}

// store keeps the data of a proven chunk. What comes once the segment is sealed
// is kept beside the slab, which is being filled.
func (s *session) store(at piece, data []byte) {
	g := s.segs[at.segment]
	g.have.set(at.index)
	if !g.sealed && at.index < s.shape.K && s.state == gathering {
		slot := s.slab.slot(at.segment*s.shape.K + at.index)
		copy(slot, data)
		g.chunks[at.index] = slot
		return
	}
	g.chunks[at.index] = append([]byte(nil), data...)
}

// ended says whether a session is only kept for those who ask.
func (s *session) ended(now time.Time) bool {
	return s.state == having && now.Sub(s.done) > keepTime
}

// chunk takes one in. What isn't known of yet waits.
func (c *core) chunk(e evChunk, now time.Time) {
	s := c.sessions[e.chunk.session]
	if s == nil && !c.over.has(e.chunk.session) {
		c.park(e, now)
		return
	}
	if s != nil {
		s.came += len(e.chunk.data)
	}
	if ok, err := c.useful(e.from, e.chunk, len(e.chunk.data)); !ok {
		if err == nil {
			err = Duplicate
		}
		c.refuse(e.from, wire.ReasonOf(err))
		return
	}
	at := piece{e.chunk.segment, e.chunk.index}
	g := s.segs[at.segment]
	duty, why := c.duty(s, e.from, e.chunk.hop, at)
	useful := !g.have.has(at.index) && !g.sealed && s.state == gathering
	if !g.have.has(at.index) && (useful || duty) {
		if err := g.tree.accept(at.index, e.chunk.levels, e.chunk.hashes, e.chunk.leaf); err != nil {
			c.refuse(e.from, wire.ReasonOf(err))
			return
		}
		if s.direct != nil && s.state == gathering {
			s.abandon()
		}
		s.striped = true
		s.store(at, e.chunk.data)
	} else if !duty && why == nil {
		why = Duplicate
	}
	if why != nil {
		c.refuse(e.from, why)
	}
	if duty {
		c.pass(s, at, e.chunk.hop, e.from)
	}
	if useful {
		s.moved = now
		if g.count++; g.count == s.shape.K {
			c.seal(s, at.segment)
		}
	}
}

// seal ends the gathering of a segment's chunks: the rest is computed.
func (c *core) seal(s *session, segment int) {
	g := s.segs[segment]
	g.sealed = true
	data := 0
	for i := range s.shape.K {
		if g.have.has(i) {
			data++
		}
	}
	if data == s.shape.K {
		g.whole = true
		c.judge(s)
		return
	}
	chunks := slices.Clone(g.chunks)
	for i := range s.shape.K {
		if chunks[i] == nil {
			chunks[i] = s.slab.slot(segment*s.shape.K + i)[:0]
		}
	}
	c.do(fxRebuild{s.id, segment, s.shape, chunks})
}

// rebuilt notes that a segment's data is in place.
func (c *core) rebuilt(e evRebuilt) {
	s := c.sessions[e.session]
	if s == nil || s.state != gathering {
		return
	}
	if e.err != nil { // our own trouble: enough proven chunks always give something
		c.pull(s)
		return
	}
	s.segs[e.segment].whole = true
	c.judge(s)
}

// judge has the body judged when it is whole.
func (c *core) judge(s *session) {
	for _, g := range s.segs {
		if !g.whole {
			return
		}
	}
	s.state = judging
	c.do(fxJudge{s.id, s.head, s.slab, nil, s.came})
}

// judged takes up whether the body is the one that the orderers signed. If not,
// its announcer is to blame alone: the chunks prove it.
func (c *core) judged(e evJudged, now time.Time) {
	s := c.sessions[e.session]
	if s == nil || s.state != judging {
		return
	}
	switch {
	case e.err == nil:
		c.finish(s, now, false)
		return
	case e.wrong != "":
		c.wrong(s, e.wrong, now)
		return
	}
	s.state = spoilt
	if e.lie {
		c.accuse(s, now)
	}
	c.pull(s)
}

// proofs returns enough proven chunks of each segment to make the body of.
func (s *session) proofs() [][]proof {
	out := make([][]proof, len(s.segs))
	for i, g := range s.segs {
		for k := 0; k < s.shape.N() && len(out[i]) < s.shape.K; k++ {
			if !g.have.has(k) {
				continue
			}
			levels, hashes := g.tree.path(k, newTree(s.shape.N(), s.shape.roots(s.head.Roots, i)).known)
			out[i] = append(out[i], proof{k, levels, hashes, g.chunks[k]})
		}
	}
	return out
}

// finish notes that the block is here and says so to all, unless they know
// because this node announces it.
func (c *core) finish(s *session, now time.Time, silent bool) {
	c.learn(s)
	s.state, s.done, s.asking = having, now, ""
	if s.direct != nil && s.direct.came < s.shape.Size {
		s.direct = nil
	}
	c.expect(s, time.Time{})
	if silent {
		return
	}
	c.tell(s)
}

// isDone notes that a member has the block.
func (c *core) isDone(e evDone, now time.Time) {
	s := c.sessions[e.session]
	if s == nil || c.members[e.from] == nil {
		return
	}
	f := s.of(e.from)
	if f.done {
		return
	}
	f.done, f.known = true, nil
	if lacking, all := c.lacking(s); s.origin {
		c.reached(s, e.from, all-lacking, all, now)
	}
	switch soon := now.Add(slack); {
	case s.state == gathering && soon.Before(s.due):
		s.due, c.stale = soon, true
	case s.state == having:
		lacking, all := c.lacking(s)
		if s.origin && 2*lacking <= all && 2*(lacking+1) > all {
			c.do(fxRoom{})
		}
		if s.mine != nil && lacking == 0 && s.probed == "" {
			c.end(s)
		}
	}
}

// lacking counts the members that lack the block, as far as they have said:
// all tell its announcers.
func (c *core) lacking(s *session) (lacking, all int) {
	for _, p := range c.order {
		if s.lacks(p) {
			lacking++
		}
	}
	return lacking, len(c.order)
}

// busy counts the sessions that this node hands out and most members still
// lack.
func (c *core) busy() (n int) {
	for _, s := range c.sessions {
		if lacking, all := c.lacking(s); s.origin && 2*lacking > all {
			n++
		}
	}
	return n
}

// frame returns a chunk as it is sent now, or false if there is no need of it
// any more.
func (c *core) frame(fx fxChunk) (chunk, bool) {
	s := c.sessions[fx.session]
	if s == nil || c.members[fx.to] == nil || fx.hop == hopKeep && !s.lacks(fx.to) || fx.own && !fx.urgent && !s.origin {
		return chunk{}, false
	}
	at := fx.piece
	g := s.segs[at.segment]
	f := s.of(fx.to)
	if f.known == nil {
		f.known = make([]bitset, len(s.segs))
	}
	if f.known[at.segment] == nil {
		f.known[at.segment] = newTree(s.shape.N(), s.shape.roots(s.head.Roots, at.segment)).known
	}
	out := chunk{session: s.id, segment: at.segment, index: at.index, hop: fx.hop, data: g.chunks[at.index]}
	out.levels, out.hashes = g.tree.path(at.index, f.known[at.segment])
	return out, true
}

// forgetKnown notes that what p was sent may not have come.
func (c *core) forgetKnown(p peer.ID) {
	for _, s := range c.sessions {
		if f := s.far[p]; f != nil {
			f.known = nil
		}
	}
}

// wants says whether a chunk of this length may be of use, so that what isn't
// need not be read into memory and hashed, and counts that. An error says that
// nobody honest would send it.
func (c *core) wants(from peer.ID, ch chunk, length int, now time.Time) (bool, error) {
	ok, err := c.useful(from, ch, length)
	if s := c.sessions[ch.session]; s != nil {
		s.flows(from, now)
		if !ok {
			s.came += length
		}
	}
	return ok, err
}

func (c *core) useful(from peer.ID, ch chunk, length int) (bool, error) {
	s := c.sessions[ch.session]
	if s == nil {
		return !c.over.has(ch.session), nil
	}
	if ch.segment >= len(s.segs) || ch.index >= s.shape.N() || length != s.shape.Chunk || int(ch.levels) >= 1<<s.segs[ch.segment].tree.depth() {
		return false, BadFrame
	}
	if s.direct != nil && !s.yields(from) {
		return false, nil
	}
	g := s.segs[ch.segment]
	if g.have.has(ch.index) || g.sealed || s.state != gathering {
		return ch.hop != hopKeep && !g.passed.has(ch.index), nil
	}
	return true, nil
}

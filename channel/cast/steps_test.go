package cast

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/libp2p/go-libp2p/core/peer"

	"grapevine/wire"
)

// TestSteps holds one core against its invariants through random steps: what an
// honest member may see, in any order, and what a hostile one may send.
func TestSteps(t *testing.T) {
	steps := 1_000_000
	if testing.Short() {
		steps = 60_000
	}
	const each = 20_000
	works := newWorks(t)
	for seed := range uint64(steps / each) {
		newBystander(t, seed, works).live(each)
	}
}

// works are encodings to play with: of each block a true one, and one whose
// chunks give something else. They are made once: coding takes time.
type works struct {
	blocks []*common.Block
	codes  [][2]*Encoding // by block: true, false
	coder  Coder
}

func newWorks(t *testing.T) *works {
	w := &works{}
	p := &play{t: t}
	for n := range 6 {
		by := &actor{id: "x"}
		h, code := p.head(uint64(n), wire.InlineLimit+100+n*15001, by)
		lie, err := w.coder.Encode(pattern(int(h.Size) - 1))
		if err != nil {
			t.Fatal(err)
		}
		w.blocks = append(w.blocks, h.Block)
		w.codes = append(w.codes, [2]*Encoding{code, lie})
	}
	return w
}

// A bystander drives one core and watches what it does.
type bystander struct {
	t     *testing.T
	rng   *rand.Rand
	works *works
	c     *core
	now   time.Time
	ids   []peer.ID
	here  map[peer.ID]bool
	todo  []event // answers of the shell
	seen  map[sessionID]*watched
	order []*watched
	next  uint64 // number of the next block
	held  int64  // bytes opened and not closed
	wake  time.Time
}

// watched is what the bystander knows of a session.
type watched struct {
	head   *Head
	code   *Encoding
	false  bool
	known  bool // announced to the core
	block  bool // the core has the block
	done   map[peer.ID]bool
	passed map[piece]bool
	pulls  int
	trees  map[peer.ID][]*tree // what receivers can prove by
	// garbled are those who sent another body than the announced one.
	garbled map[peer.ID]bool
}

func newBystander(t *testing.T, seed uint64, w *works) *bystander {
	b := &bystander{
		t: t, rng: rand.New(rand.NewPCG(seed, 3)), works: w, now: time.Unix(1e9, 0), here: map[peer.ID]bool{}, seen: map[sessionID]*watched{},
	}
	orgs := 1 + b.rng.IntN(4)
	b.c = newCore("self", "org0", b.rng.IntN(3) == 0)
	for i := range 2 + b.rng.IntN(12) {
		b.ids = append(b.ids, peer.ID(fmt.Sprintf("peer%x/org%d", b.rng.Uint32(), i%orgs)))
	}
	return b
}

func orgOf(p peer.ID) string { return string(p)[len(p)-4:] }

func (b *bystander) live(steps int) {
	for range steps {
		b.do(b.event())
	}
	for range 10_000 { // all comes to an end
		if b.now = b.now.Add(time.Second); len(b.c.sessions) == 0 && len(b.todo) == 0 && b.c.parked.bytes == 0 {
			break
		}
		if len(b.todo) > 0 {
			e := b.todo[0]
			b.todo = b.todo[1:]
			b.do(e)
		}
		b.do(evTick{})
	}
	if len(b.c.sessions) > 0 || b.held != 0 || b.c.parked.bytes > 0 {
		b.t.Fatalf("%d sessions, %d bytes, %d parked are left", len(b.c.sessions), b.held, b.c.parked.bytes)
	}
}

func (b *bystander) someone() peer.ID { return b.ids[b.rng.IntN(len(b.ids))] }

// some returns a session, announced or not; sometimes a new one.
func (b *bystander) some() *watched {
	if len(b.seen) == 0 || b.rng.IntN(400) == 0 {
		k := b.rng.IntN(len(b.works.blocks))
		raw := b.works.blocks[k]
		b.next++
		blk := &common.Block{Header: &common.BlockHeader{Number: b.next, PreviousHash: raw.Header.PreviousHash, DataHash: raw.Header.DataHash}, Metadata: raw.Metadata}
		w := &watched{done: map[peer.ID]bool{}, passed: map[piece]bool{}, trees: map[peer.ID][]*tree{}, garbled: map[peer.ID]bool{}, false: b.rng.IntN(5) == 0}
		w.code = b.works.codes[k][0]
		if w.false {
			w.code = b.works.codes[k][1]
		}
		w.head = (&play{}).announce(blk, w.code, &actor{id: b.someone()})
		w.head.Raw = fmt.Appendf(nil, "announcement %d", b.next)
		b.seen[w.head.id()] = w
		b.order = append(b.order, w)
		if len(b.order) > 60 { // one that the core has forgotten as well
			for i, v := range b.order {
				if id := v.head.id(); b.c.sessions[id] == nil && v.known && v != w {
					delete(b.seen, id)
					b.order = append(b.order[:i], b.order[i+1:]...)
					break
				}
			}
		}
	}
	return b.order[max(b.rng.IntN(len(b.order)), b.rng.IntN(len(b.order)))] // rather new ones
}

func (b *bystander) event() event {
	if len(b.todo) > 0 && b.rng.IntN(6) > 0 {
		e := b.todo[0]
		b.todo = b.todo[1:]
		return e
	}
	b.now = b.now.Add(time.Duration(b.rng.IntN(3)) * time.Millisecond)
	if !b.wake.IsZero() && !b.now.Before(b.wake) {
		b.wake = time.Time{}
		return evTick{}
	}
	w, p := b.some(), b.someone()
	id := w.head.id()
	switch k := b.rng.IntN(100); {
	case k < 3:
		return evArrived{p, orgOf(p)}
	case k < 4:
		if b.rng.IntN(2) == 0 {
			return evHub{p}
		}
		return evLeft{p}
	case k < 6:
		h := *w.head
		if b.rng.IntN(3) == 0 {
			h.Announcer = p
		}
		return evAnnounced{&h}
	case k < 7 && !w.false:
		h := *w.head
		h.Announcer, h.Raw = "self", append([]byte("own "), h.Raw...)
		return evOwn{&h, w.code}
	case k < 8:
		return evHave{w.head.Number, w.head.Hash}
	case k < 12:
		return evDone{p, id}
	case k < 14:
		have := newBitset(8 * haveBytes)
		for i := range w.code.Shape.N() {
			if b.rng.IntN(2) == 0 {
				have.set(i)
			}
		}
		return evNeed{p, id, b.rng.IntN(2), have}
	case k < 15:
		return evAsk{p, id}
	case k < 16:
		return evNone{p, id}
	case k < 17:
		return evHeaded{p, []hop{hopEnter, hopKeep}[b.rng.IntN(2)], w.head.Raw}
	case k < 18:
		return evLink{p, time.Duration(b.rng.IntN(200)) * time.Millisecond}
	case k == 18 && b.rng.IntN(20) == 0:
		return evBarred{p}
	case k == 19:
		return evSqueeze{1}
	case k == 20:
		b.now = b.now.Add(time.Duration(b.rng.IntN(500)) * time.Millisecond)
		return evTick{}
	case k == 21:
		b.c.forgetKnown(p)
		for _, v := range b.seen {
			delete(v.trees, p)
		}
		return evTick{}
	}
	if b.rng.IntN(8) == 0 {
		return b.part(w, p)
	}
	return b.chunk(w, p)
}

// part makes the next part of a body, mostly a true one, of the announcer's.
func (b *bystander) part(w *watched, from peer.ID) event {
	id, at := w.head.id(), 0
	if b.rng.IntN(8) > 0 {
		from = w.head.Announcer
	}
	if s := b.c.sessions[id]; s != nil && s.direct != nil && b.rng.IntN(20) > 0 {
		at = s.direct.next
	}
	data := w.code.body[min(at, len(w.code.body)):]
	data = data[:min(len(data), 1+b.rng.IntN(40_000))]
	room, why, err := b.c.place(from, id, at, len(data), b.now)
	if err != nil || why != nil || len(data) == 0 {
		return evTick{}
	}
	if copy(room, data); b.rng.IntN(30) == 0 {
		room[b.rng.IntN(len(room))] ^= 1
		w.garbled[from] = true
	}
	return evPart{from, id, len(data)}
}

// chunk makes one, mostly true.
func (b *bystander) chunk(w *watched, from peer.ID) event {
	e := w.code
	ch := chunk{session: w.head.id(), segment: b.rng.IntN(len(e.segs)), index: b.rng.IntN(e.Shape.N()), hop: hop(b.rng.IntN(int(hops)))}
	if ch.hop <= hopOrgs && b.rng.IntN(4) > 0 {
		from = w.head.Announcer
	}
	ch.data = e.segs[ch.segment].chunks[ch.index]
	ch.levels, ch.hashes = e.segs[ch.segment].tree.path(ch.index, newTree(e.Shape.N(), e.Shape.roots(e.Roots, ch.segment)).known)
	switch b.rng.IntN(30) {
	case 0:
		ch.data = append([]byte{ch.data[0] ^ 1}, ch.data[1:]...)
	case 1:
		ch.index = b.rng.IntN(256)
	case 2:
		ch.segment = b.rng.IntN(4)
	case 3:
		ch.data = ch.data[1:]
	case 4:
		ch.levels, ch.hashes = 0, nil
	case 5:
		ch.levels = byte(b.rng.IntN(256))
	}
	ch.leaf = leafOf(ch.data)
	return evChunk{from, ch}
}

// do takes a step and looks at all that comes of it.
func (b *bystander) do(e event) {
	switch e := e.(type) {
	case evArrived:
		b.here[e.peer] = true
	case evLeft:
		delete(b.here, e.peer)
		for _, w := range b.seen {
			delete(w.done, e.peer)
			delete(w.trees, e.peer)
		}
	case evDone:
		if w := b.seen[e.session]; w != nil && b.c.sessions[e.session] != nil && b.here[e.from] {
			w.done[e.from] = true
		}
	case evAnnounced:
		b.seen[e.head.id()].known = true
	case evOwn:
		w := b.seen[e.head.id()]
		w.known, w.block = true, true
	case evHave:
		for _, w := range b.seen {
			w.block = w.block || w.head.Number == e.number && w.head.Hash == e.hash
		}
	case evJudged:
		if w := b.seen[e.session]; w != nil && e.err == nil {
			w.block = true
		}
	}
	passes := map[piece]sessionID{}
	for _, fx := range b.c.step(e, b.now) {
		b.look(e, fx, passes)
	}
	b.c.check(b.t)
	b.limits()
}

func (b *bystander) fail(format string, args ...any) {
	b.t.Helper()
	b.t.Fatalf(format, args...)
}

func (b *bystander) look(e event, fx effect, passes map[piece]sessionID) {
	switch fx := fx.(type) {
	case fxChunk:
		b.lookAt(e, fx, passes)
	case fxSay:
		if w := b.seen[fx.session]; fx.what == frameDone && (w == nil || !w.block) {
			b.fail("says that it has a block which it hasn't")
		}
		if !b.here[fx.to] && fx.what != frameNone {
			b.fail("speaks to %s, who is gone", fx.to)
		}
	case fxPull:
		w := b.seen[fx.head.id()]
		if w.pulls++; b.c.sessions[fx.head.id()] != nil && w.pulls > 1 && !b.c.over.has(fx.head.id()) {
			b.fail("pulls one session's block %d times", w.pulls)
		}
	case fxOpened:
		b.held += fx.bytes
		if ev, ok := e.(evAnnounced); ok {
			b.fresh(ev.head)
		}
		if ev, ok := e.(evOwn); ok {
			b.fresh(ev.head)
			b.seen[ev.head.id()].block = true
		}
	case fxClosed:
		b.held -= fx.bytes
	case fxWake:
		b.wake = fx.at
	case fxRebuild:
		b.todo = append(b.todo, evRebuilt{fx.session, fx.segment, b.works.coder.rebuild(fx.shape, fx.chunks)})
	case fxJudge:
		w := b.seen[fx.session]
		ev := judgeAs(&b.works.coder, fx)
		if fx.direct == nil && w.false == (ev.err == nil) || w.false && ev.err == nil {
			b.fail("a body of an encoding that is false: %v gives %v", w.false, ev.err)
		}
		if ev.wrong != "" && !w.garbled[fx.direct.from] {
			b.fail("%s is said to have sent what it didn't announce", fx.direct.from)
		}
		b.todo = append(b.todo, ev)
	case fxEncode:
		code, err := b.works.coder.Encode(fx.body)
		if err != nil {
			b.fail("cutting a body: %v", err)
		}
		b.todo = append(b.todo, evEncoded{fx.session, code})
	case fxBody:
		if w := b.seen[fx.session]; !w.block || w.done[fx.to] != fx.probe || !b.here[fx.to] {
			b.fail("sends %q a body that it has, or that isn't here", string(fx.to))
		}
		if data, ok := b.c.bodyPart(fxPart{fx.to, fx.session, 0, fx.size, fx.probe}); !ok || string(data) != string(b.seen[fx.session].code.body[:len(data)]) {
			b.fail("sends another body than the announced one")
		}
	case fxLie:
		if w := b.seen[fx.head.id()]; !w.false {
			b.fail("an honest announcer is accused")
		}
	case fxRefuse:
		b.refusal(e, fx)
	case fxTell:
		if fx.head.Announcer != "self" {
			b.fail("publishes another's announcement")
		}
	}
}

// fresh notes that a session begins anew.
func (b *bystander) fresh(h *Head) {
	w := b.seen[h.id()]
	w.done, w.passed, w.trees, w.pulls, w.block = map[peer.ID]bool{}, map[piece]bool{}, map[peer.ID][]*tree{}, 0, false
}

// lookAt looks at a chunk that is sent.
func (b *bystander) lookAt(e event, fx fxChunk, passes map[piece]sessionID) {
	w := b.seen[fx.session]
	s := b.c.sessions[fx.session]
	if w == nil || !w.known || s == nil {
		b.fail("sends chunks of a session that nobody announced")
	}
	if !b.here[fx.to] || fx.to == "self" {
		b.fail("sends to %s, who isn't there", fx.to)
	}
	if fx.hop == hopKeep && w.done[fx.to] {
		b.fail("%T: sends %q what it has", e, string(fx.to))
	}
	if !fx.own {
		if ev, ok := e.(evChunk); ok && ev.from == fx.to {
			b.fail("sends a chunk back")
		}
		if w.passed[fx.piece] && passes[fx.piece] != fx.session {
			b.fail("passes chunk %v on twice", fx.piece)
		}
		w.passed[fx.piece], passes[fx.piece] = true, fx.session
		if most := 2 * shareFactor * s.shape.N() * len(s.segs); len(w.passed) > most+2*shareSpare {
			b.fail("passes %d chunks on", len(w.passed))
		}
	}
	ch, ok := b.c.frame(fx)
	if !ok {
		b.fail("sends a chunk that it then keeps")
	}
	if string(ch.data) != string(w.code.segs[ch.segment].chunks[ch.index]) {
		b.fail("sends a chunk that was never announced")
	}
	trees := w.trees[fx.to]
	if trees == nil {
		trees = make([]*tree, len(w.code.segs))
		w.trees[fx.to] = trees
	}
	if trees[ch.segment] == nil {
		trees[ch.segment] = newTree(s.shape.N(), s.shape.roots(s.head.Roots, ch.segment))
	}
	if err := trees[ch.segment].accept(ch.index, ch.levels, ch.hashes, leafOf(ch.data)); err != nil && !w.done[fx.to] {
		b.fail("chunk %v, which %q can't prove: %v", fx.piece, string(fx.to), err)
	}
}

// refusal holds that what is true isn't held against who sent it.
func (b *bystander) refusal(e event, fx fxRefuse) {
	ev, ok := e.(evChunk)
	if !ok || fx.peer != ev.from {
		return
	}
	w := b.seen[ev.chunk.session]
	ch := ev.chunk
	honest := w != nil && ch.segment < len(w.code.segs) && ch.index < w.code.Shape.N() &&
		string(ch.data) == string(w.code.segs[ch.segment].chunks[ch.index])
	if v := fx.reason.Verdict(); honest && (v == wire.Reject || v == wire.Ban) && len(ch.hashes) > 0 {
		levels, hashes := w.code.segs[ch.segment].tree.path(ch.index, newTree(w.code.Shape.N(), w.code.Shape.roots(w.code.Roots, ch.segment)).known)
		if levels == ch.levels && fmt.Sprint(hashes) == fmt.Sprint(ch.hashes) {
			b.fail("a true chunk is refused: %v", fx.reason)
		}
	}
}

func (b *bystander) limits() {
	all, of := 0, map[peer.ID]int{}
	var bytes int64
	for _, s := range b.c.sessions {
		bytes += s.bytes()
		if s.state == gathering && !s.pulled {
			all++
			of[s.head.Announcer]++
		}
	}
	if all > perChannel || bytes != b.held {
		b.fail("%d sessions gather; %d bytes are opened, %d held", all, b.held, bytes)
	}
	for p, n := range of {
		if n > perAnnouncer {
			b.fail("%d sessions of %s", n, p)
		}
	}
}

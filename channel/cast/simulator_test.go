package cast

import (
	"bytes"
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"grapevine/block"
)

// A play is cores on links, in virtual time, in one goroutine: the same for the
// same seed. Each node has an uplink, which its streams share frame by frame in
// turn, a downlink, and a latency to it. Processors are free.
type play struct {
	t     testing.TB
	rng   *rand.Rand
	now   time.Time
	begin time.Time
	todo  agenda
	count int
	coder Coder
	nodes []*actor
	byID  map[peer.ID]*actor
	// gossip is what carries blocks instead, to compare with; nil: cast does.
	gossip *gossip
	mess   func(from, to *actor, fx effect) (drop bool) // what a hostile network or node does; may be nil
}

// An actor is one node of a play.
type actor struct {
	p       *play
	id      peer.ID
	core    *core
	up      float64 // bytes a second, both ways
	latency time.Duration
	dead    bool
	mute    bool // passes nothing on
	topic   bool // hears the topic

	queues  map[peer.ID][]effect // what waits for each stream
	turn    []peer.ID            // streams that have something, in turn
	sending bool
	free    time.Time // when the downlink is
	wake    time.Time

	got      map[uint64]time.Duration // blocks, and when since they were ordered
	pulls    map[uint64]int
	received int64 // bytes of frames
	sent     int64
	refused  map[string]int
	lies     int
	proof    []byte // of the last
	peak     int64  // bytes held by sessions
	opened   int
	closed   int
	told     map[uint64]bool // of which blocks
	heard    map[*Head]bool
}

// An item is something that will happen.
type item struct {
	at time.Time
	n  int
	do func()
}

type agenda []item

func (a agenda) Len() int { return len(a) }
func (a agenda) Less(i, j int) bool {
	return a[i].at.Before(a[j].at) || a[i].at.Equal(a[j].at) && a[i].n < a[j].n
}
func (a agenda) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a *agenda) Push(x any)   { *a = append(*a, x.(item)) }
func (a *agenda) Pop() any {
	old := *a
	x := old[len(old)-1]
	old[len(old)-1] = item{}
	*a = old[:len(old)-1]
	return x
}

const (
	simRate    = 100e6 / 8
	simLatency = 25 * time.Millisecond
	meshDegree = 8 // of channels of more than GroupMost
)

// newPlay makes n nodes, node i of organisation i mod orgs, all connected.
func newPlay(t testing.TB, seed uint64, n, orgs int) *play {
	p := &play{t: t, rng: rand.New(rand.NewPCG(seed, 1)), now: time.Unix(1e9, 0), byID: map[peer.ID]*actor{}}
	p.begin = p.now
	for i := range n {
		a := &actor{
			p: p, id: peer.ID(fmt.Sprintf("%016x", p.rng.Uint64())), up: simRate, latency: simLatency, topic: true,
			queues: map[peer.ID][]effect{}, got: map[uint64]time.Duration{}, pulls: map[uint64]int{},
			refused: map[string]int{}, told: map[uint64]bool{}, heard: map[*Head]bool{},
		}
		a.core = newCore(a.id, fmt.Sprint("org", i%orgs), false)
		p.nodes, p.byID[a.id] = append(p.nodes, a), a
	}
	for i, a := range p.nodes {
		for j, b := range p.nodes { // as evArrived and evLink do, but grouped once
			if i != j {
				a.core.members[b.id] = &member{id: b.id, org: fmt.Sprint("org", j%orgs), latency: simLatency}
			}
		}
		a.core.regroup()
	}
	return p
}

func (p *play) after(d time.Duration, f func()) {
	p.count++
	heap.Push(&p.todo, item{p.now.Add(d), p.count, f})
}

// run goes on until nothing happens any more, or d has passed.
func (p *play) run(d time.Duration) {
	end := p.now.Add(d)
	for len(p.todo) > 0 && !p.todo[0].at.After(end) {
		it := heap.Pop(&p.todo).(item)
		p.now = it.at
		it.do()
	}
	p.now = end
}

func (p *play) node(id peer.ID) *actor { return p.byID[id] }

// cast lets a node announce a block now.
func (a *actor) cast(h *Head, code *Encoding) {
	a.got[h.Number] = a.p.now.Sub(a.p.begin)
	a.step(evOwn{h, code})
}

func (a *actor) step(e event) {
	if a.dead {
		return
	}
	if e, ok := e.(evAnnounced); ok {
		a.told[e.head.Number] = true
		if a.heard[e.head] { // the channel takes each once
			return
		}
		a.heard[e.head] = true
	}
	for _, fx := range slices.Clone(a.core.step(e, a.p.now)) {
		a.act(fx)
	}
	a.core.check(a.p.t)
	var held int64
	for _, s := range a.core.sessions {
		held += s.bytes()
	}
	a.peak = max(a.peak, held)
	a.send()
}

func (a *actor) act(fx effect) {
	p := a.p
	switch fx := fx.(type) {
	case fxHead:
		a.queue(fx.to, fx, true)
	case fxSay:
		a.queue(fx.to, fx, true)
	case fxNeed:
		a.queue(fx.to, fx, true)
	case fxChunk:
		if !fx.own && a.mute {
			return
		}
		a.queue(fx.to, fx, fx.urgent)
	case fxBody:
		for at := 0; at < fx.size; at += partBytes {
			a.queue(fx.to, fxPart{fx.to, fx.session, at, fx.size, fx.probe}, false)
		}
	case fxMark:
		a.queue(fx.to, fx, false)
	case fxPong:
		a.queue(fx.to, fx, true)
	case fxEncode:
		code, err := p.coder.Encode(fx.body)
		if err != nil {
			p.t.Fatal(err)
		}
		p.after(0, func() { a.step(evEncoded{fx.session, code}) })
	case fxTell:
		a.publish(fx)
	case fxRebuild:
		e := evRebuilt{fx.session, fx.segment, p.coder.rebuild(fx.shape, fx.chunks)}
		p.after(0, func() { a.step(e) })
	case fxJudge:
		e := judgeAs(&p.coder, fx)
		p.after(0, func() {
			a.step(e)
			if e.err == nil {
				a.hold(fx.head)
			}
		})
	case fxPull:
		a.pulls[fx.head.Number]++
		a.pull(fx)
	case fxRefuse:
		a.refused[fx.reason.Code()]++
	case fxLie:
		a.lies, a.proof = a.lies+1, evidence(fx)
	case fxOpened:
		a.opened++
	case fxClosed:
		a.closed++
	case fxWake:
		a.wake = fx.at
		if fx.at.Sub(p.now) < time.Hour {
			p.after(max(0, fx.at.Sub(p.now)), func() {
				if a.wake.Equal(fx.at) {
					a.step(evTick{})
				}
			})
		}
	case fxExpect:
	}
}

// publish sends an announcement on the topic: to all in a small channel, else
// to some, to whom it isn't news if it came on a stream before.
func (a *actor) publish(fx fxTell) {
	to := a.p.nodes
	if len(to) > GroupMost {
		to = nil
		for range meshDegree {
			to = append(to, a.p.nodes[a.p.rng.IntN(len(a.p.nodes))])
		}
	}
	for _, b := range to {
		if b != a && b.topic {
			a.queue(b.id, fx, true)
		}
	}
}

// pull brings the block from whoever has it, slowly, for ever.
func (a *actor) pull(fx fxPull) {
	a.p.after(100*time.Millisecond, func() {
		if _, ok := a.got[fx.head.Number]; ok || a.dead {
			return
		}
		for _, b := range a.p.nodes {
			if _, ok := b.got[fx.head.Number]; ok && !b.dead {
				a.received += int64(fx.head.Size)
				a.hold(fx.head)
				a.step(evHave{fx.head.Number, fx.head.Hash})
				return
			}
		}
		a.pull(fx)
	})
}

func (a *actor) hold(h *Head) {
	if _, ok := a.got[h.Number]; !ok {
		a.got[h.Number] = a.p.now.Sub(a.p.begin)
	}
}

func judgeBody(h *Head, raw []byte) error {
	b, err := block.Decode(raw)
	if err != nil {
		return err
	}
	if sum := block.DataHash(b.Data); !bytes.Equal(sum[:], b.Header.DataHash) {
		return block.BadDataHash
	}
	return nil
}

// judgeAs is what the shell does of an fxJudge.
func judgeAs(coder *Coder, fx fxJudge) evJudged {
	if fx.direct == nil {
		err := judgeBody(fx.head, fx.slab.whole())
		return evJudged{session: fx.session, err: err, lie: err != nil}
	}
	e := evJudged{session: fx.session, err: judgeBody(fx.head, fx.direct.raw)}
	if e.err != nil {
		code, err := coder.Encode(fx.slab.body(fx.direct.raw))
		if e.lie = err == nil && bytes.Equal(code.Roots, fx.head.Roots); !e.lie {
			e.wrong = fx.direct.from
		}
	}
	return e
}

func (a *actor) queue(to peer.ID, fx effect, first bool) {
	if a.p.mess != nil && a.p.mess(a, a.p.node(to), fx) {
		return
	}
	if len(a.queues[to]) == 0 {
		a.turn = append(a.turn, to)
	}
	if first {
		n := 0
		for n < len(a.queues[to]) && urgent(a.queues[to][n]) {
			n++
		}
		a.queues[to] = slices.Insert(a.queues[to], n, fx)
		return
	}
	a.queues[to] = append(a.queues[to], fx)
}

func urgent(fx effect) bool {
	switch fx := fx.(type) {
	case fxChunk:
		return fx.urgent
	case fxPart, fxMark, fxWhole:
		return false
	}
	return true
}

// send puts the next frame on the uplink, if that is free.
func (a *actor) send() {
	for !a.sending && len(a.turn) > 0 && !a.dead {
		to := a.turn[0]
		a.turn = a.turn[1:]
		fx := a.queues[to][0]
		if a.queues[to] = a.queues[to][1:]; len(a.queues[to]) > 0 {
			a.turn = append(a.turn, to)
		}
		b := a.p.node(to)
		size, deliver := a.frame(b, fx)
		if deliver == nil {
			continue
		}
		a.sending = true
		a.sent += int64(size)
		a.p.after(seconds(float64(size)/a.up), func() {
			a.sending = false
			a.p.after(max(a.latency, b.latency), func() { b.take(size, deliver) })
			a.send()
		})
	}
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// take lets a frame through the downlink.
func (a *actor) take(size int, deliver func()) {
	if a.free.Before(a.p.now) {
		a.free = a.p.now
	}
	a.free = a.free.Add(seconds(float64(size) / a.up))
	a.p.after(a.free.Sub(a.p.now), func() {
		if !a.dead {
			a.received += int64(size)
			deliver()
		}
	})
}

// frame returns a frame's size and what its receiver makes of it; nil if it
// isn't sent after all.
func (a *actor) frame(b *actor, fx effect) (int, func()) {
	const small = 40 // with what carries it
	from := a.id
	switch fx := fx.(type) {
	case fxHead:
		return small + len(fx.raw), func() { b.hear(fx.session, from, fx.hop, a.p) }
	case fxTell:
		return small + len(fx.head.Raw), func() {
			if !b.heard[fx.head] && len(b.p.nodes) > GroupMost {
				b.publish(fx)
			}
			b.step(evAnnounced{fx.head})
			b.send()
		}
	case fxSay:
		e := map[frameType]event{frameDone: evDone{from, fx.session}, frameAsk: evAsk{from, fx.session}, frameNone: evNone{from, fx.session}}[fx.what]
		return small, func() { b.step(e) }
	case fxNeed:
		return small + haveBytes, func() { b.step(evNeed{from, fx.session, fx.segment, fx.have}) }
	case fxChunk:
		c, ok := a.core.frame(fx)
		if !ok {
			return 0, nil
		}
		c.leaf = leafOf(c.data)
		return small + len(c.data) + HashSize*len(c.hashes), func() {
			_, _ = b.core.wants(from, c, len(c.data), b.p.now) // counts it; step looks again
			b.step(evChunk{from, c})
		}
	}
	if fx, ok := fx.(fxPart); ok {
		data, ok := a.core.bodyPart(fx)
		if !ok {
			return 0, nil
		}
		return small + len(data), func() { b.part(from, fx, data) }
	}
	if fx, ok := fx.(fxWhole); ok {
		return small + fx.size, func() { a.p.gossip.take(b, from, fx) }
	}
	if fx, ok := fx.(fxMark); ok {
		return small, func() { b.act(fxPong{from, uint64(fx.session)}); b.send() }
	}
	if fx, ok := fx.(fxPong); ok {
		return small, func() { b.step(evMark{from, sessionID(fx.nonce)}) }
	}
	a.p.t.Fatalf("effect %T", fx)
	return 0, nil
}

// part takes a part of a body, as a reader does.
func (b *actor) part(from peer.ID, fx fxPart, data []byte) {
	room, why, err := b.core.place(from, fx.session, fx.offset, len(data), b.p.now)
	if err != nil || room == nil {
		if err == nil {
			b.refused[why.Code()]++
		}
		return
	}
	copy(room, data)
	b.step(evPart{from, fx.session, len(data)})
}

// hear takes an announcement that came on a stream.
func (b *actor) hear(id sessionID, from peer.ID, h hop, p *play) {
	for _, a := range p.nodes {
		if s := a.core.sessions[id]; s != nil {
			head := s.head
			if s.mine != nil && a.id == from {
				head = s.mine
			}
			b.step(evAnnounced{head})
			b.step(evHeaded{from, h, head.Raw})
			return
		}
	}
}

// check holds a core's invariants.
func (c *core) check(t testing.TB) {
	if len(c.sessions) > keptSessions || c.parked.bytes > parkMost {
		t.Fatalf("%d sessions, %d bytes parked", len(c.sessions), c.parked.bytes)
	}
	for _, s := range c.sessions {
		for i, g := range s.segs {
			for k := range s.shape.N() {
				if g.have.has(k) && g.chunks[k] == nil {
					t.Fatalf("chunk %d of segment %d is said to be here", k, i)
				}
			}
		}
	}
}

package cast

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"grapevine/block"
	"grapevine/wire"
)

// workers is how many segments are rebuilt, or blocks judged, at once.
func workers() int { return runtime.GOMAXPROCS(0) }

// Run lets frames flow and does what the core wants until ctx ends, whose error
// it then returns. It is called once; when it returns, nothing that it started
// runs any more.
func (c *Cast) Run(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.begin(ctx, &all)
	defer c.finish()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		c.mu.Lock()
		todo := c.todo
		c.todo = nil
		if !c.wake.IsZero() {
			timer.Reset(time.Until(c.wake))
		}
		c.mu.Unlock()
		for _, fx := range todo {
			c.perform(ctx, &all, fx)
		}
		if len(todo) > 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.work:
		case <-timer.C:
			c.mu.Lock()
			c.wake = time.Time{}
			c.step(evTick{})
			c.mu.Unlock()
		}
	}
}

// begin lets writers start: those of links that something waits for, and those
// that come.
func (c *Cast) begin(ctx context.Context, all *sync.WaitGroup) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.start = func(l *link) {
		ctx, cancel := context.WithCancel(ctx)
		l.mu.Lock()
		l.stop = cancel
		l.mu.Unlock()
		all.Go(func() {
			defer cancel()
			c.write(ctx, l)
		})
	}
	for _, l := range c.links {
		if l.waits() {
			c.start(l)
		}
	}
}

// finish gives back what sessions hold.
func (c *Cast) finish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.start = nil
	for _, s := range c.core.sessions {
		c.conf.Budget.give(s.bytes())
	}
	clear(c.core.sessions)
	for _, l := range c.links {
		l.close()
	}
}

// step takes an event to the core and does what it wants: frames go to their
// links at once, the rest is Run's. Mu is held.
func (c *Cast) step(e event) {
	for _, fx := range c.core.step(e, time.Now()) {
		switch fx := fx.(type) {
		case fxChunk:
			c.send(fx.to, fx)
		case fxHead:
			c.send(fx.to, fx)
		case fxBody:
			c.send(fx.to, fx)
		case fxMark:
			c.send(fx.to, fx)
		case fxSay:
			c.send(fx.to, fx)
		case fxNeed:
			c.stats.Needs++
			c.send(fx.to, fx)
		case fxOpened:
			c.reserved -= fx.bytes
			close(c.opened)
			c.opened = make(chan struct{})
		case fxClosed:
			c.conf.Budget.give(fx.bytes)
			c.ring()
		case fxRoom:
			c.ring()
		case fxWake:
			if !fx.at.Equal(c.wake) {
				c.wake = fx.at
				c.nudge()
			}
		default:
			c.todo = append(c.todo, fx)
			c.nudge()
		}
	}
	if c.reserved > 0 { // nothing was opened with it
		c.conf.Budget.give(c.reserved)
	}
	c.reserved = 0
}

// ring tells Send that there may be room.
func (c *Cast) ring() {
	close(c.room)
	c.room = make(chan struct{})
}

func (c *Cast) nudge() {
	select {
	case c.work <- struct{}{}:
	default:
	}
}

// send queues a frame for a member. Mu is held.
func (c *Cast) send(to peer.ID, fx effect) {
	l := c.links[to]
	if l == nil {
		return
	}
	size := int64(0)
	if f, ok := fx.(fxChunk); ok && !f.own {
		if s := c.core.sessions[f.session]; s != nil {
			size = int64(s.shape.Chunk)
		}
	}
	taken, start := l.put(fx, size)
	if !taken {
		c.dropped.Add(1)
	}
	if start && c.start != nil {
		c.start(l)
	}
}

// perform does what takes longer than a lock may be held.
func (c *Cast) perform(ctx context.Context, all *sync.WaitGroup, fx effect) {
	switch fx := fx.(type) {
	case fxTell:
		c.note(func(s *Stats) { s.Handed[fx.path]++ })
		if err := c.conf.Tell(ctx, fx.head); err != nil && ctx.Err() == nil {
			c.log.Warn("can't tell of a block", "block", fx.head.Number, "err", err)
		}
	case fxRebuild:
		c.note(func(s *Stats) { s.Rebuilt++ })
		c.spawn(ctx, all, func() event {
			return evRebuilt{fx.session, fx.segment, c.conf.Coder.rebuild(fx.shape, fx.chunks)}
		})
	case fxJudge:
		c.spawn(ctx, all, func() event { return c.judge(fx) })
	case fxEncode:
		c.spawn(ctx, all, func() event {
			code, err := c.conf.Coder.Encode(fx.body)
			if err != nil {
				c.log.Error("can't cut a body", "err", err)
			}
			return evEncoded{fx.session, code}
		})
	case fxPull:
		c.note(func(s *Stats) {
			s.Pulls++
			if fx.turned {
				s.Turned++
			}
		})
		c.conf.Pull(fx.head, fx.from)
	case fxExpect:
		c.conf.Expect(fx.number, fx.until)
	case fxRefuse:
		c.refused(fx.peer, fx.reason)
	case fxLie:
		if c.conf.Lied != nil {
			c.conf.Lied(fx.head.Announcer, fx.head.Number, evidence(fx))
		}
	default:
		panic(fmt.Sprintf("no such effect: %T", fx))
	}
}

// spawn computes an event, beside others.
func (c *Cast) spawn(ctx context.Context, all *sync.WaitGroup, f func() event) {
	all.Go(func() {
		select {
		case c.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		defer func() { <-c.slots }()
		e := f()
		c.take(e)
	})
}

func (c *Cast) note(f func(*Stats)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(&c.stats)
}

// judge looks whether a body is the block that its header names, and delivers
// it.
func (c *Cast) judge(fx fxJudge) event {
	raw := fx.slab.whole
	if fx.direct != nil {
		raw = func() []byte { return fx.direct.raw }
	}
	checked, err := block.Check(c.conf.Rules(), raw())
	if err == nil {
		c.note(func(s *Stats) { s.Blocks++ })
		a := Arrival{From: fx.head.Announcer, Path: PathStriped, Bytes: fx.came, Size: int(fx.head.Size)}
		if fx.direct != nil {
			a.From, a.Path = fx.direct.from, PathDirect
		}
		c.conf.Deliver(checked, a)
		return evJudged{session: fx.session}
	}
	c.log.Warn("a cast gave no block", "block", fx.head.Number, "announcer", fx.head.Announcer, "err", err)
	e := evJudged{session: fx.session, err: err, lie: lies(err)}
	if e.lie && fx.direct != nil && !c.announced(fx) {
		e.lie, e.wrong = false, fx.direct.from
	}
	return e
}

// announced says whether a body that came whole is the one that was announced:
// whether its chunks are.
func (c *Cast) announced(fx fxJudge) bool {
	code, err := c.conf.Coder.Encode(fx.slab.body(fx.direct.raw))
	return err == nil && bytes.Equal(code.Roots, fx.head.Roots)
}

// lies says whether a body that was refused so proves that its announcer lied:
// it isn't what the signed header names, or not in the one form that has that
// hash. An announcer checks that before he announces. All else is the
// orderers' doing, or hangs on the configuration.
func lies(err error) bool {
	for _, r := range []error{block.BadDataHash, block.Malformed, block.NotCanonical, block.Empty} {
		if errors.Is(err, r) {
			return true
		}
	}
	return false
}

// What the readers and writers need of the core.

func (c *Cast) take(e event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.step(e)
}

func (c *Cast) wants(from peer.ID, ch chunk, length int) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.core.wants(from, ch, length, time.Now())
}

// place returns where a part of a body goes to. If its announcement has come
// but is still being judged, it waits for that.
func (c *Cast) place(from peer.ID, id sessionID, offset, length int) ([]byte, *wire.Reason, error) {
	late := time.NewTimer(askAfter)
	defer late.Stop()
	for {
		c.mu.Lock()
		room, why, err := c.core.place(from, id, offset, length, time.Now())
		opened := c.opened
		c.mu.Unlock()
		if why != Unknown {
			return room, why, err
		}
		select {
		case <-opened:
		case <-late.C:
			return nil, why, nil
		}
	}
}

// headed takes an announcement that came on a stream.
func (c *Cast) headed(from peer.ID, h hop, raw []byte) error {
	err := c.conf.Told(from, raw)
	switch wire.VerdictOf(err) {
	case wire.Reject, wire.Close, wire.Ban:
		return errCounted
	}
	c.take(evHeaded{from, h, raw}) // it may have come on the topic before
	return nil
}

// errCounted ends a stream for what was counted where it was judged.
var errCounted = errors.New("a false announcement")

// encode makes an effect's frame: what stands in front, and a chunk's data.
// Nothing, if it isn't needed any more.
func (c *Cast) encode(b []byte, fx effect) (head, data []byte) {
	switch fx := fx.(type) {
	case fxHead:
		return appendHead(b, fx.hop, fx.raw), nil
	case fxSay:
		return appendWord(b, fx.what, uint64(fx.session)), nil
	case fxNeed:
		return appendNeed(b, fx.session, fx.segment, fx.have), nil
	case fxMark: // its number tells it from other pings
		return appendWord(b, framePing, uint64(fx.session)), nil
	case fxPart:
		c.mu.Lock()
		data, ok := c.core.bodyPart(fx)
		c.mu.Unlock()
		if ok {
			return appendPart(b, fx.session, fx.offset, len(data)), data
		}
	case fxPong:
		return appendWord(b, framePong, fx.nonce), nil
	case fxChunk:
		c.mu.Lock()
		ch, ok := c.core.frame(fx)
		c.mu.Unlock()
		if ok {
			return appendChunk(b, ch), ch.data
		}
	}
	return nil, nil
}

// fxPong answers a member's question how far it is.
type fxPong struct {
	to    peer.ID
	nonce uint64
}

func (fxPong) effect() {}

func (c *Cast) pong(to peer.ID, nonce uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.send(to, fxPong{to, nonce})
}

// ponged takes the answer. A member can only make itself look farther than it
// is, or, by guessing the time, nearer.
func (c *Cast) ponged(from peer.ID, nonce uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if id := sessionID(nonce); c.core.sessions[id] != nil {
		c.step(evMark{from, id})
		return
	}
	if d := time.Since(time.Unix(0, int64(nonce))) / 2; d > 0 && d <= openTime {
		c.step(evLink{from, d})
	}
}

func (c *Cast) forgetKnown(p peer.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.core.forgetKnown(p)
}

func (c *Cast) refused(p peer.ID, r *wire.Reason) {
	if c.conf.Refused != nil && r != nil {
		c.conf.Refused(p, r)
	}
}

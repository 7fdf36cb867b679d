package blocksync

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"grapevine/block"
	"grapevine/wire"
)

// step takes an event to the scheduler and notes what it wants. Called under
// mu; it starts nothing, so it may be called before Run.
func (s *Sync) step(e event) {
	for _, fx := range s.sched.step(e, time.Now()) {
		switch fx := fx.(type) {
		case fxFetch:
			s.todo = append(s.todo, fx)
			nudge(s.work)
		case fxCancel:
			s.cancel(fx)
		case fxBan:
			log.Infow("leaves a peer alone", "peer", fx.peer, "for", fx.d)
		case fxLied:
			s.refuse(fx.peer, FalseHeight)
		case fxLowered:
			s.refuse(fx.peer, HeightLowered)
		case fxWake:
			if !fx.at.Equal(s.wake) {
				s.wake = fx.at
				nudge(s.work)
			}
		}
	}
}

// cancel ends a slice, begun or not.
func (s *Sync) cancel(fx fxCancel) {
	for i, f := range s.todo {
		if f.id == fx.id {
			s.todo = append(s.todo[:i], s.todo[i+1:]...)
			return
		}
	}
	if f := s.flights[fx.id]; f != nil {
		f.cancel()
		if fx.slow {
			s.refuse(f.peer, TooSlow)
		}
	}
}

// pull starts the slices that the scheduler wants, on g, and brings it the time.
func (s *Sync) pull(ctx context.Context, g *errgroup.Group) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		s.mu.Lock()
		todo := s.todo
		s.todo = nil
		for _, fx := range todo {
			own, cancel := context.WithCancel(ctx)
			f := &flight{peer: fx.peer, nonce: newNonce(), cancel: cancel}
			s.flights[fx.id] = f
			g.Go(func() error {
				defer cancel()
				s.fetch(own, fx, f)
				return nil
			})
		}
		if !s.wake.IsZero() {
			timer.Reset(time.Until(s.wake))
		}
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.work:
		case <-timer.C:
			s.mu.Lock()
			s.wake = time.Time{}
			s.step(evTick{})
			s.mu.Unlock()
		}
	}
}

// fetch runs one slice and reports how it ended. Its blocks are checked beside
// its reading, on all cores.
func (s *Sync) fetch(ctx context.Context, fx fxFetch, f *flight) {
	kind := "state"
	if fx.body {
		kind = "pull"
	}
	checks := checks{on: s.checkers, slice: fx, kind: kind, name: fx.peer.String()}
	parking, unpark := context.WithCancel(ctx)
	defer unpark()
	a := asking{
		first: fx.from, count: fx.to - fx.from, nonce: f.nonce, wait: fx.wait,
		moved: func(n int) {
			s.pulled.Add(uint64(n))
			s.report(evMoved{id: fx.id, bytes: int64(n)})
		},
		room: func(n uint64, from, to int) error { return s.reserve(n, int64(from), int64(to)) },
		free: func(bytes int) { s.release(int64(bytes)) },
		each: func(n uint64, raw []byte) error {
			checks.begin(func() error { return s.receive(ctx, parking, &checks, n, raw, false) })
			return checks.failed()
		},
		all: func() error {
			s.report(evRead{fx.id})
			if err := checks.wait(); err != nil {
				return err
			}
			s.report(evDone{fx.id})
			return nil
		},
		owner: s.owner,
	}
	err := s.open(ctx, fx, &a)
	unpark() // it has failed, or none is parked
	if bad := checks.wait(); err == nil || wire.ReasonOf(bad) != nil {
		err = bad // whatever became of the rest
	}
	s.mu.Lock()
	delete(s.flights, fx.id)
	s.mu.Unlock()
	if err != nil {
		s.ended(ctx, fx, &a, err)
	}
}

// ended deals with a slice that ended before its time, or in which there was
// more than was asked for.
func (s *Sync) ended(ctx context.Context, fx fxFetch, a *asking, err error) {
	r := wire.ReasonOf(err)
	var failure evFailed
	failure.id = fx.id
	switch {
	case errors.Is(err, errNoRoom), ctx.Err() != nil && r == nil:
		failure.fault = ours
	case errors.Is(err, Busy):
		failure.fault = busy
	case errors.Is(err, errLacking):
		failure.fault, failure.lowest, failure.height = lacking, a.status.GetLowest(), a.status.GetHeight()
	default:
		failure.fault = faultOf(r)
	}
	log.Debugw("a slice ended early", "from", fx.from, "to", fx.to, "peer", fx.peer, "error", err)
	switch failure.fault {
	case wrong:
		s.refuse(fx.peer, wire.NewReason(r.Code(), wire.Ban)) // whatever it is elsewhere: he was asked for it
	case broken:
		s.refuse(fx.peer, r)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.finished { // the slice is done; what came behind it wasn't right
		if failure.fault == wrong {
			s.step(evBad{fx.peer})
		}
		return
	}
	s.step(failure)
}

func (s *Sync) open(ctx context.Context, fx fxFetch, a *asking) error {
	opening, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	stream, err := s.c.Open(opening, fx.peer)
	if err != nil {
		return fmt.Errorf("open a stream: %w", err)
	}
	return a.run(ctx, stream)
}

// checks are those of one slice's blocks.
type checks struct {
	on         *checkers
	slice      fxFetch
	kind, name string // how its blocks come, and from whom
	running    sync.WaitGroup
	bad        atomic.Pointer[error] // the first that failed
}

// begin has a block checked when a core is free for it.
func (c *checks) begin(check func() error) {
	c.running.Add(1)
	c.on.do(func() {
		defer c.running.Done()
		c.note(check())
	})
}

// park waits for what a check needs, and begins it again.
func (c *checks) park(wait, check func() error) {
	c.running.Go(func() {
		if err := wait(); err != nil {
			c.note(err)
			return
		}
		c.begin(check)
	})
}

func (c *checks) note(err error) {
	if err != nil {
		c.bad.CompareAndSwap(nil, &err)
	}
}

// failed returns what has failed so far.
func (c *checks) failed() error {
	if err := c.bad.Load(); err != nil {
		return *err
	}
	return nil
}

// wait returns when none runs any more, and what failed.
func (c *checks) wait() error {
	c.running.Wait()
	return c.failed()
}

// reserve sets memory aside for block n, which takes to bytes now instead of
// from. What comes and what waits share one budget; the head alone may pass it.
func (s *Sync) reserve(n uint64, from, to int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.step(evSized{n, to})
	if n != s.sched.lead && s.window.bytes+s.reading+to-from > s.window.budget {
		return errNoRoom
	}
	s.reading += to - from
	s.peak = max(s.peak, s.window.bytes+s.reading)
	return nil
}

func (s *Sync) release(bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reading -= bytes
}

// receive checks one block of a slice and takes it, and the memory set aside for
// it. If the rules in force don't reach that far it is parked until they change,
// or parking ends. Once all before it is committed, nothing more can make it true.
func (s *Sync) receive(ctx, parking context.Context, of *checks, n uint64, raw []byte, parked bool) error {
	size, id := int64(len(raw)), of.slice.id
	s.mu.Lock()
	next := s.tip.Height >= n
	s.mu.Unlock()
	rules := s.c.Rules()
	c, err := judge(ctx, rules, raw)
	unknown := errors.Is(err, block.UnknownConfig)
	if unknown && !next {
		if !parked {
			s.report(evParked{id, true})
		}
		of.park(func() error {
			err := s.until(parking, func() bool { return s.c.Rules() != rules || s.tip.Height >= n })
			if err != nil {
				s.release(size)
			}
			return err
		}, func() error { return s.receive(ctx, parking, of, n, raw, true) })
		return nil
	}
	if parked {
		s.report(evParked{id, false})
	}
	switch {
	case errors.Is(err, block.Stale): // a configuration at or above it was committed meanwhile
		s.release(size)
		s.report(evArrived{id: id, number: n})
		return nil
	case err != nil:
		s.release(size)
		if unknown {
			err = fmt.Errorf("%w: %s", block.LastConfig, err.Error())
		}
		return fmt.Errorf("block %d: %w", n, err)
	}
	switch s.take(c, id, size, of.slice.peer, of.kind, of.name) {
	case full, far:
		return errNoRoom
	}
	return nil
}

// judge checks a block that is still wanted.
func judge(ctx context.Context, rules *block.Rules, raw []byte) (*block.Checked, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return block.Check(rules, raw)
}

func (s *Sync) report(e event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.step(e)
}

// owner tells whether a nonce belongs to another slice in flight.
func (s *Sync) owner(nonce uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.flights {
		if f.nonce == nonce {
			return true
		}
	}
	return false
}

func newNonce() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails since Go 1.24
	return binary.BigEndian.Uint64(b[:])
}

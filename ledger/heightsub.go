package ledger

import (
	"context"
	"sync"
	"sync/atomic"
)

// heightsub holds where a chain ends and lets others wait until it has grown.
// Safe for concurrent use; marks come from one goroutine at a time, in order.
type heightsub struct {
	now atomic.Pointer[mark]

	mu    sync.Mutex
	moved chan struct{} // closed at the next mark or the end; nil while nobody waits
	err   error         // why no mark will come any more
}

func (s *heightsub) get() mark {
	if m := s.now.Load(); m != nil {
		return *m
	}
	return mark{}
}

// set announces a mark. The caller has made it durable.
func (s *heightsub) set(m mark) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now.Store(&m)
	s.wake()
}

// end lets all who wait go with err, now and from now on. The first err stays.
func (s *heightsub) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
		s.wake()
	}
}

// wait returns nil when the height has reached h, and else ctx's error or the
// one given to end.
func (s *heightsub) wait(ctx context.Context, h uint64) error {
	return s.until(ctx, func(m mark) bool { return m.Height >= h })
}

// until is wait for any mark that is good.
func (s *heightsub) until(ctx context.Context, good func(mark) bool) error {
	for {
		if good(s.get()) {
			return nil
		}
		s.mu.Lock()
		if s.err != nil {
			defer s.mu.Unlock()
			return s.err
		}
		if good(s.get()) { // came between the look and the lock
			s.mu.Unlock()
			return nil
		}
		if s.moved == nil {
			s.moved = make(chan struct{})
		}
		moved := s.moved
		s.mu.Unlock()
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// wake is called with mu held.
func (s *heightsub) wake() {
	if s.moved != nil {
		close(s.moved)
		s.moved = nil
	}
}

package orderer

import "sync"

// state is something that holds or doesn't, and can be waited for. The zero value doesn't hold. It is safe for
// concurrent use.
type state struct {
	mu    sync.Mutex
	holds bool          // guarded by mu
	until chan struct{} // guarded by mu: closed while it holds; nil before the first use
}

func (s *state) is() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.holds
}

// done returns a channel that is closed while the state holds.
func (s *state) done() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.until == nil {
		s.until = make(chan struct{})
	}
	return s.until
}

func (s *state) set(holds bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holds == holds {
		return
	}
	s.holds = holds
	if s.until == nil || !holds {
		s.until = make(chan struct{})
	}
	if holds {
		close(s.until)
	}
}

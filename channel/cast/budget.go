package cast

import "sync"

// DefaultBudget is how many bytes of chunks a node's channels may hold
// together.
const DefaultBudget = 128 << 20

// A Budget bounds the bytes of chunks that all channels of a node hold. It is
// safe for concurrent use.
type Budget struct {
	mu    sync.Mutex
	most  int64
	taken int64         // guarded by mu
	room  chan struct{} // closed and replaced when some are given back; guarded by mu
}

// NewBudget returns one of so many bytes.
func NewBudget(bytes int64) *Budget {
	return &Budget{most: bytes, room: make(chan struct{})}
}

// take takes bytes, if they are there. What is larger than the whole budget
// passes alone.
func (b *Budget) take(bytes int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.taken > 0 && b.taken+bytes > b.most {
		return false
	}
	b.taken += bytes
	return true
}

// freed returns what is closed when some are given back.
func (b *Budget) freed() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.room
}

func (b *Budget) give(bytes int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.taken -= bytes
	close(b.room)
	b.room = make(chan struct{})
}

// Taken returns how many bytes are taken.
func (b *Budget) Taken() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.taken
}

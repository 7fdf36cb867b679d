package channel

import (
	"slices"
	"sync"
)

// Limits of what is remembered for one number. A second body is a fork, which
// takes orderers' signatures; a header proves neither its channel nor that its
// announcer has the body, so announcers are counted.
const (
	bodiesPerNumber    = 4
	announcersPerBlock = 4 // each is one more to pull from, and one more small message for all
	headsPerNumber     = 16
)

// heard remembers which announcements were taken, by number, so that one block
// in several dresses (another orderer's signature, a signature left out) is
// passed on once. It holds at most a window of numbers.
//
// A block's body and its mere header count apart: else a member could keep a
// small block out by announcing its header first. And a member may announce one
// header for a number: else it could keep the others out by announcing many.
type heard struct {
	mu      sync.Mutex
	numbers map[uint64]*heardNumber // guarded by mu; those below low are dropped at the next add
	low     uint64                  // guarded by mu
}

type heardNumber struct {
	bodies [][32]byte // hashes of blocks that came whole
	heads  []claim    // those that were announced
}

// A claim is what one announcement says of a block: here is its body, or that
// the announcer has it.
type claim struct {
	number    uint64
	hash      [32]byte
	body      bool
	announcer [32]byte // if not body, as what follows
	roots     [32]byte // SHA-256 of what it says of the chunks
	raw       []byte   // the announcement, once it is known to be true
}

// news says whether c says anything new.
func (h *heard) news(c claim) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return c.number >= h.low && h.numbers[c.number].news(c)
}

// rival returns what the announcer of c said before if c says otherwise of the
// same block's chunks, which are a function of the block: one of the two is
// false.
func (h *heard) rival(c claim) []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	if o := h.numbers[c.number].rival(c); o != nil {
		return o.raw
	}
	return nil
}

// settled notes that c's announcer was found out: rival knows of it no more.
func (h *heard) settled(c claim) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if o := h.numbers[c.number].rival(c); o != nil {
		o.raw = nil
	}
}

// add takes c in, if it says anything new. height is how many blocks are held.
func (h *heard) add(c claim, height uint64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.forget(height)
	n := h.numbers[c.number]
	if c.number < h.low || !n.news(c) {
		return false
	}
	if n == nil {
		n = &heardNumber{}
		if h.numbers == nil {
			h.numbers = make(map[uint64]*heardNumber)
		}
		h.numbers[c.number] = n
	}
	if c.body {
		n.bodies = append(n.bodies, c.hash)
	} else {
		n.heads = append(n.heads, c)
	}
	return true
}

// news says whether c says anything new; n may be nil.
func (n *heardNumber) news(c claim) bool {
	switch {
	case n == nil:
		return true
	case slices.Contains(n.bodies, c.hash):
		return false
	case c.body:
		return len(n.bodies) < bodiesPerNumber
	}
	same := 0
	for _, o := range n.heads {
		if o.announcer == c.announcer {
			return false
		}
		if o.hash == c.hash {
			same++
		}
	}
	return same < announcersPerBlock && len(n.heads) < headsPerNumber
}

// rival returns the claim that c contradicts; n may be nil.
func (n *heardNumber) rival(c claim) *claim {
	if n == nil || c.body {
		return nil
	}
	for i := range n.heads {
		if o := &n.heads[i]; o.announcer == c.announcer && o.hash == c.hash && o.roots != c.roots {
			return o
		}
	}
	return nil
}

// forget drops the numbers below height.
func (h *heard) forget(height uint64) {
	if height <= h.low {
		return
	}
	h.low = height
	for n := range h.numbers {
		if n < height {
			delete(h.numbers, n)
		}
	}
}

package channel

import "sync"

const (
	// announcersPerBlock is how many members may announce one large block:
	// each is one more to pull it from, and one more small message for all.
	announcersPerBlock = 4
	// headersPerNumber is how many headers that orderers signed may be heard
	// for one number. A second one is a fork; more of it prove no more.
	headersPerNumber = 4
)

// heard remembers which announcements were taken, by number and header hash, so
// that one block in several dresses (another orderer's signature, a signature
// left out) is passed on once. It holds at most a window of numbers.
//
// A block's body and its mere header count apart: else a member could keep a
// small block out by announcing its header first.
type heard struct {
	mu     sync.Mutex
	blocks map[uint64][]*heardBlock // guarded by mu; those below the height are dropped at the next add
	low    uint64                   // nothing below is in blocks; guarded by mu
}

type heardBlock struct {
	hash       [32]byte
	body       bool       // it came with its data
	announcers [][32]byte // who say that they have it
}

// A claim is what one announcement says of a block: here is its body, or that
// the announcer has it.
type claim struct {
	number    uint64
	hash      [32]byte
	body      bool
	announcer [32]byte // if not body
}

// news says whether c says anything new.
func (h *heard) news(c claim) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.adds(c)
}

// add takes c in, if it says anything new. height is how many blocks are held.
func (h *heard) add(c claim, height uint64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.forget(height)
	if !h.adds(c) {
		return false
	}
	b := h.find(c)
	if b == nil {
		b = &heardBlock{hash: c.hash}
		if h.blocks == nil {
			h.blocks = make(map[uint64][]*heardBlock)
		}
		h.blocks[c.number] = append(h.blocks[c.number], b)
	}
	if c.body {
		b.body = true
	} else {
		b.announcers = append(b.announcers, c.announcer)
	}
	return true
}

// adds is news under the lock.
func (h *heard) adds(c claim) bool {
	if c.number < h.low {
		return false
	}
	b := h.find(c)
	switch {
	case b == nil:
		return len(h.blocks[c.number]) < headersPerNumber
	case b.body:
		return false
	case c.body:
		return true
	}
	for _, a := range b.announcers {
		if a == c.announcer {
			return false
		}
	}
	return len(b.announcers) < announcersPerBlock
}

func (h *heard) find(c claim) *heardBlock {
	for _, b := range h.blocks[c.number] {
		if b.hash == c.hash {
			return b
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
	for n := range h.blocks {
		if n < height {
			delete(h.blocks, n)
		}
	}
}

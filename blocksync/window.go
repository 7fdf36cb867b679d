package blocksync

import (
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"grapevine/block"
)

// outcome is what the window did with a block.
type outcome int

const (
	kept     outcome = iota
	stale            // below the base: the ledger holds that number
	far              // at or above base + span
	full             // the bytes are spent on lower numbers
	double           // held already, with the same header
	differs          // held already, with another header; the first stays
	outcomes         // how many there are
)

// held is one block in the window. Everything but its link to the block before
// has been checked.
type held struct {
	number uint64
	hash   [32]byte // of the header
	size   int64    // bytes it counts for
	block  *block.Checked
	from   peer.ID // who sent it
	kind   string  // how it came: push, pull (its body was announced), state (it was missed), orderer
	name   string  // from whom, as shown to people
}

// pulled tells whether its sender was asked for it.
func (h held) pulled() bool { return h.kind == "pull" || h.kind == "state" }

// window holds blocks by number between the ledger's height and as far ahead as
// span numbers or budget bytes reach. It is pure, and not safe for concurrent
// use.
//
// Invariants: every number held is in [base, base+span); bytes is the sum of
// their sizes; bytes <= budget, or the block at base is the only one held and
// is larger than the budget by itself. For one number the first block stays
// until it is dropped or committed. Lower numbers are worth more: one that
// needs room takes it from the highest.
type window struct {
	base, span    uint64
	budget, bytes int64
	slots         map[uint64]held
}

func newWindow(base, span uint64, budget int64) *window {
	return &window{base: base, span: span, budget: budget, slots: make(map[uint64]held)}
}

// put takes a block in, and returns the numbers that had to leave for it, the
// highest first.
func (w *window) put(h held) (o outcome, left []uint64) {
	switch {
	case h.number < w.base:
		return stale, nil
	case h.number-w.base >= w.span:
		return far, nil
	}
	if old, ok := w.slots[h.number]; ok {
		if old.hash != h.hash {
			return differs, nil
		}
		return double, nil
	}
	if w.bytes+h.size > w.budget {
		if left = w.above(h); left == nil && h.number != w.base {
			return full, nil
		}
		for _, n := range left {
			w.drop(n)
		}
	}
	w.slots[h.number] = h
	w.bytes += h.size
	return kept, left
}

// above returns the numbers over h's, the highest first, that must leave so
// that h fits; nil if that wouldn't be enough, unless h is next to be
// committed: that one always passes.
func (w *window) above(h held) (left []uint64) {
	over := w.bytes + h.size - w.budget
	for n := w.base + w.span - 1; n > h.number && over > 0; n-- {
		if v, ok := w.slots[n]; ok {
			left = append(left, n)
			over -= v.size
		}
	}
	if over > 0 && h.number != w.base {
		return nil
	}
	return left
}

// get returns the block held at number n.
func (w *window) get(n uint64) (held, bool) {
	h, ok := w.slots[n]
	return h, ok
}

// next returns the blocks that follow the ledger without a gap: at most count,
// and no more than bytes together unless the first alone is larger. They stay
// until advance.
func (w *window) next(count int, bytes int64) (run []held) {
	for n := w.base; len(run) < count; n++ {
		h, ok := w.slots[n]
		if !ok {
			break
		}
		if bytes -= h.size; bytes < 0 && len(run) > 0 {
			break
		}
		run = append(run, h)
	}
	return run
}

// pulledFrom returns the numbers that a peer was asked for and gave, ascending.
func (w *window) pulledFrom(from peer.ID) (numbers []uint64) {
	for n, h := range w.slots {
		if h.from == from && h.pulled() {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers
}

// drop forgets the block at number n.
func (w *window) drop(n uint64) bool {
	h, ok := w.slots[n]
	if ok {
		delete(w.slots, n)
		w.bytes -= h.size
	}
	return ok
}

// advance moves the base up to the ledger's new height.
func (w *window) advance(base uint64) {
	for n := range w.slots {
		if n < base {
			w.drop(n)
		}
	}
	w.base = max(base, w.base)
}

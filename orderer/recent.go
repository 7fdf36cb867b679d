package orderer

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"sync"

	"grapevine/block"
)

// Limits of what is remembered of the newest blocks. A client whose answer was lost asks again within seconds, so that at
// thousands of transactions a second this reaches far enough; what comes again later is ordered again, and peers find it
// invalid by its transaction id.
const (
	maxRecent      = 1 << 17  // envelopes, of 16 bytes each and what a map needs
	maxRecentBytes = 16 << 20 // of blocks that are read at a start
)

// envelopeID tells an envelope, as it stands in a block, from all others. That two of one writer could be made alike by
// great effort harms that writer alone.
type envelopeID [16]byte

func idOf(raw []byte) envelopeID {
	sum := sha256.Sum256(raw)
	return envelopeID(sum[:16])
}

// recent knows the envelopes of the newest blocks, and those on their way into one, so that the leader orders one that is
// sent again, to the byte, once. A new leader holds all earlier blocks before it orders.
type recent struct {
	mu    sync.Mutex
	size  int                     // guarded by mu: how many are remembered; 0: maxRecent
	under map[envelopeID]*order   // guarded by mu: cut or proposed by this node
	known map[envelopeID]struct{} // guarded by mu: in blocks
	ring  []envelopeID            // guarded by mu: known, in the order they came, next overwritten first
	next  int                     // guarded by mu
	twins map[*order][]*order     // guarded by mu: those that wait for one under way
}

// newcomer says what becomes of an order: it is one to be put into a block, or it stands in one, or it waits for its twin.
type newcomer int

const (
	fresh newcomer = iota
	ordered
	waits
)

// take notes an order that is to be put into a block, unless it is there or on its way.
func (r *recent) take(o *order) newcomer {
	o.id = idOf(o.raw)
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.known[o.id]; ok {
		return ordered
	}
	if first := r.under[o.id]; first != nil {
		if r.twins == nil {
			r.twins = make(map[*order][]*order)
		}
		r.twins[first] = append(r.twins[first], o)
		return waits
	}
	if r.under == nil {
		r.under = make(map[envelopeID]*order)
	}
	r.under[o.id] = o
	return fresh
}

// settled forgets an order that has its result, and returns those that wait for it.
func (r *recent) settled(o *order) []*order {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.under[o.id] != o {
		return nil
	}
	delete(r.under, o.id)
	twins := r.twins[o]
	delete(r.twins, o)
	return twins
}

// add remembers the envelopes of a block.
func (r *recent) add(data [][]byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known == nil {
		r.known = make(map[envelopeID]struct{})
	}
	if r.size == 0 {
		r.size = maxRecent
	}
	for _, raw := range data {
		id := idOf(raw)
		if _, ok := r.known[id]; ok {
			continue
		}
		r.known[id] = struct{}{}
		if len(r.ring) < r.size {
			r.ring = append(r.ring, id)
			continue
		}
		delete(r.known, r.ring[r.next])
		r.ring[r.next] = id
		r.next = (r.next + 1) % r.size
	}
}

// remind remembers the envelopes of the newest blocks in the ledger.
func (c *Chain) remind() error {
	var newest [][][]byte // by block, the last first
	bytes, count := 0, 0
	for n := c.c.Ledger.Tip().Height; n > 0 && bytes < maxRecentBytes && count < maxRecent; n-- {
		raw, err := c.c.Ledger.Block(n - 1)
		if err != nil {
			return fmt.Errorf("read block %d: %w", n-1, err)
		}
		b, err := block.Decode(raw)
		if err != nil {
			return fmt.Errorf("block %d: %w", n-1, err)
		}
		newest = append(newest, b.GetData().GetData())
		bytes, count = bytes+len(raw), count+len(b.GetData().GetData())
	}
	for _, data := range slices.Backward(newest) {
		c.recent.add(data)
	}
	return nil
}

package deliver

import (
	"context"
	"iter"
	"reflect"
	"sync"
)

// What a reel keeps, and how far behind the tip, or behind the reel's end, a reader may be for whom it goes on. Who is
// further behind reads by itself, and costs what it reads.
const (
	reelBytes  = 32 << 20
	nearBlocks = 64
)

// A reel is the newest blocks of one source, each read and encoded once for all streams that follow it. Of those at the
// tip one waits for the next block in the name of all; no goroutine belongs to it. It lives as long as somebody reads.
type reel struct {
	source Source
	users  int // owned by Handler.mu

	mu      sync.Mutex
	low     uint64        // number of the first page; owned by mu
	pages   []*page       // without a gap; owned by mu
	bytes   int           // of them; owned by mu
	reading bool          // somebody reads the page after the last; owned by mu
	resets  int           // owned by mu
	changed chan struct{} // closed and replaced when a page is added or reading ends; owned by mu
}

func newReel(s Source) *reel { return &reel{source: s, changed: make(chan struct{})} }

// reel returns the source's, which lives until release is called.
func (h *Handler) reel(s Source) (r *reel, release func()) {
	if !reflect.ValueOf(s).Comparable() {
		return newReel(s), func() {}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	r = h.reels[s]
	if r == nil {
		r = newReel(s)
		if h.reels == nil {
			h.reels = map[Source]*reel{}
		}
		h.reels[s] = r
	}
	r.users++
	return r, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if r.users--; r.users == 0 {
			delete(h.reels, s)
		}
	}
}

// from yields the blocks from number n on, as [Source] does. Pages are shared, and not altered.
func (r *reel) from(ctx context.Context, n uint64) iter.Seq2[*page, error] {
	return func(yield func(*page, error) bool) {
		for {
			if !r.covers(n) {
				near := false
				for b, err := range r.source.Blocks(ctx, n) {
					if err != nil {
						yield(nil, err)
						return
					}
					if !yield(newPage(b), nil) {
						return
					}
					if n++; r.covers(n) {
						near = true
						break
					}
				}
				if !near {
					return // the source ended
				}
			}
			p, err := r.at(ctx, n)
			if p == nil && err == nil {
				continue // too slow: it isn't kept any more
			}
			if !yield(p, err) || err != nil {
				return
			}
			n++
		}
	}
}

// covers says whether a reader of block n reads with the others.
func (r *reel) covers(n uint64) bool {
	height := r.source.Height()
	r.mu.Lock()
	defer r.mu.Unlock()
	near := n+nearBlocks >= height
	if r.idle() {
		return near
	}
	return n >= r.low && (n <= r.next() || near)
}

// idle says whether there is nothing that a reader could wait for or have missed; next is the number after the last
// page. Both are called with mu held.
func (r *reel) idle() bool   { return len(r.pages) == 0 && !r.reading }
func (r *reel) next() uint64 { return r.low + uint64(len(r.pages)) }

// at returns page n, and waits until there is one; nil: it isn't kept any more.
func (r *reel) at(ctx context.Context, n uint64) (*page, error) {
	for {
		r.mu.Lock()
		if r.idle() || n > r.next()+nearBlocks { // nobody has followed for a while, or nobody at the tip
			r.low, r.pages, r.bytes, r.reading = n, nil, 0, false
			r.resets++
			r.change()
		}
		next, changed, reading, resets := r.next(), r.changed, r.reading, r.resets
		if n < next {
			var p *page
			if n >= r.low {
				p = r.pages[n-r.low]
			}
			r.mu.Unlock()
			return p, nil
		}
		r.reading = true
		r.mu.Unlock()
		if !reading {
			if err := r.read(ctx, next, resets); err != nil {
				return nil, err
			}
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// read adds page n, which it may have to wait for, and those after it that are there, but no more than are kept. The
// caller has set reading.
func (r *reel) read(ctx context.Context, n uint64, resets int) error {
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.resets == resets {
			r.reading = false
			r.change()
		}
	}()
	bytes := 0
	for b, err := range r.source.Blocks(ctx, n) {
		if err != nil {
			return err
		}
		p := newPage(b)
		n, bytes = n+1, bytes+p.bytes
		if !r.add(p, resets) || bytes >= reelBytes/2 || n >= r.source.Height() {
			return nil
		}
	}
	return Unavailable // the source ended
}

// add says whether the page belongs to the reel as it is now.
func (r *reel) add(p *page, resets int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.resets != resets {
		return false
	}
	r.pages = append(r.pages, p)
	for r.bytes += p.bytes; r.bytes > reelBytes && len(r.pages) > 1; r.low++ {
		r.bytes -= r.pages[0].bytes
		r.pages[0] = nil
		r.pages = r.pages[1:]
	}
	r.change()
	return true
}

// change is called with mu held.
func (r *reel) change() {
	close(r.changed)
	r.changed = make(chan struct{})
}

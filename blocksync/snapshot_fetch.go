package blocksync

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"

	"grapevine/wire"
)

// haulTick is how often a haul looks what has stood still.
const haulTick = 100 * time.Millisecond

// FetchConfig says what a [Fetch] brings, and how.
type FetchConfig struct {
	Name  [32]byte         // of the snapshot
	Sizes []int64          // of its chunks
	Has   func(i int) bool // chunk i is here already
	// Put keeps a chunk, or says that it isn't the one, with an error that wraps
	// Wrong. Any other error is ours, and ends Run. It is called by many at once.
	Put   func(i int, chunk []byte) error
	Wrong error
	// Open opens a stream of kind "snapshots" to a member.
	Open func(ctx context.Context, p peer.ID) (network.Stream, error)
	// Refused is told once of each refusal. It MUST NOT block nor call back. May be
	// nil.
	Refused func(p peer.ID, r *wire.Reason)
	Quiet   time.Duration // a peer that sends nothing for so long is left alone
}

// A Fetch brings the chunks of one snapshot from many peers at once. It is safe for
// concurrent use.
type Fetch struct {
	c     FetchConfig
	wants chan struct{} // to Run: todo isn't empty, or it is over

	mu      sync.Mutex // guards what follows
	haul    *haul
	todo    []hxAsk
	flights map[uint64]context.CancelFunc
	bytes   int64 // that came
	brought map[peer.ID]int
	failed  error
}

// NewFetch returns a Fetch. It starts nothing.
func NewFetch(c FetchConfig) *Fetch {
	c.Quiet = cmpOr(c.Quiet, DefaultQuiet)
	here := make([]bool, len(c.Sizes))
	for i := range here {
		here[i] = c.Has(i)
	}
	return &Fetch{
		c: c, wants: make(chan struct{}, 1), haul: newHaul(c.Sizes, here, c.Quiet),
		flights: make(map[uint64]context.CancelFunc), brought: make(map[peer.ID]int),
	}
}

// Holds says that a peer holds the snapshot.
func (f *Fetch) Holds(p peer.ID) { f.report(hvPeer{p}) }

// Gone says that a peer holds it no more.
func (f *Fetch) Gone(p peer.ID) { f.report(hvGone{p}) }

// Progress returns how many chunks are missing, how many bytes came, and how many
// chunks each peer brought.
func (f *Fetch) Progress() (left int, bytes int64, from map[peer.ID]int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	from = make(map[peer.ID]int, len(f.brought))
	for p, n := range f.brought {
		from[p] = n
	}
	return f.haul.left, f.bytes, from
}

// Run brings what is missing, and returns when all is here, when ctx ends, or with
// the error of Put. It is called once.
func (f *Fetch) Run(ctx context.Context) error {
	own, stop := context.WithCancel(ctx)
	var g errgroup.Group
	defer func() {
		stop()
		_ = g.Wait() // they return nil
	}()
	tick := time.NewTicker(haulTick)
	defer tick.Stop()
	for {
		f.mu.Lock()
		todo, left, failed := f.todo, f.haul.left, f.failed
		f.todo = nil
		for _, ask := range todo {
			one, cancel := context.WithCancel(own)
			f.flights[ask.id] = cancel
			g.Go(func() error {
				defer cancel()
				f.ask(one, ask)
				return nil
			})
		}
		f.mu.Unlock()
		if failed != nil || left == 0 {
			return failed
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-f.wants:
		case <-tick.C:
			f.report(hvTick{})
		}
	}
}

// report takes an event to the haul and notes what it wants.
func (f *Fetch) report(e haulEvent) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, x := range f.haul.step(e, time.Now()) {
		switch x := x.(type) {
		case hxAsk:
			f.todo = append(f.todo, x)
		case hxCancel:
			for i, ask := range f.todo {
				if ask.id == x.id {
					f.todo = append(f.todo[:i], f.todo[i+1:]...)
					break
				}
			}
			if cancel := f.flights[x.id]; cancel != nil {
				cancel()
			}
		}
	}
	if len(f.todo) > 0 || f.haul.left == 0 || f.failed != nil {
		nudge(f.wants)
	}
}

// ask runs one request.
func (f *Fetch) ask(ctx context.Context, x hxAsk) {
	err := f.request(ctx, x)
	f.mu.Lock()
	delete(f.flights, x.id)
	f.mu.Unlock()
	fault := ours
	switch {
	case err == nil || ctx.Err() != nil && !errors.Is(err, BadSnapshot):
	case errors.Is(err, errPut):
		f.mu.Lock()
		f.failed = err
		f.mu.Unlock()
	case errors.Is(err, Busy):
		fault = busy
	case errors.Is(err, errLacking):
		fault = lacking
	case wire.VerdictOf(err) == wire.Ban || wire.VerdictOf(err) == wire.Reject:
		fault = wrong
		log.Infow("a peer's chunks aren't those of the snapshot", "peer", x.peer, "error", err)
	default:
		fault = broken
	}
	if r := wire.ReasonOf(err); r != nil && fault != ours && f.c.Refused != nil {
		f.c.Refused(x.peer, r)
	}
	f.report(hvEnded{x.id, fault})
}

// errPut: a chunk came and can't be kept.
var errPut = errors.New("a chunk can't be kept")

func (f *Fetch) request(ctx context.Context, x hxAsk) error {
	opening, cancel := context.WithTimeout(ctx, openTime)
	s, err := f.c.Open(opening, x.peer)
	cancel()
	if err != nil {
		return fmt.Errorf("open a stream: %w", err)
	}
	a := inquiry{
		req:   &wire.SnapshotsRequest{What: wire.SnapshotsRequest_WHAT_CHUNKS, Name: f.c.Name[:], First: uint64(x.first), Count: uint64(x.count)},
		least: uint64(x.count), most: uint64(x.count),
		limit: func(i uint64) int { return int(f.c.Sizes[x.first+int(i)]) },
		take:  func(i uint64, b []byte) error { return f.take(x, x.first+int(i), b) },
		moved: func(n int) {
			f.mu.Lock()
			f.bytes += int64(n)
			f.mu.Unlock()
			f.report(hvMoved{x.id})
		},
	}
	return a.run(ctx, s)
}

// take keeps a chunk that came.
func (f *Fetch) take(x hxAsk, i int, b []byte) error {
	if err := f.c.Put(i, b); err != nil {
		if errors.Is(err, f.c.Wrong) {
			return fmt.Errorf("chunk %d: %w", i, BadSnapshot)
		}
		return fmt.Errorf("%w: %w", errPut, err)
	}
	f.mu.Lock()
	if !f.haul.here[i] {
		f.brought[x.peer]++
	}
	f.mu.Unlock()
	f.report(hvCame{x.id, i})
	return nil
}

// Package blocksync brings a channel's blocks into its ledger: in order,
// without a gap, each verified. Blocks come pushed by the channel or pulled
// from peers; both ways end in one window by number, from which one goroutine
// commits. It also serves the ledger's blocks to the channel's members.
//
//	push: Offer ─────────────┐
//	                         ▼
//	scheduler ─ pull ─▶ window ─▶ block.Verify ─▶ Ledger.Append ─▶ Committed
//	    ▲                    │
//	    └── held, dropped, committed, heights, announcements
package blocksync

import (
	"context"
	"iter"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	golog "github.com/ipfs/go-log/v2"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"

	"grapevine/block"
	"grapevine/wire"
)

// Defaults of [Config].
const (
	DefaultBuffer = 64 << 20
	DefaultWindow = 128
	DefaultReach  = 4096
	DefaultGrace  = 75 * time.Millisecond
	DefaultQuiet  = 3 * time.Second
	DefaultLook   = time.Second
	DefaultTries  = 3
)

var log = golog.Logger("grapevine/blocksync")

// Ledger is where blocks end. Append MUST be durable when it returns. Range
// yields raw blocks from..to-1; a slice is valid until the next step.
type Ledger interface {
	Tip() block.Tip
	Append(bs ...block.Verified) error
	Range(from, to uint64) iter.Seq2[[]byte, error]
}

// Config says what a Sync works with. Ledger, Rules and Open are needed.
type Config struct {
	Ledger Ledger
	// Rules returns those of the configuration in force: the same pointer until
	// a configuration block is committed.
	Rules func() *block.Rules
	// Committed is called in order after Append returned and before the next
	// block is verified: whoever follows the configuration takes it up here. An
	// error ends Run.
	Committed func(bs []block.Verified) error
	// Retriable says of an error of Append that it passes, such as a full disk:
	// commits pause and try again. Nil: none does.
	Retriable func(error) bool
	// Lowest returns the lowest block that the ledger holds. Nil: 0.
	Lowest func() uint64
	// Self is this node: never asked.
	Self peer.ID
	// Open opens a stream of kind "blocks" to a member.
	Open func(ctx context.Context, p peer.ID) (network.Stream, error)
	// Refused is told once of each refusal, with the peer that caused it. It
	// MUST NOT block nor call back.
	Refused func(p peer.ID, r *wire.Reason)
	// Conflict is told of a second validly signed header for a number in the
	// window. It MUST NOT block nor call back. May be nil.
	Conflict func(held, other *block.Checked)
	// Stale is told of a block that came although the ledger holds its number:
	// the two may differ. It MUST NOT call back. May be nil.
	Stale func(*block.Checked)
	// Held is told of each block that enters the window: it came, is true in
	// itself, and waits for those before it. It MUST NOT block nor call back.
	// May be nil.
	Held func(Arrival)

	// Appended is told how long the ledger took for so many blocks. It MUST NOT
	// block. May be nil.
	Appended func(blocks int, took time.Duration)
	// Org names a member's organisation, for the server's limits. Nil: all are of
	// one.
	Org func(p peer.ID) string

	// BufferBytes bounds the blocks ahead of the ledger, those being read and
	// checked included. What is next passes alone, whatever its size, and twice if
	// two peers are asked for it.
	BufferBytes int64
	Window      uint64        // how far ahead of the ledger pushed blocks are wanted; see Room
	Reach       uint64        // how far ahead of the ledger blocks are pulled
	Grace       time.Duration // how long the push path has before a gap is pulled
	Quiet       time.Duration // a peer that sends nothing for so long is given up
	Look        time.Duration // how often heights are compared, though nothing happens
	Tries       int           // failures in a row, after which a peer is left alone for a minute
	Slice       uint64        // most blocks asked for at once; 0: what fits the peer
	NoRepair    bool          // gaps stay; only bodies that were announced are pulled
	Limits      Limits        // of the server
}

// An Arrival is a block that entered the window.
type Arrival struct {
	Number uint64
	Hash   [32]byte // of the header
	From   peer.ID
	Kind   string // "push", "pull" or "orderer"
	Name   string // of who sent it
	Block  *block.Checked
}

// Sync is one channel's. It is safe for concurrent use.
type Sync struct {
	c        Config
	quotas   *quotas
	ready    chan struct{} // to the committer: the next block may be there
	work     chan struct{} // to the puller: todo or wake changed
	checkers *checkers
	over     chan struct{} // closed when Run returns
	once     sync.Once     // closes over
	pulled   atomic.Uint64 // bytes that came in answers
	served   atomic.Uint64 // bytes of blocks that others were given

	mu      sync.Mutex // guards what follows; never held across I/O
	window  *window
	sched   *scheduler
	todo    []fxFetch
	flights map[uint64]*flight
	wake    time.Time
	reading int64         // bytes of pulled blocks that aren't in the window yet
	peak    int64         // most bytes that were in the window and being read
	tip     block.Tip     // of the ledger
	news    chan struct{} // closed when a block enters the window or is committed
	kind    string        // how the last committed block came
	name    string
	paused  error // why commits wait

	progress Meter
}

// flight is one slice being fetched.
type flight struct {
	peer   peer.ID
	nonce  uint64
	cancel context.CancelFunc
}

// New returns the Sync of the ledger. It starts nothing.
func New(c Config) *Sync {
	c.BufferBytes = cmpOr(c.BufferBytes, DefaultBuffer)
	c.Window = cmpOr(c.Window, DefaultWindow)
	c.Reach = max(cmpOr(c.Reach, DefaultReach), c.Window)
	c.Grace = cmpOr(c.Grace, DefaultGrace)
	c.Quiet, c.Look, c.Tries = cmpOr(c.Quiet, DefaultQuiet), cmpOr(c.Look, DefaultLook), cmpOr(c.Tries, DefaultTries)
	c.Limits = c.Limits.withDefaults()
	tip := c.Ledger.Tip()
	return &Sync{
		c: c, tip: tip, kind: "none",
		quotas:   newQuotas(c.Limits),
		ready:    make(chan struct{}, 1),
		work:     make(chan struct{}, 1),
		checkers: newCheckers(),
		over:     make(chan struct{}),
		news:     make(chan struct{}),
		window:   newWindow(tip.Height, c.Reach, c.BufferBytes),
		sched: newScheduler(terms{
			self: c.Self, reach: c.Reach, budget: c.BufferBytes, grace: c.Grace, quiet: c.Quiet, look: c.Look,
			most: cmpOr(c.Slice, sliceBlocks), retries: c.Tries, repair: !c.NoRepair,
		}, tip.Height),
		flights: make(map[uint64]*flight),
	}
}

// Run commits and pulls until ctx ends or the ledger fails. It returns when all
// it started has ended. It is called once.
func (s *Sync) Run(ctx context.Context) error {
	defer s.once.Do(func() { close(s.over) })
	defer s.checkers.run()() // when nothing is fetched any more
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.commit(ctx) })
	g.Go(func() error { return s.pull(ctx, g) })
	return g.Wait()
}

// Offer takes a block that was pushed. Source says how it came, "push" or
// "orderer", and may name from whom: "orderer/HOST:PORT". It never blocks.
func (s *Sync) Offer(c *block.Checked, from peer.ID, source string) {
	kind, name, named := strings.Cut(source, "/")
	if !named {
		name = from.String()
	}
	s.take(c, 0, 0, from, kind, name)
}

// Announced says that block n, of size bytes, is there to be pulled, from these
// peers first. Its header's attestation was verified. It never blocks.
func (s *Sync) Announced(n uint64, hash [32]byte, size uint64, from ...peer.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h, ok := s.window.get(n); ok && h.hash != hash {
		log.Warnw("announced with another header than the one held", "block", n)
	}
	s.step(evAnnounced{number: n, size: int64(min(size, wire.MaxBlock)), from: from})
}

// Expect says until when block n is on its way here by push: before, it isn't
// pulled to fill a gap. The zero time, or an announcement, ends the wait.
func (s *Sync) Expect(n uint64, until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.step(evExpected{n, until})
}

// Height notes what a peer claims to hold: a hint, never trusted.
func (s *Sync) Height(p peer.ID, h uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.step(evHeight{p, h})
	if h >= s.tip.Height+behindFrom {
		now := time.Now()
		s.progress.look(s.tip.Height, s.sched.target(now), now)
	}
}

// PeerGone forgets a peer, but not what it did.
func (s *Sync) PeerGone(p peer.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.step(evGone{p})
}

// Has tells whether the window holds block n with header hash h, or the ledger
// holds number n. Only at the ledger's tip the hash is compared there: below,
// a different one would be a fork, which isn't found here.
func (s *Sync) Has(n uint64, h [32]byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n+1 == s.tip.Height {
		return s.tip.Hash == h
	}
	v, ok := s.window.get(n)
	return n < s.tip.Height || ok && v.hash == h
}

// Room waits until the window is ready for block n: it is next, or n is less
// than Window ahead and half of the buffer is free.
func (s *Sync) Room(ctx context.Context, n uint64) error {
	return s.until(ctx, func() bool {
		height := s.window.base
		return n <= height || n-height < s.c.Window && s.window.bytes <= s.window.budget/2
	})
}

// Share changes how many bytes of blocks may wait ahead of the ledger: a node's
// channels share one budget, and come and go. What waits already stays.
func (s *Sync) Share(bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.window.budget, s.sched.budget = bytes, bytes
	s.tell()
}

// Source says how the last committed block came ("push", "pull", "state", "orderer" or
// "none") and from whom.
func (s *Sync) Source() (kind, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kind, s.name
}

// Paused returns the error for which commits wait, or nil.
func (s *Sync) Paused() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.paused
}

// Buffered returns how many blocks and bytes wait in the window, and how many
// slices are being fetched.
func (s *Sync) Buffered() (blocks int, bytes int64, fetching int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.window.slots), s.window.bytes, len(s.flights)
}

// Pulled returns how many bytes came in answers to this node's requests, those
// of slices that were asked for twice included.
func (s *Sync) Pulled() uint64 { return s.pulled.Load() }

// take puts a block into the window; id is the slice that brought it, or 0, and
// reserved the memory that was set aside for it.
func (s *Sync) take(c *block.Checked, id uint64, reserved int64, from peer.ID, kind, name string) outcome {
	o := s.put(held{number: c.Number(), hash: c.Hash(), size: int64(len(c.Bytes())), block: c, from: from, kind: kind, name: name}, id, reserved)
	if o == stale && s.c.Stale != nil {
		s.c.Stale(c)
	}
	return o
}

func (s *Sync) put(h held, id uint64, reserved int64) outcome {
	c, from, kind, name := h.block, h.from, h.kind, h.name
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reading -= reserved
	if id != 0 {
		s.step(evArrived{id: id, number: h.number})
	}
	o, left := s.window.put(h)
	for _, n := range left {
		s.step(evDropped{n})
	}
	s.peak = max(s.peak, s.window.bytes+s.reading)
	switch o {
	case kept:
		s.step(evHeld{number: h.number, size: h.size, from: from, slice: id})
		s.tell()
		if s.c.Held != nil {
			s.c.Held(Arrival{h.number, h.hash, from, kind, name, c})
		}
		if h.number == s.window.base {
			nudge(s.ready)
		}
	case full:
		s.step(evSized{h.number, h.size})
	case differs:
		s.refuse(from, Conflict)
		if s.c.Conflict != nil {
			old, _ := s.window.get(h.number)
			s.c.Conflict(old.block, c)
		}
	}
	return o
}

// until waits, under mu, for a condition that changes with the window or the
// ledger.
func (s *Sync) until(ctx context.Context, ok func() bool) error {
	for {
		s.mu.Lock()
		done, news := ok(), s.news
		s.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-news:
		}
	}
}

// tell wakes everyone in until. Called under mu.
func (s *Sync) tell() {
	close(s.news)
	s.news = make(chan struct{})
}

// refuse reports a refusal. Called with or without mu.
func (s *Sync) refuse(p peer.ID, r *wire.Reason) {
	if s.c.Refused != nil && r != nil {
		s.c.Refused(p, r)
	}
}

// nudge leaves a token unless there is one.
func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// cmpOr returns v, or def if v isn't positive.
func cmpOr[T int | int64 | uint64 | float64 | time.Duration](v, def T) T {
	if v > 0 {
		return v
	}
	return def
}

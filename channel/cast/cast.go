// Package cast is how large bodies travel: erasure-coded stripes over direct
// streams between a channel's members, so that a leader's link carries a block
// about once, whatever their number.
//
//	leader ── chunk i ──▶ relay i ──▶ all others       core.go says how and why
//
//	Serve ─ frames ─▶ core.step ─▶ links ─ frames ─▶ members
//	                    │ rebuild · judge ─▶ Deliver
//	                    └ what lacks ─▶ Pull (blocksync)
package cast

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"grapevine/block"
	"grapevine/wire"
)

// Config is what a Cast needs of its channel. Its functions are called from many
// goroutines; but for Open and Tell they MUST NOT block.
type Config struct {
	Self peer.ID
	Org  string // this node's
	Wide bool   // the channel is made for more than 64 members
	// Rules returns those of the configuration in force.
	Rules func() *block.Rules
	// Open opens a stream of kind "cast" to a member.
	Open func(ctx context.Context, p peer.ID) (network.Stream, error)
	// Told judges an announcement that a member sent here. What it accepts it
	// has handed to [Cast.Announced] when it returns.
	Told func(from peer.ID, announcement []byte) error
	// Tell publishes this node's own announcement.
	Tell func(ctx context.Context, h *Head) error
	// Deliver takes a block that came whole and is true in itself, and how.
	Deliver func(c *block.Checked, a Arrival)
	// Pull takes a block that this Cast can't bring, and who may have it.
	Pull func(h *Head, from []peer.ID)
	// Expect says until when a block is on its way here; the zero time: no more.
	Expect func(number uint64, until time.Time)
	// Lied takes the proof that an announcer signed something false.
	Lied func(announcer peer.ID, number uint64, evidence []byte)
	// Refused is told once of each refusal.
	Refused func(p peer.ID, r *wire.Reason)
	Coder   *Coder  // nil: one of its own
	Budget  *Budget // nil: one of its own
	Logger  *slog.Logger
}

// An Arrival is how a block came.
type Arrival struct {
	From  peer.ID // who announced it, and if it came whole sent it
	Path  Path    // PathDirect: whole; PathStriped: in chunks, by whichever way
	Bytes int     // of chunks and parts that came for it by then
	Size  int     // of its body
}

// A Cast is one channel's. It is safe for concurrent use.
type Cast struct {
	conf    Config
	log     *slog.Logger
	buffers sync.Pool // of *[maxChunk]byte
	work    chan struct{}
	// Of frames: bytes that came and went, and how many were dropped.
	received, sent, dropped atomic.Uint64

	slots chan struct{} // of rebuilding and judging

	mu    sync.Mutex // guards what follows; held for no longer than a step takes
	core  *core
	links map[peer.ID]*link
	start func(*link) // starts a link's writer; nil unless Run runs
	todo  []effect    // for Run
	wake  time.Time
	room  chan struct{} // closed and replaced when another block may be handed out
	// opened is closed and replaced when a session begins.
	opened chan struct{}
	stats  Stats
	// reserved was taken from the budget for the step at hand.
	reserved int64
}

// Stats counts what a Cast did since it was made.
type Stats struct {
	Received uint64 // bytes of frames from members
	Sent     uint64 // bytes of frames to members
	Dropped  uint64 // frames, because a queue was full or a stream failed
	Blocks   uint64 // that came whole
	Rebuilt  uint64 // segments of which data chunks were computed
	Needs    uint64 // questions for chunks, to members
	Pulls    uint64 // blocks given to blocksync
	Turned   uint64 // of them, because their announcement couldn't be taken up
	Sessions int    // open ones
	Bytes    int64  // that open sessions may hold
	Hubs     int    // connected members that are known as such: see Hub
	Handed   map[Path]uint64
}

// New makes a Cast; [Cast.Run] runs it.
func New(c Config) (*Cast, error) {
	if c.Rules == nil || c.Open == nil || c.Told == nil || c.Tell == nil || c.Deliver == nil || c.Pull == nil || c.Expect == nil {
		return nil, errors.New("cast: Rules, Open, Told, Tell, Deliver, Pull and Expect are needed")
	}
	if c.Coder == nil {
		c.Coder = new(Coder)
	}
	if c.Budget == nil {
		c.Budget = NewBudget(DefaultBudget)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return &Cast{
		conf: c, log: c.Logger,
		buffers: sync.Pool{New: func() any { return new([maxChunk]byte) }},
		work:    make(chan struct{}, 1),
		slots:   make(chan struct{}, workers()),
		core:    newCore(c.Self, c.Org, c.Wide),
		links:   make(map[peer.ID]*link),
		room:    make(chan struct{}),
		opened:  make(chan struct{}),
		stats:   Stats{Handed: make(map[Path]uint64)},
	}, nil
}

// Arrived tells that a member is connected, and of which organisation it is.
func (c *Cast) Arrived(p peer.ID, org string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.links[p] == nil {
		c.links[p] = newLink(p)
	}
	c.step(evArrived{p, org})
}

// Hub tells that everybody seeks to be connected to a member, as to an anchor peer,
// until it is gone. Of a member that isn't connected it does nothing.
func (c *Cast) Hub(p peer.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.step(evHub{p})
}

// Gone tells that a host isn't connected any more, or no member.
func (c *Cast) Gone(p peer.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l := c.links[p]; l != nil {
		l.close()
		delete(c.links, p)
	}
	c.step(evLeft{p})
}

// Announced takes a verified announcement of another member's.
func (c *Cast) Announced(h *Head) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reserve(h) {
		c.step(evAnnounced{h})
	} else {
		c.step(evTurned{h, NoBudget})
	}
}

// Have tells that a block is here, whichever way it came. It may be called where
// calls back are forbidden.
func (c *Cast) Have(number uint64, hash [32]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.step(evHave{number, hash})
}

// Bar keeps an announcer's sessions out for an hour.
func (c *Cast) Bar(p peer.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.step(evBarred{p})
}

// Send hands a block out, announced by h. It waits while the members lack most
// of too many blocks that this node handed out before, or the node's budget is
// used up.
func (c *Cast) Send(ctx context.Context, h *Head, e *Encoding) error {
	for {
		freed := c.conf.Budget.freed()
		c.mu.Lock()
		room := c.room
		if c.core.busy() < perAnnouncer && c.reserve(h) {
			c.step(evOwn{h, e})
			c.mu.Unlock()
			return nil
		}
		c.mu.Unlock()
		select {
		case <-room:
		case <-freed:
		case <-ctx.Done():
			return fmt.Errorf("casting block %d: %w", h.Number, ctx.Err())
		}
	}
}

// reserve takes what a session may hold from the budget, unless it is open. Mu
// is held; the next step makes use of it.
func (c *Cast) reserve(h *Head) bool {
	s, err := ShapeOf(h.Size)
	if err != nil || c.core.sessions[h.id()] != nil {
		return true // it won't open one
	}
	bytes := s.Coded()
	if !c.conf.Budget.take(bytes) {
		c.step(evSqueeze{bytes})
		if !c.conf.Budget.take(bytes) {
			return false
		}
	}
	c.reserved = bytes
	return true
}

// Stats returns what the Cast did so far.
func (c *Cast) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	s.Received, s.Sent, s.Dropped = c.received.Load(), c.sent.Load(), c.dropped.Load()
	s.Handed = make(map[Path]uint64, len(c.stats.Handed))
	for k, v := range c.stats.Handed {
		s.Handed[k] = v
	}
	s.Sessions, s.Bytes = len(c.core.sessions), 0
	for _, v := range c.core.sessions {
		s.Bytes += v.bytes()
	}
	s.Hubs = len(c.core.ours.hubs)
	for _, g := range c.core.orgs {
		s.Hubs += len(g.hubs)
	}
	return s
}

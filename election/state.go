package election

import (
	"context"
	"errors"
	"iter"
	"slices"
	"sync"
	"time"

	"grapevine/msp"
)

// Errors of an Election.
var (
	// ErrRunning: Run was called while it runs.
	ErrRunning = errors.New("election already runs")
	// ErrNotLeading: only an elected leader can yield.
	ErrNotLeading = errors.New("this peer doesn't lead by election")
)

// A State is what a peer knows of the election at one moment.
type State struct {
	Mode    Mode
	Role    string    // "starting", "following", "candidate", "leader" or "stopped"
	Leading bool      // this peer leads
	Pulling bool      // it pulls: it leads, or it relieves a leader that brings nothing
	Lacks   time.Time // it pulls, and has had no orderer since then; zero: it has one, or doesn't pull
	Leader  *Leader   // by election, as this peer knows, or itself, a static one; nil: none
	Term    uint64    // the highest that somebody led in

	Neighbours  int       // connected peers of the organisation
	Reaches     bool      // an orderer answers
	Answered    time.Time // one answered, or none did
	Unreachable error     // why none did; nil: one did
	BarredUntil time.Time // it leads only if nobody else can; zero: it may

	Changes    uint64        // leaders that came
	Checks     uint64        // of signatures of claims
	Leaderless time.Duration // time without a leader
	Vacant     time.Time     // there is no leader since then; zero: there is one
}

// State returns how things are.
func (e *Election) State() State { return *e.state.Load() }

// A Leader is who leads by election, or this peer itself, always.
type Leader struct {
	PKIID   msp.PKIID
	Self    bool
	Term    uint64    // 0: not by election
	Since   time.Time // by its clock
	Heard   time.Time // its last heartbeat
	Orderer string    // that it is connected to; empty: none
}

// A Change is one of the leader that a peer knows.
type Change struct {
	At     time.Time
	Leader msp.PKIID // zero: there is none
	Self   bool
	Term   uint64
	// Why: "elected" and "claimed" say how a leader came, here and elsewhere, and
	// "static" that this peer always leads; the others say why the one before is
	// none any more: "silent", "yielded",
	// "no orderer", "the orderer brings nothing", "stood still", "asked to yield",
	// "stopped".
	Why string
}

const (
	kept        = 128 // changes
	eventBuffer = 64
)

// changes keeps the last changes and tells who listens. Its zero value is ready;
// it is safe for concurrent use.
type changes struct {
	mu       sync.Mutex
	all      []Change             // oldest first; guarded by mu
	watchers map[chan Change]bool // guarded by mu
}

func (c *changes) add(x Change) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.all) == kept {
		c.all = slices.Delete(c.all, 0, 1)
	}
	c.all = append(c.all, x)
	for w := range c.watchers {
		select {
		case w <- x:
		default: // it finds what it missed in the history
		}
	}
}

// History returns the last changes, oldest first.
func (e *Election) History() []Change {
	e.history.mu.Lock()
	defer e.history.mu.Unlock()
	return slices.Clone(e.history.all)
}

// Events yields changes from now on, until ctx ends. What a slow listener misses
// is in History.
func (e *Election) Events(ctx context.Context) iter.Seq[Change] {
	c := make(chan Change, eventBuffer)
	h := &e.history
	h.mu.Lock()
	if h.watchers == nil {
		h.watchers = make(map[chan Change]bool)
	}
	h.watchers[c] = true
	h.mu.Unlock()
	forget := func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.watchers, c)
	}
	stop := context.AfterFunc(ctx, forget)
	return func(yield func(Change) bool) {
		defer stop()
		defer forget()
		for {
			select {
			case x := <-c:
				if !yield(x) {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}
}

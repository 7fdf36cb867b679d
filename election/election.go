// Package election decides which peer of an organisation talks to the ordering
// service of a channel. Leadership is a context: it lives while the peer leads
// and ends when it no longer does.
//
// Static leaders lead for as long as they run; several in one organisation are
// allowed, for a block that comes twice is committed once. Standby peers never
// lead and rely on the others. With dynamic election the organisation's peers
// on the channel agree on one; the rules stand in machine.go. Peers of every
// mode listen and vote.
package election

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	golog "github.com/ipfs/go-log/v2"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"grapevine/msp"
	"grapevine/wire"
)

const (
	inbox     = 256                    // ballots that wait; more are dropped, for they come again
	probeTime = 2 * time.Second        // for an orderer's answer
	farewell  = 300 * time.Millisecond // for the last ballots
	tallTime  = 30 * time.Second       // heights that others told are forgotten
)

var log = golog.Logger("grapevine/election")

// Config says who we are, how long we wait, and what we know of the node.
type Config struct {
	Mode   Mode
	Timing Timing
	Self   msp.Signer
	Tag    [32]byte // of the channel

	// Expects: others of the organisation are to be met, so a peer that starts
	// waits for them.
	Expects bool
	// Open opens a stream of kind "election" to a connected member; it may block.
	Open func(ctx context.Context, p peer.ID) (network.Stream, error)
	// Bound returns the identity that a connected host is bound to, and its
	// intermediates. It MUST NOT block.
	Bound func(p peer.ID) (*msp.Identity, [][]byte, bool)
	// Known returns the identity of a member that was heard of. It MUST NOT block.
	Known func(id msp.PKIID) (*msp.Identity, bool)
	// Admit judges whether an identity is a member now.
	Admit func(id *msp.Identity, now time.Time) error
	// Height is the number of blocks held.
	Height func() uint64
	// Stream tells of the stream of blocks while this peer pulls: the orderer
	// that it comes from, empty if there is none, and the number of the block that
	// comes next. Nil: a pull is taken to go well.
	Stream func() (orderer string, next uint64)
	// Newest asks the ordering service how many blocks there are, attested by
	// signatures; it needs any one orderer. Nil: an orderer is taken to be in
	// reach.
	Newest func(ctx context.Context) (height uint64, err error)
	// Changed is told of each change, in order. It MUST NOT block. May be nil.
	Changed func(Change)
	// Refused is told of each claim or ballot that was refused. May be nil.
	Refused func(p peer.ID, r *wire.Reason)
}

// Timing holds the waits; Fabric's keys of peer.gossip.election have the same
// meaning. Zero values are replaced by defaults.
type Timing struct {
	StartupGrace time.Duration // longest wait of a starting peer for others; 2 s
	Sample       time.Duration // between two looks at who is there, at the start; 200 ms
	LeaderAlive  time.Duration // without a heartbeat of the leader: elect; 2 s
	Election     time.Duration // from standing to leading, unless all have voted; 500 ms
	Yield        time.Duration // without an orderer a leader yields; 3 s
}

func (t Timing) orDefault() Timing {
	for _, d := range []struct {
		v   *time.Duration
		def time.Duration
	}{
		{&t.StartupGrace, 2 * time.Second},
		{&t.Sample, 200 * time.Millisecond},
		{&t.LeaderAlive, 2 * time.Second},
		{&t.Election, 500 * time.Millisecond},
		{&t.Yield, 3 * time.Second},
	} {
		if *d.v <= 0 {
			*d.v = d.def
		}
	}
	return t
}

// Election runs one peer's part in one channel's election. It is safe for
// concurrent use; Run is called once at a time.
type Election struct {
	c       Config
	id      msp.PKIID
	mspID   string
	running atomic.Bool
	state   atomic.Pointer[State]
	links   *links
	heard   chan heard
	kick    chan struct{}   // holds one: hosts has changed
	resigns chan chan error // to Run
	tips    chan uint64     // to Run, from the client of the ordering service
	history changes
	counted State // over all runs; owned by Run
	checks  atomic.Uint64

	mu      sync.Mutex            // guards what follows
	hosts   map[peer.ID]msp.PKIID // connected members of the organisation
	buckets map[peer.ID]*bucket   // of them, and of who spoke before
	proven  map[msp.PKIID]proof
	streams map[network.Stream]peer.ID // being served
	tall    [2]otherHeight
	tallAt  time.Time
}

// heard is a ballot whose claim is proven.
type heard struct {
	from   msp.PKIID
	peer   peer.ID
	ballot ballot
}

// New returns an election. It starts nothing. It refuses what [Mode.Validate]
// refuses.
func New(c Config) (*Election, error) {
	if err := c.Mode.Validate(); err != nil {
		return nil, err
	}
	c.Timing = c.Timing.orDefault()
	e := &Election{
		c: c, heard: make(chan heard, inbox), kick: make(chan struct{}, 1), resigns: make(chan chan error), tips: make(chan uint64, 1),
		hosts: make(map[peer.ID]msp.PKIID), buckets: make(map[peer.ID]*bucket), proven: make(map[msp.PKIID]proof), streams: make(map[network.Stream]peer.ID),
	}
	e.links = newLinks(c.Open)
	if c.Self != nil {
		e.id, e.mspID = c.Self.Identity().PKIID(), c.Self.Identity().MSPID()
	}
	e.state.Store(&State{Mode: c.Mode})
	return e, nil
}

// Run calls lead with a context of its own each time this peer begins to pull,
// and ends that context when it stops. lead MUST return soon after its context
// ended: the next one starts only then. If lead returns by itself it is called
// again after a pause. Run returns ctx's error when ctx ends, and not before the
// last lead returned; a leader's last word is that it yields.
func (e *Election) Run(ctx context.Context, lead func(ctx context.Context)) error {
	if !e.running.CompareAndSwap(false, true) {
		return fmt.Errorf("election in mode %s: %w", e.c.Mode, ErrRunning)
	}
	defer e.running.Store(false)
	now := time.Now()
	r := &run{
		Election: e, pull: newPull(lead), met: make(map[peer.ID]msp.PKIID), probes: make(chan answer, 1), began: now, last: now,
		machine: newMachine(settings{
			self: e.id, candidate: e.c.Mode == Dynamic, expects: e.c.Expects, blind: e.c.Newest == nil,
			grace: e.c.Timing.StartupGrace, sample: e.c.Timing.Sample, alive: e.c.Timing.LeaderAlive, elect: e.c.Timing.Election,
			yield: e.c.Timing.Yield, seed: binary.BigEndian.Uint64(e.id[:]) ^ uint64(now.UnixNano()),
		}, now),
	}
	r.run(ctx)
	return ctx.Err()
}

// Mode returns the mode.
func (e *Election) Mode() Mode { return e.c.Mode }

// Leading tells whether this peer leads now: by election, or because it is a
// static leader that runs.
func (e *Election) Leading() bool { return e.state.Load().Leading }

// Yield hands leadership over: this peer stops to lead, and for a minute leads
// only if nobody else can. It returns [ErrNotLeading] if it doesn't lead by
// election.
func (e *Election) Yield(ctx context.Context) error {
	done := make(chan error, 1)
	select {
	case e.resigns <- done:
		return <-done
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Arrived tells that a host is connected and a member. To say it of others than
// members of the own organisation, or twice, does nothing.
func (e *Election) Arrived(p peer.ID) {
	id, _, ok := e.c.Bound(p)
	if !ok || id.MSPID() != e.mspID || id.PKIID() == e.id {
		return
	}
	e.mu.Lock()
	e.hosts[p] = id.PKIID()
	e.mu.Unlock()
	e.changed()
}

// Gone tells that a host isn't connected any more, or not a member, or dead.
func (e *Election) Gone(p peer.ID) {
	e.mu.Lock()
	delete(e.hosts, p)
	delete(e.buckets, p)
	e.mu.Unlock()
	e.changed()
}

func (e *Election) changed() {
	select {
	case e.kick <- struct{}{}:
	default:
	}
}

// Told tells of a height that a member told; it is a hint.
func (e *Election) Told(p peer.ID, height uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	id, t := e.hosts[p], &e.tall
	switch {
	case height > t[0].height && id != t[0].id:
		t[0], t[1] = otherHeight{id, height}, t[0]
	case height > t[0].height:
		t[0].height = height
	case height > t[1].height && id != t[0].id:
		t[1] = otherHeight{id, height}
	}
}

// Attested tells a leader how many blocks another orderer than its own has
// signed.
func (e *Election) Attested(height uint64) {
	select {
	case e.tips <- height:
	default: // another one comes
	}
}

// tallest returns the highest heights told of late.
func (e *Election) tallest(now time.Time) [2]otherHeight {
	e.mu.Lock()
	defer e.mu.Unlock()
	if now.Sub(e.tallAt) > tallTime {
		e.tall, e.tallAt = [2]otherHeight{}, now
	}
	return e.tall
}

package orderer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"golang.org/x/sync/semaphore"

	"grapevine/block"
	"grapevine/msp"
)

// Limits. An envelope is held in memory from its submission to its block, so their bytes are budgeted; a batch may be as
// large as a block, so few are under way.
const (
	maxHeldBytes = 64 << 20 // of envelopes not yet in a block; one larger passes alone
	maxBatches   = 64       // proposed and not yet in a block; Raft appends as many at once
	maxQueued    = 4096     // envelopes that wait for the cutter
	snapshotSize = 64 << 20 // bytes of log that became blocks before it is cut off
	trailingLogs = 256      // entries kept for followers that lag a little
)

// baseKey holds the height at which this log began: blocks below don't come from it.
var baseKey = []byte("grapevine.base")

// ChainConfig is one channel's ordering on one node.
type ChainConfig struct {
	Name      string         // of the channel
	Channel   func() Channel // the configuration in force, which Committed brings up to date before it returns
	Ledger    Ledger         // holds the genesis block at least
	Signer    msp.Signer     // signs the blocks
	Dir       string         // of Raft's log, votes and snapshots; made if absent
	NodeID    string         // this node among the voters
	Transport raft.Transport // nil: this node is alone
	Voters    []raft.Server  // the cluster that an empty Dir begins with; empty: this node alone
	Heartbeat time.Duration  // of Raft; elections take one to two; 0: 50 ms alone, 500 ms among others

	Committed func(bs []block.Verified) error // called in order, after each Append, before the next block is made; nil: nobody
	Transient func(err error) bool            // does an Append error pass, as a full disk does? nil: none does
	Logger    *slog.Logger                    // nil: silence

	cutOff int                                 // tests: instead of snapshotSize
	damage func(*raftboltdb.BoltStore) backing // tests: instead of the file itself
}

// Chain orders one channel. It is safe for concurrent use.
type Chain struct {
	c ChainConfig

	queue   chan *order         // accepted, on the way to the cutter
	held    *semaphore.Weighted // bytes of envelopes not yet in a block
	writers writers
	failure chan error    // why the chain can't go on; at most one
	grown   chan struct{} // says that a snapshot is due
	stopped chan struct{} // closed when Run returns
	raft    atomic.Pointer[raft.Raft]

	leading state // this node leads
	lost    state // no leader is known
}

// order is one envelope on its way into a block.
type order struct {
	raw  []byte     // as it will stand in the block
	size uint32     // as the batch rules count it
	done chan error // one result: nil when the block is durable
}

// batch is one block on its way through Raft.
type batch struct {
	orders []*order
	future raft.ApplyFuture
}

// NewChain prepares a chain; nothing runs until Run.
func NewChain(c ChainConfig) (*Chain, error) {
	if c.Channel == nil || c.Ledger == nil || c.Signer == nil || c.Dir == "" || c.NodeID == "" {
		return nil, fmt.Errorf("chain %s: Channel, Ledger, Signer, Dir and NodeID are needed", c.Name)
	}
	c.Logger = logger(c.Logger)
	if c.Transport == nil {
		_, c.Transport = raft.NewInmemTransport(raft.ServerAddress(c.NodeID))
	}
	if len(c.Voters) == 0 {
		c.Voters = []raft.Server{{ID: raft.ServerID(c.NodeID), Address: c.Transport.LocalAddr()}}
	}
	if c.Heartbeat <= 0 {
		c.Heartbeat = 500 * time.Millisecond
		if len(c.Voters) == 1 {
			c.Heartbeat = 50 * time.Millisecond
		}
	}
	if c.cutOff == 0 {
		c.cutOff = snapshotSize
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("chain %s: %w", c.Name, err)
	}
	ch := &Chain{
		c:       c,
		queue:   make(chan *order, maxQueued),
		held:    semaphore.NewWeighted(maxHeldBytes),
		failure: make(chan error, 1),
		grown:   make(chan struct{}, 1),
		stopped: make(chan struct{}),
	}
	ch.lost.set(true)
	return ch, nil
}

// Run orders until ctx ends, and then returns nil, or until the chain can't go on. It may be called once. An error that
// carries BrokenLog says that Raft's disk failed: the process should end then, for Raft's goroutines can't.
func (c *Chain) Run(ctx context.Context) (err error) {
	defer close(c.stopped)
	file, err := openBacking(filepath.Join(c.c.Dir, "raft.db"))
	if err != nil {
		return fmt.Errorf("chain %s: %w", c.c.Name, err)
	}
	closing, stop := context.WithCancel(ctx)
	defer stop()
	s := &store{
		backing: file, log: c.c.Logger.With("channel", c.c.Name),
		closing: closing.Done(), fail: c.fail, broken: make(chan struct{}),
	}
	if c.c.damage != nil {
		s.backing = c.c.damage(file)
	}
	var r *raft.Raft
	started := make(chan error, 1)
	go func() {
		var err error
		r, err = c.start(s)
		started <- err
	}()
	select {
	case err := <-started:
		if err != nil {
			return errors.Join(fmt.Errorf("chain %s: %w", c.c.Name, err), file.Close())
		}
	case <-s.broken:
		return c.failed()
	}
	c.raft.Store(r)

	l := newLeader(c, r)
	r.RegisterObserver(raft.NewObserver(l.changes, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.LeaderObservation)
		return ok
	}))
	ended := make(chan error, 1)
	go func() {
		// What was proposed settles by itself: it is committed, or refused by a leader that has lost its quorum. Only
		// then may Raft end, for it forgets the futures of what it has handed to its machine.
		l.settle()
		l.cutting.Wait()
		ended <- errors.Join(r.Shutdown().Error(), file.Close())
	}()
	err = l.run(ctx, s.broken)
	c.leading.set(false)
	c.lost.set(true)
	stop()
	close(l.batches)
	select {
	case end := <-ended:
		return errors.Join(err, end)
	case <-s.broken:
		return errors.Join(err, c.failed())
	}
}

// Order checks an envelope by the channel's rules and returns nil when it stands in a durable block. Its errors carry
// one of this package's reasons.
func (c *Chain) Order(ctx context.Context, env *common.Envelope) error {
	o, err := c.submit(ctx, env)
	if err != nil {
		return err
	}
	return c.await(ctx, o)
}

// Leader is the Raft id of the leader; empty if none is known.
func (c *Chain) Leader() string {
	if r := c.raft.Load(); r != nil {
		_, id := r.LeaderWithID()
		return string(id)
	}
	return ""
}

// Errored returns a channel that is closed while there is no leader to order with. Ask again after it was closed.
func (c *Chain) Errored() <-chan struct{} { return c.lost.done() }

// Ready returns a channel that is closed while this node leads, and so can order. Ask again when it can't any more.
func (c *Chain) Ready() <-chan struct{} { return c.leading.done() }

// submit checks an envelope and puts it on its way.
func (c *Chain) submit(ctx context.Context, env *common.Envelope) (*order, error) {
	o, err := c.admit(env, time.Now())
	if err != nil {
		return nil, err
	}
	if !c.leading.is() {
		return nil, NotLeader
	}
	weight := min(int64(o.size), maxHeldBytes)
	if err := c.held.Acquire(ctx, weight); err != nil {
		return nil, err
	}
	select {
	case c.queue <- o:
		return o, nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-c.stopped:
		err = Stopped
	}
	c.held.Release(weight)
	return nil, err
}

// await waits for the order's result.
func (c *Chain) await(ctx context.Context, o *order) error {
	select {
	case err := <-o.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-c.stopped:
		select {
		case err := <-o.done:
			return err
		default:
			return Stopped
		}
	}
}

// finish settles an order.
func (c *Chain) finish(o *order, err error) {
	c.held.Release(min(int64(o.size), maxHeldBytes))
	o.done <- err
}

// fail notes why the chain can't go on. The first reason counts.
func (c *Chain) fail(err error) {
	select {
	case c.failure <- err:
	default:
	}
}

// failed takes the reason, if there is one.
func (c *Chain) failed() error {
	select {
	case err := <-c.failure:
		return fmt.Errorf("chain %s: %w", c.c.Name, err)
	default:
		return nil
	}
}

// start opens Raft over the store, beginning a cluster if there is none yet.
func (c *Chain) start(store *store) (*raft.Raft, error) {
	base, err := c.base(store)
	if err != nil {
		return nil, err
	}
	m, err := newMachine(c.c, base)
	if err != nil {
		return nil, err
	}
	m.closing, m.fail = store.closing, c.fail
	m.grown = c.countLog()

	out := &logLines{log: c.c.Logger.With("channel", c.c.Name)}
	conf := raft.DefaultConfig()
	conf.LocalID = raft.ServerID(c.c.NodeID)
	conf.HeartbeatTimeout, conf.ElectionTimeout = c.c.Heartbeat, c.c.Heartbeat
	conf.LeaderLeaseTimeout = c.c.Heartbeat
	conf.CommitTimeout = max(time.Millisecond, c.c.Heartbeat/10)
	conf.MaxAppendEntries = maxBatches
	conf.BatchApplyCh = true
	conf.TrailingLogs = trailingLogs
	conf.LogOutput, conf.LogLevel = out, "WARN"

	snaps, err := raft.NewFileSnapshotStore(c.c.Dir, 2, io.Discard)
	if err != nil {
		return nil, fmt.Errorf("raft snapshots: %w", err)
	}
	known, err := raft.HasExistingState(store, store, snaps)
	if err != nil {
		return nil, fmt.Errorf("raft log: %w", err)
	}
	if !known {
		conf := *conf
		err := raft.BootstrapCluster(&conf, store, store, snaps, c.c.Transport, raft.Configuration{Servers: c.c.Voters})
		if err != nil {
			return nil, fmt.Errorf("begin the raft cluster: %w", err)
		}
	}
	r, err := raft.NewRaft(conf, m, store, store, snaps, c.c.Transport)
	if err != nil {
		return nil, fmt.Errorf("start raft: %w", errors.Join(m.failed, err))
	}
	return r, nil
}

// base returns the height at which this log began, and sets it when it begins.
func (c *Chain) base(store *store) (uint64, error) {
	base, err := store.GetUint64(baseKey)
	if errors.Is(err, raftboltdb.ErrKeyNotFound) {
		base = c.c.Ledger.Tip().Height
		err = store.SetUint64(baseKey, base)
	}
	if err != nil {
		return 0, fmt.Errorf("raft log: %w", err)
	}
	return base, nil
}

// countLog returns the machine's grown: it asks for a snapshot each time that enough log has become blocks.
func (c *Chain) countLog() func(bytes int) {
	var sum int // the machine's goroutine's own
	return func(bytes int) {
		if sum += bytes; sum < c.c.cutOff {
			return
		}
		sum = 0
		select {
		case c.grown <- struct{}{}:
		default:
		}
	}
}

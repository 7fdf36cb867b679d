package orderer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
)

const (
	snapshotSize = 64 << 20 // bytes of log that became blocks before it is cut off
	trailingLogs = 256      // entries kept for followers that lag a little

	aloneHeartbeat   = 50 * time.Millisecond
	clusterHeartbeat = 500 * time.Millisecond
)

// selfKey holds the consenter's id under which this log was written.
var selfKey = []byte("grapevine.consenter")

// consensus is one period in which this node takes part in a channel's Raft: from when it is a consenter until it is none,
// or the node ends.
type consensus struct {
	chain     *Chain
	self      Consenter
	store     *store
	transport *transport // nil: this node is alone
	raft      *raft.Raft
	machine   *machine

	failure chan error // why it can't go on; holds the first reason
	grown   chan struct{}
}

// consent takes part until ctx ends or the configuration doesn't name this node any more.
func (c *Chain) consent(ctx context.Context, self Consenter) error {
	p := &consensus{chain: c, self: self, failure: make(chan error, 1), grown: make(chan struct{}, 1)}
	file, err := p.open()
	if err != nil {
		return err
	}
	closing, stop := context.WithCancel(ctx)
	defer stop()
	p.store = &store{
		backing: file, log: c.c.Logger.With("channel", c.c.Name),
		closing: closing.Done(), fail: p.fail, broken: make(chan struct{}),
	}
	if c.c.damage != nil {
		p.store.backing = c.c.damage(file)
	}
	started := make(chan error, 1)
	go func() { started <- p.start(closing) }()
	select {
	case err := <-started:
		if err != nil {
			return errors.Join(err, p.closeLinks(), file.Close())
		}
	case <-p.store.broken:
		return p.failed()
	}
	c.raft.Store(p.raft)
	defer c.raft.Store(nil)

	l := newLeader(p)
	p.raft.RegisterObserver(raft.NewObserver(l.changes, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.LeaderObservation)
		return ok
	}))
	relaying, end := context.WithCancel(ctx)
	defer end()
	relayed := make(chan struct{})
	go func() {
		defer close(relayed)
		c.relay.run(relaying)
	}()
	ended := make(chan error, 1)
	go func() {
		// What was proposed settles by itself: it is committed, or refused by a leader that has lost its quorum. Only
		// then may Raft end, for it forgets the futures of what it has handed to its machine.
		l.settle()
		l.aside.Wait()
		ended <- errors.Join(p.closeLinks(), p.raft.Shutdown().Error(), file.Close())
	}()
	err = l.run(ctx, p.store.broken)
	c.leading.set(false)
	c.lost.set(true)
	end()
	<-relayed
	stop()
	close(l.batches)
	select {
	case end := <-ended:
		return errors.Join(err, end)
	case <-p.store.broken:
		return errors.Join(err, p.failed())
	}
}

// open opens the log. One that this node wrote as another consenter than it is now is done with: its votes and entries
// were that one's.
func (p *consensus) open() (*raftboltdb.BoltStore, error) {
	path := filepath.Join(p.chain.c.Dir, "raft.db")
	file, err := openBacking(path)
	if err != nil {
		return nil, err
	}
	id, err := file.GetUint64(selfKey)
	if err == nil && id == p.self.ID || errors.Is(err, raftboltdb.ErrKeyNotFound) && p.unused(file) {
		return file, nil
	}
	if err != nil && !errors.Is(err, raftboltdb.ErrKeyNotFound) {
		return nil, errors.Join(fmt.Errorf("raft log: %w", err), file.Close())
	}
	p.chain.c.Logger.Warn("a log from when this node was another consenter is dropped", "channel", p.chain.c.Name, "was", id, "is", p.self.ID)
	if err := errors.Join(file.Close(), os.RemoveAll(p.chain.c.Dir), os.MkdirAll(p.chain.c.Dir, 0o700)); err != nil {
		return nil, fmt.Errorf("drop the raft log: %w", err)
	}
	return openBacking(path)
}

// unused says whether nothing was written to a log yet.
func (p *consensus) unused(file *raftboltdb.BoltStore) bool {
	last, err := file.LastIndex()
	return err == nil && last == 0
}

// start opens Raft over the store, beginning a cluster if there is none yet.
func (p *consensus) start(closing context.Context) error {
	c := p.chain.c
	if err := p.store.SetUint64(selfKey, p.self.ID); err != nil {
		return fmt.Errorf("raft log: %w", err)
	}
	var err error
	if p.machine, err = newMachine(closing, p.chain, p.fail); err != nil {
		return err
	}
	p.machine.grown = p.countLog()

	out := &logLines{log: c.Logger.With("channel", c.Name)}
	own := raft.ServerAddress(serverID(p.self.ID))
	var trans raft.Transport
	heartbeat := c.Heartbeat
	if c.Links != nil {
		p.transport = newTransport(newLayer(c.Links, p.self.ID, func(id uint64) (Consenter, bool) { return p.chain.members.Load().get(id) }), out)
		trans = p.transport
	} else {
		_, trans = raft.NewInmemTransport(own)
	}
	if heartbeat <= 0 {
		if heartbeat = clusterHeartbeat; p.alone() {
			heartbeat = aloneHeartbeat
		}
	}
	conf := raft.DefaultConfig()
	conf.LocalID = serverID(p.self.ID)
	conf.HeartbeatTimeout, conf.ElectionTimeout = heartbeat, heartbeat
	conf.LeaderLeaseTimeout = heartbeat
	conf.CommitTimeout = max(time.Millisecond, heartbeat/10)
	conf.MaxAppendEntries = p.batches()
	conf.BatchApplyCh = true
	conf.ShutdownOnRemove = false
	conf.TrailingLogs = trailingLogs
	conf.LogOutput, conf.LogLevel = out, "WARN"

	snaps, err := raft.NewFileSnapshotStore(c.Dir, 2, io.Discard)
	if err != nil {
		return fmt.Errorf("raft snapshots: %w", err)
	}
	if err := p.begin(closing, snaps, trans); err != nil {
		return fmt.Errorf("begin the raft cluster: %w", err)
	}
	if err := p.recall(); err != nil {
		return err
	}
	p.raft, err = raft.NewRaft(conf, p.machine, p.store, p.store, snaps, trans)
	if err != nil {
		return fmt.Errorf("start raft: %w", errors.Join(p.machine.failed, err))
	}
	return nil
}

// alone says whether this node is the only consenter.
func (p *consensus) alone() bool { return len(p.chain.Consenters()) == 1 }

// batches is how many may be under way, and in one message: fewer where they are larger.
func (p *consensus) batches() int {
	return max(4, min(maxBatches, int(maxBatchData/max(1, p.chain.c.Channel().Batch().PreferredMaxBytes))))
}

// begin makes a new cluster, unless this node is in one: all consenters of a genesis block begin the same one, each for
// itself. Where the chain is older, only a consenter that is alone can; others wait for the leader to take them in. Indexes
// in a chain always rise, so that a new log over an old chain begins where the chain's blocks end, by way of a snapshot.
func (p *consensus) begin(ctx context.Context, snaps raft.SnapshotStore, trans raft.Transport) error {
	kept, err := snaps.List()
	if err != nil || len(kept) > 0 {
		return err
	}
	if last, err := p.store.LastIndex(); err != nil || last > 0 {
		return err
	}
	var all raft.Configuration
	for _, c := range p.chain.Consenters() {
		all.Servers = append(all.Servers, raft.Server{ID: serverID(c.ID), Address: raft.ServerAddress(serverID(c.ID))})
	}
	switch m := p.machine; {
	case m.last == 0 && (p.alone() || m.tip.Height == 1 && p.chain.young(ctx)):
		return p.store.StoreLog(&raft.Log{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(all)})
	case p.alone():
		sink, err := snaps.Create(raft.SnapshotVersionMax, m.last, 1, all, m.last, trans)
		if err != nil {
			return err
		}
		return m.mark().Persist(sink)
	}
	p.chain.c.Logger.Info("waiting for the leader to send the log", "channel", p.chain.c.Name)
	return p.store.SetUint64(blankKey, 1)
}

// closeLinks ends the streams to the others, and all calls under way on them.
func (p *consensus) closeLinks() error {
	if p.transport == nil {
		return nil
	}
	return errors.Join(p.transport.layer.Close(), p.transport.Close())
}

// fail notes why the period can't go on. The first reason counts.
func (p *consensus) fail(err error) {
	select {
	case p.failure <- err:
	default:
	}
}

// failed takes the reason, if there is one.
func (p *consensus) failed() error {
	select {
	case err := <-p.failure:
		return err
	default:
		return nil
	}
}

// countLog returns the machine's grown: it asks for a snapshot each time that enough log has become blocks.
func (p *consensus) countLog() func(bytes int) {
	var sum int // the machine's goroutine's own
	return func(bytes int) {
		if sum += bytes; sum < p.chain.c.cutOff {
			return
		}
		sum = 0
		select {
		case p.grown <- struct{}{}:
		default:
		}
	}
}

func serverID(id uint64) raft.ServerID { return raft.ServerID(strconv.FormatUint(id, 10)) }

// consenterID is the id behind a name in Raft; 0 if it is none.
func consenterID(name raft.ServerID) uint64 {
	id, err := strconv.ParseUint(string(name), 10, 64)
	if err != nil {
		return 0
	}
	return id
}

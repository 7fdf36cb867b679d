package orderer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// leader is the part of a chain that cuts and proposes, on the node that leads. Nothing in it waits for a block: batches
// follow one another into Raft's log, which appends what has gathered at once, and the machine keeps as many blocks in
// one go. All fields but the channels belong to run's goroutine.
type leader struct {
	chain   *Chain
	raft    *raft.Raft
	slots   chan struct{}         // one token per batch under way: proposing waits for blocks
	batches chan batch            // under way, in order
	changes chan raft.Observation // of the cluster's leader

	cutter   cutter[*order]
	deadline *time.Timer    // of the pending batch; nil without one
	cutting  sync.WaitGroup // the snapshots being taken
}

func newLeader(c *Chain, r *raft.Raft) *leader {
	return &leader{
		chain: c, raft: r,
		slots: make(chan struct{}, maxBatches), batches: make(chan batch, maxBatches),
		changes: make(chan raft.Observation, 16),
	}
}

// run cuts and proposes while this node leads, until ctx ends or the chain fails.
func (l *leader) run(ctx context.Context, broken <-chan struct{}) error {
	c := l.chain
	defer l.refuse(Stopped)
	for {
		addr, _ := l.raft.LeaderWithID()
		c.lost.set(addr == "")
		var timeout <-chan time.Time
		if l.deadline != nil {
			timeout = l.deadline.C
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-c.failure:
			return fmt.Errorf("chain %s: %w", c.c.Name, err)
		case leads := <-l.raft.LeaderCh():
			c.leading.set(leads)
			if !leads {
				l.refuse(NotLeader)
			}
			c.c.Logger.Info("raft leadership", "channel", c.c.Name, "leading", leads)
		case <-l.changes: // looked at above
		case o := <-c.queue:
			if !c.leading.is() {
				c.finish(o, NotLeader)
				continue
			}
			l.propose(l.cutter.add(c.c.Channel().Batch(), o.size, o), broken)
			l.schedule()
		case <-timeout:
			l.deadline = nil
			l.propose(l.cutter.rest(), broken)
		case <-c.grown:
			l.cutOff()
		}
	}
}

// settle gives each order the result of its batch, until no more are proposed.
func (l *leader) settle() {
	for b := range l.batches {
		err := b.future.Error()
		if err == nil {
			err, _ = b.future.Response().(error)
		} else {
			err = fmt.Errorf("%w: %w", NotLeader, err)
		}
		l.settleAll(b.orders, err)
		<-l.slots
	}
}

func (l *leader) settleAll(orders []*order, err error) {
	for _, o := range orders {
		l.chain.finish(o, err)
	}
}

// schedule keeps the batch time-out: it runs from the first envelope of a pending batch.
func (l *leader) schedule() {
	if l.cutter.empty() {
		if l.deadline != nil {
			l.deadline.Stop()
			l.deadline = nil
		}
		return
	}
	if l.deadline == nil {
		l.deadline = time.NewTimer(l.chain.c.Channel().BatchTimeout())
	}
}

// propose hands batches to Raft, which never has to wait for it: it queues as many as there are slots.
func (l *leader) propose(cut [][]*order, broken <-chan struct{}) {
	if len(cut) > 0 && l.deadline != nil {
		l.deadline.Stop() // what stays pending began after the cut
		l.deadline = nil
	}
	for _, orders := range cut {
		select {
		case l.slots <- struct{}{}:
		case <-broken:
			l.settleAll(orders, Stopped)
			continue
		}
		e := batchEntry{sequence: l.chain.c.Channel().Rules().Sequence, data: make([][]byte, len(orders))}
		for i, o := range orders {
			e.data[i] = o.raw
		}
		l.batches <- batch{orders, l.raft.Apply(e.marshal(), 0)}
	}
}

// refuse settles all that isn't proposed yet.
func (l *leader) refuse(why error) {
	for _, orders := range l.cutter.rest() {
		l.settleAll(orders, why)
	}
	l.schedule()
	for {
		select {
		case o := <-l.chain.queue:
			l.chain.finish(o, why)
		default:
			return
		}
	}
}

// cutOff takes a snapshot, so that the log before it goes. Raft takes one at a time.
func (l *leader) cutOff() {
	l.cutting.Go(func() {
		if err := l.raft.Snapshot().Error(); err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
			l.chain.c.Logger.Warn("raft log not cut off", "channel", l.chain.c.Name, "reason", err)
		}
	})
}

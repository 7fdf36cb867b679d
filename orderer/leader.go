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
// one go. All fields but batches belong to run's goroutine.
type leader struct {
	chain   *Chain
	raft    *raft.Raft
	batches chan batch // proposed, in order; bounded, so that proposing waits for blocks

	cutter   cutter[*order]
	deadline *time.Timer    // of the pending batch; nil without one
	cutting  sync.WaitGroup // the snapshots being taken
}

// run cuts and proposes while this node leads, until ctx ends or the machine fails.
func (l *leader) run(ctx context.Context) error {
	c := l.chain
	defer l.refuse(Stopped)
	for {
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
			c.lead(leads)
			if !leads {
				l.refuse(NotLeader)
			}
			c.c.Logger.Info("raft leadership", "channel", c.c.Name, "leading", leads)
		case o := <-c.queue:
			if !c.isLeading() {
				c.finish(o, NotLeader)
				continue
			}
			l.propose(l.cutter.add(c.c.Channel().Batch(), o.size, o))
			l.schedule()
		case <-timeout:
			l.deadline = nil
			l.propose(l.cutter.rest())
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
		for _, o := range b.orders {
			l.chain.finish(o, err)
		}
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

// propose hands batches to Raft.
func (l *leader) propose(cut [][]*order) {
	if len(cut) > 0 && l.deadline != nil {
		l.deadline.Stop() // what stays pending began after the cut
		l.deadline = nil
	}
	for _, orders := range cut {
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
		for _, o := range orders {
			l.chain.finish(o, why)
		}
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

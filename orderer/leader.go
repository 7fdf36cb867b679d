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
	period  *consensus
	raft    *raft.Raft
	slots   chan struct{}         // one token per batch under way: proposing waits for blocks
	batches chan batch            // under way, in order
	changes chan raft.Observation // of the cluster's leader

	cutter   cutter[*order]
	deadline *time.Timer    // of the pending batch; nil without one
	aside    sync.WaitGroup // what takes its time: snapshots, changes of the voters
	turning  bool           // a configuration is under way: what follows is judged under it
	turned   chan struct{}  // holds that it is settled
	settling bool           // a change of the voters is under way
	settled  chan struct{}  // holds that it is over
	lostAt   time.Time      // since when no leader is known; zero: one is
	asked    time.Time      // when the other orderers were asked last, for want of a leader
	gone     chan struct{}  // holds that the others have removed this node
	reign    int            // how often this node began or ceased to lead
	caughtUp chan int       // holds the reign in which this node has all earlier blocks
}

// batch is one block on its way through Raft.
type batch struct {
	orders []*order
	future raft.ApplyFuture
	config bool
}

func newLeader(p *consensus) *leader {
	n := p.batches()
	return &leader{
		chain: p.chain, period: p, raft: p.raft,
		slots: make(chan struct{}, n), batches: make(chan batch, n),
		changes: make(chan raft.Observation, 16),
		turned:  make(chan struct{}, 1), settled: make(chan struct{}, 1), gone: make(chan struct{}, 1),
		caughtUp: make(chan int),
	}
}

// run cuts and proposes while this node leads, until ctx ends, the period fails, or this node is a consenter no more.
func (l *leader) run(ctx context.Context, broken <-chan struct{}) error {
	c := l.chain
	defer l.refuse(Stopped)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	tick := time.NewTicker(tendEvery)
	defer tick.Stop()
	for {
		l.look()
		var timeout <-chan time.Time
		if l.deadline != nil {
			timeout = l.deadline.C
		}
		queue := c.queue
		if l.turning {
			queue = nil
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-l.period.failure:
			return err
		case leads := <-l.raft.LeaderCh():
			l.lead(ctx, leads)
		case reign := <-l.caughtUp:
			if reign == l.reign {
				c.leading.set(true)
				c.c.Logger.Info("raft leadership", "channel", c.c.Name, "consenter", l.period.self.ID, "leading", true)
			}
		case <-l.changes: // looked at above
		case o := <-queue:
			l.take(o, broken)
		case <-l.turned:
			l.turning = false
		case <-timeout:
			l.deadline = nil
			l.propose(l.cutter.rest(), broken)
		case <-l.period.grown:
			l.cutOff()
		case <-l.settled:
			l.settling = false
			l.tend(ctx)
		case <-c.turned:
			l.tend(ctx)
		case <-tick.C:
			if err := l.period.remember(); err != nil {
				return err
			}
			l.tend(ctx)
		case <-l.gone:
			return nil
		}
	}
}

// take gives an order to the cutter. What was judged under an earlier configuration is judged again.
func (l *leader) take(o *order, broken <-chan struct{}) {
	c := l.chain
	err := error(nil)
	if !c.leading.is() {
		err = NotLeader
	} else if o.sequence != c.c.Channel().Rules().Sequence {
		err = c.judgeAgain(o)
	}
	switch {
	case err != nil:
		c.finish(o, err)
		return
	case !o.config:
		switch c.recent.take(o) {
		case ordered:
			c.finish(o, nil)
			return
		case waits:
			return
		}
	}
	switch {
	case o.config:
		l.turning = true
		l.propose(l.cutter.alone(o), broken)
	default:
		l.propose(l.cutter.add(c.c.Channel().Batch(), o.size, o), broken)
	}
	l.schedule()
}

// look notes whether a leader is known, and since when none is.
func (l *leader) look() {
	addr, _ := l.raft.LeaderWithID()
	l.chain.lost.set(addr == "")
	switch {
	case addr != "":
		l.lostAt = time.Time{}
	case l.lostAt.IsZero():
		l.lostAt = time.Now()
	}
}

// lead notes that this node leads now, or doesn't any more. It orders once it has made blocks of all that earlier leaders
// proposed: else what a client sends it again would be ordered twice.
func (l *leader) lead(ctx context.Context, leads bool) {
	c := l.chain
	if l.period.transport != nil {
		l.period.transport.forget()
	}
	l.reign++
	if !leads {
		c.leading.set(false)
		l.refuse(NotLeader)
		c.c.Logger.Info("raft leadership", "channel", c.c.Name, "consenter", l.period.self.ID, "leading", false)
		return
	}
	reign := l.reign
	l.aside.Go(func() {
		if err := l.raft.Barrier(0).Error(); err != nil {
			c.c.Logger.Info("not leading after all", "channel", c.c.Name, "reason", err)
			return
		}
		select {
		case l.caughtUp <- reign:
		case <-ctx.Done():
		}
	})
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
		if b.config {
			l.turned <- struct{}{}
		}
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
		l.batches <- batch{orders, l.raft.Apply(e.marshal(), 0), orders[0].config}
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
	l.aside.Go(func() {
		if err := l.raft.Snapshot().Error(); err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
			l.chain.c.Logger.Warn("raft log not cut off", "channel", l.chain.c.Name, "reason", err)
		}
	})
}

package orderer

import (
	"context"
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// tendEvery is how often a difference between the consenters and Raft's voters is looked for.
	tendEvery = time.Second
	// suspectAfter is how long a node goes without a leader before it asks whether it was removed meanwhile.
	suspectAfter = 10 * time.Second
	// changeTime bounds one change of the voters.
	changeTime = 10 * time.Second
)

// A change is one step by which Raft's voters become the consenters of the configuration in force.
type change struct {
	what step
	id   raft.ServerID
}

type step int

const (
	nothing step = iota
	addLearner
	addVoter
	remove
)

func (s step) String() string {
	return [...]string{"none", "add as learner", "add as voter", "remove"}[s]
}

// nextChange is the step to take now. A newcomer first learns: it has a vote only when it is level with the log, so that
// one that isn't there can't hold the others up. Newcomers come before removals, and the leader removes itself last. It is
// pure.
func nextChange(have []raft.Server, want []Consenter, self raft.ServerID, level func(raft.ServerID) bool) change {
	for _, c := range want {
		id := serverID(c.ID)
		i := slices.IndexFunc(have, func(s raft.Server) bool { return s.ID == id })
		switch {
		case i < 0:
			return change{addLearner, id}
		case have[i].Suffrage != raft.Voter && level(id):
			return change{addVoter, id}
		}
	}
	last := change{}
	for _, s := range have {
		wanted := slices.ContainsFunc(want, func(c Consenter) bool { return serverID(c.ID) == s.ID })
		switch {
		case wanted:
		case s.ID == self:
			last = change{remove, s.ID}
		default:
			return change{remove, s.ID}
		}
	}
	return last
}

// tend brings Raft's voters one step closer to the consenters, if this node leads, and finds out whether this node is one of
// them still.
func (l *leader) tend(ctx context.Context) {
	if l.settling {
		return
	}
	c := l.chain
	now, is := c.self()
	removed := !is || now.ID != l.period.self.ID
	future := l.raft.GetConfiguration()
	if future.Error() != nil {
		return // Raft is ending
	}
	have := future.Configuration().Servers
	votes := func(id uint64) bool {
		return slices.ContainsFunc(have, func(s raft.Server) bool { return s.ID == serverID(id) })
	}
	committed := l.raft.CommitIndex() >= future.Index()
	if m := c.members.Load(); committed && len(m.leaving) > 0 {
		// Swapped only if no configuration came between.
		c.members.CompareAndSwap(m, m.without(func(id uint64) bool { return !votes(id) }))
	}
	refused := l.period.transport != nil && l.period.transport.layer.refused.Load()
	lostFor := time.Duration(0)
	if !l.lostAt.IsZero() {
		lostFor = time.Since(l.lostAt)
	}
	switch {
	case removed && (committed && !votes(l.period.self.ID) || refused):
		// Not sooner: until its removal is agreed on, the others may need its vote. Who was away meanwhile finds the others
		// to refuse it.
		l.leave()
	case lostFor > c.c.suspect && c.client != nil && time.Since(l.asked) > c.c.suspect:
		l.asked, l.settling = time.Now(), true
		l.aside.Go(func() {
			defer l.again()
			if err := l.period.machine.overtake(ctx); err != nil {
				c.c.Logger.Info("without a leader, and the other orderers tell nothing new", "channel", c.c.Name, "reason", err)
			}
		})
	case c.leading.is():
		level := func(raft.ServerID) bool { return true }
		if t := l.period.transport; t != nil {
			level = t.isLevel
		}
		step := nextChange(have, c.Consenters(), serverID(l.period.self.ID), level)
		if step.what == nothing {
			return
		}
		l.settling = true
		l.aside.Go(func() {
			defer l.again()
			err := l.change(step)
			c.c.Logger.Info("raft voters", "channel", c.c.Name, "change", step.what, "consenter", step.id, "err", err)
		})
	}
}

func (l *leader) change(step change) error {
	address := raft.ServerAddress(step.id)
	switch step.what {
	case addLearner:
		return l.raft.AddNonvoter(step.id, address, 0, changeTime).Error()
	case addVoter:
		return l.raft.AddVoter(step.id, address, 0, changeTime).Error()
	case remove:
		return l.raft.RemoveServer(step.id, 0, changeTime).Error()
	}
	return nil
}

// again says that what was under way is over.
func (l *leader) again() { l.settled <- struct{}{} }

// leave says that the period is over.
func (l *leader) leave() {
	select {
	case l.gone <- struct{}{}:
	default:
	}
}

package orderer

import (
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
)

// Admit judges an envelope without ordering it, and returns it as it would stand in a block.
func (c *Chain) Admit(env *common.Envelope) ([]byte, error) {
	o, err := c.admit(env, time.Now())
	if err != nil {
		return nil, err
	}
	return o.raw, nil
}

// StatusOf is what a client is told of a refusal.
func StatusOf(err error) common.Status {
	st, _ := statusOf(err)
	return st
}

// Snapshot takes a snapshot now.
func (c *Chain) Snapshot() error { return c.raft.Load().Snapshot().Error() }

// CutOffAfter sets how many bytes of log may become blocks before a snapshot is due.
func (c *ChainConfig) CutOffAfter(bytes int) { c.cutOff = bytes }

// Damage makes writes of Raft's log fail: after as many as after says, as many as times says (-1: all), with err.
func (c *ChainConfig) Damage(after, times int64, err error) {
	d := &damaged{err: err}
	d.after.Store(after)
	d.times.Store(times)
	c.damage = func(b *raftboltdb.BoltStore) backing {
		d.BoltStore = b
		return d
	}
}

type damaged struct {
	*raftboltdb.BoltStore
	after, times atomic.Int64
	err          error
}

func (d *damaged) next() error {
	if d.after.Add(-1) >= 0 || d.times.Load() == 0 {
		return nil
	}
	d.times.Add(-1)
	return d.err
}

func (d *damaged) StoreLogs(ls []*raft.Log) error {
	if err := d.next(); err != nil {
		return err
	}
	return d.BoltStore.StoreLogs(ls)
}

func (d *damaged) SetUint64(key []byte, v uint64) error {
	if err := d.next(); err != nil {
		return err
	}
	return d.BoltStore.SetUint64(key, v)
}

// Voters are those of Raft; nil while this node takes no part.
func (c *Chain) Voters() []raft.Server {
	r := c.raft.Load()
	if r == nil {
		return nil
	}
	f := r.GetConfiguration()
	if f.Error() != nil {
		return nil
	}
	return f.Configuration().Servers
}

// SuspectAfter sets how long a node goes without a leader before it asks whether it was removed.
func (c *ChainConfig) SuspectAfter(d time.Duration) { c.suspect = d }

// HoldAtMost bounds the bytes of envelopes that wait for an answer.
func (c *ChainConfig) HoldAtMost(bytes int64) { c.budget = bytes }

// Held is how many bytes of envelopes wait for an answer.
func (c *Chain) Held() (n int64) {
	for n = c.c.budget; n > 0 && !c.held.TryAcquire(n); n-- {
	}
	c.held.Release(n)
	return c.c.budget - n
}

// Recent is what is remembered of the newest blocks.
type Recent struct{ r recent }

// RecentOf remembers so many envelopes.
func RecentOf(n int) *Recent { return &Recent{recent{size: n}} }

func (r *Recent) Add(data ...[]byte) { r.r.add(data) }

func (r *Recent) Knows(raw []byte) bool {
	o := &order{raw: raw}
	is := r.r.take(o) == ordered
	r.r.settled(o)
	return is
}

func (r *Recent) Size() int { return max(len(r.r.known), len(r.r.ring)) }

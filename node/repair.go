package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/hyperledger/fabric-protos-go-apiv2/common"

	"grapevine/block"
	"grapevine/channel"
	"grapevine/ledger"
	"grapevine/ledger/state"
)

// Scrubs says how a node looks for damage in what it keeps. The zero value is what
// most want.
type Scrubs struct {
	// Every is how often a channel's ledger is read through; 0: every 24 hours,
	// negative: never. What a read finds is repaired in any case.
	Every time.Duration
	// Rate is the most bytes to read in a second for that; 0: 32 MiB.
	Rate int64
}

const (
	scrubEvery = 24 * time.Hour
	scrubRate  = 32 << 20
	scrubAfter = time.Second // a repair
)

// What couldn't be made good is tried again after repairFirst, doubled up to
// repairLast: peers come and go.
const (
	repairFirst = 500 * time.Millisecond
	repairLast  = 30 * time.Second
	// orderTime is how long the ordering service may take for a block that no peer
	// has.
	orderTime = 10 * time.Second
)

// Upkeep is how whole a channel's ledger is, and what was done about it.
type Upkeep struct {
	Damage   ledger.Damage   // that isn't made good yet
	Found    uint64          // damages since the start
	Repaired ledger.Repaired // since the start; State and Tip: ever
	Failure  error           // why the last repair left something, or nil

	Scrubbing bool            // the ledger is being read through
	Scrub     ledger.Scrubbed // how far, or what the last time found
	Scrubbed  time.Time       // when that ended; zero: never
}

// repairs is a channel's upkeep.
type repairs struct {
	news chan struct{} // damage was found
	turn chan struct{} // holds a token while somebody scrubs or repairs

	mu     sync.Mutex
	upkeep Upkeep        // guarded by mu
	tried  chan struct{} // closed after each try to repair; guarded by mu
}

func newRepairs() *repairs {
	return &repairs{news: make(chan struct{}, 1), turn: make(chan struct{}, 1), tried: make(chan struct{})}
}

// enter takes the turn, unless ctx ends first.
func (r *repairs) enter(ctx context.Context) (leave func(), err error) {
	select {
	case r.turn <- struct{}{}:
		return func() { <-r.turn }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// damaged tells that something was found; it never blocks.
func (r *repairs) damaged() {
	select {
	case r.news <- struct{}{}:
	default:
	}
}

// wait returns after the next try to repair.
func (r *repairs) wait(ctx context.Context) error {
	r.mu.Lock()
	tried := r.tried
	r.mu.Unlock()
	r.damaged()
	select {
	case <-tried:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *repairs) change(by func(*Upkeep)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	by(&r.upkeep)
}

// Upkeep tells how whole the channel's ledger is.
func (c *Channel) Upkeep() Upkeep {
	c.repairs.mu.Lock()
	u := c.repairs.upkeep
	c.repairs.mu.Unlock()
	u.Damage, u.Found = c.ledger.Damage(), c.ledger.DamagesFound()
	return u
}

// watchDamage passes on to all channels that the store found damage: whose it is
// isn't always known.
func (n *Node) watchDamage(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-n.damage:
			for _, c := range n.Channels() {
				c.repairs.damaged()
			}
		}
	}
}

// keepWhole repairs what is found to be damaged, and looks for damage now and then,
// until ctx ends.
func (c *Channel) keepWhole(ctx context.Context) error {
	every := c.node.cfg.Scrubs.Every
	if every == 0 {
		every = scrubEvery
	}
	tick := time.NewTimer(max(every, 0))
	defer tick.Stop()
	if every < 0 {
		tick.Stop()
	}
	again := time.NewTimer(0)
	defer again.Stop()
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval, pause.Multiplier = repairFirst, repairLast, 2
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			if _, _, err := c.Scrub(ctx, true, c.node.cfg.Scrubs.rate()); err != nil && ctx.Err() == nil {
				c.log.Error("scrubbing the ledger", "err", err)
			}
			tick.Reset(every)
			continue
		case <-again.C:
		case <-c.repairs.news:
		}
		if !c.ailing() {
			pause.Reset()
			continue
		}
		switch _, err := c.repair(ctx); {
		case err != nil && ctx.Err() == nil:
			again.Reset(pause.NextBackOff())
		case every > 0:
			tick.Reset(scrubAfter) // damage seldom comes alone
		}
	}
}

func (s Scrubs) rate() int64 {
	if s.Rate > 0 {
		return s.Rate
	}
	return scrubRate
}

// ailing reports whether there is something to repair.
func (c *Channel) ailing() bool {
	return !c.ledger.Damage().None() || errors.Is(c.ledger.Halted(), ledger.ErrCorrupt)
}

// repair makes good what is known to be damaged, and judges anew what was lost of
// the state.
func (c *Channel) repair(ctx context.Context) (ledger.Repaired, error) {
	leave, err := c.repairs.enter(ctx)
	if err != nil {
		return ledger.Repaired{}, err
	}
	defer leave()
	return c.repairNow(ctx)
}

// repairNow is repair for who has the turn.
func (c *Channel) repairNow(ctx context.Context) (ledger.Repaired, error) {
	d := c.ledger.Damage()
	c.log.Error("the ledger is damaged; repairing", "blocks", len(d.Blocks), "index", d.Index, "state", d.State, "tip", d.Tip,
		"lost", d.Lost, "why", c.ledger.Halted())
	r, err := c.ledger.Repair(ctx, c.refetch)
	for err == nil && r.State { // judging reads every block, and may find more
		if err = c.ledger.CatchUp(ctx, nil); !errors.Is(err, ledger.ErrCorrupt) {
			break
		}
		var more ledger.Repaired
		more, err = c.ledger.Repair(ctx, c.refetch)
		r.Tables, r.Blocks, r.Index, r.Tip = r.Tables+more.Tables, r.Blocks+more.Blocks, r.Index+more.Index, r.Tip || more.Tip
	}
	c.repairs.mu.Lock()
	u := &c.repairs.upkeep
	u.Failure = err
	u.Repaired.Tables += r.Tables
	u.Repaired.Blocks += r.Blocks
	u.Repaired.Index += r.Index
	u.Repaired.Lost += r.Lost
	u.Repaired.State, u.Repaired.Tip = u.Repaired.State || r.State, u.Repaired.Tip || r.Tip
	close(c.repairs.tried)
	c.repairs.tried = make(chan struct{})
	c.repairs.mu.Unlock()
	if err != nil {
		c.log.Error("the ledger is still damaged", "err", err)
		return r, err
	}
	c.log.Warn("the ledger is repaired", "tables", r.Tables, "blocks", r.Blocks, "index", r.Index, "state", r.State, "tip", r.Tip, "lost", r.Lost)
	return r, nil
}

// Scrub reads all that is kept of the channel, at most rate bytes a second (0: as
// fast as it goes), and holds it against itself. With repair it makes good what it
// finds, with blocks from other peers, or from the ordering service. The channel
// goes on meanwhile.
func (c *Channel) Scrub(ctx context.Context, repair bool, rate int64) (s ledger.Scrubbed, r ledger.Repaired, err error) {
	leave, err := c.repairs.enter(ctx)
	if err != nil {
		return s, r, err
	}
	defer leave()
	c.repairs.change(func(u *Upkeep) { u.Scrubbing, u.Scrub = true, ledger.Scrubbed{} })
	s, err = c.ledger.Scrub(ctx, ledger.Scrubbing{
		Rate: rate, Hash: StateHash,
		Told: func(s ledger.Scrubbed) { c.repairs.change(func(u *Upkeep) { u.Scrub = s }) },
	})
	c.repairs.change(func(u *Upkeep) { u.Scrubbing, u.Scrub, u.Scrubbed = false, s, time.Now() })
	if err != nil || !repair || !c.ailing() {
		return s, r, err
	}
	r, err = c.repairNow(ctx)
	return s, r, err
}

// RebuildState drops the world state and judges all blocks again.
func (c *Channel) RebuildState(ctx context.Context, progress func(state, height uint64)) error {
	leave, err := c.repairs.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	if err := c.ledger.ForgetState(); err != nil {
		return err
	}
	return c.ledger.CatchUp(ctx, progress)
}

// StateHash is the hash of a state that consists of these entries; for
// [ledger.Scrubbing].
func StateHash(entries iter.Seq2[ledger.Item, error]) ([32]byte, error) {
	var sum state.Sum
	for x, err := range entries {
		if err != nil {
			return [32]byte{}, err
		}
		sum.Add(x.Key, &x.Entry)
	}
	return sum.Digest(), nil
}

// refetch brings a block back that the ledger lost: from a peer, or, if none has
// it, from the ordering service.
func (c *Channel) refetch(ctx context.Context, n uint64, hash [32]byte) (v block.Verified, err error) {
	take := func(raw []byte) (err error) {
		v, err = c.recognise(n, hash, raw)
		return err
	}
	if _, err = c.sync.Refetch(ctx, n, take); err == nil {
		return v, nil
	}
	ordered, cancel := context.WithTimeout(ctx, orderTime)
	defer cancel()
	for b, e := range c.newSource().Blocks(ordered, n) {
		var raw []byte
		if e == nil {
			raw, e = block.Marshal(b)
		}
		if e == nil {
			e = take(raw)
		}
		if e == nil {
			return v, nil
		}
		return v, errors.Join(err, fmt.Errorf("from the ordering service: %w", e))
	}
	return v, errors.Join(err, ordered.Err())
}

// recognise verifies that raw is block n, whose header hash is known: its content,
// and its signatures under the configuration in force before it.
func (c *Channel) recognise(n uint64, hash [32]byte, raw []byte) (v block.Verified, err error) {
	b, err := block.Decode(raw)
	if err != nil {
		return v, err
	}
	if b.Header == nil || b.Header.Number != n || block.HeaderHash(b.Header) != hash {
		return v, fmt.Errorf("block %d isn't the one that was kept: %w", n, block.BadLink)
	}
	raw = bytes.Clone(raw)
	if n == 0 {
		return block.Genesis(raw)
	}
	conf, err := c.inForceBefore(b)
	if err != nil {
		return v, err
	}
	checked, err := block.Check(conf.Rules(), raw)
	if err != nil {
		return v, err
	}
	return block.Verify(conf.Rules(), block.Tip{Height: n, Hash: [32]byte(b.Header.PreviousHash)}, checked)
}

// inForceBefore finds the configuration in force before a block whose header is
// proven. The block before it may be damaged too.
func (c *Channel) inForceBefore(b *common.Block) (*channel.Config, error) {
	n := b.Header.Number
	if conf := c.conf.Load(); conf.Number() < n {
		return conf, nil
	}
	conf, err := configBefore(c.ledger, n)
	if err == nil || block.IsConfig(b) {
		return conf, err
	}
	at, e := block.LastConfigOf(b)
	if e != nil || at >= n {
		return nil, err
	}
	last, e := decoded(c.ledger, at)
	if e != nil {
		return nil, errors.Join(err, e)
	}
	return channel.Parse(last)
}

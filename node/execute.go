package node

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"

	"grapevine/block"
	"grapevine/channel"
	"grapevine/ledger"
	"grapevine/ledger/state"
)

// An executor judges the transactions of one channel's blocks for its ledger: it
// joins package state, which knows the rules, with the configurations that the
// chain itself carries. Signatures are verified on all cores; the rest goes in
// order. The ledger calls it, never twice at once.
type executor struct {
	ledger   *ledger.Ledger
	confs    []inForce // by number; the last ones that were in force
	prepared map[*common.Block][]*state.Tx
	spent    func(blocks int, took time.Duration) // told what judging took; may be nil
}

// inForce is a configuration and what it demands of transactions.
type inForce struct {
	conf  *channel.Config
	rules *state.Rules
}

// keptConfs is how many configurations an executor remembers: a batch that the
// disk refused is executed again. Those before come from the ledger.
const keptConfs = 8

// Judge lets a ledger judge transactions by Fabric's rules, blocks that it holds
// and those to come, and judges what it holds.
func Judge(ctx context.Context, l *ledger.Ledger, progress func(state, height uint64)) error {
	l.Judge(newExecutor(l))
	return l.CatchUp(ctx, progress)
}

func newExecutor(l *ledger.Ledger) *executor { return &executor{ledger: l} }

// nearBlocks are judged while a channel is opened; more, beside its work.
const nearBlocks = 64

// Judges reports whether the node judges transactions.
func (n *Node) Judges() bool { return n.cfg.Judge }

// judgeOnwards has what comes judged, and what is kept if that is little: of a
// channel just joined, block 0.
func (c *Channel) judgeOnwards() error {
	if !c.node.cfg.Judge {
		c.ledger.Judge(nil)
		return nil
	}
	e := newExecutor(c.ledger)
	e.spent = func(blocks int, took time.Duration) {
		c.node.metrics.judged.WithLabelValues(c.name).Add(float64(blocks))
		c.node.metrics.judging.WithLabelValues(c.name).Add(took.Seconds())
	}
	c.ledger.Judge(e)
	if s := c.ledger.State(); s.Blocks.Height-s.Height > nearBlocks || c.ledger.Halted() != nil {
		return nil
	}
	if err := c.ledger.CatchUp(context.Background(), nil); err != nil && !errors.Is(err, ledger.ErrFull) && !errors.Is(err, ledger.ErrCorrupt) {
		return fmt.Errorf("judging what is kept: %w", err)
	}
	return nil
}

// judgeKept judges what is kept and wasn't judged: the blocks of a ledger of an
// earlier build, or of a peer that judged none.
func (c *Channel) judgeKept(ctx context.Context) error {
	if s := c.ledger.State(); c.node.cfg.Judge && s.Height < s.Blocks.Height && s.Unjudged == nil {
		c.log.Info("judging the transactions of kept blocks", "from", s.Height, "height", s.Blocks.Height)
	}
	for {
		err := c.ledger.CatchUp(ctx, nil)
		switch {
		case errors.Is(err, ledger.ErrCorrupt):
			err = c.repairs.wait(ctx)
		case errors.Is(err, ledger.ErrFull):
			err = c.node.db.Room(ctx)
		default:
			return err
		}
		if err != nil {
			return err
		}
	}
}

// rulesOf states what a configuration demands of transactions.
func rulesOf(c *channel.Config) *state.Rules {
	r := &state.Rules{Channel: c.Channel(), MSPs: c.MSPs(), Policy: c.Policy}
	for _, o := range c.Orgs() {
		r.Orgs = append(r.Orgs, state.Org{Name: o.Name, MSPID: o.MSPID})
	}
	switch {
	case !c.ApplicationCapable("V2_0") && !c.ApplicationCapable("V2_5"):
		r.Unbuilt = "the application group lacks the capability V2_0: the rules before it aren't built"
	case c.Anonymous():
		r.Unbuilt = "an organisation's MSP isn't one of X.509 certificates: its rules aren't built"
	}
	return r
}

// Prepare verifies the signatures of blocks to come.
func (e *executor) Prepare(bs []*common.Block) {
	defer e.took(0, time.Now())
	e.prepared = make(map[*common.Block][]*state.Tx, len(bs))
	type task struct {
		rules *state.Rules
		entry []byte
		out   **state.Tx
	}
	var tasks []task
	for _, b := range bs {
		if b.Header.Number == 0 {
			continue
		}
		f, err := e.before(b.Header.Number)
		if err != nil {
			break // Execute meets it again, and tells
		}
		txs := make([]*state.Tx, len(b.Data.Data))
		for i, entry := range b.Data.Data {
			tasks = append(tasks, task{f.rules, entry, &txs[i]})
		}
		e.prepared[b] = txs
		if block.IsConfig(b) && e.follow(f, b) != nil {
			break
		}
	}
	var next atomic.Int64
	var g sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(tasks)) {
		g.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(tasks)); i = next.Add(1) - 1 {
				*tasks[i].out = state.Prepare(tasks[i].rules, tasks[i].entry)
			}
		})
	}
	g.Wait()
}

// Execute judges a block and says what it makes of the state.
func (e *executor) Execute(v ledger.View, carry []byte, b *common.Block) (*ledger.Effects, error) {
	defer e.took(1, time.Now())
	out, err := e.execute(v, carry, b)
	switch {
	case errors.Is(err, state.Unjudged):
		return nil, fmt.Errorf("%w: %w", ledger.ErrUnjudged, err)
	case err != nil:
		return nil, err
	}
	return effects(out), nil
}

func (e *executor) took(blocks int, since time.Time) {
	if e.spent != nil {
		e.spent(blocks, time.Since(since))
	}
}

func (e *executor) execute(v ledger.View, carry []byte, b *common.Block) (*state.Outcome, error) {
	n := b.Header.Number
	if n == 0 {
		return state.Genesis(b.Data.Data[0])
	}
	f, err := e.before(n)
	if err != nil {
		return nil, err
	}
	mark, err := state.ParseMark(carry)
	if err != nil {
		return nil, fmt.Errorf("state before block %d: %w: %w", n, ledger.ErrCorrupt, err)
	}
	txs, ok := e.prepared[b]
	if !ok {
		e.Prepare([]*common.Block{b})
		if txs, ok = e.prepared[b]; !ok {
			return nil, fmt.Errorf("block %d: its transactions can't be prepared", n)
		}
	}
	delete(e.prepared, b)
	out, err := state.Execute(f.rules, v, mark, n, txs)
	if err == nil && block.IsConfig(b) {
		err = e.follow(f, b)
	}
	return out, err
}

// before finds the configuration in force before block n > 0.
func (e *executor) before(n uint64) (inForce, error) {
	for _, f := range slices.Backward(e.confs) {
		if f.conf.Number() < n {
			return f, nil
		}
	}
	c, err := configBefore(e.ledger, n)
	if err != nil {
		return inForce{}, fmt.Errorf("configuration before block %d: %w", n, err)
	}
	f := inForce{c, rulesOf(c)}
	e.confs = []inForce{f}
	return f, nil
}

// follow takes up the configuration in b, which follows f.
func (e *executor) follow(f inForce, b *common.Block) error {
	if e.confs[len(e.confs)-1].conf.Number() >= b.Header.Number {
		return nil // it was there already
	}
	c, err := f.conf.Next(b)
	if err != nil {
		return fmt.Errorf("configuration block %d: %w", b.Header.Number, err)
	}
	if e.confs = append(e.confs, inForce{c, rulesOf(c)}); len(e.confs) > keptConfs {
		e.confs = slices.Clone(e.confs[1:])
	}
	return nil
}

// configBefore reads the configuration in force before block n > 0, which the
// block before it names.
func configBefore(l *ledger.Ledger, n uint64) (*channel.Config, error) {
	b, err := decoded(l, n-1)
	if err != nil {
		return nil, err
	}
	if !block.IsConfig(b) {
		at, err := block.LastConfigOf(b)
		if err != nil {
			return nil, err
		}
		if b, err = decoded(l, at); err != nil {
			return nil, err
		}
	}
	return channel.Parse(b)
}

func decoded(l *ledger.Ledger, n uint64) (*common.Block, error) {
	raw, err := l.Block(n)
	if err != nil {
		return nil, err
	}
	return block.Decode(raw)
}

func effects(o *state.Outcome) *ledger.Effects {
	return &ledger.Effects{
		Codes: o.Codes, CommitHash: o.Mark.CommitHash, StateHash: o.Mark.StateHash(), Carry: o.Mark.Marshal(),
		Writes: o.Writes, Touches: o.Touches, Schedule: o.Schedule,
	}
}

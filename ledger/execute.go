package ledger

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hyperledger/fabric-protos-go-apiv2/common"

	"grapevine/block"
	"grapevine/ledger/state"
)

// An Executor says what blocks make of the world state. The ledger calls it in
// order, never two calls at once; after an error it may ask for the same block
// again.
type Executor interface {
	// Prepare is told which blocks Execute will be asked for next, if all goes
	// well.
	Prepare([]*common.Block)
	// Execute judges a block's transactions. Carry is what the block before led to,
	// empty for block 0. Where it can't judge them the error wraps ErrUnjudged: the
	// world state then stays where it is, and blocks are kept on.
	Execute(v View, carry []byte, b *common.Block) (*Effects, error)
}

// By these an executor and the ledger speak of the world state.
type (
	// View reads it. What its functions return is the caller's.
	View = state.View
	// Entry is a value as committed, and what wrote it.
	Entry = state.Entry
	// Found is a public key that a range holds, and its version.
	Found = state.Found
	// Write is what becomes of a key.
	Write = state.Write
	// Touch is an entry of a public key's history.
	Touch = state.Touch
	// Expiry says when a hashed key is deleted.
	Expiry = state.Expiry
	// Key names a value of the world state. Private data are known by their hashes
	// alone: then Collection is set, and Key is the SHA-256 of the key.
	Key = state.Key
)

// Effects are what a block leads to.
type Effects struct {
	Codes      []byte   // one for each transaction
	CommitHash []byte   // Fabric's, 32 bytes; none for block 0
	StateHash  [32]byte // of the whole state behind the block
	Carry      []byte   // for the next block
	Writes     []Write
	Touches    []Touch
	Schedule   []Expiry
}

// Verdict is what is kept of a block's judgement.
type Verdict struct {
	Codes      []byte
	CommitHash []byte
	StateHash  [32]byte
}

// Bounds of what is judged at once of blocks that are kept and not judged: the
// first of those of one commit, the second of what Append makes up for on its way.
const (
	judgeBytes  = 16 << 20
	judgeBlocks = 256
	nearBlocks  = 64
)

// Judge lets e judge the transactions of blocks to come, and of those that are
// kept and not judged. Few of these are judged by the next Append; CatchUp judges
// all. Nil ends judging, as it is at the start.
func (l *Ledger) Judge(e Executor) {
	release, err := l.appending.take(l.db)
	if err != nil {
		return // nothing is judged any more
	}
	defer release()
	l.exec = e
	if l.unjudged.Store(nil); e == nil {
		l.unjudged.Store(&errNobody)
	}
}

// errNobody is why the state of a ledger without an executor doesn't follow.
var errNobody error = fmt.Errorf("nobody judges here: %w", ErrUnjudged)

// CatchUp judges what is kept and not judged, while Append goes on, and returns
// when nothing is left, or with the error of ctx or of the store. Progress, which
// may be nil, is told the height of the state and that of the blocks. Where
// transactions can't be judged it returns nil: see State.
func (l *Ledger) CatchUp(ctx context.Context, progress func(state, height uint64)) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		more, err := l.catchUp()
		if err != nil {
			return fmt.Errorf("judge blocks of channel %s: %w", l.name, err)
		}
		if m := l.sub.get(); progress != nil {
			progress(m.state.height, m.Height)
		}
		if !more {
			return nil
		}
	}
}

// ForgetState drops the world state and all verdicts in one durable step, to be
// judged again: by CatchUp, or, of a short chain, by the next Append. ErrPruned: the
// blocks to judge aren't all kept.
func (l *Ledger) ForgetState() error {
	if err := l.forgetState(); err != nil {
		return fmt.Errorf("forget the world state of channel %s: %w", l.name, err)
	}
	return nil
}

func (l *Ledger) forgetState() error {
	release, err := l.alone()
	if err != nil {
		return err
	}
	defer release()
	if err := l.db.room(0); err != nil {
		return err
	}
	if err := l.Halted(); err != nil && !errors.Is(err, ErrCorrupt) {
		return err
	}
	m := l.sub.get()
	if m.kept.blocks > 0 {
		return fmt.Errorf("blocks have to be judged from the first one on: %w", l.pruned())
	}
	b, err := l.forgetting(m)
	if err != nil {
		return err
	}
	m.state = stateMark{}
	if l.exec != nil {
		l.unjudged.Store(nil)
	}
	if l.pending, err = l.db.commit(b, func() { l.settle(m) }); err == nil {
		l.made(ofState)
	}
	return err
}

func (l *Ledger) catchUp() (more bool, err error) {
	release, err := l.alone()
	if err != nil {
		return false, err
	}
	defer release()
	if err := l.Halted(); err != nil {
		return false, err
	}
	return l.judge()
}

// nearly judges what lags a little, with appending held: at the start a new
// channel's block 0.
func (l *Ledger) nearly() error {
	m := l.sub.get()
	if lag := m.Height - m.state.height; lag == 0 || lag > nearBlocks {
		return nil
	}
	for {
		if more, err := l.judge(); err != nil || !more {
			return err
		}
	}
}

// judge judges some blocks that are kept, and reports whether more are left that
// can be. It is called with appending held and nothing pending.
func (l *Ledger) judge() (more bool, err error) {
	m := l.sub.get()
	if l.exec == nil || l.unjudged.Load() != nil || m.state.height == m.Height {
		return false, nil
	}
	var bs []*common.Block
	size := 0
	var bad error
	from := m.state.height
	err = l.scan(from, from+judgeBlocks, func(n uint64, raw []byte) bool {
		b, err := block.Decode(slices.Clone(raw))
		if err != nil {
			bad = l.damage(ofBlock(n), "its bytes", errors.Join(ErrCorrupt, err))
			return false
		}
		bs, size = append(bs, b), size+len(raw)
		return size < judgeBytes
	})
	if err := errors.Join(err, bad); err != nil {
		return false, err
	}
	if err := l.db.writable(size); err != nil {
		return false, err
	}
	t := l.turn(m.state, from, slices.Values(bs))
	b := t.batch(size)
	for _, x := range bs {
		if err := t.execute(x); err != nil {
			return false, errors.Join(err, b.Close())
		}
		if b.Len() > maxBatch || t.cut() {
			break
		}
	}
	if t.mark.height == m.state.height {
		return false, b.Close()
	}
	m.state = t.mark
	l.pending, err = l.db.commit(b, func() { l.settle(m) })
	return err == nil && m.state.height < m.Height && l.unjudged.Load() == nil, err
}

// A turn executes blocks into one batch, with appending held.
type turn struct {
	l    *Ledger
	mark stateMark
	on   bool // there is somebody to judge, and the state stands at the next block
	b    *pebble.Batch
}

// turn begins at a state, with blocks from a number on.
func (l *Ledger) turn(s stateMark, from uint64, blocks iter.Seq[*common.Block]) *turn {
	t := &turn{l: l, mark: s, on: l.exec != nil && l.unjudged.Load() == nil && s.height == from}
	if t.on {
		l.exec.Prepare(slices.Collect(blocks))
	}
	return t
}

// batch makes the batch to write to. What a block writes the next one reads.
func (t *turn) batch(size int) *pebble.Batch {
	if t.on {
		t.b = t.l.db.pebble.NewIndexedBatchWithSize(size + size/2) // what it makes of the state too
	} else {
		t.b = t.l.db.pebble.NewBatchWithSize(size, pebble.WithMaxRetainedSizeBytes(retained))
	}
	return t.b
}

// cut reports whether the batch has to end here, for the state is wanted as it is.
func (t *turn) cut() bool { return t.on && t.l.cuts.Load().at(t.mark.height) }

// execute writes what a block makes of the state.
func (t *turn) execute(b *common.Block) error {
	if !t.on {
		return nil
	}
	x, err := t.l.exec.Execute(t.view(), t.mark.carry, b)
	if errors.Is(err, ErrUnjudged) {
		t.on = false
		t.l.stopJudging(err)
		return nil
	}
	if errors.Is(err, ErrCorrupt) && t.l.Damage().None() { // what it was given back isn't what it had given
		t.l.note(ofState, err)
	}
	if err != nil {
		return err
	}
	n, c := t.mark.height, t.l.record.number
	if len(x.Codes) != len(b.Data.Data) || b.Header.Number != n {
		return fmt.Errorf("block %d: %d codes for %d transactions of block %d", n, len(x.Codes), len(b.Data.Data), b.Header.Number)
	}
	set(t.b, verdictKey(c, n), Verdict{x.Codes, x.CommitHash, x.StateHash}.marshal())
	for _, w := range x.Writes {
		if w.Entry == nil {
			if err := t.b.Delete(entryKey(c, w.Key), nil); err != nil {
				return err
			}
			continue
		}
		set(t.b, entryKey(c, w.Key), marshalEntry(w.Entry))
	}
	for _, y := range x.Touches {
		deleted := []byte{0}
		if y.Deleted {
			deleted[0] = 1
		}
		set(t.b, touchKey(c, y.Namespace, y.Key, n, y.Tx), deleted)
	}
	for _, e := range x.Schedule {
		set(t.b, expiryKey(c, e.At, e.Key), appendNumber(nil, e.Written))
	}
	// Each by itself: a deleted range makes Pebble flush.
	if err := t.l.walk(t.b, expiryPrefix(c, n), expiryPrefix(c, n+1), func(k, _ []byte) (bool, error) {
		return true, t.b.Delete(k, nil)
	}); err != nil {
		return err
	}
	t.mark = stateMark{height: n + 1, hash: x.StateHash, carry: x.Carry}
	set(t.b, stateKey(c), t.mark.marshal())
	return nil
}

// stopJudging tells why the state stays where it is. The first reason stays.
func (l *Ledger) stopJudging(err error) {
	if l.unjudged.CompareAndSwap(nil, &err) {
		l.db.log.Warnf("channel %s: transactions are judged no more: %v", l.name, err)
	}
}

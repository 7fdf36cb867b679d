package ledger

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hyperledger/fabric-protos-go-apiv2/common"

	"grapevine/block"
)

// Ledger is one channel's chain. It is safe for concurrent use; Append is
// serialised. What it tells is durable: no height, block or index entry is ever
// shown before it would survive the loss of power.
type Ledger struct {
	db     *DB
	name   string
	record record
	sub    heightsub

	appending lock
	pending   *commit  // guarded by appending: a commit that a full disk holds up, or nil
	exec      Executor // guarded by appending: judges transactions, or nil

	cuts     atomic.Pointer[cuts] // when the state is handed out to make a snapshot
	damages  damages
	halt     atomic.Pointer[error] // why it takes no more blocks
	dropped  atomic.Pointer[error]
	unjudged atomic.Pointer[error] // why the world state doesn't follow
}

func newLedger(d *DB, name string, r record) *Ledger {
	l := &Ledger{db: d, name: name, record: r, appending: newLock()}
	l.unjudged.Store(&errNobody)
	return l
}

// Name returns the channel's name.
func (l *Ledger) Name() string { return l.name }

// Tip returns the height and the newest block's header hash.
func (l *Ledger) Tip() block.Tip { return l.sub.get().Tip }

// Height returns how many blocks are kept.
func (l *Ledger) Height() uint64 { return l.sub.get().Height }

// Wait returns when the height has reached height, or with the error of ctx, or
// with ErrClosed, or with ErrNotFound if the channel is dropped meanwhile.
func (l *Ledger) Wait(ctx context.Context, height uint64) error {
	return l.sub.wait(ctx, height)
}

// Append keeps blocks, each of which MUST follow the one before it and the first
// the tip. All come in one synced batch (beyond 1 GiB: in several, in order):
// they are kept whole or not at all, and durable when it returns.
//
// Blocks already held are passed over, so that the same call may be made again.
// ErrFull: the disk is full; make the same call again later. ErrFork: another
// header stands at that height; the channel halts. ErrGap: the blocks don't
// follow. ErrHalted, with the reason: the channel or the store takes no more.
func (l *Ledger) Append(bs ...block.Verified) error {
	if err := l.append(bs); err != nil {
		return fmt.Errorf("append to channel %s: %w", l.name, err)
	}
	return nil
}

func (l *Ledger) append(bs []block.Verified) error {
	release, err := l.alone()
	if err != nil {
		return err
	}
	defer release()
	if err := l.Halted(); err != nil {
		return err
	}
	if err := l.nearly(); err != nil {
		return err
	}
	m := l.sub.get()
	if bs, err = l.follow(m, bs); err != nil {
		return err
	}
	for len(bs) > 0 {
		n, size := 1, len(bs[0].Bytes())
		for n < len(bs) && size+len(bs[n].Bytes()) <= maxBatch {
			size += len(bs[n].Bytes())
			n++
		}
		if err := l.db.writable(size); err != nil {
			return err
		}
		b, next, done, err := l.compose(m, bs[:n], size)
		if err != nil {
			return err
		}
		if l.pending, err = l.db.commit(b, func() { l.settle(next) }); err != nil {
			return err
		}
		if next.config != m.config {
			if err := l.amend(); err != nil {
				return err
			}
		}
		m, bs = next, bs[done:]
	}
	return nil
}

// compose puts blocks, of size bytes in all, and what they make of the world state
// into a batch, and returns the mark they lead to and how many they are: fewer
// than it was given, where the state's writes fill the batch.
func (l *Ledger) compose(m mark, bs []block.Verified, size int) (*pebble.Batch, mark, int, error) {
	t := l.turn(m.state, m.Height, func(yield func(*common.Block) bool) {
		for _, v := range bs {
			if !yield(v.Block()) {
				return
			}
		}
	})
	for _, v := range bs {
		size += 512 + len(v.TxIDs())*txRoom
	}
	b := t.batch(size)
	done := 0
	for _, v := range bs {
		m = l.write(b, m, v)
		if err := t.execute(v.Block()); err != nil {
			return nil, m, 0, errors.Join(err, b.Close())
		}
		if done++; b.Len() > maxBatch || t.cut() {
			break
		}
	}
	m.state = t.mark
	set(b, tipKey(l.record.number), m.marshal())
	return b, m, done, nil
}

// follow returns the blocks that aren't held yet, having checked that they
// continue the chain at m and that the others are those that are held.
func (l *Ledger) follow(m mark, bs []block.Verified) ([]block.Verified, error) {
	first := len(bs)
	next := m.Tip
	for i, b := range bs {
		switch {
		case b.IsZero():
			return nil, errors.New("a block that nobody verified")
		case b.Number() < m.Height && first == len(bs):
			if err := l.holds(b); err != nil {
				return nil, err
			}
			continue
		case b.Number() != next.Height:
			return nil, fmt.Errorf("block %d at height %d: %w", b.Number(), next.Height, ErrGap)
		case b.PreviousHash() != next.Hash:
			return nil, fmt.Errorf("block %d doesn't link to the block before it: %w", b.Number(), ErrGap)
		}
		first = min(first, i)
		next = block.Tip{Height: b.Number() + 1, Hash: b.Hash()}
	}
	return bs[first:], nil
}

// holds checks that b is the block held at its height. Of those that aren't kept
// any more nothing is known.
func (l *Ledger) holds(b block.Verified) error {
	if b.Number() < l.Lowest() {
		return nil
	}
	n, err := l.find(b.Hash())
	if err == nil && n == b.Number() {
		return nil
	}
	if err != nil && !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("block %d: %w", b.Number(), err)
	}
	h := b.Hash()
	err = fmt.Errorf("another block %d, with header hash %x, was verified: %w", b.Number(), h, ErrFork)
	l.Halt(err)
	return err
}

// write puts a block and its indexes into a batch, and returns the mark it leads
// to, which the caller puts behind them.
func (l *Ledger) write(b *pebble.Batch, m mark, v block.Verified) mark {
	c, n := l.record.number, v.Number()
	// The large value isn't the first: for that Pebble takes a buffer of its own.
	set(b, hashKey(c, v.Hash()), binary.BigEndian.AppendUint64(nil, n))
	set(b, blockKey(c, n), v.Bytes())
	for i, id := range v.TxIDs() {
		if id != "" {
			set(b, txKey(c, id, n, uint32(i)), nil)
		}
	}
	m.Tip = block.Tip{Height: n + 1, Hash: v.Hash()}
	if n == 0 || v.IsConfig() {
		m.config = n
	}
	return m
}

// settle announces a mark that has become durable.
func (l *Ledger) settle(m mark) {
	l.db.witness.see(l.record.number, m.Height)
	before := l.sub.get().state.height
	l.sub.set(m)
	if m.state.height > before {
		l.cutAt(m.state)
	}
}

// Halt stops the channel: it takes no more blocks until the store is opened
// again. The first reason stays.
func (l *Ledger) Halt(reason error) {
	if l.halt.CompareAndSwap(nil, &reason) {
		l.db.log.Errorf("channel %s takes no more blocks: %v", l.name, reason)
	}
}

// Halted returns why the channel takes no more blocks, wrapped in ErrHalted, or
// nil. It goes on answering reads.
func (l *Ledger) Halted() error {
	if err := l.halt.Load(); err != nil {
		return fmt.Errorf("%w: %w", ErrHalted, *err)
	}
	return l.db.failure()
}

// settled waits for a commit that a full disk had held up. It is called with
// appending held.
func (l *Ledger) settled() error {
	if l.pending == nil {
		return nil
	}
	select {
	case <-l.pending.done: // whatever became of it, the mark tells
	default:
		if err := l.db.await(l.pending); err != nil {
			return err
		}
	}
	l.pending = nil
	return nil
}

// enter is DB.enter for a ledger that may have been dropped.
func (l *Ledger) enter() (done func(), err error) {
	if err := l.dropped.Load(); err != nil {
		return nil, *err
	}
	return l.db.enter()
}

// load reads where the chain ends, and sees that it does, and not before the
// height that was witnessed.
func (l *Ledger) load(witnessed uint64) error {
	v, err := l.db.get(tipKey(l.record.number))
	var m mark
	if err == nil {
		m, err = parseMark(v)
	}
	if err != nil && !errors.Is(err, ErrForeign) {
		err = l.damage(ofTip, "the tip record", err)
		var lost error
		if m, lost = l.recoverTip(); lost != nil {
			return errors.Join(err, lost)
		}
	} else if err != nil {
		return err
	}
	if m.state, err = l.loadState(m.Height); err != nil {
		if errors.Is(err, ErrForeign) {
			return err
		}
		m.state = stateMark{} // until it is judged anew
	}
	if m.kept = l.record.kept; m.kept.blocks >= m.Height {
		return fmt.Errorf("the record says that no block below %d is kept, the height is %d: %w", m.kept.blocks, m.Height, ErrCorrupt)
	}
	l.sub.set(m)
	if m.Height < witnessed {
		l.damages.mu.Lock()
		l.damages.rest.Lost = witnessed - m.Height
		l.damages.mu.Unlock()
		return fmt.Errorf("%d blocks are left of %d that were acknowledged: %w", m.Height, witnessed, ErrCorrupt)
	}
	raw, err := l.db.get(blockKey(l.record.number, m.Height-1))
	if err != nil {
		return l.damage(ofBlock(m.Height-1), fmt.Sprintf("block %d", m.Height-1), err)
	}
	hash, _, err := identify(raw, m.Height-1)
	if err == nil && hash != m.Hash {
		err = fmt.Errorf("block %d isn't the one that the tip record names: %w", m.Height-1, ErrCorrupt)
	}
	if err != nil {
		return l.damage(ofBlock(m.Height-1), "the newest block", err)
	}
	return l.Halted()
}

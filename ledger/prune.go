package ledger

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// How much one durable step of Prune forgets: few enough blocks that a commit
// doesn't wait long behind it, enough that there are few steps, for each makes
// Pebble flush.
const (
	pruneBlocks  = 4096
	pruneTouches = 16384
)

// Lowest is the number of the first block from which on all are kept and judged:
// 0 unless the ledger was pruned, or began with a snapshot.
func (l *Ledger) Lowest() uint64 { return l.sub.get().kept.blocks }

// pruned is the error for what lies below Lowest.
func (l *Ledger) pruned() error {
	return fmt.Errorf("blocks below %d aren't kept: %w: %w", l.Lowest(), ErrPruned, ErrNotFound)
}

// Prune forgets the blocks below a number, their verdicts, and what histories say
// of them, but not configuration blocks nor which transaction ids there were: a
// ledger without its beginning verifies and judges what comes as one with it. The
// newest block always stays, and so do those that aren't judged while somebody
// judges. It goes in steps, each durable; a call that is cut short may be made
// again. Append goes on meanwhile.
func (l *Ledger) Prune(ctx context.Context, below uint64) error {
	for {
		more, err := l.prune(below)
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("prune channel %s: %w", l.name, err)
		}
		if !more {
			break
		}
	}
	if err := l.pruneHistory(ctx); err != nil {
		return fmt.Errorf("prune channel %s: %w", l.name, err)
	}
	return nil
}

// prune forgets some blocks, and reports whether more are left to be forgotten.
func (l *Ledger) prune(below uint64) (more bool, err error) {
	release, err := l.alone()
	if err != nil {
		return false, err
	}
	defer release()
	if err := errors.Join(l.Halted(), l.db.writable(0)); err != nil {
		return false, err
	}
	m := l.sub.get()
	below = min(below, m.Height-1)
	if l.exec != nil && l.unjudged.Load() == nil {
		below = min(below, max(m.state.height, 1)-1) // the next one's configuration is found from there
	}
	if below <= m.kept.blocks {
		return false, nil
	}
	to := min(below, m.kept.blocks+pruneBlocks)
	b := l.db.pebble.NewBatch()
	if err := l.forget(b, m.kept.blocks, to); err != nil {
		return false, errors.Join(err, b.Close())
	}
	m.kept = span{to, max(m.kept.history, to)}
	r := l.record
	r.kept = m.kept
	set(b, recordKey(l.name), r.marshal())
	// Told before it is done: a read that comes too late must know why.
	l.sub.set(m)
	l.pending, err = l.db.commit(b, func() {})
	return err == nil && to < below, err
}

// forget deletes blocks from (included) to to (excluded) with what belongs to
// them, but no configuration.
func (l *Ledger) forget(b *pebble.Batch, from, to uint64) error {
	c := l.record.number
	keep := from // the first that isn't deleted yet
	flush := func(end uint64) error {
		if keep == end {
			return nil
		}
		return b.DeleteRange(blockKey(c, keep), blockKey(c, end), nil)
	}
	var failed error
	err := l.scan(from, to, func(n uint64, raw []byte) bool {
		hash, _, err := identify(raw, n)
		config := false
		if err == nil {
			config, err = holdsConfig(raw)
		}
		switch {
		case err != nil:
		case config:
			err = flush(n)
			keep = n + 1
		default:
			err = b.Delete(hashKey(c, hash), nil)
		}
		failed = err
		return err == nil
	})
	if err := errors.Join(err, failed); err != nil {
		return err
	}
	return errors.Join(flush(to), b.DeleteRange(verdictKey(c, from), verdictKey(c, to), nil))
}

// pruneHistory deletes what histories say of blocks that aren't kept, which
// History passes over anyway.
func (l *Ledger) pruneHistory(ctx context.Context) error {
	prefix := statePrefix(l.record.number, kindTouch)
	for from := prefix; from != nil; {
		if err := ctx.Err(); err != nil {
			return err
		}
		var err error
		if from, err = l.pruneTouches(from, after(prefix)); err != nil {
			return err
		}
	}
	return nil
}

// pruneTouches deletes some of them, and returns where to go on, nil at the end.
func (l *Ledger) pruneTouches(from, to []byte) (next []byte, err error) {
	done, err := l.enter()
	if err != nil {
		return nil, err
	}
	defer done()
	if err := errors.Join(l.Halted(), l.db.writable(0)); err != nil {
		return nil, err
	}
	below := l.sub.get().kept.history
	b := l.db.pebble.NewBatch()
	seen := 0
	err = l.walk(l.db.pebble, from, to, func(k, _ []byte) (bool, error) {
		if seen++; seen > pruneTouches {
			next = append([]byte(nil), k...)
			return false, nil
		}
		if len(k) < prefixLen+16 {
			return false, fmt.Errorf("a key's history: %w", ErrCorrupt)
		}
		if binary.BigEndian.Uint64(k[len(k)-16:]) >= below {
			return true, nil
		}
		return true, b.Delete(k, nil)
	})
	if err != nil || b.Empty() {
		return next, errors.Join(err, b.Close())
	}
	_, err = l.db.commit(b, func() {})
	return next, err
}

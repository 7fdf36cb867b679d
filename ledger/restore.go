package ledger

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"grapevine/block"
)

// A Tally adds up the entries of a state that is being restored.
type Tally interface {
	// Add takes entries, which stay as they are, in the order of their keys. It is
	// never called twice at once.
	Add([]Item)
	// Done returns the hash of the state of all entries, and what the executor
	// wants to be given with the next block.
	Done(commitHash []byte) (hash [32]byte, carry []byte)
}

// A Restoration is what a ledger is to begin with.
type Restoration struct {
	Snapshot *Incoming // of which no chunk is missing
	// Blocks are the chain's configuration blocks below the snapshot's height, from
	// block 0 on, and block height-1 if that is none: the snapshot's own, verified.
	Blocks   []block.Verified
	Tally    Tally
	Progress func(chunk, chunks int) // may be nil
}

// Restore puts a snapshot's state in the place of what is kept of its channel,
// which must be less, and nobody may use that ledger any more. It is there at once
// and whole, or not at all, whatever crash comes in between. The snapshot then is
// one of the channel's. ErrBadSnapshot: it isn't what it says; all of it is gone
// then.
func (d *DB) Restore(ctx context.Context, r Restoration) (*Ledger, error) {
	name := r.Snapshot.Manifest.Channel
	l, err := d.restore(ctx, r)
	if errors.Is(err, ErrBadSnapshot) {
		err = errors.Join(err, r.Snapshot.Discard())
	}
	if err != nil {
		return nil, fmt.Errorf("restore channel %s from its snapshot at height %d: %w", name, r.Snapshot.Manifest.Height, err)
	}
	return l, nil
}

func (d *DB) restore(ctx context.Context, r Restoration) (*Ledger, error) {
	done, err := d.enter()
	if err != nil {
		return nil, err
	}
	defer done()
	if err := r.check(); err != nil {
		return nil, err
	}
	number, err := d.reserve()
	if err != nil {
		return nil, err
	}
	carry, err := d.fill(ctx, number, r)
	if err != nil {
		return nil, errors.Join(err, d.clear(number))
	}
	l, err := d.enthrone(number, r, carry)
	if err != nil {
		return nil, errors.Join(err, d.clear(number))
	}
	if err := l.amend(); err != nil {
		return nil, err
	}
	if err := r.Snapshot.settle(); err != nil {
		d.log.Warnf("channel %s: its snapshot can't be kept to be given to others: %v", l.name, err)
	}
	return l, nil
}

// check sees that the blocks are those that the manifest names.
func (r *Restoration) check() error {
	m := r.Snapshot.Manifest
	if n := r.Snapshot.Left(); n > 0 {
		return fmt.Errorf("%d chunks are missing", n)
	}
	if len(r.Blocks) == 0 || r.Blocks[0].IsZero() || r.Blocks[0].Number() != 0 || !sameBytes(r.Blocks[0].Hash(), m.Genesis) {
		return fmt.Errorf("it is of a chain with another block 0: %w", ErrBadSnapshot)
	}
	var config, tip bool
	for i, v := range r.Blocks {
		if i > 0 && v.Number() <= r.Blocks[i-1].Number() {
			return fmt.Errorf("blocks out of order: %w", ErrBadSnapshot)
		}
		config = config || v.Number() == m.Config && sameBytes(v.Hash(), m.ConfigHash)
		tip = tip || v.Number() == m.Height-1 && sameBytes(v.Hash(), m.BlockHash)
	}
	last := r.Blocks[len(r.Blocks)-1]
	if !config || !tip || last.Number() != m.Height-1 || len(m.Codes) != len(last.Block().Data.Data) {
		return fmt.Errorf("its blocks aren't those of the manifest: %w", ErrBadSnapshot)
	}
	return nil
}

// reserve takes a number for the channel's keys, and notes durably that what lies
// under it is nobody's until it is in the channel's record.
func (d *DB) reserve() (number uint32, err error) {
	release, err := d.admin.take(d)
	if err != nil {
		return 0, err
	}
	defer release()
	if number, err = d.nextNumber(); err != nil {
		return 0, err
	}
	b := d.pebble.NewBatch()
	set(b, restoringKey(number), nil)
	set(b, nextKey(), binary.BigEndian.AppendUint32(nil, number+1))
	return number, d.commitAll(b, func() {})
}

// clear deletes what lies under a number that became no channel's.
func (d *DB) clear(number uint32) error {
	if _, err := d.get(restoringKey(number)); err != nil {
		if errors.Is(err, ErrNotFound) {
			err = nil // it did become one's, or is cleared
		}
		return err
	}
	b := d.pebble.NewBatch()
	lower, upper := channelSpan(number)
	stateLower, stateUpper := stateSpan(number)
	if err := errors.Join(
		b.DeleteRange(lower, upper, nil), b.DeleteRange(stateLower, stateUpper, nil), b.Delete(restoringKey(number), nil),
	); err != nil {
		return errors.Join(err, b.Close())
	}
	return d.commitAll(b, func() {})
}

// clearAll clears what crashed restorations left.
func (d *DB) clearAll() (err error) {
	prefix := []byte{spaceNode, kindRestoring}
	it, err := d.pebble.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
	if err != nil {
		return explain(err)
	}
	var numbers []uint32
	for ok := it.First(); ok; ok = it.Next() {
		if k := it.Key(); len(k) == len(prefix)+4 {
			numbers = append(numbers, binary.BigEndian.Uint32(k[len(prefix):]))
		}
	}
	if err := errors.Join(explain(it.Error()), explain(it.Close())); err != nil {
		return err
	}
	for _, n := range numbers {
		if err := d.clear(n); err != nil {
			return fmt.Errorf("clear what a restoration left: %w", err)
		}
	}
	return nil
}

// fill writes the state under a number, having seen that it is what the manifest
// says, and returns what the executor wants back.
func (d *DB) fill(ctx context.Context, number uint32, r Restoration) (carry []byte, err error) {
	m := r.Snapshot.Manifest
	p := placer{channel: number, height: m.Height}
	b := d.pebble.NewBatch()
	for i := range r.Snapshot.Chunks() {
		if err := errors.Join(ctx.Err(), d.writable(d.restoreBatch)); err != nil {
			return nil, errors.Join(err, b.Close())
		}
		chunk, err := r.Snapshot.Chunk(i)
		if err != nil {
			return nil, errors.Join(err, b.Close())
		}
		var items []Item
		if err := pairs(chunk, func(k, v []byte) error {
			at, item, err := p.place(k, v)
			if err != nil {
				return err
			}
			if item != nil {
				items = append(items, *item)
			}
			return b.Set(at, v, nil)
		}); err != nil {
			return nil, errors.Join(err, b.Close())
		}
		r.Tally.Add(items)
		if b.Len() >= d.restoreBatch {
			if err := d.commitAll(b, func() {}); err != nil {
				return nil, err
			}
			b = d.pebble.NewBatch()
		}
		if r.Progress != nil {
			r.Progress(i+1, r.Snapshot.Chunks())
		}
	}
	hash, carry := r.Tally.Done(m.CommitHash)
	if p.records != m.Records || !sameBytes(hash, m.StateHash) {
		return nil, errors.Join(fmt.Errorf("its entries lead to the state hash %x, it says %x: %w", hash, m.StateHash, ErrBadSnapshot), b.Close())
	}
	return carry, d.commitAll(b, func() {})
}

// enthrone writes the rest, and in the same durable step makes the number the
// channel's, and what was there before nobody's.
func (d *DB) enthrone(number uint32, r Restoration, carry []byte) (*Ledger, error) {
	release, err := d.admin.take(d)
	if err != nil {
		return nil, err
	}
	defer release()
	m := r.Snapshot.Manifest
	rec := record{number: number, genesis: r.Blocks[0].Hash(), kept: span{blocks: m.Height - 1, history: m.Height}}
	l := newLedger(d, m.Channel, rec)
	b := d.pebble.NewBatch()
	var at mark
	for _, v := range r.Blocks {
		set(b, blockKey(number, v.Number()), v.Bytes())
		set(b, hashKey(number, v.Hash()), binary.BigEndian.AppendUint64(nil, v.Number()))
		at.Tip = block.Tip{Height: v.Number() + 1, Hash: v.Hash()}
	}
	at.config, at.kept = m.Config, rec.kept
	at.state = stateMark{height: m.Height, hash: [32]byte(m.StateHash), carry: carry}
	verdict := Verdict{Codes: m.Codes, CommitHash: m.CommitHash, StateHash: [32]byte(m.StateHash)}
	set(b, verdictKey(number, m.Height-1), verdict.marshal())
	set(b, stateKey(number), at.state.marshal())
	set(b, tipKey(number), at.marshal())
	set(b, recordKey(m.Channel), rec.marshal())
	if err := b.Delete(restoringKey(number), nil); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	c := charter{record: rec.whole(), name: m.Channel, genesis: r.Blocks[0].Bytes()}
	for _, v := range r.Blocks[1:] {
		if v.Number() == m.Config {
			c.config = v.Bytes()
		}
	}
	if err := d.aside(func() error { return d.keepCharter(c) }); err != nil { // Open removes it where there is no such channel
		return nil, errors.Join(err, b.Close())
	}
	old, err := d.Channel(m.Channel)
	if err == nil {
		let, err := old.appending.take(d)
		if err != nil {
			return nil, errors.Join(err, b.Close())
		}
		defer let()
		if err := d.depose(b, old, at); err != nil {
			return nil, errors.Join(err, b.Close())
		}
	}
	err = d.commitAll(b, func() {
		l.settle(at)
		if old != nil {
			d.witness.see(old.record.number, 0)
			old.sub.end(*old.dropped.Load())
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		d.channels[m.Channel] = l
		if d.closed {
			l.sub.end(fmt.Errorf("channel %s: %w", m.Channel, ErrClosed))
		}
	})
	if err == nil && old != nil {
		name := d.gate.PathJoin(d.folder.dir, charterName(old.record.number))
		if err := d.aside(func() error { return d.gate.Remove(name) }); err != nil && !isNotExist(err) {
			d.log.Warnf("channel %s: the charter of what it was before stays: %v", m.Channel, err)
		}
	}
	return l, err
}

// depose drops a ledger, whose appending is held, in the batch that puts another in
// its place.
func (d *DB) depose(b *pebble.Batch, old *Ledger, by mark) error {
	if err := errors.Join(old.settled(), d.failure()); err != nil {
		return err
	}
	if h := old.Height(); h >= by.Height {
		return fmt.Errorf("%d blocks are kept already: %w", h, ErrExists)
	}
	lower, upper := channelSpan(old.record.number)
	stateLower, stateUpper := stateSpan(old.record.number)
	set(b, droppedKey(old.record.number), nil)
	if err := errors.Join(b.DeleteRange(lower, upper, nil), b.DeleteRange(stateLower, stateUpper, nil)); err != nil {
		return err
	}
	gone := fmt.Errorf("channel %s was restored from a snapshot: open it again: %w", old.name, ErrNotFound)
	old.dropped.Store(&gone)
	return nil
}

// commitAll is commit for what nobody else waits for: on a full disk it waits, so
// that nothing of it comes later than its outcome is told.
func (d *DB) commitAll(b *pebble.Batch, settle func()) error {
	c, err := d.commit(b, settle)
	if !errors.Is(err, ErrFull) {
		return err
	}
	select {
	case <-c.done:
		return c.err
	case <-d.gate.failed:
		return d.failure()
	case <-d.gate.over:
		return ErrClosed
	}
}

package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"
)

// A damaged table can't be written over: whoever passes over its keys, a
// compaction too, meets it again. So the span of keys that it holds is cut out of
// the store and what can be read, or follows from the rest, is put in its place,
// in one atomic step (Pebble's IngestAndExcise). What follows: indexes from the
// blocks, the tip from memory, the world state by judging the blocks again. What
// doesn't are blocks: these then lack, and PutBack puts them back.
//
// A damaged value file needs none of this: its keys are whole, and a new value
// covers the old one for good.

// Tables that a mend writes are begun anew at this size.
const mendTable = 64 << 20

// mendPrefix begins the names of files that a mend is writing.
const mendPrefix = "mend-"

// maxMends bounds the tables that one Mend replaces.
const maxMends = 4096

// Mend replaces the tables that reads and scrubs have found damaged. Commits wait
// meanwhile, reads go on. What it couldn't get back is noted: see Damage. It
// returns how many tables it replaced.
func (d *DB) Mend(ctx context.Context) (tables int, err error) {
	done, err := d.enter()
	if err != nil {
		return 0, err
	}
	defer done()
	release, err := d.admin.take(d)
	if err != nil {
		return 0, err
	}
	defer release()
	for tables < maxMends {
		name, s, ok := d.torn.first()
		if !ok {
			if h := d.halt.Load(); h != nil && errors.Is(*h, ErrCorrupt) {
				d.halt.CompareAndSwap(h, nil)
			}
			return tables, nil
		}
		if err := ctx.Err(); err != nil {
			return tables, err
		}
		live, err := d.live(name)
		if err == nil && live {
			err = d.replace(ctx, s)
			tables++
		}
		if err != nil {
			return tables, fmt.Errorf("replace the damaged table %s: %w", name, err)
		}
		d.torn.forget(name)
		if live {
			d.log.Warnf("replaced the damaged table %s", name)
		}
	}
	return tables, nil
}

// live reports whether a table is part of the store still: a compaction that began
// earlier may tell of one that was replaced.
func (d *DB) live(name string) (bool, error) {
	levels, err := d.pebble.SSTables()
	if err != nil {
		return false, explain(err)
	}
	for _, l := range levels {
		for _, t := range l {
			if fmt.Sprintf("%06d.sst", t.BackingSSTNum) == name {
				return true, nil
			}
		}
	}
	return false, nil
}

// sweep removes what a crash left of a mend.
func (d *DB) sweep() error {
	names, err := d.gate.List(d.folder.dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasPrefix(name, mendPrefix) {
			if err := d.gate.Remove(d.gate.PathJoin(d.folder.dir, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// replace cuts a span of keys out and puts in what is left of it.
func (d *DB) replace(ctx context.Context, s keySpan) error {
	ls := d.ledgers()
	for _, l := range ls {
		release, err := l.appending.take(d)
		if err != nil {
			return err
		}
		defer release()
		if err := l.settled(); err != nil {
			return err
		}
	}
	m := &mender{d: d, ctx: ctx, all: ls, whole: s}
	c := make(chan error, 1)
	d.users.Add(1)
	go func() {
		defer d.users.Done()
		d.writing.Lock() // facts of the node, too
		defer d.writing.Unlock()
		c <- m.replace()
	}()
	select { // a full disk is waited for
	case err := <-c:
		return err
	case <-d.gate.failed:
		return d.failure()
	}
}

// replace is DB.replace with all locks held.
func (m *mender) replace() error {
	if err := m.probe(); err != nil {
		return err
	}
	for _, l := range m.forget {
		if l.Lowest() > 0 {
			return l.irreparable("the world state")
		}
		if err := l.dropState(); err != nil {
			return err
		}
	}
	// Cut out no more than is damaged, if the rest of the table can be read at all.
	err := m.cut(m.narrow)
	if err != nil && damaged(err) {
		err = m.cut(m.whole)
	}
	return explain(err)
}

// ledgers lists those of all channels, in the order of their numbers.
func (d *DB) ledgers() []*Ledger {
	d.mu.Lock()
	defer d.mu.Unlock()
	ls := make([]*Ledger, 0, len(d.channels))
	for _, l := range d.channels {
		ls = append(ls, l)
	}
	slices.SortFunc(ls, func(a, b *Ledger) int { return int(a.record.number) - int(b.record.number) })
	return ls
}

// pass goes over a range of keys.
func (d *DB) pass(ctx context.Context, lower, upper []byte, each func(k, v []byte) error) (err error) {
	defer recovered(&err)
	it, err := d.pebble.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return err
	}
	defer func() {
		if e := it.Close(); err == nil {
			err = e
		}
	}()
	for ok := it.First(); ok; ok = it.Next() {
		if err := ctx.Err(); err != nil {
			return err
		}
		v, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		if err := each(it.Key(), v); err != nil {
			return err
		}
	}
	return it.Error()
}

// within returns what of the span begins with prefix.
func (s keySpan) within(prefix []byte) (lower, upper []byte, ok bool) {
	lower, upper = prefix, after(prefix)
	if bytes.Compare(s.first, lower) > 0 {
		lower = s.first
	}
	if end := append(slices.Clone(s.last), 0); bytes.Compare(end, upper) < 0 {
		upper = end
	}
	return lower, upper, bytes.Compare(lower, upper) < 0
}

// with returns a span that holds both.
func (s keySpan) with(o keySpan) keySpan {
	if s.first == nil {
		return o
	}
	if bytes.Compare(o.first, s.first) < 0 {
		s.first = o.first
	}
	if bytes.Compare(o.last, s.last) > 0 {
		s.last = o.last
	}
	return s
}

// before is a key of which the next, with a zero byte behind, is the end of a
// range that begins with other keys.
func before(end []byte) []byte {
	if n := len(end); n > 0 && end[n-1] == 0 {
		return end[:n-1]
	}
	return end
}

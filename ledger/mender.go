package ledger

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A mender replaces one span.
type mender struct {
	d      *DB
	ctx    context.Context
	all    []*Ledger
	whole  keySpan
	narrow keySpan
	bad    map[string]bool // prefixes of keys whose part of the span can't be read
	forget []*Ledger       // whose state is damaged

	out   *sstable.Writer
	paths []string
	bytes int
}

// kinds of a channel's keys in spaceChannel, in their order.
var channelKinds = []byte{kindBlock, kindHash, kindTip, kindVerdict, kindState, kindTx}

// probe finds which parts of the span can be read.
func (m *mender) probe() error {
	m.bad = make(map[string]bool)
	try := func(prefix []byte) bool {
		lower, upper, ok := m.whole.within(prefix)
		if !ok {
			return true
		}
		err := m.d.pass(m.ctx, lower, upper, func(_, _ []byte) error { return nil })
		if err != nil && damaged(err) {
			m.bad[string(prefix)] = true
			m.narrow = m.narrow.with(keySpan{lower, before(upper)})
			return false
		}
		return true
	}
	try([]byte{spaceNode})
	try([]byte{spaceRecord})
	for _, l := range m.all {
		whole := true
		for _, kind := range channelKinds {
			ok := try(kindPrefix(l.record.number, kind))
			whole = whole && (ok || kind != kindVerdict && kind != kindState)
		}
		if lower, _ := stateSpan(l.record.number); !try(lower) {
			whole = false
		}
		if !whole {
			m.forget = append(m.forget, l)
		}
	}
	if m.narrow.first == nil { // it can be read again: then it is written anew as it is
		m.narrow = m.whole
	}
	return m.ctx.Err()
}

func kindPrefix(channel uint32, kind byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{spaceChannel}, channel), kind)
}

// cut writes what is known of a span, and puts it in the place of all that is
// there.
func (m *mender) cut(s keySpan) (err error) {
	defer func() {
		if m.out != nil {
			err = errors.Join(err, m.out.Close())
			m.out = nil
		}
		for _, p := range m.paths {
			if e := m.d.gate.Remove(p); e != nil && !isNotExist(e) {
				err = errors.Join(err, e)
			}
		}
		m.paths = nil
	}()
	if err := m.write(s); err != nil {
		return err
	}
	if m.out != nil {
		out := m.out
		m.out = nil
		if err := out.Close(); err != nil {
			return err
		}
	}
	return m.d.ingest(m.ctx, m.paths, pebble.KeyRange{Start: s.first, End: append(slices.Clone(s.last), 0)})
}

// ingest is Pebble's IngestAndExcise, without its panics. Where memory holds keys of
// the span Pebble only queues it behind them: compactions meet the old tables until
// all that is flushed.
func (d *DB) ingest(ctx context.Context, paths []string, r pebble.KeyRange) (err error) {
	defer recovered(&err)
	if _, err := d.pebble.IngestAndExcise(ctx, paths, nil, nil, r); err != nil {
		return err
	}
	return d.pebble.Flush()
}

// write goes over the span in the order of its keys.
func (m *mender) write(s keySpan) error {
	if err := m.part(s, []byte{spaceNode}, m.nodeKeys); err != nil {
		return err
	}
	if err := m.part(s, []byte{spaceRecord}, m.recordKeys); err != nil {
		return err
	}
	for _, l := range m.all {
		for _, kind := range channelKinds {
			if kind == kindVerdict || kind == kindState {
				if slices.Contains(m.forget, l) {
					continue
				}
			}
			if err := m.part(s, kindPrefix(l.record.number, kind), func(put func(k, v []byte) error) error {
				return m.channelKeys(l, kind, s, put)
			}); err != nil {
				return err
			}
		}
	}
	for _, l := range m.all {
		if lower, _ := stateSpan(l.record.number); !slices.Contains(m.forget, l) {
			if err := m.part(s, lower, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// part writes what of a span begins with prefix: as it is, or, where it can't be
// read, as derive says.
func (m *mender) part(s keySpan, prefix []byte, derive func(put func(k, v []byte) error) error) error {
	lower, upper, ok := s.within(prefix)
	if !ok {
		return nil
	}
	if m.bad[string(prefix)] && derive != nil {
		return derive(func(k, v []byte) error {
			if bytes.Compare(k, lower) < 0 || bytes.Compare(k, upper) >= 0 {
				return nil
			}
			return m.put(k, v)
		})
	}
	return m.d.pass(m.ctx, lower, upper, m.put)
}

func (m *mender) put(k, v []byte) error {
	if m.out != nil && m.bytes > mendTable {
		out := m.out
		m.out = nil
		if err := out.Close(); err != nil {
			return err
		}
	}
	if m.out == nil {
		path := m.d.gate.PathJoin(m.d.folder.dir, fmt.Sprintf("%s%d", mendPrefix, len(m.paths)))
		f, err := m.d.gate.Create(path, vfs.WriteCategoryUnspecified)
		if err != nil {
			return err
		}
		m.paths = append(m.paths, path)
		m.out, m.bytes = sstable.NewWriter(objstorageprovider.NewFileWritable(f), sstable.WriterOptions{TableFormat: m.d.pebble.TableFormat()}), 0
	}
	m.bytes += len(k) + len(v)
	return m.out.Set(k, v)
}

// nodeKeys are what must be known of the node. Facts that it kept (PutMeta) are
// lost where they can't be read; whoever kept them begins anew.
func (m *mender) nodeKeys(put func(k, v []byte) error) error {
	next, err := m.d.unused()
	if err != nil {
		return err
	}
	live := make(map[uint32]bool)
	for _, l := range m.all {
		next = max(next, l.record.number+1)
		live[l.record.number] = true
	}
	for n := uint32(1); n < next; n++ {
		if !live[n] {
			if err := put(droppedKey(n), nil); err != nil {
				return err
			}
		}
	}
	m.d.log.Errorf("facts that the node kept in its store are lost")
	return put(nextKey(), binary.BigEndian.AppendUint32(nil, next))
}

// unused returns a number under which no key lies, nor under any above it.
func (d *DB) unused() (n uint32, err error) {
	n = 1
	for _, space := range []byte{spaceChannel, spaceState} {
		it, err := d.pebble.NewIter(&pebble.IterOptions{LowerBound: []byte{space}, UpperBound: []byte{space + 1}})
		if err != nil {
			return 0, err
		}
		if it.Last() && len(it.Key()) >= 5 {
			n = max(n, binary.BigEndian.Uint32(it.Key()[1:])+1)
		}
		if err := it.Close(); err != nil && !damaged(err) {
			return 0, err
		}
	}
	return n, nil
}

func (m *mender) recordKeys(put func(k, v []byte) error) error {
	ls := slices.Clone(m.all)
	slices.SortFunc(ls, func(a, b *Ledger) int { return bytes.Compare([]byte(a.name), []byte(b.name)) })
	for _, l := range ls {
		if err := put(recordKey(l.name), l.recorded().marshal()); err != nil {
			return err
		}
	}
	return nil
}

// recorded is the channel's record as it is now.
func (l *Ledger) recorded() record {
	r := l.record
	r.kept = l.sub.get().kept
	return r
}

// channelKeys derives the keys of one kind.
func (m *mender) channelKeys(l *Ledger, kind byte, s keySpan, put func(k, v []byte) error) error {
	switch kind {
	case kindTip:
		return put(tipKey(l.record.number), l.sub.get().marshal())
	case kindBlock:
		return m.blockKeys(l, s, put)
	case kindHash, kindTx:
		return m.indexKeys(l, kind, put)
	}
	return nil
}

// blockKeys puts the blocks of the span that can be read, and notes the others.
func (m *mender) blockKeys(l *Ledger, s keySpan, put func(k, v []byte) error) error {
	lower, upper, _ := s.within(kindPrefix(l.record.number, kindBlock))
	height := l.Height()
	configs, err := l.configsBelow()
	if err != nil {
		return err
	}
	for n := numberAt(lower); n < height; n++ {
		k := blockKey(l.record.number, n)
		if bytes.Compare(k, upper) >= 0 {
			return nil
		}
		if n < l.Lowest() && !configs[n] {
			continue
		}
		if err := m.ctx.Err(); err != nil {
			return err
		}
		err := l.spoilt(n)
		var v []byte
		if err == nil {
			v, err = m.d.get(k)
		}
		if err != nil {
			l.note(ofBlock(n), l.wrap(n, fmt.Errorf("its bytes: %w: %w", ErrCorrupt, err)))
			continue
		}
		if err := put(k, v); err != nil {
			return err
		}
	}
	return nil
}

// configsBelow returns the numbers of the blocks below Lowest that are kept.
func (l *Ledger) configsBelow() (map[uint64]bool, error) {
	lowest := l.Lowest()
	if lowest == 0 {
		return nil, nil
	}
	found := make(map[uint64]bool)
	prefix := kindPrefix(l.record.number, kindHash)
	err := l.db.pass(context.Background(), prefix, after(prefix), func(_, v []byte) error {
		if len(v) == 8 && binary.BigEndian.Uint64(v) < lowest {
			found[binary.BigEndian.Uint64(v)] = true
		}
		return nil
	})
	return found, explain(err)
}

// irreparable says that of a chain whose beginning isn't kept something is lost
// that only follows from the beginning.
func (l *Ledger) irreparable(what string) error {
	return fmt.Errorf("channel %s: %s is damaged, and follows from blocks that aren't kept: leave the channel with its data and join it anew: %w", l.name, what, ErrPruned)
}

// numberAt is the first block number from a key of kind block on.
func numberAt(k []byte) uint64 {
	var b [8]byte
	copy(b[:], k[min(len(k), prefixLen):])
	n := binary.BigEndian.Uint64(b[:])
	if len(k) > blockKeyLen {
		n++
	}
	return n
}

// indexKeys derives an index from the blocks that can be read. PutBack adds what
// is the others'.
func (m *mender) indexKeys(l *Ledger, kind byte, put func(k, v []byte) error) error {
	type pair struct{ k, v []byte }
	var all []pair
	if l.Lowest() > 0 {
		return l.irreparable("an index")
	}
	for n := range l.Height() {
		if err := m.ctx.Err(); err != nil {
			return err
		}
		raw, err := m.d.get(blockKey(l.record.number, n))
		if err != nil {
			l.note(ofBlock(n), l.wrap(n, fmt.Errorf("its bytes: %w: %w", ErrCorrupt, err)))
			continue
		}
		keys, err := l.indexOf(n, raw)
		if err != nil {
			l.note(ofBlock(n), l.wrap(n, err))
			continue
		}
		for _, k := range keys {
			if k[prefixLen-1] != kind {
				continue
			}
			var v []byte
			if kind == kindHash {
				v = binary.BigEndian.AppendUint64(nil, n)
			}
			all = append(all, pair{k, v})
		}
	}
	slices.SortFunc(all, func(a, b pair) int { return bytes.Compare(a.k, b.k) })
	all = slices.CompactFunc(all, func(a, b pair) bool { return bytes.Equal(a.k, b.k) })
	for _, p := range all {
		if err := put(p.k, p.v); err != nil {
			return err
		}
	}
	return nil
}

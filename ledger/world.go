package ledger

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"grapevine/block"
)

// StateTip is how far the world state has come, and the blocks at that moment.
type StateTip struct {
	Height uint64    // blocks judged, the first ones
	Hash   [32]byte  // of the state behind them; zero at height 0
	Blocks block.Tip // those kept, at least as many
	// Unjudged says why the state doesn't follow, wrapped in ErrUnjudged; nil
	// while it does.
	Unjudged error
}

// State returns how far the world state has come.
func (l *Ledger) State() StateTip {
	m := l.sub.get()
	t := StateTip{Height: m.state.height, Hash: m.state.hash, Blocks: m.Tip}
	if err := l.unjudged.Load(); err != nil {
		t.Unjudged = *err
	}
	return t
}

// Verdict returns how block n was judged: ErrNotFound if the block isn't held,
// ErrUnjudged if it is and nobody has judged it.
func (l *Ledger) Verdict(n uint64) (Verdict, error) {
	done, err := l.enter()
	if err != nil {
		return Verdict{}, l.wrap(n, err)
	}
	defer done()
	switch m := l.sub.get(); {
	case n >= m.Height:
		return Verdict{}, l.wrap(n, ErrNotFound)
	case n >= m.state.height:
		if err := l.unjudged.Load(); err != nil {
			return Verdict{}, l.wrap(n, *err)
		}
		return Verdict{}, l.wrap(n, ErrUnjudged)
	}
	raw, err := l.db.get(verdictKey(l.record.number, n))
	if errors.Is(err, ErrNotFound) && n < l.Lowest() {
		return Verdict{}, l.wrap(n, l.pruned())
	}
	if err != nil {
		return Verdict{}, l.wrap(n, l.damage(ofState, "the verdict", err))
	}
	v, err := parseVerdict(raw)
	if err != nil {
		return Verdict{}, l.wrap(n, l.damage(ofState, "the verdict", err))
	}
	return v, nil
}

// A World is a channel's world state at one height, to be read. Its methods are
// safe for concurrent use. Close it soon: it keeps files, and the store's Close
// waits for it.
type World struct {
	l    *Ledger
	snap *pebble.Snapshot
	mark stateMark
	done func()
}

// World returns the state as it is now: what is told of it is durable. It waits
// for what is being committed.
func (l *Ledger) World(ctx context.Context) (*World, error) {
	w, err := l.world(ctx)
	if err != nil {
		return nil, fmt.Errorf("channel %s: world state: %w", l.name, err)
	}
	return w, nil
}

func (l *Ledger) world(ctx context.Context) (*World, error) {
	for {
		done, err := l.enter()
		if err != nil {
			return nil, err
		}
		w := &World{l: l, snap: l.db.pebble.NewSnapshot(), done: done}
		v, err := l.db.getFrom(w.snap, stateKey(l.record.number))
		if err == nil {
			w.mark, err = parseStateMark(v)
		} else if errors.Is(err, ErrNotFound) {
			err = nil
		}
		if err != nil {
			return nil, errors.Join(l.damage(ofState, "the state record", err), w.Close())
		}
		if w.mark.height <= l.sub.get().state.height {
			return w, nil
		}
		if err := w.Close(); err != nil {
			return nil, err
		}
		if err := l.sub.until(ctx, func(m mark) bool { return m.state.height >= w.mark.height }); err != nil {
			return nil, err
		}
	}
}

// Close gives the state back.
func (w *World) Close() error {
	defer w.done()
	return explain(w.snap.Close())
}

// Height is that of the blocks before the state.
func (w *World) Height() uint64 { return w.mark.height }

// Hash is the state's; zero at height 0.
func (w *World) Hash() [32]byte { return w.mark.hash }

// Get returns what a key holds, or ErrNotFound.
func (w *World) Get(k Key) (*Entry, error) {
	e, err := w.l.entry(w.snap, k)
	if err == nil && e == nil {
		err = ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("channel %s: key %q of %q: %w", w.l.name, k.Key, k.Namespace, err)
	}
	return e, nil
}

// Range yields the entries of a namespace's public keys from from (included) to to
// (excluded, "" for the end), by their bytes. They are the caller's. An error is
// the last thing it yields.
func (w *World) Range(namespace, from, to string) iter.Seq2[Item, error] {
	lower, upper := rangeKeys(w.l.record.number, namespace, from, to)
	return w.l.items(w.snap, lower, upper)
}

// All yields every entry, hashed ones too, by namespace, collection and key.
func (w *World) All() iter.Seq2[Item, error] {
	prefix := statePrefix(w.l.record.number, kindEntry)
	return w.l.items(w.snap, prefix, after(prefix))
}

// Item is an entry with its key.
type Item struct {
	Key
	Entry
}

// Past is a place in a key's history.
type Past struct {
	Block, Tx uint64
	Deleted   bool
}

// HistoryFrom is the block from which on histories are known: what wrote a key
// before, nobody remembers here.
func (w *World) HistoryFrom() uint64 { return w.l.sub.get().kept.history }

// History yields where valid transactions wrote a public key, the oldest first,
// from block HistoryFrom on.
func (w *World) History(namespace, key string) iter.Seq2[Past, error] {
	from, all := w.HistoryFrom(), w.touches(namespace, key)
	return func(yield func(Past, error) bool) {
		for p, err := range all {
			if (err != nil || p.Block >= from) && !yield(p, err) {
				return
			}
		}
	}
}

func (w *World) touches(namespace, key string) iter.Seq2[Past, error] {
	prefix := touchPrefix(w.l.record.number, namespace, key)
	return sequence(w.l, w.snap, prefix, after(prefix), func(k, v []byte) (Past, error) {
		if len(k) != len(prefix)+16 || len(v) != 1 {
			return Past{}, fmt.Errorf("a key's history: %w", ErrCorrupt)
		}
		k = k[len(prefix):]
		return Past{Block: binary.BigEndian.Uint64(k), Tx: binary.BigEndian.Uint64(k[8:]), Deleted: v[0] == 1}, nil
	})
}

// rangeKeys are the bounds of a range of public keys.
func rangeKeys(channel uint32, namespace, from, to string) (lower, upper []byte) {
	lower = entryKey(channel, Key{Namespace: namespace, Key: from})
	if to == "" {
		return lower, after(entryKey(channel, Key{Namespace: namespace}))
	}
	return lower, entryKey(channel, Key{Namespace: namespace, Key: to})
}

// entry reads an entry, nil if there is none.
func (l *Ledger) entry(r pebble.Reader, k Key) (*Entry, error) {
	v, err := l.db.getFrom(r, entryKey(l.record.number, k))
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, l.damage(ofState, "the world state", err)
	}
	e, err := parseEntry(v)
	if err != nil {
		return nil, l.damage(ofState, "the world state", err)
	}
	return e, nil
}

func (l *Ledger) items(r pebble.Reader, lower, upper []byte) iter.Seq2[Item, error] {
	prefix := len(statePrefix(l.record.number, kindEntry))
	return sequence(l, r, lower, upper, func(k, v []byte) (Item, error) {
		key, err := parseEntryKey(k[prefix:])
		if err != nil {
			return Item{}, fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		e, err := parseEntry(slices.Clone(v))
		if err != nil {
			return Item{}, err
		}
		return Item{key, *e}, nil
	})
}

// sequence yields what of makes of the pairs in a range.
func sequence[T any](l *Ledger, r pebble.Reader, lower, upper []byte, of func(k, v []byte) (T, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		going := true
		err := l.walk(r, lower, upper, func(k, v []byte) (bool, error) {
			x, err := of(k, v)
			if err == nil {
				going = yield(x, nil)
			}
			return going, err
		})
		if err != nil && going {
			var none T
			yield(none, err)
		}
	}
}

// walk goes over a range of keys of the state.
func (l *Ledger) walk(r pebble.Reader, lower, upper []byte, each func(k, v []byte) (bool, error)) (err error) {
	if bytes.Compare(lower, upper) >= 0 {
		return nil
	}
	part, what := ofState, "the world state"
	if lower[0] != spaceState {
		part, what = ofIndex, "the index"
	}
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return l.damage(part, what, explain(err))
	}
	defer func() { err = errors.Join(err, explain(it.Close())) }()
	for ok := it.First(); ok; ok = it.Next() {
		if l.db.closing() {
			return ErrClosed
		}
		v, err := value(it)
		if err != nil {
			return l.damage(part, what, explain(err))
		}
		goOn, err := each(it.Key(), v)
		if err != nil {
			return l.damage(part, what, err)
		}
		if !goOn {
			return nil
		}
	}
	if err := it.Error(); err != nil {
		return l.damage(part, what, explain(err))
	}
	return nil
}

// view is the state behind what the turn has executed.
func (t *turn) view() View {
	l, c := t.l, t.l.record.number
	return View{
		Get: func(k Key) (*Entry, error) { return l.entry(t.b, k) },
		Range: func(namespace, from, to string) iter.Seq2[Found, error] {
			return func(yield func(Found, error) bool) {
				lower, upper := rangeKeys(c, namespace, from, to)
				for x, err := range l.items(t.b, lower, upper) {
					if !yield(Found{Key: x.Key.Key, Block: x.Block, Tx: x.Tx}, err) {
						return
					}
				}
			}
		},
		HasTx: func(id string) (found bool, err error) {
			// Of the block itself the ids are in the batch already.
			lower, upper := txKey(c, id, 0, 0), txKey(c, id, t.mark.height, 0)
			err = l.walk(t.b, lower, upper, func(_, _ []byte) (bool, error) {
				found = true
				return false, nil
			})
			return found, err
		},
		Expiring: func(at uint64) iter.Seq2[Expiry, error] {
			prefix := expiryPrefix(c, at)
			return sequence(l, t.b, prefix, after(prefix), func(k, v []byte) (Expiry, error) {
				key, err := parseEntryKey(k[len(prefix):])
				if err != nil || len(v) != 8 {
					return Expiry{}, fmt.Errorf("a reminder: %w", ErrCorrupt)
				}
				return Expiry{Key: key, At: at, Written: binary.BigEndian.Uint64(v)}, nil
			})
		},
	}
}

// loadState reads how far the state has come, which is no further than the blocks.
func (l *Ledger) loadState(height uint64) (stateMark, error) {
	v, err := l.db.get(stateKey(l.record.number))
	if errors.Is(err, ErrNotFound) {
		return stateMark{}, nil // never judged
	}
	if err != nil {
		return stateMark{}, l.damage(ofState, "the state record", err)
	}
	s, err := parseStateMark(v)
	if err == nil && s.height > height {
		err = fmt.Errorf("state of height %d over %d blocks: %w", s.height, height, ErrCorrupt)
	}
	if errors.Is(err, ErrCorrupt) {
		err = l.damage(ofState, "the state record", err)
	}
	return s, err
}

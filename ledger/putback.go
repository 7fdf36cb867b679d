package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/cockroachdb/pebble/v2"

	"grapevine/block"
)

// PutBack puts a block, and its place in the indexes, where it lacks or isn't what
// it was. It MUST be the block that was kept: its header is the one that the block
// behind it names, or the tip. ErrFork: it isn't; nothing is changed. It is durable
// when it returns. It may be called while the channel is halted.
func (l *Ledger) PutBack(v block.Verified) error {
	if err := l.putBack(v); err != nil {
		return l.wrap(v.Number(), fmt.Errorf("put back: %w", err))
	}
	return nil
}

func (l *Ledger) putBack(v block.Verified) error {
	release, err := l.alone()
	if err != nil {
		return err
	}
	defer release()
	n := v.Number()
	want, err := l.hashAt(n)
	if err != nil {
		return err
	}
	if want != v.Hash() {
		return fmt.Errorf("its header hash is %x, and %x was kept: %w", v.Hash(), want, ErrFork)
	}
	if err := l.db.room(len(v.Bytes())); err != nil {
		return err
	}
	b := l.db.pebble.NewBatch()
	l.write(b, mark{}, v)
	if l.pending, err = l.db.commit(b, func() {}); err != nil {
		return err
	}
	l.made(ofBlock(n))
	return nil
}

// HashAt returns the header hash of block n, as the block behind it says, or the
// tip: that of a block which may lack itself.
func (l *Ledger) HashAt(n uint64) ([32]byte, error) {
	done, err := l.enter()
	if err != nil {
		return [32]byte{}, l.wrap(n, err)
	}
	defer done()
	h, err := l.hashAt(n)
	if err != nil {
		return h, l.wrap(n, err)
	}
	return h, nil
}

func (l *Ledger) hashAt(n uint64) ([32]byte, error) {
	t := l.sub.get().Tip
	switch {
	case n >= t.Height:
		return [32]byte{}, ErrNotFound
	case n == t.Height-1:
		return t.Hash, nil
	case n == 0:
		return l.record.genesis, nil
	}
	if l.spoilt(n+1) == nil {
		raw, err := l.db.get(blockKey(l.record.number, n+1))
		if err != nil {
			return l.indexed(n)
		}
		if _, previous, err := identify(raw, n+1); err == nil {
			return previous, nil
		}
	}
	return l.indexed(n)
}

// indexed finds the header hash of block n in the index of hashes, which is sorted
// by hash: it may take long.
func (l *Ledger) indexed(n uint64) (hash [32]byte, err error) {
	prefix := kindPrefix(l.record.number, kindHash)
	found := false
	err = l.walk(l.db.pebble, prefix, after(prefix), func(k, v []byte) (bool, error) {
		if len(k) == hashKeyLen && len(v) == 8 && binary.BigEndian.Uint64(v) == n {
			found = true
			copy(hash[:], k[prefixLen:])
		}
		return !found, nil
	})
	if err == nil && !found {
		err = fmt.Errorf("its header hash isn't known: %w", ErrNotFound)
	}
	return hash, err
}

// indexOf returns the keys of the indexes under which a kept block stands.
func (l *Ledger) indexOf(n uint64, raw []byte) ([][]byte, error) {
	hash, _, err := identify(raw, n)
	if err != nil {
		return nil, err
	}
	b, err := block.Decode(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	ids, err := block.TxIDs(b)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	keys := [][]byte{hashKey(l.record.number, hash)}
	for i, id := range ids {
		if id != "" {
			keys = append(keys, txKey(l.record.number, id, n, uint32(i)))
		}
	}
	return keys, nil
}

// reindexBytes is about how much of the index is written at a time.
const reindexBytes = 4 << 20

// Reindex puts what lacks in the indexes of hashes and transactions there, from
// the blocks, and takes out what is wrong in them. It returns how many entries it
// mended.
func (l *Ledger) Reindex() (mended int, err error) {
	release, err := l.alone()
	if err != nil {
		return 0, err
	}
	defer release()
	if err := l.db.room(0); err != nil {
		return 0, err
	}
	mended, err = l.reindex()
	if err != nil {
		return mended, fmt.Errorf("index channel %s: %w", l.name, err)
	}
	l.made(ofIndex)
	return mended, nil
}

func (l *Ledger) reindex() (mended int, err error) {
	b := l.db.pebble.NewBatch()
	flush := func(least int) error {
		if b.Len() < least || b.Empty() {
			return nil
		}
		var err error
		l.pending, err = l.db.commit(b, func() {})
		b = l.db.pebble.NewBatch()
		return err
	}
	var entries uint64
	if l.Lowest() > 0 {
		return 0, l.irreparable("an index")
	}
	for n := range l.Height() {
		raw, err := l.db.get(blockKey(l.record.number, n))
		if err != nil {
			return mended, l.damage(ofBlock(n), "its bytes", err)
		}
		keys, err := l.indexOf(n, raw)
		if err != nil {
			return mended, l.damage(ofBlock(n), "its bytes", err)
		}
		for _, k := range keys {
			var want []byte
			if k[prefixLen-1] == kindHash {
				want = binary.BigEndian.AppendUint64(nil, n)
			}
			entries++
			if has, err := l.db.get(k); err == nil && string(has) == string(want) {
				continue
			}
			set(b, k, want)
			mended++
		}
		if err := flush(reindexBytes); err != nil {
			return mended, err
		}
	}
	return mended, flush(0)
}

// dropState forgets the state, with appending and all writing held.
func (l *Ledger) dropState() error {
	m := l.sub.get()
	b, err := l.forgetting(m)
	if err != nil {
		return err
	}
	if err := explain(l.db.pebble.Apply(b, pebble.Sync)); err != nil {
		return errors.Join(err, b.Close())
	}
	m.state = stateMark{}
	l.settle(m)
	if l.exec != nil {
		l.unjudged.Store(nil)
	}
	l.made(ofState)
	l.db.log.Warnf("channel %s: the world state was damaged; it is made anew from the blocks", l.name)
	return b.Close()
}

// forgetting is a batch that drops the state and all verdicts.
func (l *Ledger) forgetting(m mark) (*pebble.Batch, error) {
	c := l.record.number
	b := l.db.pebble.NewBatch()
	lower, upper := stateSpan(c)
	if err := errors.Join(
		b.Delete(stateKey(c), nil), b.DeleteRange(verdictKey(c, 0), verdictKey(c, m.Height), nil), b.DeleteRange(lower, upper, nil),
	); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// RestoreTip writes the record of where the chain ends anew.
func (l *Ledger) RestoreTip() error {
	release, err := l.alone()
	if err != nil {
		return err
	}
	defer release()
	if err := l.db.room(0); err != nil {
		return err
	}
	b := l.db.pebble.NewBatch()
	set(b, tipKey(l.record.number), l.sub.get().marshal())
	if l.pending, err = l.db.commit(b, func() {}); err != nil {
		return fmt.Errorf("restore the tip of channel %s: %w", l.name, err)
	}
	l.made(ofTip)
	return nil
}

// recoverTip finds where the chain ends from its blocks, for want of the record.
func (l *Ledger) recoverTip() (m mark, err error) {
	prefix := kindPrefix(l.record.number, kindBlock)
	it, err := l.db.pebble.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
	if err != nil {
		return m, explain(err)
	}
	defer func() { err = errors.Join(err, explain(it.Close())) }()
	if !it.Last() {
		return m, errors.Join(explain(it.Error()), ErrCorrupt)
	}
	k, err := parseKey(it.Key())
	if err != nil {
		return m, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	raw, err := value(it)
	if err != nil {
		return m, explain(err)
	}
	hash, _, err := identify(raw, k.number)
	if err != nil {
		return m, err
	}
	b, err := block.Decode(raw)
	if err != nil {
		return m, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	m.Tip = block.Tip{Height: k.number + 1, Hash: hash}
	if k.number == 0 || block.IsConfig(b) {
		m.config = k.number
	} else if m.config, err = block.LastConfigOf(b); err != nil {
		return m, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return m, nil
}

func isNotExist(err error) bool { return errors.Is(err, os.ErrNotExist) }

package ledger

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hyperledger/fabric-protos-go-apiv2/common"

	"grapevine/block"
)

// Blocks reads ahead this much while it doesn't hold an iterator open: a slow
// consumer must neither pin files nor hold up Close.
const (
	aheadBlocks = 16
	aheadBytes  = 2 << 20
)

// Block returns block n as the bytes that came, or ErrNotFound, or below Lowest
// ErrPruned, unless it is a configuration block: these are kept for ever. The
// bytes belong to the caller.
func (l *Ledger) Block(n uint64) ([]byte, error) {
	done, err := l.enter()
	if err != nil {
		return nil, l.wrap(n, err)
	}
	defer done()
	if n >= l.Height() {
		return nil, l.wrap(n, ErrNotFound)
	}
	if err := l.spoilt(n); err != nil {
		return nil, l.wrap(n, err)
	}
	raw, err := l.db.get(blockKey(l.record.number, n))
	if errors.Is(err, ErrNotFound) && n < l.Lowest() { // asked after the read: it may have been pruned meanwhile
		return nil, l.wrap(n, l.pruned())
	}
	if err != nil {
		return nil, l.wrap(n, l.damage(ofBlock(n), "its bytes", err))
	}
	hash, _, err := identify(raw, n)
	if err != nil {
		return nil, l.wrap(n, l.damage(ofBlock(n), "its bytes", err))
	}
	if at, err := l.find(hash); err != nil || at != n {
		return nil, l.wrap(n, l.damage(ofBlock(n), "its hash in the index", errors.Join(ErrCorrupt, err)))
	}
	return raw, nil
}

// ByHash returns the number of the block with this header hash, or ErrNotFound.
func (l *Ledger) ByHash(h [32]byte) (uint64, error) {
	done, err := l.enter()
	if err != nil {
		return 0, fmt.Errorf("channel %s: block %x: %w", l.name, h, err)
	}
	defer done()
	n, err := l.find(h)
	if err != nil {
		return 0, fmt.Errorf("channel %s: block %x: %w", l.name, h, err)
	}
	return n, nil
}

// ByTxID returns where a transaction first stands: its block's number and its
// index there. ErrNotFound if it doesn't.
func (l *Ledger) ByTxID(id string) (blk uint64, tx int, err error) {
	k, err := l.findTx(id)
	if err != nil {
		return 0, 0, fmt.Errorf("channel %s: transaction %.80q: %w", l.name, id, err)
	}
	return k.number, int(k.index), nil
}

// ConfigBlock returns the newest configuration block (block 0 if none came
// since) and its number. If it is damaged, a copy that is kept apart.
func (l *Ledger) ConfigBlock() ([]byte, uint64, error) {
	n := l.sub.get().config
	raw, err := l.chartered(n)
	return raw, n, err
}

// Genesis returns block 0. If it is damaged, a copy that is kept apart.
func (l *Ledger) Genesis() ([]byte, error) { return l.chartered(0) }

func (l *Ledger) chartered(n uint64) ([]byte, error) {
	raw, err := l.Block(n)
	if errors.Is(err, ErrCorrupt) {
		if copied, e := l.fromCharter(n); e == nil {
			return copied, nil
		}
	}
	return raw, err
}

// Range yields blocks from (included) to to (excluded) or the height, whichever
// comes first, as the bytes that came. They lie in the store's cache: they are
// valid until the next step and MUST NOT be changed. The files they come from are
// kept while it runs, and Close waits for its next step, so a range should be
// short. ErrNotFound if from isn't held, ErrPruned if it isn't any more; an error is the
// last thing it yields.
func (l *Ledger) Range(from, to uint64) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		if from >= to {
			return
		}
		if err := l.scan(from, to, func(_ uint64, raw []byte) bool { return yield(raw, nil) }); err != nil {
			yield(nil, err)
		}
	}
}

// Blocks yields all blocks from number from on, and at the tip waits for the
// next. It ends with an error, the last thing it yields: that of ctx, ErrClosed,
// ErrNotFound when the channel is dropped, or ErrCorrupt. It reads a little ahead
// of its consumer and no further.
func (l *Ledger) Blocks(ctx context.Context, from uint64) iter.Seq2[*common.Block, error] {
	return func(yield func(*common.Block, error) bool) {
		for n := from; ; {
			if err := ctx.Err(); err != nil {
				yield(nil, err)
				return
			}
			if err := l.Wait(ctx, n+1); err != nil {
				yield(nil, err)
				return
			}
			ahead, err := l.ahead(n)
			for _, b := range ahead {
				if ctx.Err() != nil {
					break
				}
				if !yield(b, nil) {
					return
				}
				n++
			}
			if err != nil && ctx.Err() == nil {
				yield(nil, err)
				return
			}
		}
	}
}

// ahead decodes a few blocks from number from on, of which at least one is held.
func (l *Ledger) ahead(from uint64) ([]*common.Block, error) {
	var bs []*common.Block
	var bytes int
	var failed error
	err := l.scan(from, from+aheadBlocks, func(n uint64, raw []byte) bool {
		b, err := block.Decode(slices.Clone(raw)) // it points into what it is given
		if err != nil {
			failed = l.wrap(n, l.damage(ofBlock(n), "its bytes", errors.Join(ErrCorrupt, err)))
			return false
		}
		bs = append(bs, b)
		bytes += len(raw)
		return bytes < aheadBytes
	})
	return bs, errors.Join(err, failed)
}

// scan hands out the blocks from (included) to to (excluded) or the height, and
// sees that each is what its key says and links to the one before it.
func (l *Ledger) scan(from, to uint64, each func(n uint64, raw []byte) bool) (err error) {
	n := from
	defer func() {
		if err != nil {
			err = l.wrap(n, err)
		}
	}()
	done, err := l.enter()
	if err != nil {
		return err
	}
	defer done()
	height := l.Height()
	if from >= height {
		return ErrNotFound
	}
	if from < l.Lowest() {
		return l.pruned()
	}
	to = min(to, height)
	it, err := l.db.pebble.NewIter(&pebble.IterOptions{
		LowerBound: blockKey(l.record.number, from),
		UpperBound: blockKey(l.record.number, to),
	})
	if err != nil {
		return l.damage(ofBlock(n), "its bytes", explain(err))
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	if from < l.Lowest() { // the iterator may have come too late
		return l.pruned()
	}
	var previous [32]byte
	it.First()
	for ; n < to; n++ {
		if l.db.closing() {
			return ErrClosed
		}
		if err := l.spoilt(n); err != nil {
			return err
		}
		if !it.Valid() {
			return l.damage(ofBlock(n), "its bytes", errors.Join(explain(it.Error()), ErrNotFound))
		}
		k, err := parseKey(it.Key())
		if err != nil || k.number != n {
			return l.damage(ofBlock(n), "its bytes", ErrNotFound)
		}
		raw, err := value(it)
		if err != nil {
			return l.damage(ofBlock(n), "its bytes", explain(err))
		}
		hash, back, err := identify(raw, n)
		if err == nil && n > from && back != previous {
			err = fmt.Errorf("it doesn't link to the block before it: %w", ErrCorrupt)
		}
		if err != nil {
			return l.damage(ofBlock(n), "its bytes", err)
		}
		previous = hash
		if !each(n, raw) {
			return nil
		}
		it.Next()
	}
	return nil
}

func value(it *pebble.Iterator) (v []byte, err error) {
	defer recovered(&err)
	return it.ValueAndErr()
}

// find looks a header hash up. What isn't durable yet isn't there.
func (l *Ledger) find(h [32]byte) (uint64, error) {
	v, err := l.db.get(hashKey(l.record.number, h))
	if errors.Is(err, ErrNotFound) {
		return 0, ErrNotFound
	}
	if err == nil && len(v) != 8 {
		err = fmt.Errorf("%d bytes: %w", len(v), ErrCorrupt)
	}
	if err != nil {
		return 0, l.damage(ofIndex, "the index of hashes", err)
	}
	n := binary.BigEndian.Uint64(v)
	if n >= l.Height() {
		return 0, ErrNotFound
	}
	return n, nil
}

func (l *Ledger) findTx(id string) (k key, err error) {
	done, err := l.enter()
	if err != nil {
		return key{}, err
	}
	defer done()
	it, err := l.db.pebble.NewIter(&pebble.IterOptions{
		LowerBound: txKey(l.record.number, id, 0, 0),
		UpperBound: txKey(l.record.number, id, l.Height(), 0),
	})
	if err != nil {
		return key{}, l.damage(ofIndex, "the index of transactions", explain(err))
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	if !it.First() {
		if err := it.Error(); err != nil {
			return key{}, l.damage(ofIndex, "the index of transactions", explain(err))
		}
		return key{}, ErrNotFound
	}
	if k, err = parseKey(it.Key()); err != nil {
		return key{}, l.damage(ofIndex, "the index of transactions", errors.Join(ErrCorrupt, err))
	}
	return k, nil
}

func (l *Ledger) wrap(n uint64, err error) error {
	return fmt.Errorf("channel %s: block %d: %w", l.name, n, err)
}

// identify returns the header hash of a kept block, and the one it links to. It
// refuses another number than n: the bytes then lie under the wrong key.
func identify(raw []byte, n uint64) (hash, previous [32]byte, err error) {
	h, err := header(raw)
	if err != nil {
		return hash, previous, fmt.Errorf("header: %w: %w", ErrCorrupt, err)
	}
	if h.GetNumber() != n {
		return hash, previous, fmt.Errorf("the bytes are those of block %d: %w", h.GetNumber(), ErrCorrupt)
	}
	copy(previous[:], h.GetPreviousHash())
	return block.HeaderHash(h), previous, nil
}

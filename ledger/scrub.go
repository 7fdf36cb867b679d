package ledger

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"grapevine/block"
)

// Scrubbing says how a ledger is read through.
type Scrubbing struct {
	// Rate is the most bytes to read in a second; 0: as fast as it goes.
	Rate int64
	// Hash returns the hash of a state from its entries. Nil: they are read, and
	// not summed up.
	Hash func(iter.Seq2[Item, error]) ([32]byte, error)
	// Told is told how far it came, now and then. May be nil.
	Told func(Scrubbed)
}

// Scrubbed is what was read, and what was found.
type Scrubbed struct {
	Height  uint64 // blocks to read
	Blocks  uint64 // read
	Entries uint64 // of the world state
	Bytes   uint64 // of both
	Damage  Damage // known by now
	Why     []string
}

// maxWhy bounds the findings that are told in words.
const maxWhy = 16

// Scrub reads all that is kept of the channel, as it is at the beginning, and
// holds it against itself: each block's hashes and link, its places in the
// indexes, verdicts, and the world state against its hash. What it finds halts the
// channel and is noted; see Damage. The error is that of ctx or of the store.
func (l *Ledger) Scrub(ctx context.Context, o Scrubbing) (Scrubbed, error) {
	s := &scrubber{l: l, ctx: ctx, Scrubbing: o, began: time.Now()}
	s.Height = l.Height()
	err := errors.Join(s.blocks(), s.state())
	s.Damage = l.Damage()
	if err != nil {
		return s.Scrubbed, fmt.Errorf("scrub channel %s: %w", l.name, err)
	}
	return s.Scrubbed, nil
}

type scrubber struct {
	l   *Ledger
	ctx context.Context
	Scrubbing
	Scrubbed
	began time.Time
	told  time.Time
}

// scrubChunk is how many blocks are read under one iterator, and scrubTold how
// often somebody is told.
const (
	scrubChunk = 64
	scrubTold  = 200 * time.Millisecond
)

// read counts bytes, keeps to the rate, and ends with ctx or the store.
func (s *scrubber) read(n int) error {
	s.Bytes += uint64(n)
	if s.l.db.closing() {
		return ErrClosed
	}
	if now := time.Now(); s.Told != nil && now.Sub(s.told) >= scrubTold {
		s.told = now
		s.Damage = s.l.Damage()
		s.Told(s.Scrubbed)
	}
	if s.Rate <= 0 {
		return s.ctx.Err()
	}
	ahead := time.Duration(float64(s.Bytes)/float64(s.Rate)*float64(time.Second)) - time.Since(s.began)
	if ahead < 10*time.Millisecond {
		return s.ctx.Err()
	}
	t := time.NewTimer(ahead)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

// found notes a damage; the blocks around it are read on.
func (s *scrubber) found(p damagedPart, err error) {
	s.l.note(p, fmt.Errorf("%w: %w", ErrCorrupt, err))
	if len(s.Why) < maxWhy {
		s.Why = append(s.Why, err.Error())
	}
}

// blocks reads every block and its places in the indexes.
func (s *scrubber) blocks() error {
	var before [32]byte
	linked := false // before is the hash of the block before
	configs, err := s.l.configsBelow()
	if err != nil && !errors.Is(err, ErrCorrupt) {
		return err
	}
	for n := range configs { // the first ones of a chain whose beginning isn't kept
		if next, err := s.some(n, n+1, new([32]byte), new(bool)); err != nil {
			return err
		} else if next == n {
			s.found(ofBlock(n), fmt.Errorf("block %d: its bytes can't be read", n))
		}
	}
	for n := s.l.Lowest(); n < s.Height; {
		if err := s.read(0); err != nil {
			return err
		}
		next, err := s.some(n, min(n+scrubChunk, s.Height), &before, &linked)
		if err != nil {
			return err
		}
		if lowest := s.l.Lowest(); n < lowest { // pruned meanwhile
			n, linked = lowest, false
			continue
		}
		if next == n { // this one can't be read
			s.found(ofBlock(n), fmt.Errorf("block %d: its bytes can't be read", n))
			linked = false
			next++
			s.Blocks++
		}
		n = next
	}
	return nil
}

// some reads blocks from from to to-1, until one can't be read, whose number it
// returns.
func (s *scrubber) some(from, to uint64, before *[32]byte, linked *bool) (n uint64, err error) {
	done, err := s.l.enter()
	if err != nil {
		return from, err
	}
	defer done()
	c := s.l.record.number
	it, err := s.l.db.pebble.NewIter(&pebble.IterOptions{LowerBound: blockKey(c, from), UpperBound: blockKey(c, to)})
	if err != nil {
		return from, storeOnly(explain(err))
	}
	defer func() { err = errors.Join(err, storeOnly(explain(it.Close()))) }()
	n = from
	for ok := first(it); ok && n < to; ok = next(it) {
		k, err := parseKey(it.Key())
		if err != nil || k.number != n {
			return n, nil
		}
		if s.l.spoilt(n) != nil {
			return n, nil
		}
		raw, err := value(it)
		if err != nil {
			return n, storeOnly(explain(err))
		}
		if err := s.read(len(raw)); err != nil {
			return n, err
		}
		s.block(n, raw, before, linked)
		n++
		s.Blocks++
	}
	return n, nil
}

// block holds a block against itself, the one before, and the indexes.
func (s *scrubber) block(n uint64, raw []byte, before *[32]byte, linked *bool) {
	hash, back, err := identify(raw, n)
	if err == nil {
		b, e := block.Decode(raw)
		if e == nil && block.DataHash(b.Data) != [32]byte(padded(b.GetHeader().GetDataHash())) {
			e = errors.New("its data aren't those that its header names")
		}
		err = e
	}
	if err == nil && n == s.Height-1 {
		if t := s.l.Tip(); t.Height == s.Height && t.Hash != hash {
			err = errors.New("it isn't the tip's block")
		}
	}
	if err == nil && n == 0 && hash != s.l.record.genesis {
		err = errors.New("it isn't the channel's genesis block")
	}
	if err != nil {
		s.found(ofBlock(n), fmt.Errorf("block %d: %w", n, err))
		*linked = false
		return
	}
	if *linked && back != *before {
		// One of the two isn't what it was; both are fetched again.
		s.found(ofBlock(n-1), fmt.Errorf("block %d: the next one doesn't link to it", n-1))
		s.found(ofBlock(n), fmt.Errorf("block %d: it doesn't link to the block before it", n))
	}
	*before, *linked = hash, true
	keys, err := s.l.indexOf(n, raw)
	if err != nil {
		s.found(ofBlock(n), fmt.Errorf("block %d: %w", n, err))
		return
	}
	for _, k := range keys {
		v, err := s.l.db.get(k)
		if err == nil && k[prefixLen-1] == kindHash && (len(v) != 8 || binary.BigEndian.Uint64(v) != n) {
			err = errors.New("another block stands there")
		}
		if err != nil {
			s.found(ofIndex, fmt.Errorf("block %d: its place in an index: %w", n, err))
			return
		}
	}
}

func padded(b []byte) []byte { return append(bytes.Clone(b), make([]byte, 32)...)[:32] }

// state reads the world state as it is now, and all that belongs to it.
func (s *scrubber) state() (err error) {
	w, err := s.l.World(s.ctx)
	switch {
	case errors.Is(err, ErrCorrupt):
		return s.ctx.Err() // noted
	case err != nil:
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	c := s.l.record.number
	if w.mark.height == 0 {
		return nil
	}
	// Verdicts, one for each block, and what isn't an entry.
	verdicts, lowest := uint64(0), s.l.Lowest()
	lower, upper := stateSpan(c)
	ranges := [][2][]byte{{verdictKey(c, lowest), verdictKey(c, w.mark.height)}, {lower, statePrefix(c, kindEntry)}, {after(statePrefix(c, kindEntry)), upper}}
	for i, r := range ranges {
		err := s.l.walk(w.snap, r[0], r[1], func(_, v []byte) (bool, error) {
			if i == 0 {
				verdicts++
				if _, err := parseVerdict(v); err != nil {
					return false, err
				}
			}
			return true, s.read(len(v))
		})
		if errors.Is(err, ErrCorrupt) {
			s.found(ofState, err)
			return nil
		}
		if err != nil {
			return err
		}
	}
	if want := w.mark.height - min(lowest, w.mark.height); verdicts != want && s.l.Lowest() == lowest {
		s.found(ofState, fmt.Errorf("%d verdicts for %d blocks", verdicts, want))
		return nil
	}
	entries := func(yield func(Item, error) bool) {
		for x, err := range w.All() {
			if err == nil {
				s.Entries++
				err = s.read(len(x.Namespace) + len(x.Key.Key) + len(x.Value) + len(x.Metadata))
			}
			if !yield(x, err) {
				return
			}
		}
	}
	var hash [32]byte
	if s.Hash == nil {
		for _, e := range entries {
			err = errors.Join(err, e)
		}
	} else if hash, err = s.Hash(entries); err == nil && hash != w.mark.hash {
		err = fmt.Errorf("the world state's hash is %x, and was %x: %w", hash, w.mark.hash, ErrCorrupt)
	}
	if errors.Is(err, ErrCorrupt) {
		s.found(ofState, err)
		err = nil
	}
	return err
}

// storeOnly drops the errors of damage, which are found one by one.
func storeOnly(err error) error {
	if errors.Is(err, ErrCorrupt) {
		return nil
	}
	return err
}

// first and next step an iterator; a damaged file ends it.
func first(it *pebble.Iterator) bool {
	var err error // the iterator has it too
	defer recovered(&err)
	return it.First()
}

func next(it *pebble.Iterator) bool {
	var err error
	defer recovered(&err)
	return it.Next()
}

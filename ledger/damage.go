package ledger

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// What is found to be other than it was written halts its channel, and is noted
// until PutBack, Mend and their like have made it good; Heal then lets the
// channel go on. Of one damaged file much may be lost: see mend.go.

// maxNoted bounds the damaged blocks that are noted: where more are, a scrub
// finds them.
const maxNoted = 1024

// A damagedPart says what of a channel's records a damage concerns.
type damagedPart struct {
	kind  byte // kindBlock, kindHash for all indexes, kindState, kindTip
	block uint64
}

var (
	ofIndex = damagedPart{kind: kindHash}
	ofState = damagedPart{kind: kindState}
	ofTip   = damagedPart{kind: kindTip}
)

func ofBlock(n uint64) damagedPart { return damagedPart{kindBlock, n} }

// Damage is what is known to be damaged of a channel's records.
type Damage struct {
	Blocks []uint64 // ascending: these lack, or aren't what they were
	Index  bool     // of hashes, or of transactions
	State  bool     // the world state, or a verdict
	Tip    bool     // the record of where the chain ends
	Tables int      // of the store, of whatever channel
	Lost   uint64   // blocks at the end that were acknowledged and aren't there: they come again as new ones do
}

// None reports whether nothing is damaged.
func (d Damage) None() bool {
	return len(d.Blocks) == 0 && !d.Index && !d.State && !d.Tip && d.Tables == 0 && d.Lost == 0
}

// damages notes them.
type damages struct {
	mu     sync.Mutex
	blocks map[uint64]bool // guarded by mu, as are the others
	rest   Damage
	found  uint64
}

// note reports whether it is news.
func (d *damages) note(p damagedPart) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	before := d.rest
	switch p.kind {
	case kindBlock:
		if d.blocks[p.block] || len(d.blocks) >= maxNoted {
			return false
		}
		if d.blocks == nil {
			d.blocks = make(map[uint64]bool)
		}
		d.blocks[p.block] = true
		d.found++
		return true
	case kindHash:
		d.rest.Index = true
	case kindState:
		d.rest.State = true
	case kindTip:
		d.rest.Tip = true
	}
	if news := before.Index != d.rest.Index || before.State != d.rest.State || before.Tip != d.rest.Tip; news {
		d.found++
		return true
	}
	return false
}

// Damage returns what reads and scrubs have found and nobody has made good.
func (l *Ledger) Damage() Damage {
	d := &l.damages
	d.mu.Lock()
	defer d.mu.Unlock()
	out := d.rest
	out.Blocks, out.Tables = slices.Sorted(maps.Keys(d.blocks)), l.db.torn.count()
	return out
}

// spoilt reports whether block n is known to be damaged. It isn't read again then:
// for a block whose checksum fails Pebble looks which bit was flipped, which takes
// it 20 s for one of 1 MiB.
func (l *Ledger) spoilt(n uint64) error {
	d := &l.damages
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.blocks[n] {
		return fmt.Errorf("its bytes are damaged: %w", ErrCorrupt)
	}
	return nil
}

// DamagesFound counts what was found to be damaged since the store was opened:
// each block once, and indexes, state and tip each time anew.
func (l *Ledger) DamagesFound() uint64 {
	l.damages.mu.Lock()
	defer l.damages.mu.Unlock()
	return l.damages.found
}

// made notes that something is good again.
func (l *Ledger) made(p damagedPart) {
	d := &l.damages
	d.mu.Lock()
	defer d.mu.Unlock()
	switch p.kind {
	case kindBlock:
		delete(d.blocks, p.block)
	case kindHash:
		d.rest.Index = false
	case kindState:
		d.rest.State = false
	case kindTip:
		d.rest.Tip = false
	}
}

// damage turns what a read of something that must be there returned into
// ErrCorrupt, unless it is the disk's or the caller's trouble, and halts the
// channel: it must not go on over what isn't what was written.
func (l *Ledger) damage(p damagedPart, what string, err error) error {
	if errors.Is(err, ErrNotFound) {
		err = fmt.Errorf("missing: %w", ErrCorrupt)
	}
	err = fmt.Errorf("%s: %w", what, err)
	if errors.Is(err, ErrCorrupt) {
		l.note(p, err)
	}
	return err
}

func (l *Ledger) note(p damagedPart, err error) {
	news := l.damages.note(p)
	l.Halt(err)
	if news {
		l.db.tellDamage(l.name)
	}
}

// tellDamage tells whoever repairs.
func (d *DB) tellDamage(channel string) {
	if d.onDamage != nil {
		d.onDamage(channel)
	}
}

// Heal lets a channel that halted for damage go on if nothing is damaged any more
// as far as is known; of blocks that lack at its end it forgets. It reports
// whether the channel goes on.
func (l *Ledger) Heal() bool {
	if d := l.Damage(); len(d.Blocks) > 0 || d.Index || d.State || d.Tip || d.Tables > 0 {
		return false
	}
	l.damages.mu.Lock()
	l.damages.rest.Lost = 0
	l.damages.mu.Unlock()
	h := l.halt.Load()
	if h != nil && errors.Is(*h, ErrCorrupt) && l.halt.CompareAndSwap(h, nil) {
		l.db.log.Warnf("channel %s is whole again", l.name)
	}
	return l.Halted() == nil
}

// torn are the tables that Pebble found damaged: by path, the span of keys that
// each holds. Pebble tells with its locks held.
type torn struct {
	mu    sync.Mutex
	spans map[string]keySpan // guarded by mu
	files map[string]bool    // guarded by mu: that were told of, files of values too
}

// A keySpan is a range of keys, both ends included.
type keySpan struct{ first, last []byte }

// note reports whether the file is news.
func (t *torn) note(info pebble.DataCorruptionInfo, fs vfs.FS) bool {
	name, b := fs.PathBase(info.Path), info.Bounds
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.spans == nil {
		t.spans, t.files = make(map[string]keySpan), make(map[string]bool)
	}
	if len(b.Start) > 0 { // of a file of values the keys are whole
		t.spans[name] = keySpan{slices.Clone(b.Start), slices.Clone(b.End.Key)}
	}
	news := !t.files[name]
	t.files[name] = true
	return news
}

func (t *torn) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.spans)
}

// first returns one of them.
func (t *torn) first() (name string, s keySpan, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for name, s := range t.spans {
		return name, s, true
	}
	return "", keySpan{}, false
}

func (t *torn) forget(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.spans, name)
}

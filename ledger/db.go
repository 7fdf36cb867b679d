// Package ledger keeps the blocks of a node's channels on disk, with their
// indexes, and hands them out. One Pebble database serves the whole node; keys
// carry the channel's number. Only a block.Verified gets in, in order, and what
// Append has taken is on the disk when it returns. After any crash each channel
// holds exactly a prefix of what was appended, and never less than what Append
// had returned for.
//
// Nothing here trusts the disk. A full one pauses commits until there is room
// (ErrFull). One that fails a write or a sync fails the store for good: reads go
// on, and the process should end, because only a restart can tell what is left
// (Options.OnFailure). What comes back other than it was written halts the
// channel (ErrCorrupt). See gate.go.
package ledger

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Logger is told what the ledger met of its own accord. Any sugared logger fits.
type Logger interface {
	Infof(format string, args ...any)
	Warnf(format string, args ...any)
	Errorf(format string, args ...any)
}

// Options of a DB. The zero value works.
type Options struct {
	// InMemory keeps nothing on disk; the folder is only a name.
	InMemory bool
	// CacheBytes bounds the cache of blocks read; 0 means 64 MiB. Up to four
	// times 16 MiB of blocks not yet flushed come on top.
	CacheBytes int64
	// MinFree is how many bytes must stay free on the disk: an Append that would
	// leave less gets ErrFull before anything is written. 0 means 64 MiB.
	MinFree uint64
	// Logger; nil is silent.
	Logger Logger
	// OnFailure is called once, when the disk has failed a write or a sync, with
	// an error that wraps ErrDisk. The process should then end with exit code 74.
	// It runs on a goroutine of the store that has nothing else to do any more.
	OnFailure func(error)
	// Rescue begins anew, with block 0 of each channel, in a store that can't be
	// opened for damage; what is left of it is moved aside, to a folder "damaged-N"
	// within. The channels open halted: see Repair. Blocks then come from peers.
	// Facts of the node that can't be read are lost.
	Rescue bool
	// OnDamage is called when something is found to be other than it was written,
	// with the channel's name, or "" if it isn't known whose it is. It MUST NOT
	// block nor call back. See Damage.
	OnDamage func(channel string)

	fs vfs.FS // tests: instead of the operating system's

	chunkBytes, restoreBatch int // tests: instead of the constants
}

// DB is a node's store. It is safe for concurrent use.
type DB struct {
	pebble  *pebble.DB
	gate    *gate
	folder  *folder
	witness *witness
	log     Logger
	minFree uint64
	errs    atomic.Uint64 // background errors of Pebble
	halt    atomic.Pointer[error]
	torn    torn

	onDamage func(channel string)

	admin        lock         // serialises Create, Drop, Mend and what of Restore concerns others
	writing      sync.RWMutex // held for writing while Mend replaces what is kept
	chunkBytes   int          // of a snapshot's chunks: one behind that reaches them
	restoreBatch int
	making       sync.Mutex // held while a snapshot is made: one at a time

	mu        sync.Mutex
	channels  map[string]*Ledger     // guarded by mu
	snapshots map[string][]*Snapshot // of a channel, the highest first; each list is replaced, never changed; guarded by mu
	users     sync.WaitGroup         // grows only with mu held and closed false
	closed    bool                   // guarded by mu
}

// Open opens the store in the folder dir, or makes it in an empty or missing one.
// The folder is locked until Close. ErrForeign: it holds something else or a newer
// format and is untouched. ErrLocked: someone else has it open. ErrCorrupt: it
// can't be opened for damage. A channel whose own records are damaged doesn't stop
// the others: it opens halted.
func Open(dir string, o Options) (*DB, error) {
	d, err := open(dir, o, false)
	if errors.Is(err, ErrCorrupt) && o.Rescue {
		r := prepare(o)
		if e := r.rescue(dir); e != nil {
			err = errors.Join(err, e)
		} else {
			d, err = open(dir, o, true)
		}
	}
	if err == nil && o.Rescue {
		err = d.readable()
	}
	if err != nil {
		return nil, fmt.Errorf("open ledger %s: %w", dir, err)
	}
	return d, nil
}

// readable sees to it that the node's facts and the records of its channels can be
// read, for without them it can't begin.
func (d *DB) readable() error {
	nothing := func(_, _ []byte) error { return nil }
	err := d.pass(context.Background(), []byte{spaceNode}, []byte{spaceChannel}, nothing)
	if err != nil && damaged(err) {
		if _, err = d.Mend(context.Background()); err != nil {
			err = errors.Join(err, d.Close())
		}
	}
	return explain(err)
}

func open(dir string, o Options, rescued bool) (*DB, error) {
	d := prepare(o)
	if err := d.open(dir, o.CacheBytes, rescued); err != nil {
		return nil, err
	}
	return d, nil
}

// prepare makes a DB that isn't open yet.
func prepare(o Options) *DB {
	d := &DB{log: o.Logger, minFree: o.MinFree, onDamage: o.OnDamage, admin: newLock(), channels: make(map[string]*Ledger), snapshots: make(map[string][]*Snapshot)}
	if d.log == nil {
		d.log = silent{}
	}
	d.chunkBytes, d.restoreBatch = cmp.Or(o.chunkBytes, chunkBytes), cmp.Or(o.restoreBatch, restoreBatch)
	if d.minFree == 0 {
		d.minFree = defaultMinFree
	}
	fs := o.fs
	switch {
	case fs != nil:
	case o.InMemory:
		fs = vfs.NewMem()
	default:
		fs = vfs.Default
	}
	d.gate = newGate(fs, d.log, func(err error) {
		d.log.Errorf("the disk failed the store, which stops here: %v", err)
		if o.OnFailure != nil {
			o.OnFailure(err)
		}
	})
	return d
}

func (d *DB) open(dir string, cacheBytes int64, rescued bool) (err error) {
	if d.folder, err = openFolder(d.gate, dir); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			if d.pebble != nil {
				err = errors.Join(err, d.closePebble())
			}
			d.gate.close()
			err = errors.Join(err, d.letGo())
		}
	}()
	if cacheBytes == 0 {
		cacheBytes = defaultCache
	}
	var opening atomic.Bool
	opening.Store(true)
	var fatal atomic.Pointer[error]
	po := engineOptions(d.gate, cacheBytes, d.events(),
		engineLog{d.log, &opening, func(err error) {
			if opening.Load() {
				fatal.CompareAndSwap(nil, &err)
				return
			}
			d.gate.fail(err)
		}})
	po.Lock = d.folder.lock
	po.ErrorIfNotExists = d.folder.made && !rescued
	if d.folder.made {
		if err := d.sweep(); err != nil {
			return err
		}
	}
	p, err := openPebble(d.folder.dir, po)
	opening.Store(false)
	if f := fatal.Load(); f != nil {
		// Pebble's state is in doubt: it is left as it is, and not closed.
		return fmt.Errorf("%w: %w", ErrDisk, *f)
	}
	if err != nil {
		return explainOpen(err, d.folder.made)
	}
	d.pebble = p
	if err := d.folder.finish(); err != nil {
		return err
	}
	has, err := d.charters()
	if err != nil {
		return err
	}
	if rescued {
		if err := d.refound(has); err != nil {
			return err
		}
	}
	var heights map[uint32]uint64
	if d.witness, heights, err = openWitness(d.gate, d.folder.dir, d.log); err != nil {
		return err
	}
	if err := d.load(heights, has); err != nil {
		return err
	}
	if err := d.tally(has); err != nil {
		return err
	}
	if err := errors.Join(d.clearAll(), d.loadSnapshots()); err != nil {
		return err
	}
	d.gate.armed.Store(true)
	if early := d.gate.early.Load(); early != nil {
		d.gate.armed.Store(false)
		return *early
	}
	return nil
}

// Close ends all who wait or iterate (ErrClosed), waits for them and for commits
// under way, and gives the folder back. On a full or failed disk it doesn't wait:
// what was acknowledged is on the disk, and nothing is written after Close.
// Closing twice is harmless.
func (d *DB) Close() error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil
	}
	d.closed = true
	for _, l := range d.channels {
		l.sub.end(fmt.Errorf("channel %s: %w", l.name, ErrClosed))
	}
	d.mu.Unlock()

	closed := make(chan error, 1)
	go func() {
		d.users.Wait()
		closed <- d.closePebble()
	}()
	var err error
	select {
	case err = <-closed:
	case <-d.gate.failed:
		err = d.gate.failure()
	case <-d.gate.fullness():
		d.log.Warnf("ledger closed on a full disk; what was acknowledged is kept")
	}
	d.gate.close()
	return errors.Join(err, d.letGo())
}

// letGo gives the folder back.
func (d *DB) letGo() (err error) {
	if d.witness != nil {
		err = d.witness.close()
	}
	return errors.Join(err, d.folder.unlock())
}

// Channels lists the channels kept, sorted.
func (d *DB) Channels() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Sorted(maps.Keys(d.channels))
}

// Channel returns a channel's ledger, or ErrNotFound. It is the same one each time.
func (d *DB) Channel(name string) (*Ledger, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if l, ok := d.channels[name]; ok {
		return l, nil
	}
	return nil, fmt.Errorf("channel %s: %w", name, ErrNotFound)
}

// PutMeta keeps a small fact of the node, such as its incarnation, under a key.
// It is durable when it returns.
func (d *DB) PutMeta(key string, v []byte) error {
	done, err := d.enter()
	if err == nil {
		defer done()
		if err = d.writable(len(v)); err == nil {
			b := d.pebble.NewBatch()
			set(b, metaKey(key), v)
			_, err = d.commit(b, func() {})
		}
	}
	if err != nil {
		return fmt.Errorf("keep %s: %w", key, err)
	}
	return nil
}

// Meta returns a fact kept by PutMeta, or ErrNotFound.
func (d *DB) Meta(key string) ([]byte, error) {
	done, err := d.enter()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	defer done()
	v, err := d.get(metaKey(key))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	return v, nil
}

// BackgroundErrors returns how many errors Pebble met outside of any call.
func (d *DB) BackgroundErrors() uint64 { return d.errs.Load() }

// Full reports whether a write is waiting for room on the disk.
func (d *DB) Full() bool { return d.gate.isFull() }

// enter takes part in the store's life; Close waits until done is called.
func (d *DB) enter() (done func(), err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, ErrClosed
	}
	d.users.Add(1)
	return d.users.Done, nil
}

// closing reports whether Close was called: whoever iterates should end.
func (d *DB) closing() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.closed
}

// get returns a copy of the value of a key.
func (d *DB) get(key []byte) ([]byte, error) { return d.getFrom(d.pebble, key) }

func (d *DB) getFrom(r pebble.Reader, key []byte) (_ []byte, err error) {
	defer recovered(&err)
	v, closer, err := r.Get(key)
	if err != nil {
		return nil, explain(err)
	}
	v = slices.Clone(v)
	// A value file that can't be read shows here first, beside an empty value.
	if err := closer.Close(); err != nil {
		return nil, explain(err)
	}
	return v, nil
}

type silent struct{}

func (silent) Infof(string, ...any)  {}
func (silent) Warnf(string, ...any)  {}
func (silent) Errorf(string, ...any) {}

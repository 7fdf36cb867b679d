package ledger

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	defaultCache   = 64 << 20
	defaultMinFree = 64 << 20

	// Pebble starts at 256 KiB and doubles, so a small store stays small.
	// Each takes up to a quarter less, by chance: the peers of a channel commit the
	// same blocks, and would all write their memory out at the same one.
	memTableSize = 16 << 20
	// With this many in memory, and no more, commits wait for the disk.
	memTables = 4
	// Values as large as this go to files of their own kind (Pebble's value
	// separation): written once when memory is flushed, never again by a
	// compaction of their keys, and read without a copy, three to four times as
	// fast as from tables. Blocks are; index entries never are.
	separateFrom = 1 << 10
)

// engineOptions are Pebble's settings for this load: keys that only grow, small
// synced batches and now and then a huge one, large values that never change.
func engineOptions(fs vfs.FS, cacheBytes int64, events *pebble.EventListener, log pebble.Logger) *pebble.Options {
	o := &pebble.Options{
		FS:                          fs,
		CacheSize:                   cacheBytes,
		FormatMajorVersion:          pebble.FormatValueSeparation,
		MemTableSize:                memTableSize - rand.Uint64N(memTableSize/4),
		MemTableStopWritesThreshold: memTables,
		L0CompactionThreshold:       4,
		L0StopWritesThreshold:       32,
		LBaseMaxBytes:               64 << 20,
		BytesPerSync:                1 << 20,
		WALBytesPerSync:             1 << 20,
		MaxManifestFileSize:         4 << 20,
		MaxOpenFiles:                512,
		FlushDelayDeleteRange:       5 * time.Second,
		CompactionConcurrencyRange:  func() (int, int) { return 1, 2 },
		EventListener:               events,
		Logger:                      log,
	}
	o.TargetFileSizes[0] = 4 << 20
	o.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionFastest })
	// Pebble's default looks ten times a second whether more compactions may run
	// at once than do, which an idle node pays for. This one looks when something
	// was flushed or compacted, which is when it matters.
	o.Experimental.CompactionScheduler = pebble.NewConcurrencyLimitSchedulerWithNoPeriodicGrantingForTest()
	o.Experimental.SpanPolicyFunc = spanPolicy
	o.Experimental.ValueSeparationPolicy = func() pebble.ValueSeparationPolicy {
		return pebble.ValueSeparationPolicy{
			Enabled:     true,
			MinimumSize: separateFrom,
			// Blocks never change, so there is nothing to gather anew but what
			// Drop leaves in files shared with other channels; and Pebble
			// v2.1.7 panics when it opens a damaged value file, which only our
			// own reads, who recover, may meet. So none is ever rewritten.
			MaxBlobReferenceDepth: 1 << 20,
			RewriteMinimumAge:     365 * 24 * time.Hour,
			TargetGarbageRatio:    1.0,
		}
	}
	return o
}

// spanPolicy keeps the values of the world state with their keys: they change, and
// value files are never rewritten.
func spanPolicy(start []byte) (pebble.SpanPolicy, []byte, error) {
	switch {
	case len(start) == 0 || start[0] < spaceState:
		return pebble.SpanPolicy{}, []byte{spaceState}, nil
	case start[0] == spaceState:
		return pebble.SpanPolicy{
			ValueStoragePolicy: pebble.ValueStorageLowReadLatency, DisableValueSeparationBySuffix: true,
		}, []byte{spaceState + 1}, nil
	}
	return pebble.SpanPolicy{}, nil, nil
}

// engineLog is Pebble's logger. Its chatter is dropped.
type engineLog struct {
	log     Logger
	opening *atomic.Bool
	fatal   func(error)
}

func (l engineLog) Infof(string, ...any)              {}
func (l engineLog) Errorf(format string, args ...any) { l.log.Errorf("pebble: "+format, args...) }

// Fatalf is called when Pebble can't go on, often with its locks held, and must
// not return: it would go on all the same. Only while opening it may, since
// Pebble then gives up by itself and returns the error.
func (l engineLog) Fatalf(format string, args ...any) {
	l.fatal(fmt.Errorf("pebble: "+format, args...))
	if !l.opening.Load() {
		select {}
	}
}

// events counts what goes wrong behind our back, and hears of corruption that
// compactions find. Pebble calls it with its locks held: it must not wait.
func (d *DB) events() *pebble.EventListener {
	return &pebble.EventListener{
		BackgroundError: func(err error) {
			n := d.errs.Add(1)
			if n&(n-1) == 0 { // the 1st, 2nd, 4th, 8th ...: a log isn't the disk's next victim
				d.log.Errorf("background error %d of the store: %v", n, err)
			}
			if !damaged(err) {
				return
			}
			// A table that somebody replaces is no reason to stop before a read meets it.
			if d.onDamage == nil || d.torn.count() == 0 {
				d.haltAll(fmt.Errorf("%w: %w", ErrCorrupt, err))
			}
			d.tellDamage("")
		},
		DataCorruption: func(info pebble.DataCorruptionInfo) {
			// The reader that met it gets the error too and halts its channel;
			// left nil, Pebble would end the process here.
			if d.torn.note(info, d.gate) {
				d.log.Errorf("damaged file in the store: %s", info)
			}
		},
	}
}

// openPebble, closePebble and recovered turn a panic into an error. Pebble panics
// on some damaged files where it should return one; the disk must not be able to
// do that to the process.
func openPebble(dir string, o *pebble.Options) (p *pebble.DB, err error) {
	defer recovered(&err)
	return pebble.Open(dir, o)
}

func (d *DB) closePebble() (err error) {
	defer recovered(&err)
	return explain(d.pebble.Close())
}

func recovered(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("pebble panicked: %v: %w", r, ErrCorrupt)
	}
}

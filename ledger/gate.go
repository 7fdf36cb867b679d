package ledger

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// retryFull is how often a write that found the disk full is tried again.
const retryFull = 200 * time.Millisecond

// gate is the file system Pebble writes through. Pebble meets an error of the
// disk in one of three ways: it panics with its locks held, it calls Fatalf, or
// it tries again at once and for ever (56,700 times in 3 s, measured on a full
// disk). None of them suits a node that serves many channels and must end in
// order. So once the gate is armed no error of a write ever reaches Pebble:
//
//   - The disk is full: the writing goroutine waits here and tries again until
//     there is room, from the byte where it stopped. Commits pause, reads go on,
//     nothing spins, and it goes on without a restart.
//   - Anything else, a failed sync above all: what the disk holds is unknown, and
//     asking again would lie (the kernel forgets the pages it couldn't write).
//     The gate fails for good: the failure is told once, and every goroutine that
//     comes to write is parked until the process ends.
//
// Until it is armed, while Pebble opens, errors pass: opening returns them.
type gate struct {
	vfs.FS
	tell func(error) // what the first failure is told to, by the goroutine that met it
	log  Logger

	ops    sync.RWMutex  // held for reading during an operation, for writing by shut
	shut   atomic.Bool   // no operation may begin any more
	over   chan struct{} // closed with shut
	armed  atomic.Bool
	early  atomic.Pointer[error] // the first failed sync before it was armed: Pebble may make light of it
	failed chan struct{}         // closed at the first failure
	once   sync.Once
	cause  error // set before failed is closed

	mu      sync.Mutex
	waiting int           // operations that wait for space
	full    chan struct{} // closed while waiting > 0
	since   time.Time
}

func newGate(fs vfs.FS, log Logger, tell func(error)) *gate {
	return &gate{
		FS: fs, tell: tell, log: log,
		over: make(chan struct{}), failed: make(chan struct{}), full: make(chan struct{}),
	}
}

// fail closes the gate for good. Only the first call counts.
func (g *gate) fail(err error) {
	g.once.Do(func() {
		g.cause = fmt.Errorf("%w: %w", ErrDisk, err)
		close(g.failed)
		g.tell(g.cause)
	})
}

// failure returns why the gate has failed, or nil.
func (g *gate) failure() error {
	select {
	case <-g.failed:
		return g.cause
	default:
		return nil
	}
}

// fullness returns a channel that is closed while the disk is full.
func (g *gate) fullness() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.full
}

func (g *gate) isFull() bool {
	select {
	case <-g.fullness():
		return true
	default:
		return false
	}
}

// close waits for the operations under way and lets no other begin.
func (g *gate) close() {
	g.ops.Lock()
	defer g.ops.Unlock()
	if !g.shut.Swap(true) {
		close(g.over)
	}
}

// do runs one operation that changes the disk. It returns an error only while
// the gate isn't armed. Where a full disk is no reason to try again (a sync: the
// pages may be gone), retry is false.
func (g *gate) do(what, name string, retry bool, op func() error) error {
	waits := false
	for {
		g.ops.RLock()
		if g.shut.Load() || g.failure() != nil {
			g.ops.RUnlock()
			g.park()
		}
		err := op()
		g.ops.RUnlock()
		if waits && !noSpace(err) {
			waits = false
			g.resume()
		}
		switch {
		case err == nil:
			return nil
		case !g.armed.Load():
			if !retry {
				err = fmt.Errorf("%w: %s %s: %w", ErrDisk, what, name, err)
				g.early.CompareAndSwap(nil, &err)
			}
			return err
		case retry && noSpace(err):
			if !waits {
				waits = true
				g.pause(what, name)
			}
			g.sleep()
		default:
			g.fail(fmt.Errorf("%s %s: %w", what, name, err))
		}
	}
}

func (g *gate) sync(name string, op func() error) error { return g.do("sync", name, false, op) }

func (g *gate) pause(what, name string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.waiting++; g.waiting == 1 {
		close(g.full)
		g.since = time.Now()
		g.log.Errorf("disk full: %s %s; commits wait until there is room", what, name)
	}
}

func (g *gate) resume() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.waiting--; g.waiting == 0 {
		g.full = make(chan struct{})
		g.log.Warnf("disk has room again after %v; commits go on", time.Since(g.since).Round(time.Millisecond))
	}
}

func (g *gate) sleep() {
	t := time.NewTimer(retryFull)
	defer t.Stop()
	select {
	case <-t.C:
	case <-g.over:
	case <-g.failed:
	}
}

// park keeps a goroutine of Pebble for ever. Letting it return would let it
// panic with its locks held, or go on as if the write had been done.
func (g *gate) park() {
	select {}
}

func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// What follows is vfs.FS and vfs.File: the operations that change the disk.
// Links and removals keep their errors: Pebble takes them as they come. But no
// removal is done once the gate has closed.

// Create and Remove see to one order that Pebble leaves to luck. It names its
// current MANIFEST and format by marker files: it makes the file, then the marker
// that names it, removes the marker before, and only then syncs the folder. If a
// crash keeps the later of these entries and not the earlier, the store is gone.
// So the folder is synced before a marker is made, and before one is removed.

func (g *gate) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := g.settleMarker(name); err != nil {
		return nil, err
	}
	return g.file(name, "create", func() (vfs.File, error) { return g.FS.Create(name, c) })
}

func (g *gate) Remove(name string) error {
	if err := g.settleMarker(name); err != nil {
		return err
	}
	var kept error
	err := g.do("remove", name, false, func() error {
		kept = g.FS.Remove(name)
		return nil
	})
	return errors.Join(err, kept)
}

func (g *gate) settleMarker(name string) error {
	if !strings.HasPrefix(g.FS.PathBase(name), "marker.") {
		return nil
	}
	return g.syncDir(g.FS.PathDir(name))
}

// syncDir makes a folder's entries durable.
func (g *gate) syncDir(dir string) error {
	d, err := g.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (g *gate) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	return g.file(name, "open", func() (vfs.File, error) { return g.FS.OpenReadWrite(name, c, o...) })
}

func (g *gate) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return g.file(name, "reuse", func() (vfs.File, error) { return g.FS.ReuseForWrite(old, name, c) })
}

func (g *gate) OpenDir(name string) (vfs.File, error) {
	return g.file(name, "open folder", func() (vfs.File, error) { return g.FS.OpenDir(name) })
}

func (g *gate) Rename(old, name string) error {
	return g.do("rename", name, true, func() error { return g.FS.Rename(old, name) })
}

func (g *gate) MkdirAll(dir string, perm os.FileMode) error {
	return g.do("make folder", dir, true, func() error { return g.FS.MkdirAll(dir, perm) })
}

func (g *gate) Unwrap() vfs.FS { return g.FS }

func (g *gate) file(name, what string, open func() (vfs.File, error)) (vfs.File, error) {
	var f vfs.File
	err := g.do(what, name, true, func() (err error) {
		f, err = open()
		return err
	})
	if err != nil {
		return nil, err
	}
	return &gatedFile{File: f, gate: g, name: name}, nil
}

// gatedFile is a file open for writing.
type gatedFile struct {
	vfs.File
	gate *gate
	name string
}

func (f *gatedFile) Write(p []byte) (int, error) {
	done := 0
	err := f.gate.do("write", f.name, true, func() error {
		n, err := f.File.Write(p[done:])
		done += n
		return err
	})
	return done, err
}

func (f *gatedFile) WriteAt(p []byte, off int64) (int, error) {
	done := 0
	err := f.gate.do("write", f.name, true, func() error {
		n, err := f.File.WriteAt(p[done:], off+int64(done))
		done += n
		return err
	})
	return done, err
}

func (f *gatedFile) Sync() error     { return f.gate.sync(f.name, f.File.Sync) }
func (f *gatedFile) SyncData() error { return f.gate.sync(f.name, f.File.SyncData) }
func (f *gatedFile) Close() error    { return f.gate.sync(f.name, f.File.Close) }

func (f *gatedFile) SyncTo(length int64) (full bool, err error) {
	err = f.gate.sync(f.name, func() (err error) {
		full, err = f.File.SyncTo(length)
		return err
	})
	return full, err
}

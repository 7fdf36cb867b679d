package ledger

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// maxBatch bounds one batch: Pebble keeps offsets in 32 bits. More blocks than
// this at once go in several batches, in order.
const maxBatch = 1 << 30

const (
	txRoom   = 112     // of a transaction's key in a batch
	retained = 8 << 20 // of a batch's memory, for the next
)

// A commit is a batch on its way to the disk. On a full disk its outcome stays
// open until there is room; its goroutine finishes it even if nobody waits.
type commit struct {
	done chan struct{}
	err  error // once done is closed
}

// commit writes b and syncs it, and calls settle when it is durable. It returns
// ErrFull while the disk is full: b is then still under way. The caller has
// entered the store.
func (d *DB) commit(b *pebble.Batch, settle func()) (*commit, error) {
	c := &commit{done: make(chan struct{})}
	d.users.Add(1)
	go func() {
		defer d.users.Done()
		defer close(c.done)
		d.writing.RLock()
		c.err = explain(d.pebble.Apply(b, pebble.Sync))
		d.writing.RUnlock()
		if c.err != nil {
			return
		}
		settle()
		c.err = b.Close()
	}()
	return c, d.await(c)
}

// await waits for a commit until it is done or the disk is full or has failed.
func (d *DB) await(c *commit) error {
	select {
	case <-c.done:
		return c.err
	default:
	}
	select {
	case <-c.done:
		return c.err
	case <-d.gate.failed:
		return d.failure()
	case <-d.gate.fullness():
		return ErrFull
	}
}

// writable says whether n bytes may be written now.
func (d *DB) writable(n int) error {
	if err := d.failure(); err != nil {
		return err
	}
	return d.room(n)
}

// room is writable for what may be written to a store that was found damaged.
func (d *DB) room(n int) error {
	if err := d.gate.failure(); err != nil {
		return fmt.Errorf("%w: %w", ErrHalted, err)
	}
	if d.gate.isFull() {
		return ErrFull
	}
	u, err := d.gate.GetDiskUsage(d.folder.dir)
	switch {
	case errors.Is(err, vfs.ErrUnsupported):
	case err != nil:
		return fmt.Errorf("ask for the disk's free space: %w", err)
	case u.AvailBytes < d.minFree+2*uint64(n): // once in the log, once in its place
		return fmt.Errorf("%d bytes free, %d to write and %d to keep free: %w", u.AvailBytes, n, d.minFree, ErrFull)
	}
	return nil
}

// Room waits until a full disk has room again, so that what got ErrFull may be
// tried again. It returns at once if there is, and the error of ctx, ErrHalted or
// ErrClosed if there will be none.
func (d *DB) Room(ctx context.Context) error {
	t := time.NewTicker(retryFull)
	defer t.Stop()
	for {
		done, err := d.enter()
		if err != nil {
			return err
		}
		err = d.writable(0)
		done()
		if !errors.Is(err, ErrFull) {
			return err
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// failure returns why the whole store takes no more, wrapped in ErrHalted, or nil.
func (d *DB) failure() error {
	if err := d.gate.failure(); err != nil {
		return fmt.Errorf("%w: %w", ErrHalted, err)
	}
	if err := d.halt.Load(); err != nil {
		return fmt.Errorf("%w: %w", ErrHalted, *err)
	}
	return nil
}

// haltAll stops all writing, for a reason that names no channel.
func (d *DB) haltAll(reason error) {
	if d.halt.CompareAndSwap(nil, &reason) {
		d.log.Errorf("the store takes no more blocks: %v", reason)
	}
}

// set puts a pair into a batch that isn't committed yet, which can't fail.
func set(b *pebble.Batch, key, value []byte) {
	if err := b.Set(key, value, nil); err != nil {
		panic(err)
	}
}

// explain puts our sentinel before an error of Pebble.
func explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, pebble.ErrNotFound):
		return ErrNotFound
	case damaged(err):
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	default:
		return err
	}
}

// explainOpen is explain for what opening a store returns. Pebble has many words
// for files that lack or don't fit each other; what the operating system says is
// another matter.
func explainOpen(err error, made bool) error {
	var errno syscall.Errno
	switch {
	case noSpace(err):
		return fmt.Errorf("%w: %w", ErrFull, err)
	case damaged(err) || made && (!errors.As(err, &errno) || errno == syscall.ENOENT):
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	default:
		return err
	}
}

// damaged recognises what Pebble returns for files that aren't as it wrote them.
// It doesn't mark the checksum errors of value files (v2.1.7).
func damaged(err error) bool {
	return pebble.IsCorruptionError(err) || strings.Contains(err.Error(), "checksum mismatch")
}

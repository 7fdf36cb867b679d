package ledger

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"
)

// fault makes operations of a disk fail while it is on.
type fault struct {
	on    atomic.Bool
	match func(errorfs.Op) error
	hits  atomic.Int64
}

func (f *fault) String() string { return "fault" }

func (f *fault) MaybeError(op errorfs.Op) error {
	if !f.on.Load() {
		return nil
	}
	err := f.match(op)
	if err != nil {
		f.hits.Add(1)
	}
	return err
}

func noRoom(op errorfs.Op) error {
	switch op.Kind {
	case errorfs.OpFileWrite, errorfs.OpFileWriteAt, errorfs.OpCreate, errorfs.OpMkdirAll:
		return syscall.ENOSPC
	}
	return nil
}

// faulty opens a store on a disk that may fail, with a channel of its own.
func faulty(t *testing.T, f *fault, o Options) (*vfs.MemFS, *DB, *Ledger, *chain) {
	fs := vfs.NewCrashableMem()
	c, genesis := newChain(t, "c")
	o.fs = errorfs.Wrap(fs, f)
	d, err := Open("ledger", o)
	require.NoError(t, err)
	l, err := d.Create("c", genesis)
	require.NoError(t, err)
	return fs, d, l, c
}

// afterCrash opens what is left of a disk without what wasn't synced.
func afterCrash(t *testing.T, fs *vfs.MemFS) *Ledger {
	d := openMem(t, fs.CrashClone(vfs.CrashCloneCfg{}))
	l, err := d.Channel("c")
	require.NoError(t, err)
	return l
}

// TestFullDisk is F-D4: commits pause, reads go on, nothing spins, and all goes
// on when there is room.
func TestFullDisk(t *testing.T) {
	for _, size := range []int{100, 300_000, 9 << 20} { // in memory, in value files, a flush of its own
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			f := &fault{match: noRoom}
			fs, d, l, c := faulty(t, f, Options{OnFailure: func(err error) { t.Error(err) }})
			require.NoError(t, l.Append(c.next(size, "first")))
			for range 2 {
				f.on.Store(true)
				before := l.Height()
				b := c.next(size, "x")
				require.ErrorIs(t, l.Append(b), ErrFull)
				require.ErrorIs(t, l.Append(b), ErrFull)
				require.ErrorIs(t, d.PutMeta("k", []byte("v")), ErrFull)
				require.True(t, d.Full())
				require.Equal(t, before, l.Height())
				_, err := l.Block(1)
				require.NoError(t, err, "reads go on")
				require.NoError(t, l.Halted())
				f.on.Store(false)
				require.NoError(t, d.Room(context.Background()))
				require.NoError(t, l.Append(b))
			}
			last := c.some(2, size)
			require.NoError(t, l.Append(last...))
			require.Zero(t, d.BackgroundErrors())
			require.Less(t, f.hits.Load(), int64(100), "nothing spins")
			require.NoError(t, d.Close())
			require.Equal(t, c.tip, afterCrash(t, fs).Tip())
		})
	}
}

func TestFullDiskFinishesWhatItHeldUp(t *testing.T) {
	f := &fault{match: noRoom}
	_, d, l, c := faulty(t, f, Options{})
	b := c.next(10, "x")
	f.on.Store(true)
	require.ErrorIs(t, l.Append(b), ErrFull)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.ErrorIs(t, d.Room(ctx), context.Canceled)
	f.on.Store(false)
	require.NoError(t, l.Wait(context.Background(), 2), "without another call")
	require.NoError(t, l.Append(b), "which would do nothing")
	require.NoError(t, d.Close())
	require.ErrorIs(t, d.Room(context.Background()), ErrClosed)
}

func TestFullDiskDoesNotHoldUpClose(t *testing.T) {
	f := &fault{match: noRoom}
	fs, d, l, c := faulty(t, f, Options{})
	bs := c.some(2, 1000)
	require.NoError(t, l.Append(bs[0]))
	f.on.Store(true)
	require.ErrorIs(t, l.Append(bs[1]), ErrFull)
	require.NoError(t, d.Close())
	f.on.Store(false)
	l = afterCrash(t, fs)
	require.Equal(t, uint64(2), l.Height())
	require.NoError(t, l.Append(bs[1]))
}

func TestMinFree(t *testing.T) {
	fs := vfs.NewMem()
	c, genesis := newChain(t, "c")
	d, err := Open("ledger", Options{fs: fs, MinFree: 1 << 20})
	require.NoError(t, err)
	defer func() { require.NoError(t, d.Close()) }()
	fs.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 1 << 19, TotalBytes: 1 << 30})
	_, err = d.Create("c", genesis)
	require.ErrorIs(t, err, ErrFull)
	fs.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 2 << 20, TotalBytes: 1 << 30})
	l, err := d.Create("c", genesis)
	require.NoError(t, err)
	big := c.next(1<<20, "big")
	require.ErrorIs(t, l.Append(big), ErrFull, "it would leave too little")
	require.False(t, d.Full(), "nothing waits")
	fs.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 1 << 30, TotalBytes: 1 << 30})
	require.NoError(t, l.Append(big))
}

// TestFailedSync is F-D5: a failed sync is never asked again; the failure is told
// once, and a restart holds all that was acknowledged.
func TestFailedSync(t *testing.T) {
	told := make(chan error, 10)
	f := &fault{match: func(op errorfs.Op) error {
		if strings.HasSuffix(op.Path, ".log") && (op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData) {
			return syscall.EIO
		}
		return nil
	}}
	fs, d, l, c := faulty(t, f, Options{OnFailure: func(err error) { told <- err }})
	bs := c.some(3, 1000)
	require.NoError(t, l.Append(bs[0]))
	f.on.Store(true)
	err := l.Append(bs[1])
	require.ErrorIs(t, err, ErrHalted)
	require.ErrorIs(t, err, ErrDisk)
	require.ErrorIs(t, err, syscall.EIO)
	require.ErrorIs(t, <-told, ErrDisk)
	f.on.Store(false)
	require.ErrorIs(t, l.Append(bs[1]), ErrDisk, "the disk got well; the store can't know")
	require.ErrorIs(t, d.PutMeta("k", nil), ErrDisk)
	require.ErrorIs(t, d.Drop("c"), ErrDisk)
	require.Equal(t, uint64(2), l.Height(), "what isn't durable isn't announced")
	_, err = l.Block(2)
	require.ErrorIs(t, err, ErrNotFound)
	_, err = l.ByHash(bs[1].Hash())
	require.ErrorIs(t, err, ErrNotFound)
	_, err = l.Block(1)
	require.NoError(t, err, "reads go on")
	require.ErrorIs(t, d.Close(), ErrDisk)
	require.Equal(t, int64(1), f.hits.Load())
	require.Empty(t, told)

	l = afterCrash(t, fs)
	require.Equal(t, uint64(2), l.Height())
	require.NoError(t, l.Append(bs[1:]...))
}

// TestFailedWrites fails each writing operation of a scenario in turn.
func TestFailedWrites(t *testing.T) {
	const acts = 25
	step := int64(3)
	if raced {
		step = 40
	}
	for at, failed := int64(0), true; failed; at += step {
		rng := rand.New(rand.NewPCG(7, 7))
		s := newScenario(vfs.NewCrashableMem())
		var ops atomic.Int64
		var told sync.Map
		hit := atomic.Bool{}
		fs := errorfs.Wrap(s.fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
			switch op.Kind {
			case errorfs.OpFileWrite, errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpCreate, errorfs.OpRename, errorfs.OpReuseForWrite:
				if ops.Add(1) == at+1 {
					hit.Store(true)
					return syscall.EIO
				}
			}
			return nil
		}))
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			err := s.until(fs, rng, acts, &told)
			failed = hit.Load()
			if failed {
				require.Error(t, err, "the error at operation %d went unseen", at)
			} else {
				require.NoError(t, err)
			}
			require.NoError(t, s.judge(s.crash("the end", 0, rng)))
			require.NoError(t, s.judge(s.crash("the end", 100, rng)))
		})
	}
}

// until plays like play, until an act fails.
func (s *scenario) until(fs vfs.FS, rng *rand.Rand, acts int, told *sync.Map) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = errors.New("an act failed")
		}
		if s.db == nil {
			return
		}
		closed := make(chan error)
		go func() { closed <- s.db.Close() }()
		select {
		case e := <-closed:
			err = errors.Join(err, e)
		case <-time.After(30 * time.Second):
			panic("close hangs")
		}
	}()
	open := Options{fs: fs, CacheBytes: 1 << 20, OnFailure: func(err error) { told.Store(err, true) }}
	if s.db, err = Open("ledger", open); err != nil {
		s.db = nil
		return err
	}
	for range acts {
		s.mu.Lock()
		next := s.states[len(s.states)-1].clone()
		s.mu.Unlock()
		name := []string{"small", "large"}[rng.IntN(2)]
		all := s.chains[name].all
		l, missing := s.db.Channel(name)
		if missing != nil {
			next.heights[name], next.judged[name] = 1, 0
			s.act(noTest{}, next, func() error { _, err := s.db.Create(name, all[0]); return err })
			continue
		}
		from := l.Height()
		if l.State().Height < from {
			next.judged[name] = from
			s.act(noTest{}, next, func() error { return judged(l, &scribe{}) })
			continue
		}
		to := min(from+1+rng.Uint64N(8), uint64(len(all)))
		if next.heights[name], next.judged[name] = to, to; to > from {
			s.act(noTest{}, next, func() error { return l.Append(all[from:to]...) })
		}
	}
	return nil
}

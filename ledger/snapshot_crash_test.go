package ledger

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"
)

// A stand is what a store of the one channel of a snapshot's play holds.
type stand struct {
	height uint64 // 0: there is no channel
	kept   span
	snaps  []uint64 // heights of its snapshots
}

// small are the options of these plays: many chunks of a small state.
func small(fs vfs.FS) Options {
	return Options{fs: fs, CacheBytes: 1 << 20, chunkBytes: 400, restoreBatch: 1500}
}

// references are snapshots of each height of the small chain, made by a peer that
// has all of it.
var references = sync.OnceValue(func() map[uint64]*Snapshot {
	c := scripts()["small"]
	d, err := Open("reference", small(vfs.NewMem()))
	if err != nil {
		panic(err)
	}
	l, err := d.Create("small", c.all[0])
	if err != nil {
		panic(err)
	}
	out := make(map[uint64]*Snapshot)
	err = judged(l, &scribe{})
	for h := uint64(1); err == nil; h++ {
		if out[h], err = snapshotOf(l, SnapshotOptions{}); err != nil || h == uint64(len(c.all)) {
			break
		}
		err = l.Append(c.all[h])
	}
	if err != nil {
		panic(err)
	}
	return out
})

// A reel is a play of acts on one channel: append, snapshot, prune, restore, drop,
// flush, open again. After each crash the store stands where some act ended, and
// not before the last one that returned.
type reel struct {
	scenario // for its disk alone
	c        *script
	stands   []stand // guarded by mu: stands[i] is the store after i acts
	did      int     // guarded by mu: stands before this one are history
}

func newReel(fs *vfs.MemFS, first stand) *reel {
	r := &reel{c: scripts()["small"], stands: []stand{first}}
	r.fs = fs
	return r
}

func (r *reel) act(t testing.TB, next stand, do func() error) {
	r.mu.Lock()
	r.stands = append(r.stands, next)
	r.mu.Unlock()
	require.NoError(t, do())
	r.mu.Lock()
	r.did = len(r.stands) - 1
	r.mu.Unlock()
}

func (r *reel) play(t testing.TB, fs vfs.FS, rng *rand.Rand, n int) {
	d, err := Open("ledger", small(fs))
	require.NoError(t, err)
	for range n {
		d = r.random(t, d, fs, rng)
	}
	require.NoError(t, d.Close())
}

func (r *reel) random(t testing.TB, d *DB, fs vfs.FS, rng *rand.Rand) *DB {
	next := r.stands[len(r.stands)-1]
	l, missing := d.Channel("small")
	top := uint64(len(r.c.all))
	if missing != nil {
		r.act(t, stand{height: 1}, func() error {
			l, err := d.Create("small", r.c.all[0])
			if err == nil {
				err = judged(l, &scribe{})
			}
			return err
		})
		return d
	}
	l.Judge(&scribe{})
	h := l.Height()
	switch p := rng.IntN(100); {
	case h == top:
		r.act(t, stand{}, func() error { return d.Drop("small") })
	case p < 35:
		next.height = min(h+1+rng.Uint64N(3), top)
		r.act(t, next, func() error { return l.Append(r.c.all[h:next.height]...) })
	case p < 60 && !slices.Contains(next.snaps, h):
		next.snaps = append([]uint64{h}, next.snaps[:min(len(next.snaps), 1)]...)
		r.act(t, next, func() error { _, err := snapshotOf(l, SnapshotOptions{Keep: 2}); return err })
	case p < 70 && h > 1:
		below := min(rng.Uint64N(h), h-1)
		next.kept.blocks = max(next.kept.blocks, below)
		next.kept.history = max(next.kept.history, below)
		r.act(t, next, func() error { return l.Prune(context.Background(), below) })
	case p < 90:
		next.height = h + 1 + rng.Uint64N(min(12, top-h))
		next.kept = span{next.height - 1, next.height}
		next.snaps = append([]uint64{next.height}, next.snaps...)
		r.act(t, next, func() error {
			in, err := carryOver(d, references()[next.height])
			if err == nil {
				_, err = r.c.restore(d, in)
			}
			return err
		})
	case p < 95:
		flush(t, d)
	default:
		require.NoError(t, d.Close())
		var err error
		d, err = Open("ledger", small(fs))
		require.NoError(t, err)
	}
	return d
}

// judge opens a wreck and says what is wrong with it: where it stands, every key,
// every snapshot, and that a snapshot that was under way can be taken to its end.
func (r *reel) judge(t testing.TB, w wreck, allowed []stand) (err error) {
	d, err := Open("ledger", small(w.fs))
	if err != nil {
		return fmt.Errorf("crash at %s: %w", w.where, err)
	}
	defer func() {
		if e := d.Close(); err == nil {
			err = e
		}
		if err != nil {
			err = fmt.Errorf("crash at %s: %w", w.where, err)
		}
	}()
	if n := leftovers(t, d); n > 0 {
		return fmt.Errorf("%d keys of no channel", n)
	}
	l, missing := d.Channel("small")
	fits := func(s stand) bool {
		if missing != nil || s.height == 0 {
			return missing != nil && s.height == 0
		}
		m := l.sub.get()
		return s.height == m.Height && s.kept == m.kept
	}
	if !slices.ContainsFunc(allowed, fits) {
		return fmt.Errorf("it stands at none of %v", allowed)
	}
	if missing != nil {
		return nil
	}
	if err := l.Halted(); err != nil {
		return err
	}
	if err := r.wholeAt(d, l); err != nil {
		return err
	}
	if err := r.snapshotsOf(l, allowed); err != nil {
		return err
	}
	return r.goesOn(d, l)
}

// wholeAt checks every key, once those are deleted that History passes over.
func (r *reel) wholeAt(d *DB, l *Ledger) error {
	if err := l.pruneHistory(context.Background()); err != nil {
		return err
	}
	m := l.sub.get()
	if m.state.height < m.Height { // created, and not judged yet
		if err := judged(l, &scribe{}); err != nil {
			return err
		}
	}
	return r.c.stands(d, l, m.kept, m.Height)
}

// snapshotsOf checks that what is listed is whole, and that what was made is listed.
func (r *reel) snapshotsOf(l *Ledger, allowed []stand) error {
	var got []uint64
	for _, s := range l.Snapshots() {
		want := references()[s.Manifest.Height]
		if want == nil || want.Name != s.Name {
			return fmt.Errorf("the snapshot at %d is another", s.Manifest.Height)
		}
		for i := range s.Chunks() {
			if _, err := s.Chunk(i); err != nil {
				return err
			}
		}
		if _, err := s.Blocks(); err != nil {
			return err
		}
		got = append(got, s.Manifest.Height)
	}
	for _, h := range allowed[0].snaps {
		if !slices.Contains(got, h) && !slices.ContainsFunc(allowed, func(s stand) bool { return !slices.Contains(s.snaps, h) }) {
			return fmt.Errorf("the snapshot at %d is lost; there are %v", h, got)
		}
	}
	return nil
}

// goesOn restores what was under way, or else appends what comes next.
func (r *reel) goesOn(d *DB, l *Ledger) error {
	in, err := d.Incoming("small")
	if err != nil {
		return err
	}
	if in == nil || in.Manifest.Height <= l.Height() {
		h := l.Height()
		if h == uint64(len(r.c.all)) {
			return nil
		}
		l.Judge(&scribe{})
		if err := l.Append(r.c.all[h]); err != nil {
			return err
		}
		return r.c.stands(d, l, l.sub.get().kept, h+1)
	}
	h := in.Manifest.Height
	for i := range in.Chunks() {
		if in.Has(i) {
			continue
		}
		c, err := references()[h].Chunk(i)
		if err != nil {
			return err
		}
		if err := in.Put(i, c); err != nil {
			return err
		}
	}
	if l, err = r.c.restore(d, in); err != nil {
		return err
	}
	return r.c.stands(d, l, span{h - 1, h}, h)
}

// snapshotCrashes plays, crashes at every operation of the file system, and judges
// each wreck. It returns the number of crashes.
func snapshotCrashes(t *testing.T, seed uint64, acts int) int {
	references()
	rng := rand.New(rand.NewPCG(seed, 1))
	r := newReel(vfs.NewCrashableMem(), stand{})
	type found struct {
		wreck
		allowed []stand
	}
	var crashes int
	var wrecks []found
	var mu sync.Mutex
	at := errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsRead {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		crashes++
		where := fmt.Sprintf("seed %d, operation %d (%d %s)", seed, crashes, op.Kind, op.Path)
		r.mu.Lock()
		did := r.did
		r.mu.Unlock()
		w := r.crash(where, []int{0, 20, 50, 80, 100}[rng.IntN(5)], rng)
		r.mu.Lock()
		wrecks = append(wrecks, found{w, slices.Clone(r.stands[did:])})
		r.mu.Unlock()
		return nil
	})
	r.play(t, errorfs.Wrap(disk{r.fs, &r.scenario}, at), rand.New(rand.NewPCG(seed, 2)), acts)
	mu.Lock()
	defer mu.Unlock()
	for _, w := range wrecks {
		require.NoError(t, r.judge(t, w.wreck, w.allowed))
	}
	return crashes
}

// TestSnapshotCrash is F-C1 for making snapshots, pruning, receiving and restoring.
func TestSnapshotCrash(t *testing.T) {
	total, enough, acts := 0, 400, 25
	if raced {
		enough, acts = 100, 8
	}
	for seed := uint64(1); total < enough; seed++ {
		total += snapshotCrashes(t, seed, acts)
	}
	t.Logf("%d crashes", total)
}

// TestSoakSnapshotCrash goes on for as long as GRAPEVINE_SOAK says, at least as long
// as it takes for soakCrashes.
func TestSoakSnapshotCrash(t *testing.T) {
	d, err := time.ParseDuration(os.Getenv("GRAPEVINE_SOAK"))
	if err != nil {
		t.Skip("GRAPEVINE_SOAK gives no duration, such as 10m")
	}
	start := time.Now()
	total := 0
	for seed := uint64(start.UnixNano()); time.Since(start) < d || total < soakCrashes; seed++ {
		total += snapshotCrashes(t, seed, 60)
	}
	t.Logf("%d crashes", total)
}

package ledger

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"grapevine/block"
)

// TestCrashWhileMending crashes at operations of the file system while damaged
// tables are replaced: what is left can be repaired, and is then whole.
func TestCrashWhileMending(t *testing.T) {
	fs := vfs.NewCrashableMem()
	worn(t, fs, "ledger")
	fs = same(fs)
	names, err := fs.List("ledger")
	require.NoError(t, err)
	for _, name := range names {
		if strings.HasSuffix(name, ".sst") {
			b := bytes.Clone(readFile(t, fs, path.Join("ledger", name)))
			for at := 100; at < len(b); at += 3000 {
				b[at] ^= 4
			}
			writeFile(t, fs, path.Join("ledger", name), b)
		}
	}
	dir, err := fs.OpenDir("ledger")
	require.NoError(t, err)
	require.NoError(t, dir.Sync())
	require.NoError(t, dir.Close())

	chains := map[string]*script{"middle": scripts()["middle"], "small": scripts()["small"]}
	rng := rand.New(rand.NewPCG(7, 7))
	stride := 7
	if raced {
		stride = 211
	}
	s := &scenario{fs: fs}
	var mu sync.Mutex // Pebble's goroutines come at once
	var wrecks []*vfs.MemFS
	operations := 0
	d, err := Open("ledger", Options{CacheBytes: 1 << 20, Rescue: true, fs: errorfs.Wrap(disk{fs, s}, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsRead {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		if operations++; operations%stride == 0 {
			s.cloning.Lock()
			wrecks = append(wrecks, fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: []int{0, 50, 100}[rng.IntN(3)], RNG: rng}))
			s.cloning.Unlock()
		}
		return nil
	}))})
	require.NoError(t, err)
	for name, c := range chains {
		l, err := d.Channel(name)
		require.NoError(t, err)
		l.Judge(&scribe{})
		_, err = l.Scrub(context.Background(), Scrubbing{})
		require.NoError(t, err)
		_, err = l.Repair(context.Background(), func(_ context.Context, n uint64, _ [32]byte) (block.Verified, error) { return c.all[n], nil })
		require.NoError(t, err)
	}
	require.NoError(t, d.Close())
	mu.Lock()
	defer mu.Unlock()
	require.NotEmpty(t, wrecks)
	for i, w := range wrecks {
		_, _, _, err := mended(w, "ledger", chains)
		require.NoError(t, err, "wreck %d of %d", i, len(wrecks))
	}
	t.Logf("%d operations, %d crashes", operations, len(wrecks))
}

// TestMendedTablesAreGone: where memory holds keys of the span that is cut out,
// too, the damaged table is no part of the store any more when Mend returns. While
// it is, compactions meet it and halt everything again.
func TestMendedTablesAreGone(t *testing.T) {
	s := scripts()["middle"]
	d, err := Open("ledger", Options{fs: vfs.NewCrashableMem(), CacheBytes: 1 << 20})
	require.NoError(t, err)
	defer func() { require.NoError(t, d.Close()) }()
	l, err := d.Create("middle", s.all[0])
	require.NoError(t, err)
	require.NoError(t, l.Append(s.all[1:11]...))
	flush(t, d)
	for i := range 20 { // whether the flush comes first is a race
		require.NoError(t, l.Append(s.all[11+i]))
		levels, err := d.pebble.SSTables()
		require.NoError(t, err)
		d.torn.mu.Lock()
		d.torn.spans = make(map[string]keySpan)
		for _, level := range levels {
			for _, table := range level {
				d.torn.spans[fmt.Sprintf("%06d.sst", table.BackingSSTNum)] = keySpan{table.Smallest.UserKey, table.Largest.UserKey}
			}
		}
		names := slices.Collect(maps.Keys(d.torn.spans))
		d.torn.mu.Unlock()
		_, err = d.Mend(t.Context())
		require.NoError(t, err)
		require.NoError(t, s.matches(d, l, l.Height(), 0))
		for _, name := range names {
			live, err := d.live(name)
			require.NoError(t, err)
			require.False(t, live, name)
		}
	}
}

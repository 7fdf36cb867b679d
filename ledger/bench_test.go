package ledger

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"grapevine/block"
)

// benchFolder is on a real disk: $GRAPEVINE_BENCH_DIR, or the system's folder for
// temporary files.
func benchFolder(b *testing.B) string {
	dir, err := os.MkdirTemp(os.Getenv("GRAPEVINE_BENCH_DIR"), "ledger-bench-")
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, os.RemoveAll(dir)) })
	return dir
}

// rawPebble is the same engine with the same settings and nothing of ours.
func rawPebble(b *testing.B) *pebble.DB {
	o := engineOptions(vfs.Default, defaultCache, &pebble.EventListener{}, engineLog{log: silent{}})
	p, err := pebble.Open(benchFolder(b), o)
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, p.Close()) })
	return p
}

// BenchmarkAppend writes the same bytes through Append and as bare synced batches
// of Pebble, by turns, and reports the ratio.
func BenchmarkAppend(b *testing.B) {
	for _, c := range []struct{ size, batch int }{{10 << 10, 1}, {10 << 10, 32}, {1 << 20, 1}, {1 << 20, 8}, {100 << 20, 1}} {
		b.Run(fmt.Sprintf("size=%dKiB/batch=%d", c.size>>10, c.batch), func(b *testing.B) {
			chain, genesis := newChain(b, "bench")
			d, err := Open(benchFolder(b), Options{})
			require.NoError(b, err)
			b.Cleanup(func() { require.NoError(b, d.Close()) })
			l, err := d.Create("bench", genesis)
			require.NoError(b, err)
			raw := rawPebble(b)
			// Turns of a few appends each, so that both meet the same disk.
			turn := max(1, min(64, (32<<20)/(c.size*c.batch)))
			var ours, theirs time.Duration
			next := uint64(1)
			b.SetBytes(int64(c.size * c.batch))
			b.ResetTimer()
			for n := 0; n < b.N; n += turn {
				b.StopTimer()
				bs := make([][]block.Verified, turn)
				for i := range bs {
					bs[i] = chain.some(c.batch, c.size)
				}
				b.StartTimer()
				start := time.Now()
				for _, batch := range bs {
					require.NoError(b, l.Append(batch...))
				}
				ours += time.Since(start)
				b.StopTimer()
				start = time.Now()
				for _, batch := range bs {
					w := raw.NewBatchWithSize(c.size*c.batch + 512*c.batch)
					for _, v := range batch {
						require.NoError(b, w.Set(blockKey(1, next), v.Bytes(), nil))
						next++
					}
					require.NoError(b, w.Commit(pebble.Sync))
					require.NoError(b, w.Close())
				}
				theirs += time.Since(start)
				b.StartTimer()
			}
			b.ReportMetric(theirs.Seconds()/ours.Seconds(), "of-raw")
			m := d.pebble.Metrics()
			total := m.Total()
			b.ReportMetric(total.WriteAmp(), "write-amp")
		})
	}
}

// filled is a store with blocks on disk.
func filled(b *testing.B, n, size int) (string, *DB, *Ledger) {
	dir := benchFolder(b)
	d, err := Open(dir, Options{})
	require.NoError(b, err)
	chain, genesis := newChain(b, "bench")
	l, err := d.Create("bench", genesis)
	require.NoError(b, err)
	for range n / 10 {
		require.NoError(b, l.Append(chain.some(10, size)...))
	}
	return dir, d, l
}

// BenchmarkRange reads ranges of at most 32 MiB, as the server does.
func BenchmarkRange(b *testing.B) {
	for _, size := range []int{10 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("size=%dKiB", size>>10), func(b *testing.B) {
			n := min(10_000, (256<<20)/size)
			_, d, l := filled(b, n, size)
			b.Cleanup(func() { require.NoError(b, d.Close()) })
			flush(b, d)
			rng := rand.New(rand.NewPCG(1, 1))
			span := uint64(min(64, (32<<20)/size))
			var bytes int64
			b.ResetTimer()
			for b.Loop() {
				from := rng.Uint64N(l.Height() - span)
				for raw, err := range l.Range(from, from+span) {
					require.NoError(b, err)
					bytes += int64(len(raw))
				}
			}
			b.ReportMetric(float64(bytes)/b.Elapsed().Seconds()/1e6, "MB/s")
		})
	}
}

// BenchmarkOpenAfterCrash opens what kill -9 left of 10,000 blocks.
func BenchmarkOpenAfterCrash(b *testing.B) {
	dir, d, l := filled(b, 10_000, 10<<10)
	height := l.Height()
	left := b.TempDir()
	require.NoError(b, os.CopyFS(left, os.DirFS(dir)))
	require.NoError(b, d.Close())
	i := 0
	for b.Loop() {
		b.StopTimer()
		again := filepath.Join(b.TempDir(), fmt.Sprint(i))
		i++
		require.NoError(b, os.CopyFS(again, os.DirFS(left)))
		b.StartTimer()
		d, err := Open(again, Options{})
		require.NoError(b, err)
		b.StopTimer()
		l, err := d.Channel("bench")
		require.NoError(b, err)
		require.Equal(b, height, l.Height())
		require.NoError(b, d.Close())
		b.StartTimer()
	}
}

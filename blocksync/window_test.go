package blocksync

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestWindowModel holds the window against its invariants and a plain map.
func TestWindowModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		base := rapid.SampledFrom([]uint64{0, 1, 1000, 1<<64 - 300}).Draw(t, "base")
		span := rapid.Uint64Range(1, 40).Draw(t, "span")
		budget := rapid.Int64Range(1, 2000).Draw(t, "budget")
		w := newWindow(base, span, budget)
		model := make(map[uint64]held)
		for range rapid.IntRange(1, 120).Draw(t, "steps") {
			n := w.base + rapid.Uint64Range(0, span+2).Draw(t, "ahead") - 1
			switch rapid.IntRange(0, 5).Draw(t, "what") {
			case 0:
				_, had := model[n]
				require.Equal(t, had, w.drop(n))
				delete(model, n)
			case 1:
				run := w.next(rapid.IntRange(1, 10).Draw(t, "count"), rapid.Int64Range(1, 3000).Draw(t, "bytes"))
				for i, h := range run {
					require.Equal(t, model[w.base+uint64(i)], h)
					delete(model, h.number)
				}
				_, head := w.get(w.base)
				require.Equal(t, head, len(run) > 0, "the head must always come")
				w.advance(w.base + uint64(len(run)))
			default:
				h := held{number: n, hash: [32]byte{byte(rapid.IntRange(0, 1).Draw(t, "hash"))}, size: rapid.Int64Range(1, 1500).Draw(t, "size")}
				old, had := model[n]
				o, left := w.put(h)
				for i, k := range left {
					require.Greater(t, k, n, "a lower number gave way")
					require.True(t, i == 0 || k < left[i-1])
					require.Contains(t, model, k)
					delete(model, k)
				}
				switch {
				case n+1 == w.base: // one below; wraps at 0
					if w.base > 0 {
						require.Equal(t, stale, o)
					}
				case n-w.base >= span:
					require.Equal(t, far, o)
				case had && old.hash == h.hash:
					require.Equal(t, double, o)
				case had:
					require.Equal(t, differs, o)
				case n == w.base:
					require.Equal(t, kept, o, "the head always passes")
				}
				if o == kept {
					model[n] = h
				} else {
					require.Empty(t, left)
				}
			}
			var bytes int64
			for k, h := range model {
				require.Equal(t, h, w.slots[k])
				require.Less(t, k-w.base, span)
				bytes += h.size
			}
			require.Len(t, w.slots, len(model))
			require.Equal(t, bytes, w.bytes)
			if bytes > budget {
				require.Len(t, model, 1)
				require.Contains(t, model, w.base)
			}
		}
	})
}

package orderer

import (
	"fmt"
	"strings"
	"testing"

	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// The expectations are those of Fabric's orderer/common/blockcutter: what it does with the same sizes under the same
// limits. An envelope is written as its size; | ends a batch; what stands after the last | is pending.
func TestCutter(t *testing.T) {
	for _, tc := range []struct {
		name             string
		count, preferred uint32
		sizes            []uint32
		want             string
	}{
		{"nothing is cut below the limits", 10, 100, []uint32{10, 10, 10}, "10 10 10"},
		{"the count is reached", 3, 100, []uint32{10, 10, 10, 10}, "10 10 10 | 10"},
		{"a count of one", 1, 100, []uint32{10, 20}, "10 | 20 |"},
		{"the preferred size is reached and stays pending", 10, 100, []uint32{50, 50}, "50 50"},
		{"before the preferred size would be passed", 10, 100, []uint32{50, 50, 1}, "50 50 | 1"},
		{"one as large as the preferred size", 10, 100, []uint32{100}, "100"},
		{"one as large as the preferred size after another", 10, 100, []uint32{1, 100}, "1 | 100"},
		{"one larger than the preferred size is alone", 10, 100, []uint32{101}, "101 |"},
		{"one larger cuts what is pending", 10, 100, []uint32{10, 20, 101, 30}, "10 20 | 101 | 30"},
		{"two larger ones", 10, 100, []uint32{200, 300}, "200 | 300 |"},
		{"overflow and a count of one", 1, 100, []uint32{60, 60}, "60 | 60 |"},
		{"overflow, then the count", 2, 100, []uint32{60, 60, 40}, "60 | 60 40 |"},
		{"sizes near the end of their type", 10, 1<<32 - 1, []uint32{1<<32 - 1, 1<<32 - 1}, "4294967295 | 4294967295"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			limit := &ab.BatchSize{MaxMessageCount: tc.count, PreferredMaxBytes: tc.preferred}
			var c cutter[uint32]
			var out []string
			show := func(batch []uint32) string { return strings.Trim(fmt.Sprint(batch), "[]") }
			for _, n := range tc.sizes {
				for _, batch := range c.add(limit, n, n) {
					out = append(out, show(batch)+" |")
				}
			}
			if !c.empty() {
				for _, batch := range c.rest() {
					out = append(out, show(batch))
				}
			}
			require.Equal(t, tc.want, strings.Join(out, " "))
			require.True(t, c.empty())
			require.Empty(t, c.rest())
		})
	}
}

func TestCutterAlone(t *testing.T) {
	var c cutter[string]
	limit := &ab.BatchSize{MaxMessageCount: 10, PreferredMaxBytes: 100}
	require.Equal(t, [][]string{{"config"}}, c.alone("config"))
	c.add(limit, 1, "a")
	require.Equal(t, [][]string{{"a"}, {"config"}}, c.alone("config"))
	require.True(t, c.empty())
}

// Whatever comes, the batches hold it all, in order, within the limits, and none is cut too early.
func TestCutterProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := &ab.BatchSize{
			MaxMessageCount:   rapid.Uint32Range(1, 8).Draw(t, "count"),
			PreferredMaxBytes: rapid.Uint32Range(1, 64).Draw(t, "preferred"),
		}
		sizes := rapid.SliceOf(rapid.Uint32Range(0, 96)).Draw(t, "sizes")
		var c cutter[int]
		var batches [][]int
		for i, n := range sizes {
			batches = append(batches, c.add(limit, n, i)...)
		}
		full := len(batches) // the rest is cut by time
		batches = append(batches, c.rest()...)

		next := 0
		for k, batch := range batches {
			var sum uint64
			for _, i := range batch {
				if i != next {
					t.Fatalf("envelope %d where %d was due", i, next)
				}
				next++
				sum += uint64(sizes[i])
			}
			if len(batch) == 0 || len(batch) > int(limit.MaxMessageCount) {
				t.Fatalf("batch of %d", len(batch))
			}
			if sum > uint64(limit.PreferredMaxBytes) && len(batch) > 1 {
				t.Fatalf("%d bytes in %d envelopes", sum, len(batch))
			}
			early := len(batch) < int(limit.MaxMessageCount) && sum <= uint64(limit.PreferredMaxBytes) &&
				next < len(sizes) && sum+uint64(sizes[next]) <= uint64(limit.PreferredMaxBytes)
			if k < full && early {
				t.Fatalf("batch %v cut early", batch)
			}
		}
		if next != len(sizes) {
			t.Fatalf("%d of %d envelopes in batches", next, len(sizes))
		}
	})
}

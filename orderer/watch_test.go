package orderer

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestWatch(t *testing.T) {
	type look struct {
		next, newest uint64
		busy         bool
	}
	for _, tc := range []struct {
		name  string
		looks []look
		stall bool // at the last look; never before
	}{
		{"an idle channel", []look{{10, 9, false}, {10, 9, false}, {10, 9, false}}, false},
		{"the other is behind", []look{{10, 3, false}, {10, 3, false}}, false},
		{"one look accuses nobody", []look{{10, 10, false}}, false},
		{"withheld tip", []look{{10, 10, false}, {10, 10, false}}, true},
		{"withheld tip of a growing chain", []look{{10, 12, false}, {10, 15, false}}, true},
		{"steady flow with one block under way", []look{{10, 10, false}, {25, 25, false}, {40, 40, false}}, false},
		{"a block that came late clears", []look{{10, 10, false}, {11, 10, false}, {11, 11, false}}, false},
		{"slow drip", []look{{10, 20, false}, {11, 35, false}}, true},
		{"slow drip, first hidden by progress", []look{{10, 20, false}, {12, 21, false}, {13, 40, false}}, true},
		{"long catch-up", []look{{0, 100000, false}, {500, 100020, false}, {900, 100040, false}}, false},
		{"the reader holds it up", []look{{10, 20, true}, {10, 25, true}, {10, 30, true}}, false},
		{"the reader held it up once", []look{{10, 20, true}, {10, 25, false}}, true},
		{"an empty chain", []look{{0, math.MaxUint64, false}, {0, math.MaxUint64, false}}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var w watch
			for i, l := range tc.looks {
				last := i == len(tc.looks)-1
				require.Equal(t, tc.stall && last, w.observe(l.next, l.newest, l.busy), "look %d", i)
			}
		})
	}
}

func TestBackoff(t *testing.T) {
	b := backoff{min: minBackoff, max: maxBackoff}
	near := func(want, got time.Duration) {
		t.Helper()
		require.InEpsilon(t, float64(want), float64(got), jitter+1e-9)
		require.LessOrEqual(t, got, maxBackoff)
	}
	near(100*time.Millisecond, b.next())
	near(120*time.Millisecond, b.next())
	near(144*time.Millisecond, b.next())
	for range 100 {
		b.next()
	}
	near(maxBackoff, b.next())
	b.reset()
	near(100*time.Millisecond, b.next())
}

func TestEntry(t *testing.T) {
	e := batchEntry{sequence: 7, data: [][]byte{[]byte("one"), {}, make([]byte, 300)}}
	got, err := parseEntry(e.marshal())
	require.NoError(t, err)
	require.Equal(t, e, got)
	for _, bad := range [][]byte{nil, {entryBatch}, {2, 0, 0, 0, 0, 0, 0, 0, 0}, append(e.marshal(), 5)} {
		_, err := parseEntry(bad)
		require.Error(t, err)
	}
}

func TestSameEndpoints(t *testing.T) {
	a := []Endpoint{{Address: "a:1"}, {Address: "b:1"}}
	require.True(t, same(a, []Endpoint{{Address: "a:1"}, {Address: "b:1"}}))
	require.False(t, same(a, a[:1]))
	require.False(t, same(a, []Endpoint{{Address: "a:1"}, {Address: "b:1", Override: "c:1"}}))
}

package ledger

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestKeysSort(t *testing.T) {
	require.Negative(t, bytes.Compare(blockKey(1, 255), blockKey(1, 256)))
	require.Negative(t, bytes.Compare(txKey(1, "a", 2, 9), txKey(1, "a", 3, 0)))
	for _, n := range []uint32{0, 1, 255, 256, 1<<32 - 1} {
		lower, upper := channelSpan(n)
		for _, k := range [][]byte{tipKey(n), blockKey(n, 1<<64-1), hashKey(n, [32]byte{255}), txKey(n, "x", 1<<64-1, 1<<32-1)} {
			require.True(t, bytes.Compare(lower, k) < 0 && bytes.Compare(k, upper) < 0)
		}
		if n < 1<<32-1 {
			next, _ := channelSpan(n + 1)
			require.LessOrEqual(t, bytes.Compare(upper, next), 0)
		}
	}
}

func FuzzKeyCodec(f *testing.F) {
	f.Add(tipKey(1))
	f.Add(blockKey(7, 1<<40))
	f.Add(hashKey(1<<31, [32]byte{1, 2, 3}))
	f.Add(txKey(9, "some id", 5, 6))
	f.Add(metaKey("incarnation"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := parseKey(b)
		if err != nil {
			return
		}
		if got := k.append(nil); !bytes.Equal(got, b) {
			t.Fatalf("%x came back as %x", b, got)
		}
		again, err := parseKey(k.append(nil))
		if err != nil || again != k {
			t.Fatalf("%+v came back as %+v, %v", k, again, err)
		}
	})
}

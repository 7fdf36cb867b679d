package cast

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"grapevine/wire"
)

// pattern is a body that anyone can make again: byte i is the low byte of
// i*i/251.
func pattern(size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(i * i / 251)
	}
	return b
}

// TestGoldenEncoding holds the bytes of an encoding: whoever casts a block of
// these bytes must announce these roots, and send chunks that hash to them.
func TestGoldenEncoding(t *testing.T) {
	var c Coder
	for _, v := range []struct {
		size        int
		want        Shape
		roots, coda string // SHA-256 of the roots; of all parity chunks, joined
	}{
		{wire.InlineLimit + 1, Shape{8193, 1, 12, 4, 683}, "da30f202d97b3789", "e8266fe8921406c3"},
		{64 << 10, Shape{65536, 1, 12, 4, 5462}, "34c62ec903c9d85d", "38fd2cdc45578981"},
		{64<<10 + 1, Shape{65537, 1, 32, 12, 2049}, "f8557c7a6de7386a", "46adb334dc866a52"},
		{1 << 20, Shape{1 << 20, 1, 160, 40, 6554}, "7f6558639018cdaa", "0a6d8abfc17f4831"},
		{2<<20 + 1, Shape{2<<20 + 1, 1, 200, 45, 10486}, "eec0799b0440316e", "52ef2ca0dd5f5a54"},
		{8<<20 + 1, Shape{8<<20 + 1, 2, 200, 45, 20972}, "c7899b02fadf0d0a", "a288fb6ee6638f37"},
	} {
		e, err := c.Encode(pattern(v.size))
		require.NoError(t, err)
		require.Equal(t, v.want, e.Shape)
		require.NoError(t, CheckRoots(uint64(v.size), e.Roots))
		roots, coda := sha256.Sum256(e.Roots), sha256.New()
		for _, s := range e.segs {
			for _, b := range s.chunks[v.want.K:] {
				coda.Write(b)
			}
		}
		require.Equal(t, v.roots, hex.EncodeToString(roots[:8]), "roots of %d bytes", v.size)
		require.Equal(t, v.coda, hex.EncodeToString(coda.Sum(nil)[:8]), "parity of %d bytes", v.size)
	}
}

// TestCodeIsAsWritten makes parity as docs/spec.md writes it down, with school
// arithmetic: over GF(2^8) modulo x^8+x^4+x^3+x^2+1, with the matrix V whose
// element in row r and column c is r^c, times the inverse of its first K rows.
func TestCodeIsAsWritten(t *testing.T) {
	var c Coder
	for _, size := range []int{9 << 10, 100 << 10} {
		e, err := c.Encode(pattern(size))
		require.NoError(t, err)
		k := e.Shape.K
		// What d must be times V's first rows to give the data; parity is then d
		// times V's other rows.
		rows := make([][]byte, k)
		for r := range rows {
			rows[r] = append(vandermonde(r, k), e.segs[0].chunks[r]...)
		}
		solve(rows, k)
		for m := range e.Shape.M {
			want := make([]byte, e.Shape.Chunk)
			for i, f := range vandermonde(k+m, k) {
				for j := range want {
					want[j] ^= times(f, rows[i][k+j])
				}
			}
			require.Equal(t, want, e.segs[0].chunks[k+m], "parity chunk %d of %d bytes", m, size)
		}
	}
}

func vandermonde(r, k int) []byte {
	row := make([]byte, k)
	for c, v := 0, byte(1); c < k; c, v = c+1, times(v, byte(r)) {
		row[c] = v
	}
	return row
}

func times(a, b byte) (p byte) {
	for ; b > 0; b >>= 1 {
		if b&1 == 1 {
			p ^= a
		}
		top := a & 0x80
		if a <<= 1; top > 0 {
			a ^= 0x1d
		}
	}
	return p
}

// solve brings the first k columns to the unit matrix.
func solve(rows [][]byte, k int) {
	for c := range k {
		inverse := byte(1)
		for range 254 {
			inverse = times(inverse, rows[c][c])
		}
		for j := range rows[c] {
			rows[c][j] = times(rows[c][j], inverse)
		}
		for r := range rows {
			if f := rows[r][c]; r != c && f != 0 {
				for j := range rows[r] {
					rows[r][j] ^= times(f, rows[c][j])
				}
			}
		}
	}
}

func TestShape(t *testing.T) {
	for _, size := range []uint64{0, wire.InlineLimit, wire.MaxBlock + 1, 1 << 63} {
		_, err := ShapeOf(size)
		require.ErrorIs(t, err, BadShape)
		require.Error(t, CheckRoots(size, nil))
	}
	for size := uint64(wire.InlineLimit + 1); size <= wire.MaxBlock; size += size / 97 {
		s, err := ShapeOf(size)
		require.NoError(t, err)
		require.LessOrEqual(t, s.N(), 256)
		require.LessOrEqual(t, s.Chunk, maxChunk)
		require.GreaterOrEqual(t, s.Segments*s.K*s.Chunk, s.Size)
		require.Less(t, s.Segments*s.K*s.Chunk-s.Size, s.Segments*s.K, "padding of %d bytes", size)
		require.LessOrEqual(t, s.Coded(), int64(s.Size)*11/8+int64(s.Segments*s.N()))
	}
}

// TestAnyChunksGiveTheBody: any K chunks of each segment, each proven by its
// path, give the body back.
func TestAnyChunksGiveTheBody(t *testing.T) {
	var c Coder
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.OneOf(rapid.IntRange(wire.InlineLimit+1, 300<<10), rapid.IntRange(8<<20+1, 9<<20)).Draw(t, "size")
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		body := make([]byte, size)
		for i := range body {
			body[i] = byte(rng.Uint32())
		}
		e, err := c.Encode(bytes.Clone(body))
		if err != nil {
			t.Fatal(err)
		}
		var got []byte
		for i, s := range e.segs {
			known := newTree(e.Shape.N(), e.Shape.roots(e.Roots, i))
			other := known.known.clone()
			chunks := make([][]byte, e.Shape.N())
			for _, k := range rng.Perm(e.Shape.N())[:e.Shape.K] {
				levels, path := s.tree.path(k, other)
				if err := known.accept(k, levels, path, leafOf(s.chunks[k])); err != nil {
					t.Fatal(err)
				}
				chunks[k] = s.chunks[k]
			}
			if err := c.rebuild(e.Shape, chunks); err != nil {
				t.Fatal(err)
			}
			for _, b := range chunks[:e.Shape.K] {
				got = append(got, b...)
			}
		}
		if !bytes.Equal(body, got[:size]) || !zero(got[size:]) {
			t.Fatal("another body")
		}
	})
}

func zero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

// TestPaths: a chunk is proven by what its sender sends, given what that sender
// sent before, whatever others sent; and no other chunk is.
func TestPaths(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.SampledFrom([]int{16, 44, 200, 245}).Draw(t, "n")
		leaves := make([]hash, n)
		for i := range leaves {
			leaves[i] = leafOf([]byte{byte(i), byte(i >> 8)})
		}
		full := fullTree(leaves)
		sparse := newTree(n, full.tops(1))
		senders := make([]bitset, 3)
		for i := range senders {
			senders[i] = sparse.known.clone()
		}
		for range 100 {
			i, from := rapid.IntRange(0, n-1).Draw(t, "chunk"), rapid.IntRange(0, 2).Draw(t, "sender")
			levels, path := full.path(i, senders[from])
			if err := sparse.accept(i, levels, path, leafOf([]byte("forged"))); !errors.Is(err, BadChunk) {
				t.Fatalf("a forged chunk %d: %v", i, err)
			}
			if err := sparse.accept(i, levels, path, leaves[i]); err != nil {
				t.Fatalf("chunk %d from %d: %v", i, from, err)
			}
			again := newTree(n, full.tops(1))
			if _, path := full.path(i, again.known.clone()); len(path) > 0 {
				if err := again.accept(i, 0, nil, leaves[i]); !errors.Is(err, NoPath) {
					t.Fatalf("chunk %d without a path: %v", i, err)
				}
			}
		}
		for i := range sparse.nodes { // what it learned is true
			if sparse.known.has(i) && sparse.nodes[i] != full.nodes[i] {
				t.Fatalf("node %d is wrong", i)
			}
		}
	})
}

// TestPathBytes: of four chunks in a run the hashes are few.
func TestPathBytes(t *testing.T) {
	full := fullTree(make([]hash, 200))
	known := newTree(200, full.tops(1)).known
	n := 0
	for i := range 4 {
		_, path := full.path(8+i, known)
		n += len(path)
	}
	require.Equal(t, 8+0+1+0, n, "hashes for four chunks")
	small := fullTree(make([]hash, 16))
	_, path := small.path(5, newTree(16, small.tops(16)).known)
	require.Empty(t, path, "all hashes are announced")
}

func BenchmarkEncode(b *testing.B) {
	for _, size := range []int{16 << 10, 128 << 10, 1 << 20, 8 << 20, 32 << 20} {
		b.Run(byteSize(size), func(b *testing.B) {
			var c Coder
			body := pattern(size)
			b.SetBytes(int64(size))
			for b.Loop() {
				if _, err := c.Encode(body); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkRebuild loses as many data chunks as parity can replace.
func BenchmarkRebuild(b *testing.B) {
	for _, size := range []int{16 << 10, 128 << 10, 1 << 20, 8 << 20} {
		b.Run(byteSize(size), func(b *testing.B) {
			var c Coder
			e, err := c.Encode(pattern(size))
			require.NoError(b, err)
			b.SetBytes(int64(size))
			for b.Loop() {
				chunks := append([][]byte(nil), e.segs[0].chunks...)
				for i := range e.Shape.M {
					chunks[i*e.Shape.K/e.Shape.M] = nil
				}
				if err := c.rebuild(e.Shape, chunks); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func byteSize(n int) string {
	if n < 1<<20 {
		return fmt.Sprintf("%dKiB", n>>10)
	}
	return fmt.Sprintf("%dMiB", n>>20)
}

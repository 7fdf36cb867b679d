package cast

import (
	"fmt"

	"grapevine/wire"
)

const (
	// segmentBytes is the most that is coded together: what is larger is cut
	// into equal segments, which flow one behind the other.
	segmentBytes = 8 << 20
	// smallTree is up to how many chunks of a segment are named one by one in
	// the announcement, instead of by their tree's root: so few hashes cost
	// less there, once, than on each chunk's way.
	smallTree = 16
	// maxChunk bounds a chunk: a 200th of a segment.
	maxChunk = (segmentBytes + 199) / 200
	// HashSize is the length of each hash in [Roots].
	HashSize = 32
)

// A Shape says how a body is cut into chunks. It is a function of the body's
// size alone, so that everyone who encodes a block makes the same chunks of it,
// and nobody can announce parameters that hurt.
type Shape struct {
	Size     int // bytes of the body: the marshalled BlockData
	Segments int // equal ones, coded each by itself
	K, M     int // data and parity chunks of a segment; any K of K+M give it back
	Chunk    int // bytes of a chunk
}

// The parameters are those of LIBP2P.md 5, measured at N = 50 on 100 Mbit/s and
// 25 ms: chunks of at least some 700 bytes, at least four for each relay of a
// group of 50 where the size allows, and fewer than 64 of parity, because
// Reed-Solomon over GF(2^8) slows down with their number.
var table = []struct{ size, k, m int }{
	{64 << 10, 12, 4},
	{256 << 10, 32, 12},
	{2 << 20, 160, 40},
	{wire.MaxBlock, 200, 45},
}

// ShapeOf returns the shape of a body of size bytes, which must lie between
// [wire.InlineLimit] and [wire.MaxBlock]: a smaller one travels inside its
// announcement.
func ShapeOf(size uint64) (Shape, error) {
	if size <= wire.InlineLimit || size > wire.MaxBlock {
		return Shape{}, fmt.Errorf("body of %d bytes: %w", size, BadShape)
	}
	s := Shape{Size: int(size)}
	for _, row := range table {
		if s.Size <= row.size {
			s.K, s.M = row.k, row.m
			break
		}
	}
	s.Segments = (s.Size + segmentBytes - 1) / segmentBytes
	s.Chunk = (s.Size + s.Segments*s.K - 1) / (s.Segments * s.K)
	return s, nil
}

// N returns how many chunks a segment has.
func (s Shape) N() int { return s.K + s.M }

// Coded returns the bytes of all chunks, parity included.
func (s Shape) Coded() int64 { return int64(s.Segments) * int64(s.N()) * int64(s.Chunk) }

// tops returns how many hashes the announcement holds of each segment: those of
// all its chunks if they are few, else the root of their tree.
func (s Shape) tops() int {
	if s.N() <= smallTree {
		return s.N()
	}
	return 1
}

// RootBytes returns how long an announcement's roots are.
func (s Shape) RootBytes() int { return s.Segments * s.tops() * HashSize }

// roots returns the part of an announcement's roots that belongs to a segment.
func (s Shape) roots(all []byte, segment int) []byte {
	n := s.tops() * HashSize
	return all[segment*n : (segment+1)*n]
}

// CheckRoots says whether roots can be those of a body of size bytes.
func CheckRoots(size uint64, roots []byte) error {
	s, err := ShapeOf(size)
	if err != nil {
		return err
	}
	if len(roots) != s.RootBytes() {
		return fmt.Errorf("%d bytes of roots for a body of %d, not %d: %w", len(roots), size, s.RootBytes(), BadShape)
	}
	return nil
}

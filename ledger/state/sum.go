package state

import (
	"crypto/sha256"
	"crypto/sha3"
	"encoding/binary"
)

// The state hash stands for the set of all entries, whatever the order in which
// they came: entries are hashed to vectors, which are added up, so that a block
// costs what it writes. It is LtHash (M. Bellare, D. Micciancio, "A New Paradigm
// for Collision-free Hashing: Incrementality at Reduced Cost", 1997) with 1024
// elements of 16 bits, the parameters of K. Lewi, W. Kim, I. Maykov, S. Weis,
// "Securing Update Propagation with Homomorphic Hashing" (IACR ePrint 2019/227),
// who put the cost of a collision beyond 2^200; with SHAKE128 in the place of
// BLAKE2Xb. What a collision here costs is bounded by SHA-256, which entries go
// through first, at 2^128. See the record "State hash" in docs/adr.
const (
	sumLanes = 1024
	sumBytes = 2 * sumLanes

	// Algorithm names the state hash: of two names hashes aren't comparable.
	Algorithm = "lthash16-1024-shake128-sha256"

	sumDomain   = "grapevine state entry 1\x00"
	digestBegin = "grapevine state hash 1\x00"
)

// A Sum is that of the vectors of all entries. The zero value is the empty state's.
type Sum [sumLanes]uint16

// Add puts an entry in.
func (s *Sum) Add(k Key, e *Entry) {
	var v [sumBytes]byte
	expand(&v, k, e)
	for i := range s {
		s[i] += binary.LittleEndian.Uint16(v[2*i:])
	}
}

// remove takes an entry out that was put in.
func (s *Sum) remove(k Key, e *Entry) {
	var v [sumBytes]byte
	expand(&v, k, e)
	for i := range s {
		s[i] -= binary.LittleEndian.Uint16(v[2*i:])
	}
}

// Digest is the state hash.
func (s *Sum) Digest() [32]byte {
	h := sha256.New()
	h.Write([]byte(digestBegin))
	h.Write(s.append(make([]byte, 0, sumBytes)))
	return [32]byte(h.Sum(nil))
}

func (s *Sum) append(dst []byte) []byte {
	for _, v := range s {
		dst = binary.LittleEndian.AppendUint16(dst, v)
	}
	return dst
}

// expand hashes an entry to its vector: all that it says, each part with its
// length, so that no two entries have one encoding.
func expand(v *[sumBytes]byte, k Key, e *Entry) {
	h := sha256.New()
	h.Write([]byte(sumDomain))
	var n [8]byte
	number := func(x uint64) {
		binary.BigEndian.PutUint64(n[:], x)
		h.Write(n[:])
	}
	number(e.Block)
	number(e.Tx)
	for _, part := range [][]byte{[]byte(k.Namespace), []byte(k.Collection), []byte(k.Key), e.Value, e.Metadata} {
		number(uint64(len(part)))
		h.Write(part)
	}
	x := sha3.NewSHAKE128()
	x.Write(h.Sum(nil))
	x.Read(v[:])
}

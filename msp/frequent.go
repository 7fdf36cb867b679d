package msp

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"math/big"
	"sync/atomic"

	"filippo.io/nistec"
	lru "github.com/hashicorp/golang-lru/v2"
)

// A handful of orderers signs all blocks of a channel, and a handful of peers
// endorses its transactions. Two thirds of a verification on P-256 (73 µs) are
// the multiplication by the signer's key; with its multiples at hand it takes
// 33 additions of 0.4 µs. A table takes 400 KiB and 3 ms to make, so one is
// made for a key under which often signatures were true, and frequentKeys are
// kept at once, in the whole process, for the same keys sign in many channels and
// under many configurations. A key that is pushed out again and again costs less
// than a third of what its signatures cost anyhow.
const (
	often        = 128
	frequentKeys = 32
	countedKeys  = 1024
)

// keys is the process's. It holds nothing but arithmetic on public keys, and no
// verdict depends on what it remembers.
var keys = newFrequent(often, frequentKeys, countedKeys)

// frequent remembers multiples of keys on P-256 that sign often. It is safe for
// concurrent use.
type frequent struct {
	often  uint32
	counts *lru.Cache[PKIID, *atomic.Uint32] // true signatures of keys without a table
	tables *lru.Cache[PKIID, *multiples]
}

func newFrequent(often uint32, tables, counted int) *frequent {
	f := &frequent{often: often}
	f.counts, _ = lru.New[PKIID, *atomic.Uint32](counted) // an error says that a size isn't positive
	f.tables, _ = lru.New[PKIID, *multiples](tables)
	return f
}

// verify is ecdsa.Verify for the key k, which is known as id.
func (f *frequent) verify(id PKIID, k *ecdsa.PublicKey, digest []byte, r, s *big.Int) bool {
	if k.Curve != elliptic.P256() || len(digest) != digestSize {
		return ecdsa.Verify(k, digest, r, s)
	}
	if t, ok := f.tables.Get(id); ok {
		return t.verify(digest, r, s)
	}
	if !ecdsa.Verify(k, digest, r, s) {
		return false
	}
	n, ok := f.counts.Get(id)
	if !ok {
		n = new(atomic.Uint32)
		f.counts.Add(id, n)
	}
	if n.Add(1) == f.often {
		if t, err := newMultiples(k); err == nil {
			f.tables.Add(id, t)
		}
		f.counts.Remove(id)
	}
	return true
}

const (
	digestSize = 32
	windows    = digestSize + 1 // one for each byte of a scalar, and what is carried out of the last
)

// multiples holds d·256^i times a point at [i][d-1], for d from 1 to 128.
type multiples [windows][128]nistec.P256Point

func newMultiples(k *ecdsa.PublicKey) (*multiples, error) {
	raw, err := k.Bytes()
	if err != nil {
		return nil, err
	}
	p, err := nistec.NewP256Point().SetBytes(raw)
	if err != nil {
		return nil, err
	}
	t := new(multiples)
	for i := range t {
		t[i][0].Set(p)
		for d := 1; d < len(t[i]); d++ {
			t[i][d].Add(&t[i][d-1], p)
		}
		p.Double(&t[i][len(t[i])-1])
	}
	return t, nil
}

// times returns the point times a scalar: a sum of signed digits to the base 256,
// -127 to 128. Its time depends on the scalar, which is no secret.
func (t *multiples) times(scalar *[digestSize]byte) *nistec.P256Point {
	sum, minus := nistec.NewP256Point(), nistec.NewP256Point()
	carry := 0
	for i := range t {
		d := carry
		if i < len(scalar) {
			d += int(scalar[len(scalar)-1-i])
		}
		carry = 0
		if d > 128 {
			d, carry = d-256, 1
		}
		switch {
		case d > 0:
			sum.Add(sum, &t[i][d-1])
		case d < 0:
			sum.Add(sum, minus.Negate(&t[i][-d-1]))
		}
	}
	return sum
}

// verify is ECDSA's verification (SEC 1, version 2.0, 4.1.4) of a digest as long
// as the order. Whatever it is given, it says what ecdsa.Verify says.
func (t *multiples) verify(digest []byte, r, s *big.Int) bool {
	n := elliptic.P256().Params().N
	if r.Sign() <= 0 || s.Sign() <= 0 || r.Cmp(n) >= 0 || s.Cmp(n) >= 0 {
		return false
	}
	w := new(big.Int).ModInverse(s, n)
	var u1, u2 [digestSize]byte
	x := new(big.Int).SetBytes(digest)
	x.Mul(x, w).Mod(x, n).FillBytes(u1[:])
	x.Mul(r, w).Mod(x, n).FillBytes(u2[:])
	p, err := nistec.NewP256Point().ScalarBaseMult(u1[:])
	if err != nil { // never: 32 bytes
		return false
	}
	at, err := p.Add(p, t.times(&u2)).BytesX()
	if err != nil { // the point at infinity
		return false
	}
	x.SetBytes(at)
	return x.Mod(x, n).Cmp(r) == 0
}

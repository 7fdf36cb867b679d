package msp

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"math/big"
	"testing"

	"filippo.io/nistec"
	"github.com/stretchr/testify/require"
)

// claimedSignature is a key, and what is claimed to be its signature.
type claimedSignature struct {
	key    *ecdsa.PublicKey
	digest []byte
	r, s   *big.Int
}

// both verifies in the two ways, which must agree.
func (c claimedSignature) both(t testing.TB) bool {
	t.Helper()
	table, err := newMultiples(c.key)
	require.NoError(t, err)
	std := ecdsa.Verify(c.key, c.digest, c.r, c.s)
	require.Equal(t, std, table.verify(c.digest, c.r, c.s), "digest %x, r %x, s %x", c.digest, c.r, c.s)
	return std
}

// numberOf is a private key.
func numberOf(t testing.TB, k *ecdsa.PrivateKey) *big.Int {
	t.Helper()
	raw, err := k.Bytes()
	require.NoError(t, err)
	return new(big.Int).SetBytes(raw)
}

func TestFrequentKeyTimes(t *testing.T) {
	k := newKey(t, elliptic.P256())
	table, err := newMultiples(&k.PublicKey)
	require.NoError(t, err)
	raw, err := k.PublicKey.Bytes()
	require.NoError(t, err)
	q, err := nistec.NewP256Point().SetBytes(raw)
	require.NoError(t, err)
	order := elliptic.P256().Params().N
	scalars := [][]byte{make([]byte, 32), new(big.Int).Sub(order, big.NewInt(1)).Bytes(), new(big.Int).Rsh(order, 1).Bytes()}
	for _, b := range []byte{1, 0x7f, 0x80, 0x81, 0xff} {
		scalars = append(scalars, bytes.Repeat([]byte{b}, 32), append(make([]byte, 31), b), append([]byte{b}, make([]byte, 31)...))
	}
	for range 200 {
		b := make([]byte, 32)
		rand.Read(b)
		scalars = append(scalars, b)
	}
	for _, s := range scalars {
		want, err := nistec.NewP256Point().ScalarMult(q, s)
		require.NoError(t, err)
		require.Equal(t, want.Bytes(), table.times((*[32]byte)(s)).Bytes(), "%x", s)
	}
}

func TestFrequentKeyVerifies(t *testing.T) {
	order := elliptic.P256().Params().N
	less := new(big.Int).Sub(order, big.NewInt(1))
	k := newKey(t, elliptic.P256())
	d := numberOf(t, k)
	digest := sha256.Sum256([]byte("block"))
	r, s, err := ecdsa.Sign(rand.Reader, k, digest[:])
	require.NoError(t, err)
	good := claimedSignature{&k.PublicKey, digest[:], r, s}
	require.True(t, good.both(t))
	require.True(t, claimedSignature{&k.PublicKey, digest[:], r, new(big.Int).Sub(order, s)}.both(t), "the other s")
	require.False(t, claimedSignature{&newKey(t, elliptic.P256()).PublicKey, digest[:], r, s}.both(t), "another's")

	odd := []*big.Int{big.NewInt(-1), new(big.Int), big.NewInt(1), less, order, new(big.Int).Add(order, r), new(big.Int).Add(order, s), new(big.Int).Lsh(r, 256)}
	for _, x := range odd {
		require.False(t, claimedSignature{&k.PublicKey, digest[:], x, s}.both(t))
		require.False(t, claimedSignature{&k.PublicKey, digest[:], r, x}.both(t))
	}
	for _, x := range odd {
		for _, y := range odd {
			claimedSignature{&k.PublicKey, digest[:], x, y}.both(t)
			claimedSignature{&k.PublicKey, make([]byte, 32), x, y}.both(t)
		}
	}
	for bit := range 256 {
		flipped := bytes.Clone(digest[:])
		flipped[bit/8] ^= 1 << (bit % 8)
		require.False(t, claimedSignature{&k.PublicKey, flipped, r, s}.both(t))
		require.False(t, claimedSignature{&k.PublicKey, digest[:], new(big.Int).SetBit(r, bit, r.Bit(bit)^1), s}.both(t))
	}

	mod := func(x *big.Int) *big.Int { return x.Mod(x, order) }
	t.Run("a digest of nothing", func(t *testing.T) {
		r, s, err := ecdsa.Sign(rand.Reader, k, make([]byte, 32))
		require.NoError(t, err)
		require.True(t, claimedSignature{&k.PublicKey, make([]byte, 32), r, s}.both(t))
	})
	t.Run("the sum of opposite points", func(t *testing.T) {
		e := mod(new(big.Int).Neg(new(big.Int).Mul(r, d)))
		require.False(t, claimedSignature{&k.PublicKey, e.FillBytes(make([]byte, 32)), r, s}.both(t))
	})
	t.Run("the sum of equal points", func(t *testing.T) {
		one := newKey(t, elliptic.P256())
		x := mod(new(big.Int).Set(one.X))
		e := mod(new(big.Int).Mul(x, d))
		sum := new(big.Int).Lsh(e, 1)
		s := mod(sum.Mul(sum, new(big.Int).ModInverse(numberOf(t, one), order)))
		require.True(t, claimedSignature{&k.PublicKey, e.FillBytes(make([]byte, 32)), x, s}.both(t))
	})
	t.Run("a point whose x passes the order", func(t *testing.T) {
		// Of such a point R the logarithm isn't known: the key is made to fit it.
		var at *nistec.P256Point
		x := new(big.Int).Set(order)
		for err := error(nil); at == nil || err != nil; x.Add(x, big.NewInt(1)) {
			at, err = nistec.NewP256Point().SetBytes(append([]byte{2}, x.FillBytes(make([]byte, 32))...))
		}
		x.Sub(x, big.NewInt(1))
		u1, u2 := numberOf(t, newKey(t, elliptic.P256())), numberOf(t, newKey(t, elliptic.P256()))
		g, err := nistec.NewP256Point().ScalarBaseMult(new(big.Int).Sub(order, u1).FillBytes(make([]byte, 32)))
		require.NoError(t, err)
		q, err := nistec.NewP256Point().ScalarMult(g.Add(g, at), new(big.Int).ModInverse(u2, order).FillBytes(make([]byte, 32)))
		require.NoError(t, err)
		key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), q.Bytes())
		require.NoError(t, err)
		r := new(big.Int).Sub(x, order)
		s := mod(new(big.Int).Mul(r, new(big.Int).ModInverse(u2, order)))
		e := mod(new(big.Int).Mul(u1, s))
		require.True(t, claimedSignature{key, e.FillBytes(make([]byte, 32)), r, s}.both(t))
	})
}

// A key gets a table when enough of its signatures were true, and what it is told
// stays the same; there are no more tables than there may be.
func TestFrequentKeys(t *testing.T) {
	f := newFrequent(3, 2, 8)
	digest := sha256.Sum256([]byte("block"))
	for i := range 4 {
		k, id := newKey(t, elliptic.P256()), PKIID{byte(i)}
		r, s, err := ecdsa.Sign(rand.Reader, k, digest[:])
		require.NoError(t, err)
		wrong := new(big.Int).Xor(s, big.NewInt(1))
		for n := range 6 {
			_, has := f.tables.Peek(id)
			require.Equal(t, n >= 3, has, "after %d", n)
			require.False(t, f.verify(id, &k.PublicKey, digest[:], r, wrong))
			require.True(t, f.verify(id, &k.PublicKey, digest[:], r, s))
		}
		require.Equal(t, min(i+1, 2), f.tables.Len())
	}
	k, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	require.NoError(t, err)
	r, s, err := ecdsa.Sign(rand.Reader, k, digest[:])
	require.NoError(t, err)
	for range 6 {
		require.True(t, f.verify(PKIID{9}, &k.PublicKey, digest[:], r, s))
	}
	require.False(t, f.tables.Contains(PKIID{9}), "another curve")
}

// FuzzFrequentKey compares with the standard library whatever is claimed.
func FuzzFrequentKey(f *testing.F) {
	k := newKey(f, elliptic.P256())
	table, err := newMultiples(&k.PublicKey)
	require.NoError(f, err)
	digest := sha256.Sum256([]byte("block"))
	r, s, err := ecdsa.Sign(rand.Reader, k, digest[:])
	require.NoError(f, err)
	f.Add(digest[:], r.Bytes(), s.Bytes(), false)
	f.Add(make([]byte, 32), []byte{1}, elliptic.P256().Params().N.Bytes(), true)
	f.Fuzz(func(t *testing.T, digest, r, s []byte, sign bool) {
		sum := sha256.Sum256(digest)
		x, y := new(big.Int).SetBytes(r), new(big.Int).SetBytes(s)
		if sign {
			var err error
			x, y, err = ecdsa.Sign(rand.Reader, k, sum[:])
			require.NoError(t, err)
			x.Add(x, new(big.Int).SetBytes(r))
			y.Add(y, new(big.Int).SetBytes(s))
		}
		require.Equal(t, ecdsa.Verify(&k.PublicKey, sum[:], x, y), table.verify(sum[:], x, y))
	})
}

func BenchmarkFrequentKey(b *testing.B) {
	k := newKey(b, elliptic.P256())
	digest := sha256.Sum256([]byte("block"))
	r, s, err := ecdsa.Sign(rand.Reader, k, digest[:])
	require.NoError(b, err)
	table, err := newMultiples(&k.PublicKey)
	require.NoError(b, err)
	b.Run("table", func(b *testing.B) {
		for b.Loop() {
			_ = table.verify(digest[:], r, s)
		}
	})
	b.Run("plain", func(b *testing.B) {
		for b.Loop() {
			_ = ecdsa.Verify(&k.PublicKey, digest[:], r, s)
		}
	})
	b.Run("making", func(b *testing.B) {
		for b.Loop() {
			_, _ = newMultiples(&k.PublicKey)
		}
	})
}

package msp_test

import (
	"crypto/rand"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/stretchr/testify/require"

	"grapevine/msp"
	"grapevine/msp/ca"
	"grapevine/wire"
)

// Every field of a good binding, changed or replayed elsewhere, is refused.
func TestBindingHostile(t *testing.T) {
	b := newBound(t, ca.P256)
	stranger := newBound(t, ca.P256) // the same names under another CA
	sibling, err := b.org.Identity("peer1.org1.example.com", "peer")
	require.NoError(t, err)
	_, rsaKey, err := crypto.GenerateRSAKeyPair(2048, rand.Reader)
	require.NoError(t, err)
	for _, c := range []struct {
		name   string
		change func(x *msp.Binding)
		net    string
		host   crypto.PubKey
		want   *wire.Reason
	}{
		{name: "other host key", host: hostKey(t), want: msp.BadSignature},
		{name: "host key of another type", host: rsaKey, want: msp.BadHostKey},
		{name: "other network", net: "net-2", want: msp.BadSignature},
		{name: "later end", change: func(x *msp.Binding) { x.NotAfter -= 7; x.NotBefore -= 7 }, want: msp.BadSignature},
		{name: "other MSP", change: func(x *msp.Binding) { x.MSPID = "Org2MSP" }, want: msp.BadSignature},
		{name: "no MSP", change: func(x *msp.Binding) { x.MSPID = "" }, want: msp.BadBinding},
		{name: "MSP ID too long", change: func(x *msp.Binding) { x.MSPID = string(make([]byte, 256)) }, want: msp.HugeBinding},
		{name: "another member's certificate", change: func(x *msp.Binding) { x.Chain = [][]byte{sibling.Identity().Certificate().Raw} }, want: msp.BadSignature},
		{name: "lives 24 h and 1 s", change: func(x *msp.Binding) { x.NotBefore--; resign(t, b.signer, x, b.host) }, want: msp.LongBinding},
		{name: "ends before it begins", change: func(x *msp.Binding) { x.NotAfter = x.NotBefore - 1 }, want: msp.BadBinding},
		{name: "begins before time", change: func(x *msp.Binding) { x.NotBefore = -1 << 63 }, want: msp.BadBinding},
		{name: "ends after time", change: func(x *msp.Binding) { x.NotAfter = 1<<63 - 1 }, want: msp.LongBinding},
		{name: "no certificate", change: func(x *msp.Binding) { x.Chain = nil }, want: msp.BadBinding},
		{name: "empty certificate", change: func(x *msp.Binding) { x.Chain = [][]byte{{}} }, want: msp.BadBinding},
		{name: "certificate with a tail", change: func(x *msp.Binding) { x.Chain = [][]byte{append(x.Chain[0], 0)} }, want: msp.NotDER},
		{name: "C35 PEM", change: func(x *msp.Binding) { x.Chain = [][]byte{b.org.CA.PEM()} }, want: msp.NotDER},
		{name: "C26 six certificates", change: func(x *msp.Binding) { x.Chain = repeat(x.Chain[0], 6) }, want: msp.ChainTooLong},
		{name: "12 KiB", change: func(x *msp.Binding) { x.Chain = append(x.Chain, make([]byte, 12<<10-len(x.Chain[0]))) }, want: msp.HugeBinding},
		{name: "no signature", change: func(x *msp.Binding) { x.Sig = nil }, want: msp.BadSignatureEncoding},
		{name: "C18 high S", change: func(x *msp.Binding) { x.Sig = flipS(t, x.Sig) }, want: msp.HighS},
		{name: "C19 tail behind the signature", change: func(x *msp.Binding) { x.Sig = append(x.Sig, 0) }, want: msp.BadSignatureEncoding},
		{name: "signature too long", change: func(x *msp.Binding) { x.Sig = make([]byte, 129) }, want: msp.HugeBinding},
		{name: "signed by another member", change: func(x *msp.Binding) { resign(t, sibling, x, b.host) }, want: msp.BadSignature},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := b.bind(t)
			if c.change != nil {
				c.change(x)
			}
			if c.net == "" {
				c.net = network
			}
			if c.host == nil {
				c.host = b.host
			}
			_, err := x.Verify(c.net, c.host, bindNow, b.judge)
			require.ErrorIs(t, err, c.want)
		})
	}
	t.Run("a stranger's CA", func(t *testing.T) {
		_, err := stranger.bind(t).Verify(network, stranger.host, bindNow, b.judge)
		require.Error(t, err)
	})
	t.Run("the judge refuses", func(t *testing.T) {
		_, err := b.bind(t).Verify(network, b.host, bindNow, func(*msp.Identity, [][]byte, time.Time) error { return msp.Revoked })
		require.ErrorIs(t, err, msp.Revoked)
	})
	t.Run("any one byte of the signature", func(t *testing.T) {
		x := b.bind(t)
		for i := range x.Sig {
			x.Sig[i] ^= 0x10
			_, err := x.Verify(network, b.host, bindNow, b.judge)
			require.Error(t, err, i)
			x.Sig[i] ^= 0x10
		}
	})
}

func TestBindingFromHostile(t *testing.T) {
	b := newBound(t, ca.P256)
	good := extension(t, b.bind(t))
	with := func(change func(x *msp.Binding)) pkix.Extension {
		x := b.bind(t)
		change(x)
		return extension(t, x)
	}
	raw := func(v []byte) pkix.Extension { return pkix.Extension{Id: wire.BindingOID, Value: v} }
	for _, c := range []struct {
		name string
		ext  []pkix.Extension
		want *wire.Reason
	}{
		{"none", nil, msp.NoBinding},
		{"another's extension", []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: good.Value}}, msp.NoBinding},
		{"critical", []pkix.Extension{{Id: wire.BindingOID, Critical: true, Value: good.Value}}, msp.BadBinding},
		{"empty", []pkix.Extension{raw(nil)}, msp.BadBinding},
		{"no DER", []pkix.Extension{raw([]byte("binding"))}, msp.BadBinding},
		{"trailing bytes", []pkix.Extension{raw(append(append([]byte{}, good.Value...), 0))}, msp.BadBinding},
		{"cut short", []pkix.Extension{raw(good.Value[:len(good.Value)-1])}, msp.BadBinding},
		{"a field more", []pkix.Extension{raw(longer(t, b.bind(t)))}, msp.BadBinding},
		{"name of another string type", []pkix.Extension{raw(retag(good.Value))}, msp.BadBinding},
		{"17 KiB", []pkix.Extension{raw(make([]byte, 17<<10))}, msp.HugeBinding},
		{"C26 six certificates", []pkix.Extension{with(func(x *msp.Binding) { x.Chain = repeat(x.Chain[0], 6) })}, msp.ChainTooLong},
		{"no signature", []pkix.Extension{with(func(x *msp.Binding) { x.Sig = nil })}, msp.BadBinding},
		{"no certificate", []pkix.Extension{with(func(x *msp.Binding) { x.Chain = nil })}, msp.BadBinding},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := msp.BindingFrom(carry(t, c.ext...))
			require.ErrorIs(t, err, c.want)
		})
	}
	t.Run("two", func(t *testing.T) { // crypto/x509 reads no such certificate; other parsers do
		c := carry(t, good)
		c.Extensions = append(c.Extensions, c.Extensions[len(c.Extensions)-1])
		_, err := msp.BindingFrom(c)
		require.ErrorIs(t, err, msp.BadBinding)
	})
}

// resign replaces the signature by s's own over what x says: what a member
// could do that doesn't keep to the rules.
func resign(t testing.TB, s msp.Signer, x *msp.Binding, host crypto.PubKey) {
	t.Helper()
	raw, err := crypto.MarshalPublicKey(host)
	require.NoError(t, err)
	u64 := func(v int64) (b []byte) {
		for i := 56; i >= 0; i -= 8 {
			b = append(b, byte(v>>i))
		}
		return b
	}
	sum := wire.HashParts([]byte(wire.DomainBinding), []byte(network), []byte(x.MSPID), raw, x.Chain[0],
		append(u64(x.NotBefore), u64(x.NotAfter)...))
	x.Sig, err = s.Sign(sum[:])
	require.NoError(t, err)
}

type ecdsaSig struct{ R, S *big.Int }

// flipS returns the other signature that verifies.
func flipS(t testing.TB, sig []byte) []byte {
	t.Helper()
	n, _ := new(big.Int).SetString("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551", 16)
	var v ecdsaSig
	_, err := asn1.Unmarshal(sig, &v)
	require.NoError(t, err)
	v.S.Sub(n, v.S)
	b, err := asn1.Marshal(v)
	require.NoError(t, err)
	return b
}

// longer encodes a binding with one field more at its end, which encoding/asn1
// ignores.
func longer(t testing.TB, x *msp.Binding) []byte {
	t.Helper()
	b, err := asn1.Marshal(struct {
		MSPID               string `asn1:"utf8"`
		Chain               [][]byte
		NotBefore, NotAfter int64
		Sig                 []byte
		More                int
	}{x.MSPID, x.Chain, x.NotBefore, x.NotAfter, x.Sig, 1})
	require.NoError(t, err)
	return b
}

// retag turns the MSP ID's UTF8String into a PrintableString.
func retag(v []byte) []byte {
	out := append([]byte{}, v...)
	for i, c := range out {
		if c == asn1.TagUTF8String {
			out[i] = asn1.TagPrintableString
			return out
		}
	}
	return nil
}

func repeat(b []byte, n int) (out [][]byte) {
	for range n {
		out = append(out, b)
	}
	return out
}

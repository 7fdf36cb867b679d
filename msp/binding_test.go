package msp_test

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/stretchr/testify/require"

	"grapevine/msp"
	"grapevine/msp/ca"
	"grapevine/wire"
)

const network = "net-1"

var bindNow = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

// A bound is an organisation, one member of it and its host key.
type bound struct {
	org    *ca.Org
	signer msp.Signer
	host   crypto.PubKey
}

func newBound(t testing.TB, alg ca.Algorithm) bound {
	t.Helper()
	o, err := ca.NewOrg("Org1MSP", "org1.example.com", bindNow.Add(-time.Hour))
	require.NoError(t, err)
	s, err := o.Enroll(ca.Request{CN: "peer0.org1.example.com", OU: []string{"peer"}}, alg)
	require.NoError(t, err)
	return bound{o, s, hostKey(t)}
}

func (b bound) bind(t testing.TB) *msp.Binding {
	t.Helper()
	x, err := msp.NewBinding(b.signer, nil, network, b.host, bindNow, 0)
	require.NoError(t, err)
	return x
}

// judge is a judge that looks at the chain alone.
func (b bound) judge(id *msp.Identity, intermediates [][]byte, now time.Time) error {
	return chains(b.org.CA.Root(), id, intermediates, now)
}

func chains(root *x509.Certificate, id *msp.Identity, intermediates [][]byte, now time.Time) error {
	pool, roots := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(root)
	for _, der := range intermediates {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		pool.AddCert(c)
	}
	_, err := id.Certificate().Verify(x509.VerifyOptions{Roots: roots, Intermediates: pool, CurrentTime: now})
	return err
}

func hostKey(t testing.TB) crypto.PubKey {
	t.Helper()
	_, pub, err := crypto.GenerateEd25519Key(rand.Reader)
	require.NoError(t, err)
	return pub
}

// carry puts extensions into a certificate as a host's TLS certificate has
// them, and returns it as the other side reads it.
func carry(t testing.TB, ext ...pkix.Extension) *x509.Certificate {
	t.Helper()
	key, err := ca.GenerateKey(ca.Ed25519)
	require.NoError(t, err)
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: bindNow, NotAfter: bindNow.Add(time.Hour), ExtraExtensions: ext}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	require.NoError(t, err)
	c, err = x509.ParseCertificate(der)
	require.NoError(t, err)
	return c
}

func extension(t testing.TB, b *msp.Binding) pkix.Extension {
	t.Helper()
	e, err := b.Extension()
	require.NoError(t, err)
	return e
}

func TestBindingProvesTheMember(t *testing.T) {
	for _, alg := range []ca.Algorithm{ca.P256, ca.P384, ca.Ed25519} {
		b := newBound(t, alg)
		e := extension(t, b.bind(t))
		require.False(t, e.Critical)
		require.Equal(t, wire.BindingOID, e.Id)
		got, err := msp.BindingFrom(carry(t, e))
		require.NoError(t, err)
		id, err := got.Verify(network, b.host, bindNow, b.judge)
		require.NoError(t, err)
		require.Equal(t, b.signer.Identity().PKIID(), id.PKIID())
		require.Equal(t, "Org1MSP", id.MSPID())
		require.Equal(t, e.Value, extension(t, got).Value, "what was read encodes to itself")
	}
}

// Intermediates travel with the leaf, and the judge gets them.
func TestBindingCarriesIntermediates(t *testing.T) {
	b := newBound(t, ca.P256)
	mid, err := b.org.CA.Intermediate("ica", ca.P256, bindNow.Add(-time.Hour))
	require.NoError(t, err)
	s := enroll(t, mid)
	require.Error(t, b.judge(s.Identity(), nil, bindNow))
	x, err := msp.NewBinding(s, [][]byte{mid.Certificate().Raw}, network, b.host, bindNow, 0)
	require.NoError(t, err)
	_, err = x.Verify(network, b.host, bindNow, b.judge)
	require.NoError(t, err)
	_, err = msp.NewBinding(s, [][]byte{s.Identity().Certificate().Raw}, network, b.host, bindNow, 0)
	require.ErrorContains(t, err, "among the intermediates")
}

func TestBindingDates(t *testing.T) {
	b := newBound(t, ca.P256)
	x := b.bind(t)
	require.Equal(t, int64(msp.BindingLife/time.Second), x.NotAfter-x.NotBefore)
	begins := time.Unix(x.NotBefore, 0)
	require.True(t, begins.Before(bindNow.Add(-30*time.Second)), "a peer whose clock is 30 s behind takes it")
	for _, c := range []struct {
		at   time.Time
		want *wire.Reason
	}{
		{begins.Add(-61 * time.Second), msp.EarlyBinding},
		{begins.Add(-60 * time.Second), nil},
		{begins, nil},
		{x.Ends(), nil},
		{x.Ends().Add(time.Nanosecond), msp.ExpiredBinding},
		{x.Ends().AddDate(5, 0, 0), msp.ExpiredBinding},
	} {
		_, err := x.Verify(network, b.host, c.at, b.judge)
		require.Equal(t, c.want, wire.ReasonOf(err), "%s", c.at)
	}
}

// A binding never outlives its certificate, nor begins before it.
func TestBindingKeepsWithinTheCertificate(t *testing.T) {
	b := newBound(t, ca.P256)
	begin, end := bindNow.Add(-time.Minute), bindNow.Add(time.Hour)
	s, err := b.org.Enroll(ca.Request{CN: "short", NotBefore: begin, NotAfter: end}, ca.P256)
	require.NoError(t, err)
	x, err := msp.NewBinding(s, nil, network, b.host, bindNow, 0)
	require.NoError(t, err)
	require.Equal(t, end.Unix(), x.NotAfter)
	require.Equal(t, begin.Unix(), x.NotBefore)
	_, err = msp.NewBinding(s, nil, network, b.host, end, 0)
	require.ErrorIs(t, err, msp.ExpiredBinding)

	x.NotAfter++ // signed by the member itself, and still refused
	resign(t, s, x, b.host)
	_, err = x.Verify(network, b.host, bindNow, b.judge)
	require.ErrorIs(t, err, msp.LongBinding)
}

func TestNewBindingRefuses(t *testing.T) {
	b := newBound(t, ca.P256)
	_, p256, err := crypto.GenerateECDSAKeyPair(rand.Reader)
	require.NoError(t, err)
	big := make([][]byte, 5)
	for i := range big {
		big[i] = make([]byte, 3000)
	}
	for name, f := range map[string]func() (*msp.Binding, error){
		"life too long": func() (*msp.Binding, error) {
			return msp.NewBinding(b.signer, nil, network, b.host, bindNow, msp.BindingLife+1)
		},
		"life too short": func() (*msp.Binding, error) {
			return msp.NewBinding(b.signer, nil, network, b.host, bindNow, time.Minute)
		},
		"negative life":    func() (*msp.Binding, error) { return msp.NewBinding(b.signer, nil, network, b.host, bindNow, -1) },
		"no network":       func() (*msp.Binding, error) { return msp.NewBinding(b.signer, nil, "", b.host, bindNow, 0) },
		"no host":          func() (*msp.Binding, error) { return msp.NewBinding(b.signer, nil, network, nil, bindNow, 0) },
		"ECDSA host":       func() (*msp.Binding, error) { return msp.NewBinding(b.signer, nil, network, p256, bindNow, 0) },
		"six certificates": func() (*msp.Binding, error) { return msp.NewBinding(b.signer, big, network, b.host, bindNow, 0) },
		"12 KiB of them":   func() (*msp.Binding, error) { return msp.NewBinding(b.signer, big[:4], network, b.host, bindNow, 0) },
		"an empty certificate": func() (*msp.Binding, error) {
			return msp.NewBinding(b.signer, [][]byte{{}}, network, b.host, bindNow, 0)
		},
	} {
		_, err := f()
		require.Error(t, err, name)
	}
}

// A binding made once, by a member under an intermediate, verifies for ever: a
// change of its format, or of what is signed, would cut the network in two.
func TestBindingGolden(t *testing.T) {
	g, value := golden(t)
	x, err := msp.BindingFrom(&x509.Certificate{Extensions: []pkix.Extension{{Id: wire.BindingOID, Value: value}}})
	require.NoError(t, err)
	require.Len(t, x.Chain, 2)
	id, err := x.Verify(network, g.host, bindNow, g.judge)
	require.NoError(t, err)
	require.Equal(t, "peer0", id.Name())
	require.Equal(t, value, extension(t, x).Value)
}

// golden reads testdata/binding.pem: a root, a host key and an extension. Fixed
// bytes are also what a fuzz target needs, whose workers are processes of their
// own.
func golden(t testing.TB) (g goldenBound, value []byte) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "binding.pem"))
	require.NoError(t, err)
	for p, rest := pem.Decode(text); p != nil; p, rest = pem.Decode(rest) {
		switch p.Type {
		case "CERTIFICATE":
			g.root, err = x509.ParseCertificate(p.Bytes)
		case "LIBP2P PUBLIC KEY":
			g.host, err = crypto.UnmarshalPublicKey(p.Bytes)
		default:
			value = p.Bytes
		}
		require.NoError(t, err)
	}
	return g, value
}

type goldenBound struct {
	root *x509.Certificate
	host crypto.PubKey
}

func (g goldenBound) judge(id *msp.Identity, intermediates [][]byte, now time.Time) error {
	return chains(g.root, id, intermediates, now)
}

// An accepted extension encodes to itself, gives the same verdict twice, and
// proves nobody but the one member there is.
func FuzzBinding(f *testing.F) {
	g, value := golden(f)
	f.Add(value)
	f.Add(value[:len(value)/2])
	f.Add(append(append([]byte{}, value...), 0))
	f.Add(longer(f, newBound(f, ca.P256).bind(f)))
	f.Add([]byte{0x30, 0x80})
	f.Fuzz(func(t *testing.T, v []byte) {
		c := &x509.Certificate{Extensions: []pkix.Extension{{Id: wire.BindingOID, Value: v}}}
		x, err := msp.BindingFrom(c)
		if err != nil {
			require.NotNil(t, wire.ReasonOf(err))
			return
		}
		require.Equal(t, v, extension(t, x).Value)
		id, err := x.Verify(network, g.host, bindNow, g.judge)
		_, again := x.Verify(network, g.host, bindNow, g.judge)
		require.Equal(t, err == nil, again == nil)
		if err == nil {
			require.Equal(t, "peer0", id.Name())
		}
	})
}

func BenchmarkBindingVerify(b *testing.B) {
	x := newBound(b, ca.P256)
	c := carry(b, extension(b, x.bind(b)))
	for b.Loop() {
		got, err := msp.BindingFrom(c)
		if err == nil {
			_, err = got.Verify(network, x.host, bindNow, x.judge)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

// enroll makes a member under an intermediate.
func enroll(t testing.TB, c *ca.CA) msp.Signer {
	t.Helper()
	s, err := (&ca.Org{MSPID: "Org1MSP", CA: c}).Identity("peer0", "peer")
	require.NoError(t, err)
	return s
}

package msp

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	mspproto "github.com/hyperledger/fabric-protos-go-apiv2/msp"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"grapevine/wire"
)

// noon is when the tests live.
var noon = time.Date(2027, 6, 1, 12, 0, 0, 0, time.UTC)

var all = Features{NodeOUs: true, Ed25519: true}

var serial atomic.Int64

// A party holds a certificate and its key: a CA or a member.
type party struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func (p *party) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: certificateType, Bytes: p.cert.Raw})
}

func (p *party) id(t testing.TB, mspID string) *Identity {
	t.Helper()
	id, err := FromDER(mspID, p.cert.Raw)
	require.NoError(t, err)
	return id
}

func (p *party) signer(t testing.TB, mspID string) Signer {
	t.Helper()
	s, err := NewSigner(p.id(t, mspID), p.key)
	require.NoError(t, err)
	return s
}

// A change alters a certificate before it is issued.
type change func(*x509.Certificate)

func newKey(t testing.TB, c elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(c, rand.Reader)
	require.NoError(t, err)
	return k
}

func newEd25519(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, k, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	return k
}

// certify issues a certificate over key's public half; by nil, key signs itself.
func certify(t testing.TB, by *party, key crypto.Signer, c *x509.Certificate) *party {
	t.Helper()
	parent, signer := c, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return &party{cert, key}
}

func keyID(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	require.NoError(t, err)
	h := sha256.Sum256(spki)
	return h[:20]
}

func authority(t testing.TB, by *party, cn string, key crypto.Signer, changes ...change) *party {
	t.Helper()
	c := &x509.Certificate{
		SerialNumber:          big.NewInt(serial.Add(1)),
		Subject:               pkix.Name{Organization: []string{"org1.example.com"}, CommonName: cn},
		NotBefore:             noon.AddDate(-1, 0, 0),
		NotAfter:              noon.AddDate(9, 0, 0),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLen:            -1,
		SubjectKeyId:          keyID(t, key),
	}
	for _, f := range changes {
		f(c)
	}
	return certify(t, by, key, c)
}

func root(t testing.TB, cn string, changes ...change) *party {
	t.Helper()
	return authority(t, nil, cn, newKey(t, elliptic.P256()), changes...)
}

func member(t testing.TB, by *party, cn, ou string, changes ...change) *party {
	t.Helper()
	return memberWith(t, by, newKey(t, elliptic.P256()), cn, ou, changes...)
}

func memberWith(t testing.TB, by *party, key crypto.Signer, cn, ou string, changes ...change) *party {
	t.Helper()
	c := &x509.Certificate{
		SerialNumber:          big.NewInt(serial.Add(1)),
		Subject:               pkix.Name{CommonName: cn},
		NotBefore:             noon.AddDate(0, -1, 0),
		NotAfter:              noon.AddDate(1, 0, 0),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
	}
	if ou != "" {
		c.Subject.OrganizationalUnit = []string{ou}
	}
	for _, f := range changes {
		f(c)
	}
	return certify(t, by, key, c)
}

// definition is an MSP's definition with the four roles under any CA.
func definition(mspID string, roots ...*party) *mspproto.FabricMSPConfig {
	ou := func(s string) *mspproto.FabricOUIdentifier {
		return &mspproto.FabricOUIdentifier{OrganizationalUnitIdentifier: s}
	}
	conf := &mspproto.FabricMSPConfig{Name: mspID, FabricNodeOus: &mspproto.FabricNodeOUs{
		Enable: true, ClientOuIdentifier: ou("client"), PeerOuIdentifier: ou("peer"),
		AdminOuIdentifier: ou("admin"), OrdererOuIdentifier: ou("orderer"),
	}}
	for _, r := range roots {
		conf.RootCerts = append(conf.RootCerts, r.pem())
	}
	return conf
}

func build(t testing.TB, conf *mspproto.FabricMSPConfig) *MSP {
	t.Helper()
	m, err := New(conf, all)
	require.NoError(t, err)
	return m
}

func revocation(t testing.TB, by *party, changes func(*x509.RevocationList), revoked ...*party) []byte {
	t.Helper()
	l := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: noon.AddDate(0, 0, -1), NextUpdate: noon.AddDate(0, 1, 0)}
	for _, p := range revoked {
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: p.cert.SerialNumber, RevocationTime: noon})
	}
	if changes != nil {
		changes(l)
	}
	der, err := x509.CreateRevocationList(rand.Reader, l, by.cert, by.key)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
}

// resign changes a certificate below the level that crypto/x509 would write, and
// signs it again.
func resign(t testing.TB, by *party, der []byte, f func(*tbs, *outer)) []byte {
	t.Helper()
	var o outer
	var b tbs
	_, err := asn1.Unmarshal(der, &o)
	require.NoError(t, err)
	_, err = asn1.Unmarshal(o.TBS.FullBytes, &b)
	require.NoError(t, err)
	f(&b, &o)
	raw, err := asn1.Marshal(b)
	require.NoError(t, err)
	o.TBS = asn1.RawValue{FullBytes: raw}
	digest := sha256.Sum256(raw)
	sig, err := by.key.Sign(rand.Reader, digest[:], crypto.SHA256)
	require.NoError(t, err)
	o.Signature = asn1.BitString{Bytes: sig, BitLength: 8 * len(sig)}
	out, err := asn1.Marshal(o)
	require.NoError(t, err)
	return out
}

// twin returns the certificate with the other S in its issuer's signature.
func twin(t testing.TB, p *party) *party {
	t.Helper()
	var o outer
	_, err := asn1.Unmarshal(p.cert.Raw, &o)
	require.NoError(t, err)
	sig := otherS(t, elliptic.P256(), p.cert.Signature)
	o.Signature = asn1.BitString{Bytes: sig, BitLength: 8 * len(sig)}
	der, err := asn1.Marshal(o)
	require.NoError(t, err)
	c, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return &party{c, p.key}
}

func otherS(t testing.TB, c elliptic.Curve, sig []byte) []byte {
	t.Helper()
	r, s, err := parse(sig)
	require.NoError(t, err)
	out, err := asn1.Marshal(rs{r, new(big.Int).Sub(c.Params().N, s)})
	require.NoError(t, err)
	return out
}

// refused demands a reason.
func refused(t testing.TB, err error, want *wire.Reason) {
	t.Helper()
	require.Error(t, err)
	require.Equal(t, want, wire.ReasonOf(err), "%v", err)
}

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	require.NoError(t, err)
	return b
}

// fixtures finds the chains and crypto trees of real networks.
func fixtures(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("GRAPEVINE_FIXTURES")
	if dir == "" {
		shared := filepath.Join("..", "..", "shared")
		if _, err := os.Stat(shared); err != nil {
			t.Skip("no fixtures: neither GRAPEVINE_FIXTURES nor ../shared beside the repository")
		}
		dir = filepath.Join(shared, "fixtures")
	}
	dir = filepath.Join(dir, "fabric")
	if _, err := os.Stat(dir); err != nil {
		t.Fatalf("fixtures are incomplete: %v", err)
	}
	return dir
}

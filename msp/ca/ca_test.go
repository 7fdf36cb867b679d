package ca_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"math/big"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"grapevine/msp/ca"
)

func TestIssueUnderEachAlgorithm(t *testing.T) {
	for _, ours := range []ca.Algorithm{ca.P256, ca.P384, ca.Ed25519} {
		c := authority(t, ours)
		for _, theirs := range []ca.Algorithm{ca.P256, ca.P384, ca.Ed25519} {
			key, err := ca.GenerateKey(theirs)
			require.NoError(t, err)
			cert := issue(t, c, ca.Request{CN: "peer0", OU: []string{"peer"}, Key: key.Public()})
			roots := x509.NewCertPool()
			roots.AddCert(c.Certificate())
			_, err = cert.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now})
			require.NoError(t, err, "%d under %d", theirs, ours)
			require.Equal(t, x509.KeyUsageDigitalSignature, cert.KeyUsage)
			require.Empty(t, cert.ExtKeyUsage)
			require.Equal(t, "CN=peer0,OU=peer,L=San Francisco,ST=California,C=US", cert.Subject.String())
		}
	}
}

// An intermediate's leaves verify through the whole chain, and no certificate
// outlives its issuer.
func TestIntermediate(t *testing.T) {
	root := authority(t, ca.P384)
	mid, err := root.Intermediate("ica.example.com", ca.P256, now.AddDate(5, 0, 0))
	require.NoError(t, err)
	low, err := mid.Intermediate("ica2.example.com", ca.P256, now.AddDate(5, 0, 0))
	require.NoError(t, err)
	require.Empty(t, root.Intermediates())
	require.Equal(t, []*x509.Certificate{low.Certificate(), mid.Certificate()}, low.Intermediates())
	require.Equal(t, root.Certificate(), low.Root())
	require.Equal(t, []string{"example.com"}, low.Certificate().Subject.Organization)
	require.NotEmpty(t, low.Certificate().SubjectKeyId)
	require.Equal(t, mid.Certificate().SubjectKeyId, low.Certificate().AuthorityKeyId)

	key, err := ca.GenerateKey(ca.P256)
	require.NoError(t, err)
	leaf := issue(t, low, ca.Request{CN: "peer0", Key: key.Public(), NotAfter: now.AddDate(100, 0, 0)})
	require.Equal(t, root.Certificate().NotAfter, leaf.NotAfter)
	roots, pool := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(root.Certificate())
	for _, x := range low.Intermediates() {
		pool.AddCert(x)
	}
	_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: pool, CurrentTime: now.AddDate(6, 0, 0)})
	require.NoError(t, err)

	dir := t.TempDir()
	require.NoError(t, low.Save(dir))
	again, err := ca.Open(dir)
	require.NoError(t, err)
	require.Equal(t, low.Intermediates(), again.Intermediates())
	require.Equal(t, low.Root(), again.Root())
}

func TestIssueTLS(t *testing.T) {
	key, err := ca.GenerateKey(ca.P256)
	require.NoError(t, err)
	c := issue(t, authority(t, ca.P256), ca.Request{CN: "a", SANs: []string{"a.b", "127.0.0.1", "::1"}, TLS: true, Key: key.Public()})
	require.Equal(t, []string{"a.b"}, c.DNSNames)
	require.Len(t, c.IPAddresses, 2)
	require.Equal(t, x509.KeyUsageDigitalSignature|x509.KeyUsageKeyEncipherment, c.KeyUsage)
	require.Equal(t, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, c.ExtKeyUsage)
}

func TestIssueRefuses(t *testing.T) {
	c := authority(t, ca.P256)
	good, err := ca.GenerateKey(ca.P256)
	require.NoError(t, err)
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	require.NoError(t, err)
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	require.NoError(t, err)
	for name, r := range map[string]ca.Request{
		"no name":         {Key: good.Public()},
		"no key":          {CN: "a"},
		"RSA":             {CN: "a", Key: weak.Public()},
		"P-521":           {CN: "a", Key: p521.Public()},
		"ends too soon":   {CN: "a", Key: good.Public(), NotBefore: now, NotAfter: now},
		"begins too late": {CN: "a", Key: good.Public(), NotBefore: now.AddDate(20, 0, 0)},
	} {
		_, err := c.Issue(r)
		require.Error(t, err, name)
	}
	_, err = ca.New("o", "", ca.P256, now)
	require.Error(t, err)
	_, err = ca.New("o", "c", 9, now)
	require.Error(t, err)
}

// Fabric rewrites a certificate whose issuer signed with a high S; ours never
// need it.
func TestSignaturesHaveLowS(t *testing.T) {
	c := authority(t, ca.P256)
	half := new(big.Int).Rsh(elliptic.P256().Params().N, 1)
	key, err := ca.GenerateKey(ca.Ed25519)
	require.NoError(t, err)
	for range 32 { // each would be high with probability 1/2
		cert := issue(t, c, ca.Request{CN: "a", Key: key.Public()})
		var sig struct{ R, S *big.Int }
		_, err := asn1.Unmarshal(cert.Signature, &sig)
		require.NoError(t, err)
		require.LessOrEqual(t, sig.S.Cmp(half), 0)
	}
}

func TestRenewKeepsTheKey(t *testing.T) {
	c := authority(t, ca.P256)
	key, err := ca.GenerateKey(ca.P256)
	require.NoError(t, err)
	old := issue(t, c, ca.Request{CN: "peer0", OU: []string{"peer"}, SANs: []string{"h", "10.0.0.1"}, TLS: true, Key: key.Public()})
	der, err := c.Renew(old, now, now.AddDate(1, 0, 0))
	require.NoError(t, err)
	renewed, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	require.Equal(t, old.RawSubjectPublicKeyInfo, renewed.RawSubjectPublicKeyInfo)
	require.Equal(t, old.RawSubject, renewed.RawSubject)
	require.Equal(t, old.DNSNames, renewed.DNSNames)
	require.Equal(t, old.IPAddresses[0].String(), renewed.IPAddresses[0].String())
	require.Equal(t, old.KeyUsage, renewed.KeyUsage)
	require.Equal(t, old.ExtKeyUsage, renewed.ExtKeyUsage)
	require.NotEqual(t, old.SerialNumber, renewed.SerialNumber)
	require.Equal(t, now.UTC().Truncate(time.Second), renewed.NotBefore)

	_, err = authority(t, ca.P256).Renew(old, now, time.Time{})
	require.ErrorContains(t, err, "not issued by")
	_, err = c.Renew(c.Certificate(), now, time.Time{})
	require.Error(t, err)
	require.NoError(t, c.Revoke(old.SerialNumber, now))
	_, err = c.Renew(old, now, time.Time{})
	require.ErrorContains(t, err, "revoked")
}

func TestConcurrentUse(t *testing.T) {
	c := authority(t, ca.P256)
	key, err := ca.GenerateKey(ca.P256)
	require.NoError(t, err)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			_, err := c.Issue(ca.Request{CN: "a", Key: key.Public()})
			if err == nil {
				err = c.Revoke(big.NewInt(int64(i+1)), now)
			}
			if err == nil {
				_, err = c.CRL(now)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i := range 8 {
		require.True(t, c.Revoked(big.NewInt(int64(i+1))))
	}
}

func authority(t testing.TB, a ca.Algorithm) *ca.CA {
	t.Helper()
	c, err := ca.New("example.com", "ca.example.com", a, now)
	require.NoError(t, err)
	return c
}

func issue(t testing.TB, c *ca.CA, r ca.Request) *x509.Certificate {
	t.Helper()
	der, err := c.Issue(r)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return cert
}

package ca_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"grapevine/msp/ca"
)

// The list survives the folder: what was revoked stays revoked, and each list
// has a higher number than the one before.
func TestRevocationsSurvive(t *testing.T) {
	dir := t.TempDir()
	c := authority(t, ca.P256)
	require.NoError(t, c.Save(dir))
	require.NoFileExists(t, filepath.Join(dir, "crl.pem"), "cryptogen has none")
	a, b := big.NewInt(7), big.NewInt(8)
	require.NoError(t, c.Revoke(a, now))
	require.NoError(t, c.Revoke(a, now.AddDate(1, 0, 0)), "twice is no error")
	first, err := c.SaveCRL(dir, now)
	require.NoError(t, err)
	l := parseCRL(t, first)
	require.NoError(t, l.CheckSignatureFrom(c.Certificate()))
	require.Equal(t, c.Certificate().SubjectKeyId, l.AuthorityKeyId, "a list without would void the whole organisation")
	require.Len(t, l.RevokedCertificateEntries, 1)
	require.Equal(t, now, l.RevokedCertificateEntries[0].RevocationTime)

	c, err = ca.Open(dir)
	require.NoError(t, err)
	require.True(t, c.Revoked(a))
	require.False(t, c.Revoked(b))
	require.NoError(t, c.Revoke(b, now))
	second, err := c.SaveCRL(dir, now)
	require.NoError(t, err)
	require.Positive(t, parseCRL(t, second).Number.Cmp(l.Number))
	require.Len(t, parseCRL(t, second).RevokedCertificateEntries, 2)

	require.ErrorContains(t, c.ReadCRL(first), "older")
	require.True(t, c.Revoked(b), "a refused list changes nothing")
	_, err = c.CRL(c.Certificate().NotAfter)
	require.ErrorContains(t, err, "ended")
	for _, n := range []*big.Int{nil, big.NewInt(0), big.NewInt(-1), new(big.Int).Lsh(big.NewInt(1), 160)} {
		require.Error(t, c.Revoke(n, now))
	}
}

func TestReadCRLRefuses(t *testing.T) {
	c, other := authority(t, ca.P256), authority(t, ca.P256)
	foreign, err := other.CRL(now) // same name, another key
	require.NoError(t, err)
	own, err := c.CRL(now)
	require.NoError(t, err)
	p, _ := pem.Decode(own)
	p.Bytes[len(p.Bytes)-1] ^= 1
	for name, b := range map[string][]byte{
		"empty": nil, "no PEM": []byte("x"), "certificate": c.PEM(), "foreign": foreign, "tampered": pem.EncodeToMemory(p),
		"garbage": pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: []byte{0x30, 0}}),
	} {
		require.Error(t, c.ReadCRL(b), name)
	}
	require.NoError(t, c.ReadCRL(own))
}

// A folder that cryptogen wrote opens, and goes on issuing.
func TestOpenCryptogensFolder(t *testing.T) {
	org := filepath.Join(fixtures(t), "crypto", "peerOrganizations", "orga.example.com")
	c, err := ca.Open(filepath.Join(org, "ca"))
	require.NoError(t, err)
	require.Equal(t, "ca.orga.example.com", c.Name())
	key, err := ca.GenerateKey(ca.P256)
	require.NoError(t, err)
	cert := issue(t, c, ca.Request{CN: "peer9.orga.example.com", OU: []string{"peer"}, Key: key.Public()})
	old := readCert(t, filepath.Join(org, "peers/peer0.orga.example.com/msp/signcerts/peer0.orga.example.com-cert.pem"))
	require.Equal(t, old.AuthorityKeyId, cert.AuthorityKeyId)
	require.Equal(t, old.RawIssuer, cert.RawIssuer)
	require.Equal(t, old.NotAfter, cert.NotAfter)
	renewed, err := c.Renew(old, old.NotBefore, old.NotAfter)
	require.NoError(t, err)
	require.NotEqual(t, old.Raw, renewed)
}

func TestSaveAndOpen(t *testing.T) {
	for _, a := range []ca.Algorithm{ca.P256, ca.P384, ca.Ed25519} {
		dir := filepath.Join(t.TempDir(), "odd [name]*")
		c := authority(t, a)
		require.NoError(t, c.Save(dir))
		require.NoError(t, os.Chmod(filepath.Join(dir, "priv_sk"), 0o644))
		require.NoError(t, c.Save(dir), "twice is no error")
		info, err := os.Stat(filepath.Join(dir, "priv_sk"))
		require.NoError(t, err)
		require.EqualValues(t, 0o600, info.Mode().Perm())
		again, err := ca.Open(dir)
		require.NoError(t, err)
		require.Equal(t, c.Certificate(), again.Certificate())
		require.ErrorContains(t, authority(t, a).Save(dir), "another key")
	}
}

func TestOpenRefuses(t *testing.T) {
	type files map[string][]byte
	c, other := authority(t, ca.P256), authority(t, ca.P256)
	read := func(c *ca.CA) files {
		dir := t.TempDir()
		require.NoError(t, c.Save(dir))
		key, err := os.ReadFile(filepath.Join(dir, "priv_sk"))
		require.NoError(t, err)
		return files{"ca.example.com-cert.pem": c.PEM(), "priv_sk": key}
	}
	leafKey, err := ca.GenerateKey(ca.P256)
	require.NoError(t, err)
	leaf := issue(t, c, ca.Request{CN: "a", Key: leafKey.Public()})
	leafPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Raw})
	for _, r := range []struct {
		name   string
		change func(files)
		want   string
	}{
		{"empty folder", func(f files) { clear(f) }, "0 files *-cert.pem"},
		{"two certificates", func(f files) { f["b-cert.pem"] = other.PEM() }, "2 files *-cert.pem"},
		{"two in one file", func(f files) { f["ca.example.com-cert.pem"] = append(c.PEM(), other.PEM()...) }, "more than one certificate"},
		{"no PEM", func(f files) { f["ca.example.com-cert.pem"] = []byte("x") }, "no PEM certificate"},
		{"a leaf", func(f files) { f["ca.example.com-cert.pem"] = leafPEM }, "not a CA's"},
		{"no key", func(f files) { delete(f, "priv_sk") }, "no file *_sk"},
		{"another's key", func(f files) { f["priv_sk"] = read(other)["priv_sk"] }, "belongs to another"},
		{"no key in the file", func(f files) { f["priv_sk"] = []byte("x") }, "no PEM key"},
		{"foreign list", func(f files) { f["crl.pem"], err = other.CRL(now); require.NoError(t, err) }, "not signed by"},
		{"foreign issuer", func(f files) { f["chain.pem"] = other.PEM() }, "isn't the issuer"},
	} {
		t.Run(r.name, func(t *testing.T) {
			f := read(c)
			r.change(f)
			dir := t.TempDir()
			for name, b := range f {
				require.NoError(t, os.WriteFile(filepath.Join(dir, name), b, 0o600))
			}
			_, err := ca.Open(dir)
			require.ErrorContains(t, err, r.want)
			require.ErrorContains(t, err, dir)
		})
	}
	_, err = ca.Open(filepath.Join(t.TempDir(), "absent"))
	require.Error(t, err)
}

// The key is found by what it is: other keys may lie beside it, and OpenSSL
// writes SEC 1.
func TestOpenChoosesTheKey(t *testing.T) {
	dir := t.TempDir()
	c := authority(t, ca.P256)
	require.NoError(t, c.Save(dir))
	key := readKey(t, filepath.Join(dir, "priv_sk")).(*ecdsa.PrivateKey)
	der, err := x509.MarshalECPrivateKey(key)
	require.NoError(t, err)
	other, err := ca.GenerateKey(ca.P256)
	require.NoError(t, err)
	text, err := ca.EncodeKey(other)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "priv_sk"), text, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "z_sk"), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600))
	again, err := ca.Open(dir)
	require.NoError(t, err)
	require.Equal(t, c.Certificate(), again.Certificate())
}

// What the CA signed is the recorded list alone, so nothing else is taken. The
// certificate is fixed too: a fuzz target's workers are processes of their own.
func FuzzReadCRL(f *testing.F) {
	text, err := os.ReadFile(filepath.Join("testdata", "crl.pem"))
	require.NoError(f, err)
	p, rest := pem.Decode(text)
	cert, err := x509.ParseCertificate(p.Bytes)
	require.NoError(f, err)
	p, _ = pem.Decode(rest)
	f.Add(p.Bytes)
	f.Add([]byte{0x30, 0x80, 0, 0})
	f.Fuzz(func(t *testing.T, der []byte) {
		c := ca.Keyless(cert)
		err := c.ReadCRL(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}))
		require.Equal(t, err == nil, c.Revoked(big.NewInt(5)))
		if bytes.Equal(der, p.Bytes) {
			require.NoError(t, err)
		}
	})
}

func parseCRL(t *testing.T, b []byte) *x509.RevocationList {
	t.Helper()
	p := one(t, "crl", b)
	require.Equal(t, "X509 CRL", p.Type)
	l, err := x509.ParseRevocationList(p.Bytes)
	require.NoError(t, err)
	return l
}

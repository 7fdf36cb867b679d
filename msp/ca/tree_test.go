package ca_test

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"grapevine/msp/ca"
)

var now = time.Date(2030, 5, 6, 7, 8, 9, 0, time.UTC)

func clock() time.Time { return now }

// The recorded tree was made by cryptogen of the recorded crypto-config.yaml.
// Ours, made of the same file, has the same files, and each file has the same
// shape.
func TestGenerateWritesCryptogensTree(t *testing.T) {
	dir := fixtures(t)
	text, err := os.ReadFile(filepath.Join(dir, "crypto-config.yaml"))
	require.NoError(t, err)
	spec, err := ca.ParseSpec(text)
	require.NoError(t, err)
	ours := filepath.Join(t.TempDir(), "crypto")
	require.NoError(t, ca.Generate(spec, ours, now))

	theirs := filepath.Join(dir, "crypto")
	files := list(t, ours, false)
	require.Equal(t, list(t, theirs, false), files)
	require.Equal(t, list(t, theirs, true), drop(list(t, ours, true), "admincerts"), "folders, but for empty ones")

	for _, f := range files {
		a, err := os.ReadFile(filepath.Join(theirs, f))
		require.NoError(t, err)
		b, err := os.ReadFile(filepath.Join(ours, f))
		require.NoError(t, err)
		if strings.HasSuffix(f, ".yaml") {
			require.Equal(t, string(a), string(b), f)
			continue
		}
		p, q := one(t, f, a), one(t, f, b)
		require.Equal(t, p.Type, q.Type, f)
		info, err := os.Stat(filepath.Join(ours, f))
		require.NoError(t, err)
		if p.Type == "PRIVATE KEY" {
			require.EqualValues(t, 0o600, info.Mode().Perm(), f)
			require.IsType(t, key(t, p), key(t, q), f)
			continue
		}
		require.Zero(t, info.Mode().Perm()&0o022, f)
		require.Equal(t, shapeOf(t, p), shapeOf(t, q), f)
	}
}

// Every key belongs to the certificate beside it, every certificate to its CA,
// and copies are copies.
func TestGeneratedTreeHangsTogether(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "crypto")
	spec := &ca.Spec{PeerOrgs: []ca.OrgSpec{{
		Name: "Org1", Domain: "org1", EnableNodeOUs: true,
		CA:       ca.NodeSpec{OrganizationalUnit: "Vine", Country: "CH", StreetAddress: "Weg 1", PostalCode: "8000"},
		Template: ca.Template{Count: 2, Start: 3, SANS: []string{"localhost", "::1", "alt.{{.CommonName}}"}},
		Specs:    []ca.NodeSpec{{Hostname: "extra", CommonName: "extra", PublicKeyAlgorithm: "ed25519"}},
		Users:    ca.Users{Count: 1, PublicKeyAlgorithm: "p384"},
	}}}
	require.NoError(t, ca.Generate(spec, dir, now))
	org := filepath.Join(dir, "peerOrganizations", "org1")
	sign, err := ca.Open(filepath.Join(org, "ca"))
	require.NoError(t, err)
	tls, err := ca.Open(filepath.Join(org, "tlsca"))
	require.NoError(t, err)
	require.Equal(t, []string{"Weg 1"}, sign.Certificate().Subject.StreetAddress)

	for node, role := range map[string]string{
		"peers/peer3.org1": "peer", "peers/peer4.org1": "peer", "peers/extra": "peer",
		"users/Admin@org1": "admin", "users/User1@org1": "client",
	} {
		name := filepath.Base(node)
		m := filepath.Join(org, node, "msp")
		cert := readCert(t, filepath.Join(m, "signcerts", name+"-cert.pem"))
		require.NoError(t, cert.CheckSignatureFrom(sign.Certificate()), node)
		require.Equal(t, sign.Certificate().SubjectKeyId, cert.AuthorityKeyId)
		require.ElementsMatch(t, []string{"Vine", role}, cert.Subject.OrganizationalUnit)
		require.Equal(t, []string{"CH"}, cert.Subject.Country)
		require.Empty(t, cert.Subject.Organization)
		require.True(t, public(readKey(t, filepath.Join(m, "keystore", "priv_sk"))).Equal(cert.PublicKey), node)
		require.Equal(t, sign.Certificate(), readCert(t, filepath.Join(m, "cacerts", "ca.org1-cert.pem")))
		require.Equal(t, tls.Certificate(), readCert(t, filepath.Join(m, "tlscacerts", "tlsca.org1-cert.pem")))
		require.Empty(t, list(t, filepath.Join(m, "admincerts"), false), "NodeOUs say who administers")

		kind := "server"
		if strings.HasPrefix(node, "users") {
			kind = "client"
		}
		front := readCert(t, filepath.Join(org, node, "tls", kind+".crt"))
		require.NoError(t, front.CheckSignatureFrom(tls.Certificate()))
		require.True(t, public(readKey(t, filepath.Join(org, node, "tls", kind+".key"))).Equal(front.PublicKey))
		require.Equal(t, tls.Certificate(), readCert(t, filepath.Join(org, node, "tls", "ca.crt")))
		if kind == "server" && name != "extra" {
			require.Equal(t, []string{name, strings.TrimSuffix(name, ".org1"), "localhost", "alt." + name}, front.DNSNames)
			require.Equal(t, "::1", front.IPAddresses[0].String())
		}
	}
	extra := readCert(t, filepath.Join(org, "peers/extra/msp/signcerts/extra-cert.pem"))
	require.Equal(t, x509.Ed25519, extra.PublicKeyAlgorithm)
	require.Equal(t, x509.ECDSAWithSHA256, extra.SignatureAlgorithm, "under an ECDSA CA")
}

func TestGenerateWithoutNodeOUsListsAdmins(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, ca.Generate(&ca.Spec{PeerOrgs: []ca.OrgSpec{{
		Domain: "o", Template: ca.Template{Count: 1}, Users: ca.Users{Count: 1},
	}}}, dir, now))
	org := filepath.Join(dir, "peerOrganizations", "o")
	admin := readCert(t, filepath.Join(org, "users/Admin@o/msp/signcerts/Admin@o-cert.pem"))
	require.Empty(t, admin.Subject.OrganizationalUnit)
	for _, m := range []string{"msp", "peers/peer0.o/msp", "users/Admin@o/msp"} {
		require.Equal(t, []string{"Admin@o-cert.pem"}, list(t, filepath.Join(org, m, "admincerts"), false), m)
		require.Equal(t, admin, readCert(t, filepath.Join(org, m, "admincerts/Admin@o-cert.pem")))
		require.NoFileExists(t, filepath.Join(org, m, "config.yaml"))
	}
	require.Equal(t, []string{"User1@o-cert.pem"}, list(t, filepath.Join(org, "users/User1@o/msp/admincerts"), false))
}

func TestGenerateNeverOverwrites(t *testing.T) {
	dir := t.TempDir()
	one := &ca.Spec{PeerOrgs: []ca.OrgSpec{{Domain: "b"}}}
	require.NoError(t, ca.Generate(one, dir, now))
	before := list(t, dir, false)
	both := &ca.Spec{PeerOrgs: []ca.OrgSpec{{Domain: "a"}, {Domain: "b"}}}
	require.ErrorContains(t, ca.Generate(both, dir, now), "exists")
	require.Equal(t, before, list(t, dir, false), "nothing of a was written")
}

// A folder that can't be made whole leaves nothing behind.
func TestGenerateCleansUp(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "peerOrganizations")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	require.Error(t, ca.Generate(&ca.Spec{PeerOrgs: []ca.OrgSpec{{Domain: "a"}}}, dir, now))
	require.Equal(t, []string{"peerOrganizations"}, list(t, dir, false))
}

func TestDistribute(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, ca.Generate(&ca.Spec{PeerOrgs: []ca.OrgSpec{{
		Domain: "o", EnableNodeOUs: true, Template: ca.Template{Count: 2}, Users: ca.Users{Count: 1},
	}}}, dir, now))
	org := filepath.Join(dir, "peerOrganizations", "o")
	c, err := ca.Open(filepath.Join(org, "ca"))
	require.NoError(t, err)
	user := readCert(t, filepath.Join(org, "users/User1@o/msp/signcerts/User1@o-cert.pem"))
	require.NoError(t, c.Revoke(user.SerialNumber, now))
	crl, err := c.SaveCRL(filepath.Join(org, "ca"), now)
	require.NoError(t, err)
	require.NoError(t, ca.Distribute(org, c.Name(), crl))
	for _, m := range []string{"msp", "peers/peer0.o/msp", "peers/peer1.o/msp", "users/Admin@o/msp", "users/User1@o/msp"} {
		b, err := os.ReadFile(filepath.Join(org, m, "crls", "ca.o-crl.pem"))
		require.NoError(t, err)
		require.Equal(t, crl, b)
	}
	require.ErrorContains(t, ca.Distribute(dir, c.Name(), crl), "no MSP folder")
}

// A shape is all of a certificate that doesn't depend on chance or the clock.
type shape struct {
	subject, issuer, names string
	keyUsage               x509.KeyUsage
	extKeyUsage            []x509.ExtKeyUsage
	isCA, basic            bool
	maxPath                int
	algorithm              x509.SignatureAlgorithm
	publicKey              x509.PublicKeyAlgorithm
	extensions             []string
	life                   time.Duration
	seconds                int
	ski, aki               int
}

func shapeOf(t *testing.T, p *pem.Block) shape {
	c, err := x509.ParseCertificate(p.Bytes)
	require.NoError(t, err)
	s := shape{
		subject: c.Subject.String(), issuer: c.Issuer.String(),
		keyUsage: c.KeyUsage, extKeyUsage: c.ExtKeyUsage, isCA: c.IsCA, basic: c.BasicConstraintsValid, maxPath: c.MaxPathLen,
		algorithm: c.SignatureAlgorithm, publicKey: c.PublicKeyAlgorithm,
		life: c.NotAfter.Sub(c.NotBefore), seconds: c.NotBefore.Second(),
		ski: len(c.SubjectKeyId), aki: len(c.AuthorityKeyId),
	}
	s.names = strings.Join(c.DNSNames, ",")
	for _, ip := range c.IPAddresses {
		s.names += "," + ip.String()
	}
	for _, e := range c.Extensions {
		crit := ""
		if e.Critical {
			crit = "!"
		}
		s.extensions = append(s.extensions, e.Id.String()+crit)
	}
	return s
}

// list returns the relative paths of all files, or folders, in order.
func list(t *testing.T, root string, dirs bool) []string {
	t.Helper()
	var out []string
	require.NoError(t, filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() == dirs {
			rel, _ := filepath.Rel(root, p)
			out = append(out, rel)
		}
		return err
	}))
	return out
}

func drop(paths []string, base string) (out []string) {
	for _, p := range paths {
		if filepath.Base(p) != base {
			out = append(out, p)
		}
	}
	return out
}

func one(t *testing.T, name string, b []byte) *pem.Block {
	t.Helper()
	p, rest := pem.Decode(b)
	require.NotNil(t, p, name)
	require.Empty(t, rest, name)
	return p
}

func key(t *testing.T, p *pem.Block) any {
	t.Helper()
	k, err := x509.ParsePKCS8PrivateKey(p.Bytes)
	require.NoError(t, err)
	return k
}

func readCert(t *testing.T, file string) *x509.Certificate {
	t.Helper()
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	c, err := x509.ParseCertificate(one(t, file, b).Bytes)
	require.NoError(t, err)
	return c
}

func readKey(t *testing.T, file string) crypto.Signer {
	t.Helper()
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	return key(t, one(t, file, b)).(crypto.Signer)
}

type publicKey interface{ Equal(crypto.PublicKey) bool }

func public(k crypto.Signer) publicKey { return k.Public().(publicKey) }

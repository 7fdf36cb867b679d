package msp

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"grapevine/wire"
)

// write makes a folder of files; a name that ends in @ is a link to the content.
func write(t testing.TB, dir string, list map[string][]byte) string {
	t.Helper()
	for name, data := range list {
		path := filepath.Join(dir, strings.TrimSuffix(name, "@"))
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		if strings.HasSuffix(name, "@") {
			require.NoError(t, os.Symlink(string(data), path))
			continue
		}
		mode := os.FileMode(0o644)
		if strings.Contains(name, keyFolder) || strings.HasSuffix(name, ".key") {
			mode = 0o600
		}
		require.NoError(t, os.WriteFile(path, data, mode))
	}
	return dir
}

func pkcs8(t testing.TB, p *party) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(p.key)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func sec1(t testing.TB, p *party) []byte {
	t.Helper()
	der, err := x509.MarshalECPrivateKey(p.key.(*ecdsa.PrivateKey))
	require.NoError(t, err)
	return append([]byte("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"),
		pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})...)
}

func loads(t testing.TB, dir string, want *party) {
	t.Helper()
	s, err := Load("Org1MSP", dir)
	require.NoError(t, err)
	require.Equal(t, want.id(t, "Org1MSP").PKIID(), s.Identity().PKIID())
	sig, err := s.Sign([]byte("x"))
	require.NoError(t, err)
	require.NoError(t, s.Identity().Verify([]byte("x"), sig))
	conf, _, err := LoadConfig("Org1MSP", dir)
	require.NoError(t, err)
	require.NoError(t, build(t, conf).Validate(s.Identity()))
	require.NoError(t, build(t, conf).ValidateLive(s.Identity(), nil, noon))
}

func TestFabricCAClientFolder(t *testing.T) {
	ca := root(t, "ca.org1")
	peer, old := member(t, ca, "peer0", "peer"), member(t, ca, "peer0", "peer")
	dir := write(t, t.TempDir(), map[string][]byte{
		"cacerts/127-0-0-1-7054.pem":                ca.pem(),
		"signcerts/cert.pem":                        peer.pem(),
		"keystore/aaaa_sk":                          pkcs8(t, old), // left by an earlier enrolment
		"keystore/zzzz_sk":                          pkcs8(t, peer),
		"IssuerPublicKey":                           []byte("idemix"),
		"IssuerRevocationPublicKey":                 []byte("idemix"),
		"user/ignored":                              nil,
		"tls/keystore/other":                        nil,
		"cacerts/backup/old-ca.pem":                 old.pem(),
		"intermediatecerts/127-0-0-1-7054-null.pem": nil,
	})
	loads(t, dir, peer)
	conf, warnings, err := LoadConfig("Org1MSP", dir)
	require.NoError(t, err)
	require.Len(t, conf.RootCerts, 1)
	require.Equal(t, "peer", conf.FabricNodeOus.PeerOuIdentifier.OrganizationalUnitIdentifier)
	require.Len(t, warnings, 2, "the empty file, and the roles taken for granted")

	t.Run("without roles in its certificates", func(t *testing.T) {
		plain := member(t, ca, "peer0", "")
		dir := write(t, t.TempDir(), map[string][]byte{"cacerts/ca.pem": ca.pem(), "signcerts/cert.pem": plain.pem(), "keystore/k": pkcs8(t, plain)})
		conf, _, err := LoadConfig("Org1MSP", dir)
		require.NoError(t, err)
		_, err = New(conf, all)
		refused(t, err, BadDefinition)
	})
}

func TestKubernetesSecret(t *testing.T) {
	ca := root(t, "ca.org1")
	sub := authority(t, ca, "ica.org1", newKey(t, elliptic.P256()))
	peer := member(t, sub, "peer0", "peer")
	dir := write(t, t.TempDir(), map[string][]byte{
		// Certificate, chain and key in one secret, mounted in three places.
		"signcerts/..2027_06_01/tls.crt":      append(peer.pem(), sub.pem()...),
		"signcerts/..2027_06_01/tls.key":      sec1(t, peer),
		"signcerts/..2027_06_01/ca.crt":       ca.pem(),
		"signcerts/..data@":                   []byte("..2027_06_01"),
		"signcerts/tls.crt@":                  []byte("..data/tls.crt"),
		"signcerts/tls.key@":                  []byte("..data/tls.key"),
		"signcerts/ca.crt@":                   []byte("..data/ca.crt"),
		"keystore/..2027_06_01/key.pem":       sec1(t, peer),
		"keystore/..data@":                    []byte("..2027_06_01"),
		"keystore/key.pem@":                   []byte("..data/key.pem"),
		"cacerts/..2027_06_01/ca.crt":         ca.pem(),
		"cacerts/..data@":                     []byte("..2027_06_01"),
		"cacerts/ca.crt@":                     []byte("..data/ca.crt"),
		"intermediatecerts/..data/ica.crt":    sub.pem(),
		"intermediatecerts/intermediate.crt@": []byte("..data/ica.crt"),
		"config.yaml@":                        []byte("..data/config.yaml"),
		"..data/config.yaml":                  []byte(rolesText),
	})
	require.NoError(t, os.Chmod(filepath.Join(dir, "keystore/..2027_06_01/key.pem"), 0o644)) // as such secrets are
	loads(t, dir, peer)
	chain, err := LoadChain(dir)
	require.NoError(t, err)
	require.Equal(t, [][]byte{sub.cert.Raw}, chain)
	conf, warnings, err := LoadConfig("Org1MSP", dir)
	require.NoError(t, err)
	require.Len(t, conf.IntermediateCerts, 1)
	require.Len(t, warnings, 1)
	require.Equal(t, "config.key_readable", warnings[0].Code)
}

const rolesText = `NodeOUs:
  Enable: true
  ClientOUIdentifier: {OrganizationalUnitIdentifier: client}
  PeerOUIdentifier: {OrganizationalUnitIdentifier: peer}
  AdminOUIdentifier: {OrganizationalUnitIdentifier: admin}
  OrdererOUIdentifier: {OrganizationalUnitIdentifier: orderer}
`

func TestSeveralCertificatesInAFile(t *testing.T) {
	a, b := root(t, "ca.org1"), root(t, "ca2.org1")
	sub := authority(t, b, "ica.org1", newKey(t, elliptic.P256()))
	low := authority(t, sub, "low.org1", newKey(t, elliptic.P256()))
	peer := twin(t, member(t, low, "peer0", "peer"))
	older := memberWith(t, low, peer.key, "peer0", "peer", func(c *x509.Certificate) { c.NotBefore = c.NotBefore.AddDate(0, -1, 0) })
	dir := write(t, t.TempDir(), map[string][]byte{
		"cacerts/all.pem":           append(a.pem(), b.pem()...),
		"intermediatecerts/all.pem": append([]byte("low and sub\n"), append(low.pem(), sub.pem()...)...),
		"signcerts/a.pem":           older.pem(),
		"signcerts/b.pem":           peer.pem(),
		"keystore/sk":               pkcs8(t, peer),
		"config.yaml":               []byte("\uFEFF" + strings.ReplaceAll(rolesText, "\n", "\r\n")),
	})
	loads(t, dir, peer)
	conf, _, err := LoadConfig("Org1MSP", dir)
	require.NoError(t, err)
	require.Equal(t, [][]byte{a.pem(), b.pem()}, conf.RootCerts)
	require.Len(t, conf.IntermediateCerts, 2)
	chain, err := LoadChain(dir)
	require.NoError(t, err)
	require.Equal(t, [][]byte{low.cert.Raw, sub.cert.Raw}, chain)
	s, err := Load("Org1MSP", dir)
	require.NoError(t, err)
	_, sv, err := parse(s.Identity().Certificate().Signature)
	require.NoError(t, err)
	require.False(t, high(elliptic.P256(), sv), "the certificate goes out with a low S")
	require.Equal(t, peer.cert.SerialNumber, s.Identity().Certificate().SerialNumber)
}

func TestHostileFolders(t *testing.T) {
	ca := root(t, "ca.org1")
	peer, other := member(t, ca, "peer0", "peer"), member(t, ca, "peer1", "peer")
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	base := func() map[string][]byte {
		return map[string][]byte{
			"cacerts/ca.pem": ca.pem(), "signcerts/cert.pem": peer.pem(), "keystore/priv_sk": pkcs8(t, peer), "config.yaml": []byte(rolesText),
		}
	}
	encrypted := pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("secret")})
	without := func(name string) func(map[string][]byte) {
		return func(m map[string][]byte) { delete(m, name) }
	}
	with := func(name string, data []byte) func(map[string][]byte) {
		return func(m map[string][]byte) { m[name] = data }
	}
	withCA := func(file string) []byte {
		return []byte(strings.Replace(rolesText, "client}", "client, Certificate: "+file+"}", 1))
	}
	for _, c := range []struct {
		name   string
		change func(map[string][]byte)
		config bool // LoadConfig refuses; otherwise Load does
		want   *wire.Reason
		says   string
	}{
		{"CF10", with("keystore/priv_sk", pkcs8(t, other)), false, KeyMismatch, "matching pair"},
		{"CF10 no keys", without("keystore/priv_sk"), false, KeyMismatch, "0 private keys"},
		{"CF10 RSA", with("keystore/priv_sk", pkcs8(t, &party{nil, rsaKey})), false, KeyMismatch, "0 private keys"},
		{"CF12", without("cacerts/ca.pem"), true, BadFolder, "no CA certificate in cacerts"},
		{"CF12 a key", with("cacerts/ca.pem", pkcs8(t, peer)), true, BadFolder, "no CA certificate"},
		{"CA unreadable", with("cacerts/ca.pem", pem.EncodeToMemory(&pem.Block{Type: certificateType, Bytes: []byte("x")})), true, BadFolder, "ca.pem"},
		{"no signcerts", without("signcerts/cert.pem"), false, BadFolder, "no folder signcerts"},
		{"empty signcerts", with("signcerts/cert.pem", nil), false, BadFolder, "no certificate in signcerts"},
		{"bad signcert", with("signcerts/cert.pem", pem.EncodeToMemory(&pem.Block{Type: certificateType, Bytes: []byte("x")})), false, BadFolder, "cert.pem"},
		{"encrypted key", with("keystore/priv_sk", encrypted), false, BadFolder, "encrypted"},
		{"broken key", with("keystore/priv_sk", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("secret")})), false, BadFolder, "PKCS#8"},
		{"dangling link", with("cacerts/x.pem@", []byte("nowhere")), true, BadFolder, "x.pem"},
		{"link to itself", with("cacerts/x.pem@", []byte("x.pem")), true, BadFolder, "x.pem"},
		{"config.yaml is none", with("config.yaml", []byte("NodeOUs: [")), true, BadFolder, "config.yaml"},
		{"config.yaml of tabs", with("config.yaml", []byte("NodeOUs:\n\tEnable: true")), true, BadFolder, "config.yaml"},
		{"config.yaml too long", with("config.yaml", []byte(strings.Repeat("#", maxRoles+1))), true, BadFolder, "at most"},
		{"config.yaml names no file", with("config.yaml", withCA("cacerts/none.pem")), true, BadFolder, "can't be read"},
		{"config.yaml leads out", with("config.yaml", withCA("../ca.pem")), true, BadFolder, "outside the folder"},
	} {
		t.Run(c.name, func(t *testing.T) {
			list := base()
			c.change(list)
			dir := write(t, t.TempDir(), list)
			_, err := Load("Org1MSP", dir)
			if c.config {
				_, _, err = LoadConfig("Org1MSP", dir)
			}
			refused(t, err, c.want)
			require.ErrorContains(t, err, dir)
			require.ErrorContains(t, err, c.says)
			require.NotContains(t, err.Error(), "secret")
			var f *FolderError
			require.ErrorAs(t, err, &f)
			require.NotEmpty(t, f.Fix)
			t.Log(err)
		})
	}
	t.Run("CF11", func(t *testing.T) {
		dir := write(t, t.TempDir(), base())
		path := filepath.Join(dir, "keystore/priv_sk")
		require.NoError(t, os.Chmod(path, 0o644))
		_, err := Load("Org1MSP", dir)
		refused(t, err, KeyReadable)
		require.ErrorContains(t, err, "chmod 600")
		require.NoError(t, os.Chmod(path, 0o444))
		_, err = Load("Org1MSP", dir)
		require.NoError(t, err)
		_, warnings, err := LoadConfig("Org1MSP", dir)
		require.NoError(t, err)
		require.Equal(t, KeyReadable.Code(), warnings[0].Code)
	})
	t.Run("CF1", func(t *testing.T) {
		list := base()
		list["config.yaml"] = append(list["config.yaml"], "Colour: green\n"...)
		conf, warnings, err := LoadConfig("Org1MSP", write(t, t.TempDir(), list))
		require.NoError(t, err)
		require.NotNil(t, conf.FabricNodeOus)
		require.Len(t, warnings, 1)
		require.Equal(t, "config.unknown_key", warnings[0].Code)
	})
	for _, dir := range []string{filepath.Join(t.TempDir(), "none"), filepath.Join(write(t, t.TempDir(), base()), "config.yaml")} {
		_, err := Load("Org1MSP", dir)
		refused(t, err, BadFolder)
		_, _, err = LoadConfig("Org1MSP", dir)
		refused(t, err, BadFolder)
		_, err = LoadChain(dir)
		refused(t, err, BadFolder)
	}
}

func TestAdminsAndUnitsInAFolder(t *testing.T) {
	ca, tls := root(t, "ca.org1"), root(t, "tlsca.org1")
	admin, peer := member(t, ca, "admin", "org1"), member(t, ca, "peer0", "org1")
	dir := write(t, t.TempDir(), map[string][]byte{
		"cacerts/ca.pem": ca.pem(), "admincerts/admin.pem": admin.pem(), "tlscacerts/ca.pem": tls.pem(),
		"crls/crl.pem": revocation(t, ca, nil), "signcerts/c.pem": peer.pem(), "keystore/k": pkcs8(t, peer),
		"config.yaml": []byte("OrganizationalUnitIdentifiers:\n- Certificate: cacerts/ca.pem\n  OrganizationalUnitIdentifier: org1\n"),
	})
	loads(t, dir, peer)
	conf, warnings, err := LoadConfig("Org1MSP", dir)
	require.NoError(t, err)
	require.Empty(t, warnings)
	require.Len(t, conf.RevocationList, 1)
	require.Len(t, conf.OrganizationalUnitIdentifiers, 1)
	require.Equal(t, [][]byte{tls.pem()}, conf.TlsRootCerts)
	require.Equal(t, [][]byte{admin.pem()}, conf.Admins)
}

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const organisations = `OrdererOrgs:
  - {Name: Orderer, Domain: example.com, EnableNodeOUs: true, Specs: [{Hostname: orderer0}]}
PeerOrgs:
  - {Name: Org1, Domain: org1.example.com, EnableNodeOUs: true, Template: {Count: 2, SANS: [localhost]}, Users: {Count: 1}}
`

func TestCertificateAuthority(t *testing.T) {
	dir := t.TempDir()
	p := play{dir: dir, now: epoch}
	write(t, dir, "crypto-config.yaml", []byte(organisations))
	r := p.run("ca", "generate", "-f", "crypto-config.yaml", "-o", "crypto")
	require.Equal(t, 0, r.code, r.err)
	r = p.run("ca", "generate", "-f", "crypto-config.yaml", "-o", "crypto") // again
	require.Equal(t, 1, r.code)
	require.Contains(t, r.err, "API002")
	org := filepath.Join(dir, "crypto", "peerOrganizations", "org1.example.com")
	msp := func(kind, name string) string { return filepath.Join(org, kind, name, "msp") }

	list := p.object(t, 0, "ca", "inspect", "crypto")
	require.Equal(t, "CertificateList", list["kind"])
	require.Greater(t, len(list["items"].([]any)), 20)

	v := p.object(t, 0, "msp", "verify", msp("peers", "peer0.org1.example.com"))
	require.Equal(t, true, v["ok"])
	info := p.object(t, 0, "msp", "inspect", msp("peers", "peer0.org1.example.com"), "--mspid", "Org1MSP")
	require.Equal(t, true, info["nodeOus"])
	require.Contains(t, info["signer"], "peer0.org1.example.com")

	for _, args := range [][]string{
		{"peer7.org1.example.com"}, {"peer7.org1.example.com", "--tls", "--san", "127.0.0.1"}, {"User7@org1.example.com"}, {"orderer7.example.com", "--algorithm", "ed25519"},
	} {
		all := append(append([]string{"ca", "issue"}, args...), "--dir", "crypto")
		c := p.object(t, 0, all...)["items"].([]any)[0].(map[string]any)
		require.Contains(t, c["subject"], args[0])
		p.fails(t, 1, "API002", all...)
	}
	for name, kind := range map[string]string{"peer7.org1.example.com": "peers", "User7@org1.example.com": "users"} {
		require.Equal(t, 0, p.run("msp", "verify", msp(kind, name)).code, name)
		key, err := os.Stat(filepath.Join(msp(kind, name), "keystore", "priv_sk"))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), key.Mode().Perm())
	}
	p.fails(t, 1, "API007", "ca", "issue", "peer0.elsewhere.org", "--dir", "crypto")
	p.fails(t, 2, "API001", "ca", "issue", "../../x.org1.example.com", "--dir", "crypto")

	rev := p.object(t, 0, "ca", "revoke", "peer7.org1.example.com", "--dir", "crypto")
	serial := rev["items"].([]any)[0].(map[string]any)["serial"].(string)
	require.NotEmpty(t, serial)
	cert := filepath.Join(msp("peers", "peer7.org1.example.com"), "signcerts", "peer7.org1.example.com-cert.pem")
	p.fails(t, 4, "CERT005", "msp", "verify", msp("peers", "peer0.org1.example.com"), "--cert", cert)
	require.Equal(t, 0, p.run("msp", "verify", msp("peers", "peer0.org1.example.com")).code)
	user := p.object(t, 0, "ca", "inspect", filepath.Join(msp("users", "User1@org1.example.com"), "signcerts"))
	serial = user["items"].([]any)[0].(map[string]any)["serial"].(string)
	p.object(t, 0, "ca", "revoke", serial, "--dir", "crypto")
	p.fails(t, 4, "CERT005", "msp", "verify", msp("users", "User1@org1.example.com"))
	p.fails(t, 1, "API007", "ca", "revoke", "abcdef", "--dir", "crypto")
	p.fails(t, 1, "API007", "ca", "revoke", "nobody.org1.example.com", "--dir", "crypto")

	later := play{dir: dir, now: epoch.Add(20 * 365 * 24 * time.Hour)}
	later.fails(t, 4, "CERT004", "msp", "verify", msp("peers", "peer0.org1.example.com"))
	other := filepath.Join(dir, "crypto", "ordererOrganizations", "example.com", "msp")
	r = p.fails(t, 4, "MSP002", "msp", "verify", other, "--cert", strings.ReplaceAll(cert, "peer7", "peer1"))
	require.Contains(t, r.err, "the MSP refuses peer1.org1.example.com")
}

func TestCF11KeyReadable(t *testing.T) {
	dir := t.TempDir()
	p := play{dir: dir}
	write(t, dir, "c.yaml", []byte(organisations))
	require.Equal(t, 0, p.run("ca", "generate", "-f", "c.yaml", "-o", "crypto").code)
	node := filepath.Join(dir, "crypto", "peerOrganizations", "org1.example.com", "peers", "peer0.org1.example.com", "msp")
	key := filepath.Join(node, "keystore", "priv_sk")
	require.NoError(t, os.Chmod(key, 0o644))
	r := p.fails(t, 4, "CERT003", "msp", "verify", node)
	require.Contains(t, r.err, "priv_sk")
	// CF10: another's key.
	require.NoError(t, os.Chmod(key, 0o600))
	other, err := os.ReadFile(filepath.Join(dir, "crypto", "peerOrganizations", "org1.example.com", "peers", "peer1.org1.example.com", "msp", "keystore", "priv_sk"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(key, other, 0o600))
	r = p.fails(t, 4, "CERT002", "msp", "verify", node)
	require.NotContains(t, r.out+r.err, strings.Split(string(other), "\n")[1])
}

func TestBadCryptoConfig(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "c.yaml", []byte("PeerOrgs:\n  - {Nme: x}\n"))
	r := play{dir: dir}.run("ca", "generate", "-f", "c.yaml", "-o", "out")
	require.Equal(t, 3, r.code)
	require.Contains(t, r.err, "CFG002")
}

package ca_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"grapevine/msp/ca"
)

func TestParseSpecRefuses(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "names an organisation"},
		{"comment only", "# nothing\n", "names an organisation"},
		{"unknown key at the top", "PeerOrg:\n  - Domain: a\n", "line 1: unknown key PeerOrg (known here: OrdererOrgs, PeerOrgs)"},
		{"unknown key in an organisation", "PeerOrgs:\n  - Domain: a\n    EnableNodeOUS: true\n", "line 3: unknown key EnableNodeOUS"},
		{"unknown key in a template", "PeerOrgs:\n  - Domain: a\n    Template: {Count: 1, SANs: [x]}\n", "line 3: unknown key SANs"},
		{"doubled key", "PeerOrgs:\n  - Domain: a\n    Domain: b\n", "line 3"},
		{"wrong type", "PeerOrgs:\n  - Domain: a\n    Users: {Count: many}\n", "line 3"},
		{"no YAML", "PeerOrgs: [", "line 1"},
		{"two documents", "PeerOrgs: [{Domain: a}]\n---\nPeerOrgs: [{Domain: b}]\n", "more than one YAML document"},
		{"no domain", "PeerOrgs:\n  - Domain: a\n  - Name: Org2\n", "line 3: PeerOrgs[1]: Domain missing"},
		{"domain that climbs", "PeerOrgs:\n  - Domain: ../../etc\n", "no file name"},
		{"common name that climbs", "PeerOrgs:\n  - Domain: a\n    Specs: [{Hostname: x, CommonName: a/b}]\n", "no file name"},
		{"CA name that climbs", "PeerOrgs:\n  - Domain: a\n    CA: {CommonName: ..}\n", "no file name"},
		{"two equal domains", "OrdererOrgs:\n  - Domain: a\n  - Domain: a\n", "line 3: OrdererOrgs[1]: a second organisation"},
		{"two equal nodes", "PeerOrgs:\n  - Domain: a\n    Specs: [{Hostname: peer0}]\n    Template: {Count: 1}\n", "two nodes are named peer0.a"},
		{"negative count", "PeerOrgs:\n  - Domain: a\n    Template: {Count: -1}\n", "Template.Count -1"},
		{"huge count", "PeerOrgs:\n  - Domain: a\n    Users: {Count: 1000000000}\n", "Users.Count"},
		{"negative start", "PeerOrgs:\n  - Domain: a\n    Template: {Count: 1, Start: -1}\n", "Template.Start"},
		{"bad template", "PeerOrgs:\n  - Domain: a\n    Template: {Count: 1, Hostname: '{{.Foo}}'}\n", "Foo"},
		{"broken template", "PeerOrgs:\n  - Domain: a\n    Specs: [{Hostname: x, SANS: ['{{']}]\n", "SANS"},
		{"template that computes", "PeerOrgs:\n  - Domain: a\n    Specs: [{Hostname: x, SANS: ['{{printf \"%1000000000d\" 1}}']}]\n", "only text and {{.Name}}"},
		{"template that recurs", "PeerOrgs:\n  - Domain: a\n    Specs: [{Hostname: x, SANS: ['{{template \"SANS\" .}}']}]\n", "only text and {{.Name}}"},
		{"empty template", "PeerOrgs:\n  - Domain: a\n    Specs: [{Hostname: x, SANS: ['']}]\n", "SANS"},
		{"nameless node", "PeerOrgs:\n  - Domain: a\n    Specs: [{SANS: [x]}]\n", "neither Hostname nor CommonName"},
		{"algorithm", "PeerOrgs:\n  - Domain: a\n    Users: {Count: 1, PublicKeyAlgorithm: rsa}\n", `unknown algorithm "rsa"`},
		{"too large", strings.Repeat("#", 1<<20+1), "at most"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ca.ParseSpec([]byte(c.text))
			require.ErrorContains(t, err, c.want)
			require.ErrorContains(t, err, "crypto-config: ")
			require.NotContains(t, err.Error(), "\n")
			require.NotContains(t, err.Error(), "ca.", "no Go type names")
		})
	}
}

func TestParseSpecTakesAnchorsAndSamples(t *testing.T) {
	s, err := ca.ParseSpec([]byte(`
OrdererOrgs:
  - Name: Orderer
    Domain: example.com
    CA: &ca {Country: DE, Province: BE, Locality: Berlin}
    Specs: [{Hostname: orderer, PublicKeyAlgorithm: ecdsa}]
PeerOrgs:
  - Name: Org1
    Domain: org1.example.com
    CA: *ca
    Template: {Count: 2, Start: 5, Hostname: "p{{.Index}}-{{.Prefix}}", PublicKeyAlgorithm: Ed25519}
`))
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, ca.Generate(s, dir, now))
	org := filepath.Join(dir, "peerOrganizations/org1.example.com")
	require.DirExists(t, filepath.Join(org, "peers/p5-peer.org1.example.com"))
	require.DirExists(t, filepath.Join(org, "peers/p6-peer.org1.example.com"))
	c, err := ca.Open(filepath.Join(org, "ca"))
	require.NoError(t, err)
	require.Equal(t, "CN=ca.org1.example.com,O=org1.example.com,L=Berlin,ST=BE,C=DE", c.Certificate().Subject.String())
}

func FuzzParseSpec(f *testing.F) {
	f.Add([]byte("PeerOrgs:\n  - Domain: a\n    Template: {Count: 2}\n"))
	f.Add([]byte("OrdererOrgs: [{Domain: o, Specs: [{Hostname: x, SANS: ['{{.CommonName}}']}]}]"))
	f.Add([]byte("a: &a [*a]"))
	f.Add([]byte(fmt.Sprintf("PeerOrgs: [{Domain: %q}]", "\x00")))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ca.ParseSpec(b)
		if err == nil {
			require.NoError(t, s.Validate(), "what was read is valid")
		}
	})
}

// BenchmarkGenerate is what dev up waits for: three organisations of three
// peers and an ordering service.
func BenchmarkGenerate(b *testing.B) {
	s := &ca.Spec{OrdererOrgs: []ca.OrgSpec{{Domain: "orderer", EnableNodeOUs: true, Template: ca.Template{Count: 3}}}}
	for i := range 3 {
		s.PeerOrgs = append(s.PeerOrgs, ca.OrgSpec{
			Domain: fmt.Sprintf("org%d", i+1), EnableNodeOUs: true, Template: ca.Template{Count: 3}, Users: ca.Users{Count: 1},
		})
	}
	for b.Loop() {
		dir, err := os.MkdirTemp(b.TempDir(), "")
		require.NoError(b, err)
		require.NoError(b, ca.Generate(s, dir, now))
	}
}

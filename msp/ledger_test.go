package msp

import (
	"crypto/elliptic"
	"crypto/x509"
	"slices"
	"testing"

	mspproto "github.com/hyperledger/fabric-protos-go-apiv2/msp"
	"github.com/stretchr/testify/require"
)

// What Fabric takes, the ledger judge takes, whatever the live judge says.
func TestTheLedgerJudgeIsAsLenientAsFabric(t *testing.T) {
	ca := root(t, "ca.org1")
	m := build(t, definition("Org1MSP", ca))
	for name, f := range map[string]change{
		"expired":             func(c *x509.Certificate) { c.NotAfter = noon.AddDate(0, 0, -1) },
		"not yet valid":       func(c *x509.Certificate) { c.NotBefore = noon.AddDate(0, 2, 0) },
		"no digitalSignature": func(c *x509.Certificate) { c.KeyUsage = 0 },
		"server only":         func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} },
	} {
		t.Run(name, func(t *testing.T) {
			id := member(t, ca, "peer0", "peer", f).id(t, "Org1MSP")
			require.NoError(t, m.Validate(id))
			require.Error(t, m.ValidateLive(id, nil, noon))
		})
	}
	t.Run("but not more", func(t *testing.T) {
		client := member(t, ca, "peer0", "peer", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })
		refused(t, m.Validate(client.id(t, "Org1MSP")), BadExtKeyUsage)
		refused(t, m.Validate(ca.id(t, "Org1MSP")), LeafIsCA)
		refused(t, m.Validate(member(t, root(t, "ca.org1"), "peer0", "peer").id(t, "Org1MSP")), BadChain)
		refused(t, m.Validate(member(t, ca, "peer0", "peer").id(t, "Org2MSP")), WrongMSP)
		late := root(t, "ca.org1", func(c *x509.Certificate) { c.NotBefore = noon })
		before := member(t, late, "peer0", "peer")
		refused(t, build(t, definition("Org1MSP", late)).Validate(before.id(t, "Org1MSP")), Expired)
	})
}

func TestTwinsAreOne(t *testing.T) {
	ca := root(t, "ca.org1")
	p := member(t, ca, "peer0", "peer")
	q := twin(t, p)
	require.NotEqual(t, p.cert.Raw, q.cert.Raw)
	require.Equal(t, p.id(t, "Org1MSP").PKIID(), q.id(t, "Org1MSP").PKIID())
	renewed := memberWith(t, ca, p.key, "peer0", "peer")
	require.Equal(t, p.id(t, "Org1MSP").PKIID(), renewed.id(t, "Org1MSP").PKIID())
	require.NotEqual(t, p.id(t, "Org1MSP").PKIID(), p.id(t, "Org2MSP").PKIID())

	for _, c := range []*party{ca, twin(t, ca)} { // the CA's own signature may be either, too
		m := build(t, definition("Org1MSP", c))
		v, w := m.judge(p.id(t, "Org1MSP")), m.judge(q.id(t, "Org1MSP"))
		require.NoError(t, v.invalid)
		require.NoError(t, w.invalid)
		require.Equal(t, v.hash, w.hash)
	}
	conf := definition("Org1MSP", ca)
	conf.Admins = [][]byte{member(t, ca, "admin", "client").pem(), memberWith(t, ca, p.key, "admin", "admin").pem()}
	conf.FabricNodeOus.PeerOuIdentifier.Certificate = twin(t, ca).pem()
	require.NoError(t, build(t, conf).Validate(p.id(t, "Org1MSP")))
}

func TestDefinitionsThatFabricRefuses(t *testing.T) {
	ca := root(t, "ca.org1")
	sub := authority(t, ca, "ica.org1", newKey(t, elliptic.P256()))
	leaf := member(t, ca, "peer0", "peer")
	client := member(t, ca, "client", "client")
	for name, f := range map[string]func(*mspproto.FabricMSPConfig){
		"no name":             func(c *mspproto.FabricMSPConfig) { c.Name = "" },
		"no root":             func(c *mspproto.FabricMSPConfig) { c.RootCerts = nil },
		"a root that is none": func(c *mspproto.FabricMSPConfig) { c.RootCerts = append(c.RootCerts, leaf.pem()) },
		"no PEM":              func(c *mspproto.FabricMSPConfig) { c.RootCerts = append(c.RootCerts, []byte("x")) },
		"no certificate":      func(c *mspproto.FabricMSPConfig) { c.IntermediateCerts = [][]byte{revocation(t, ca, nil)} },
		"strange intermediate": func(c *mspproto.FabricMSPConfig) {
			c.IntermediateCerts = [][]byte{authority(t, root(t, "x"), "y", newKey(t, elliptic.P256())).pem()}
		},
		"strange admin":   func(c *mspproto.FabricMSPConfig) { c.Admins = [][]byte{member(t, root(t, "x"), "a", "client").pem()} },
		"admin is a peer": func(c *mspproto.FabricMSPConfig) { c.Admins = [][]byte{leaf.pem()} },
		"no admins":       func(c *mspproto.FabricMSPConfig) { c.FabricNodeOus.AdminOuIdentifier = nil },
		"no NodeOUs":      func(c *mspproto.FabricMSPConfig) { c.FabricNodeOus = nil },
		"revoked admin": func(c *mspproto.FabricMSPConfig) {
			c.FabricNodeOus = nil
			c.Admins = [][]byte{client.pem()}
			c.RevocationList = [][]byte{revocation(t, ca, nil, client)}
		},
		"OU of a strange CA": func(c *mspproto.FabricMSPConfig) { c.FabricNodeOus.PeerOuIdentifier.Certificate = root(t, "x").pem() },
		"OU of an inner CA": func(c *mspproto.FabricMSPConfig) {
			low := authority(t, sub, "low.org1", newKey(t, elliptic.P256()))
			c.IntermediateCerts = [][]byte{sub.pem(), low.pem()}
			c.FabricNodeOus.PeerOuIdentifier.Certificate = sub.pem()
		},
		"unit without CA": func(c *mspproto.FabricMSPConfig) {
			c.OrganizationalUnitIdentifiers = []*mspproto.FabricOUIdentifier{{OrganizationalUnitIdentifier: "x"}}
		},
		"TLS root that is none": func(c *mspproto.FabricMSPConfig) { c.TlsRootCerts = [][]byte{leaf.pem()} },
		"strange TLS CA":        func(c *mspproto.FabricMSPConfig) { c.TlsIntermediateCerts = [][]byte{sub.pem()} },
	} {
		t.Run(name, func(t *testing.T) {
			conf := definition("Org1MSP", ca)
			f(conf)
			_, err := New(conf, all)
			require.Error(t, err)
			t.Log(err)
		})
	}
}

func TestOldFeatures(t *testing.T) {
	ca := root(t, "ca.org1")
	conf := definition("Org1MSP", ca)
	m, err := New(conf, Features{})
	require.NoError(t, err)
	require.NoError(t, m.Validate(member(t, ca, "p", "peer").id(t, "Org1MSP")))
	refused(t, m.Validate(member(t, ca, "a", "admin").id(t, "Org1MSP")), BadRole)
	refused(t, m.Satisfies(member(t, ca, "p", "peer").id(t, "Org1MSP"), role(t, "Org1MSP", mspproto.MSPRole_ORDERER)), BadRole)
	conf.FabricNodeOus.PeerOuIdentifier = nil
	_, err = New(conf, Features{})
	refused(t, err, BadDefinition)
	conf.FabricNodeOus = nil
	m, err = New(conf, Features{})
	require.NoError(t, err, "administrators were not demanded then")
	require.NoError(t, m.Validate(member(t, ca, "x", "").id(t, "Org1MSP")))
}

func TestTLSRoots(t *testing.T) {
	ca, tls := root(t, "ca.org1"), root(t, "tlsca.org1")
	sub := authority(t, tls, "itlsca.org1", newKey(t, elliptic.P256()))
	conf := definition("Org1MSP", ca)
	conf.TlsRootCerts, conf.TlsIntermediateCerts = [][]byte{tls.pem()}, [][]byte{sub.pem()}
	m := build(t, conf)
	require.Equal(t, [][]byte{tls.pem(), sub.pem()}, m.TLSRootsPEM())
	server := member(t, sub, "peer0", "", func(c *x509.Certificate) { c.DNSNames = []string{"peer0.org1"} })
	_, err := server.cert.Verify(x509.VerifyOptions{Roots: m.TLSRoots(), CurrentTime: noon, DNSName: "peer0.org1"})
	require.NoError(t, err)
	require.Equal(t, "Org1MSP", m.ID())
}

func role(t testing.TB, mspID string, r mspproto.MSPRole_MSPRoleType) *mspproto.MSPPrincipal {
	return principalOf(t, mspproto.MSPPrincipal_ROLE, marshal(t, &mspproto.MSPRole{MspIdentifier: mspID, Role: r}))
}

func principalOf(_ testing.TB, c mspproto.MSPPrincipal_Classification, b []byte) *mspproto.MSPPrincipal {
	return &mspproto.MSPPrincipal{PrincipalClassification: c, Principal: b}
}

func TestPrincipals(t *testing.T) {
	ca, other := root(t, "ca.org1"), root(t, "ca2.org1")
	listed := member(t, ca, "listed", "client")
	conf := definition("Org1MSP", ca, other)
	conf.Admins = [][]byte{listed.pem()}
	m := build(t, conf)
	peer, admin, orderer := member(t, ca, "p", "peer"), member(t, ca, "a", "admin"), member(t, ca, "o", "orderer")
	client, nobody := member(t, ca, "c", "client"), member(t, ca, "n", "")
	sales := member(t, ca, "s", "", func(c *x509.Certificate) { c.Subject.OrganizationalUnit = []string{"client", "sales"} })
	salesElsewhere := member(t, other, "s", "", func(c *x509.Certificate) { c.Subject.OrganizationalUnit = []string{"client", "sales"} })
	people := []*party{peer, admin, orderer, client, nobody, listed, sales, salesElsewhere}

	ou := func(mspID, name string, ca *party) *mspproto.MSPPrincipal {
		low, err := lowS(ca.cert, ca.cert.PublicKey)
		require.NoError(t, err)
		return principalOf(t, mspproto.MSPPrincipal_ORGANIZATION_UNIT, marshal(t, &mspproto.OrganizationUnit{
			MspIdentifier: mspID, OrganizationalUnitIdentifier: name, CertifiersIdentifier: []byte(m.path([]*x509.Certificate{low})),
		}))
	}
	both := func(ps ...*mspproto.MSPPrincipal) *mspproto.MSPPrincipal {
		return principalOf(t, mspproto.MSPPrincipal_COMBINED, marshal(t, &mspproto.CombinedPrincipal{Principals: ps}))
	}
	anonymity := func(a mspproto.MSPIdentityAnonymity_MSPIdentityAnonymityType) *mspproto.MSPPrincipal {
		return principalOf(t, mspproto.MSPPrincipal_ANONYMITY, marshal(t, &mspproto.MSPIdentityAnonymity{AnonymityType: a}))
	}
	identity := func(p *party, mspID string) *mspproto.MSPPrincipal {
		return principalOf(t, mspproto.MSPPrincipal_IDENTITY, p.id(t, mspID).Serialized())
	}
	for _, c := range []struct {
		name string
		p    *mspproto.MSPPrincipal
		who  []*party
	}{
		{"member", role(t, "Org1MSP", mspproto.MSPRole_MEMBER), []*party{peer, admin, orderer, client, listed, sales, salesElsewhere}},
		{"admin", role(t, "Org1MSP", mspproto.MSPRole_ADMIN), []*party{admin, listed}},
		{"client", role(t, "Org1MSP", mspproto.MSPRole_CLIENT), []*party{client, listed, sales, salesElsewhere}},
		{"peer", role(t, "Org1MSP", mspproto.MSPRole_PEER), []*party{peer}},
		{"orderer", role(t, "Org1MSP", mspproto.MSPRole_ORDERER), []*party{orderer}},
		{"unknown role", role(t, "Org1MSP", 77), nil},
		{"member of another", role(t, "Org2MSP", mspproto.MSPRole_MEMBER), nil},
		{"OU", ou("Org1MSP", "sales", ca), []*party{sales}},
		{"OU under the other CA", ou("Org1MSP", "sales", other), []*party{salesElsewhere}},
		{"OU of another", ou("Org2MSP", "sales", ca), nil},
		{"identity", identity(peer, "Org1MSP"), []*party{peer}},
		{"identity's twin", identity(twin(t, peer), "Org1MSP"), []*party{peer}},
		{"identity, invalid", identity(nobody, "Org1MSP"), nil},
		{"identity of another", identity(peer, "Org2MSP"), nil},
		{"combined", both(role(t, "Org1MSP", mspproto.MSPRole_CLIENT), ou("Org1MSP", "sales", ca)), []*party{sales}},
		{"combined deeper", both(both(role(t, "Org1MSP", mspproto.MSPRole_PEER))), []*party{peer}},
		{"combined of none", both(), nil},
		{"nominal", anonymity(mspproto.MSPIdentityAnonymity_NOMINAL), people},
		{"anonymous", anonymity(mspproto.MSPIdentityAnonymity_ANONYMOUS), nil},
		{"unknown class", principalOf(t, 99, nil), nil},
		{"garbage", principalOf(t, mspproto.MSPPrincipal_ROLE, []byte{0xff}), nil},
		{"garbled identity", principalOf(t, mspproto.MSPPrincipal_IDENTITY, []byte{0xff}), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, p := range people {
				err := m.Satisfies(p.id(t, "Org1MSP"), c.p)
				require.Equal(t, slices.Contains(c.who, p), err == nil, "%s: %v", p.cert.Subject, err)
			}
			require.Error(t, m.Satisfies(member(t, root(t, "x"), "p", "peer").id(t, "Org1MSP"), c.p), "a stranger")
			require.Error(t, m.Satisfies(peer.id(t, "Org2MSP"), c.p))
		})
	}
}

func TestUnitsWithoutNodeOUs(t *testing.T) {
	ca, other := root(t, "ca.org1"), root(t, "ca2.org1")
	conf := definition("Org1MSP", ca, other)
	conf.FabricNodeOus = nil
	admin := member(t, ca, "admin", "org1")
	conf.Admins = [][]byte{admin.pem()}
	conf.OrganizationalUnitIdentifiers = []*mspproto.FabricOUIdentifier{{OrganizationalUnitIdentifier: "org1", Certificate: ca.pem()}}
	m := build(t, conf)
	for _, c := range []struct {
		p    *party
		fine bool
	}{
		{admin, true},
		{member(t, ca, "x", "org1"), true},
		{member(t, ca, "x", "org2"), false},
		{member(t, ca, "x", ""), false},
		{member(t, other, "x", "org1"), false},
	} {
		id := c.p.id(t, "Org1MSP")
		require.Equal(t, c.fine, m.Validate(id) == nil)
		require.Equal(t, c.fine, m.ValidateLive(id, nil, noon) == nil)
		require.Error(t, m.Satisfies(id, role(t, "Org1MSP", mspproto.MSPRole_PEER)), "no roles without NodeOUs")
	}
	require.NoError(t, m.Satisfies(admin.id(t, "Org1MSP"), role(t, "Org1MSP", mspproto.MSPRole_ADMIN)))
}

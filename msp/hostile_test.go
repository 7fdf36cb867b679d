package msp

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"testing"
	"time"

	mspproto "github.com/hyperledger/fabric-protos-go-apiv2/msp"
	"github.com/stretchr/testify/require"

	"grapevine/wire"
)

// A scene is an organisation and who comes to its door.
type scene struct {
	conf  *mspproto.FabricMSPConfig
	der   []byte
	shown [][]byte
	as    string // MSP ID; Org1MSP if empty
	want  *wire.Reason
}

func (s scene) play(t *testing.T) {
	t.Helper()
	m := build(t, s.conf)
	start := time.Now()
	as := s.as
	if as == "" {
		as = "Org1MSP"
	}
	id, err := FromDER(as, s.der)
	if err == nil {
		err = m.ValidateLive(id, s.shown, noon)
	}
	t.Logf("judged in %v: %v", time.Since(start), err)
	if s.want == nil {
		require.NoError(t, err)
		return
	}
	refused(t, err, s.want)
}

func TestHostileCertificates(t *testing.T) {
	ca := root(t, "ca.org1")
	conf := definition("Org1MSP", ca)
	leaf := func(f change) []byte { return member(t, ca, "peer0", "peer", f).cert.Raw }
	good := member(t, ca, "peer0", "peer")
	rsaLeaf := func(k rsa.PublicKey) []byte {
		spki, err := asn1.Marshal(struct {
			A pkix.AlgorithmIdentifier
			K asn1.BitString
		}{
			pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}, Parameters: asn1.NullRawValue},
			asn1.BitString{Bytes: must(t, k), BitLength: 8 * len(must(t, k))},
		})
		require.NoError(t, err)
		return withKey(t, ca, good, spki)
	}
	modulus := func(bits uint) *big.Int { return new(big.Int).SetBit(big.NewInt(12345677), int(bits)-1, 1) }

	for name, s := range map[string]scene{
		"fine":               {der: good.cert.Raw},
		"C1":                 {der: leaf(func(c *x509.Certificate) { c.NotAfter = noon.Add(-time.Second) }), want: Expired},
		"C2 beyond 60 s":     {der: leaf(func(c *x509.Certificate) { c.NotBefore = noon.Add(61 * time.Second) }), want: NotYetValid},
		"C2 within 60 s":     {der: leaf(func(c *x509.Certificate) { c.NotBefore = noon.Add(59 * time.Second) })},
		"C3":                 {der: leaf(func(c *x509.Certificate) { c.NotAfter = c.NotBefore.Add(-time.Hour) }), want: BadValidity},
		"C4":                 {der: leaf(func(c *x509.Certificate) { c.NotAfter = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC) })},
		"C5":                 {der: leaf(func(c *x509.Certificate) { c.IsCA = true }), want: LeafIsCA},
		"C6":                 {der: leaf(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement }), want: BadKeyUsage},
		"C6 no usage at all": {der: leaf(func(c *x509.Certificate) { c.KeyUsage = 0 }), want: BadKeyUsage},
		"C7":                 {der: leaf(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning} }), want: BadExtKeyUsage},
		"C8":                 {der: leaf(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), want: BadExtKeyUsage},
		"C8 both": {der: leaf(func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
		})},
		"C9":                   {der: leaf(extension(asn1.ObjectIdentifier{1, 2, 3}, true)), want: CriticalExtension},
		"C9 not critical":      {der: leaf(extension(asn1.ObjectIdentifier{1, 2, 3}, false))},
		"C10 critical":         {der: resign(t, ca, good.cert.Raw, authorityKeyCritical), want: BadExtension},
		"C10 twice":            {der: resign(t, ca, good.cert.Raw, firstExtensionTwice), want: BadExtension},
		"C11":                  {der: rsaLeaf(rsa.PublicKey{N: modulus(1024), E: 65537}), want: BadKeyType},
		"C12":                  {der: rsaLeaf(rsa.PublicKey{N: modulus(16384), E: 65537}), want: BadKeyType},
		"C13 e=1":              {der: rsaLeaf(rsa.PublicKey{N: modulus(2048), E: 1}), want: BadKeyType},
		"C13 e=2^33":           {der: rsaLeaf(rsa.PublicKey{N: modulus(2048), E: 1 << 33}), want: BadKeyType},
		"C14 P-224":            {der: memberWith(t, ca, newKey(t, elliptic.P224()), "peer0", "peer").cert.Raw, want: BadCurve},
		"C14 P-521":            {der: memberWith(t, ca, newKey(t, elliptic.P521()), "peer0", "peer").cert.Raw, want: BadCurve},
		"C14 secp256k1":        {der: withKey(t, ca, good, ecKey(t, asn1.ObjectIdentifier{1, 3, 132, 0, 10}, point(good))), want: BadCurve},
		"P-384":                {der: memberWith(t, ca, newKey(t, elliptic.P384()), "peer0", "peer").cert.Raw},
		"Ed25519":              {der: memberWith(t, ca, newEd25519(t), "peer0", "peer").cert.Raw},
		"C16":                  {der: resign(t, ca, good.cert.Raw, algorithm(1, 2, 840, 10045, 4, 1)), want: BadAlgorithm},
		"C17":                  {der: resign(t, ca, good.cert.Raw, algorithm(1, 2, 840, 113549, 1, 1, 4)), want: BadAlgorithm},
		"C18 leaf":             {der: twin(t, good).cert.Raw},
		"C20 off the curve":    {der: withKey(t, ca, good, ecKey(t, oidCurveP256, flipped(point(good)))), want: BadKey},
		"C20 infinity":         {der: withKey(t, ca, good, ecKey(t, oidCurveP256, []byte{0})), want: BadKey},
		"C21":                  {der: withKey(t, ca, good, explicitKey(t, point(good))), want: BadKey},
		"C21 odd wrapping":     {der: withKey(t, ca, good, oddKey(t, point(good))), want: BadKey},
		"C34 wrong MSP ID":     {der: good.cert.Raw, as: "Org2MSP", want: WrongMSP},
		"C35 PEM":              {der: good.pem(), want: NotDER},
		"C35 two certificates": {der: append(bytes.Clone(good.cert.Raw), good.cert.Raw...), want: NotDER},
		"C35 nothing":          {want: NotDER},
	} {
		s.conf = conf
		t.Run(name, s.play)
	}

	t.Run("C15", func(t *testing.T) {
		m, err := New(conf, Features{NodeOUs: true})
		require.NoError(t, err)
		ed := memberWith(t, ca, newEd25519(t), "peer0", "peer").id(t, "Org1MSP")
		refused(t, m.ValidateLive(ed, nil, noon), BadKeyType)
		refused(t, m.Validate(ed), BadKeyType)
	})
}

func TestHostileRoles(t *testing.T) {
	ca, other := root(t, "ca.org1"), root(t, "ca2.org1")
	conf := definition("Org1MSP", ca, other)
	conf.FabricNodeOus.PeerOuIdentifier.Certificate = ca.pem()
	ous := func(by *party, ou ...string) []byte {
		return member(t, by, "peer0", "", func(c *x509.Certificate) { c.Subject.OrganizationalUnit = ou }).cert.Raw
	}
	issuerOnly := root(t, "ca3.org1", func(c *x509.Certificate) { c.Subject.OrganizationalUnit = []string{"peer"} })
	conf.RootCerts = append(conf.RootCerts, issuerOnly.pem())

	for name, s := range map[string]scene{
		"C33 peer":                 {der: ous(ca, "peer")},
		"C33 peer among others":    {der: ous(ca, "sales", "peer", "department1")},
		"C33 none":                 {der: ous(ca), want: BadRole},
		"C33 two":                  {der: ous(ca, "peer", "client"), want: BadRole},
		"C33 twice":                {der: ous(ca, "peer", "peer"), want: BadRole},
		"C33 unknown":              {der: ous(ca, "boss"), want: BadRole},
		"C33 admin + peer":         {der: ous(ca, "admin", "peer"), want: BadRole},
		"C33 wrong certifier":      {der: ous(other, "peer"), want: BadRole},
		"C33 any certifier":        {der: ous(other, "client")},
		"C33 only in the issuer":   {der: ous(issuerOnly), want: BadRole},
		"C33 case":                 {der: ous(ca, "Peer"), want: BadRole},
		"C33 space":                {der: ous(ca, "peer "), want: BadRole},
		"C33 homoglyph":            {der: ous(ca, "pееr"), want: BadRole},
		"C34 other organisation's": {der: ous(root(t, "ca.org1"), "peer"), want: BadChain},
	} {
		s.conf = conf
		t.Run(name, func(t *testing.T) {
			s.play(t)
			id, err := FromDER("Org1MSP", s.der)
			require.NoError(t, err)
			require.Equal(t, s.want == nil, build(t, conf).Validate(id) == nil, "the ledger judge knows the same roles")
		})
	}

	t.Run("C34 shared root", func(t *testing.T) {
		unit := func(mspID, ou string) *mspproto.FabricMSPConfig {
			c := definition(mspID, ca)
			if ou != "" {
				c.OrganizationalUnitIdentifiers = []*mspproto.FabricOUIdentifier{{OrganizationalUnitIdentifier: ou, Certificate: ca.pem()}}
			}
			return c
		}
		org1, org2 := build(t, unit("Org1MSP", "org1")), build(t, unit("Org2MSP", "org2"))
		id, err := FromDER("Org2MSP", ous(ca, "peer", "org1"))
		require.NoError(t, err)
		refused(t, org2.ValidateLive(id, nil, noon), WrongMSP)
		require.NoError(t, Directory{"Org1MSP": org1, "Org2MSP": org2}.CheckRoots())
		refused(t, Directory{"Org1MSP": org1, "Org2MSP": build(t, unit("Org2MSP", "org1"))}.CheckRoots(), SharedRoot)
		refused(t, Directory{"Org1MSP": org1, "Org2MSP": build(t, unit("Org2MSP", ""))}.CheckRoots(), SharedRoot)
	})
}

func TestHostilePEM(t *testing.T) {
	good := member(t, root(t, "ca.org1"), "peer0", "peer")
	plain := good.pem()
	b, _ := pem.Decode(plain)
	b.Headers = map[string]string{"Comment": "x"}
	wrong := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: good.cert.Raw})
	for name, text := range map[string][]byte{
		"garbage before":   append([]byte("x\n"), plain...),
		"garbage after":    append(bytes.Clone(plain), "x\n"...),
		"headers":          pem.EncodeToMemory(b),
		"two certificates": append(bytes.Clone(plain), plain...),
		"wrong type":       wrong,
		"CRLF":             bytes.ReplaceAll(plain, []byte("\n"), []byte("\r\n")),
		"no newline":       bytes.TrimSpace(plain),
	} {
		t.Run("C35 "+name, func(t *testing.T) {
			_, err := FromDER("Org1MSP", text)
			refused(t, err, NotDER)
			creator := marshal(t, &mspproto.SerializedIdentity{Mspid: "Org1MSP", IdBytes: text})
			_, err = DeserializeLive(creator)
			refused(t, err, BadPEM)
			id, err := Deserialize(creator)
			require.NoError(t, err, "the ledger judge reads what Fabric reads")
			require.Equal(t, good.id(t, "Org1MSP").PKIID(), id.PKIID())
			require.Equal(t, good.cert.Raw, id.Certificate().Raw)
		})
	}
	id, err := DeserializeLive(marshal(t, &mspproto.SerializedIdentity{Mspid: "Org1MSP", IdBytes: plain}))
	require.NoError(t, err)
	again, err := Deserialize(id.Serialized())
	require.NoError(t, err)
	require.Equal(t, id.PKIID(), again.PKIID())
	_, err = Deserialize([]byte{0xff})
	refused(t, err, BadIdentity)
}

func extension(id asn1.ObjectIdentifier, critical bool) change {
	return func(c *x509.Certificate) {
		c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: id, Critical: critical, Value: []byte{5, 0}})
	}
}

func authorityKeyCritical(b *tbs, _ *outer) {
	for i := range b.Extensions {
		if b.Extensions[i].Id.Equal(oidAuthorityKeyID) {
			b.Extensions[i].Critical = true
		}
	}
}

func firstExtensionTwice(b *tbs, _ *outer) { b.Extensions = append(b.Extensions, b.Extensions[0]) }

func algorithm(oid ...int) func(*tbs, *outer) {
	return func(b *tbs, o *outer) {
		a := pkix.AlgorithmIdentifier{Algorithm: oid}
		if oid[3] == 113549 {
			a.Parameters = asn1.NullRawValue
		}
		b.Algorithm, o.Algorithm = a, a
	}
}

func withKey(t testing.TB, by, p *party, spki []byte) []byte {
	return resign(t, by, p.cert.Raw, func(b *tbs, _ *outer) { b.Key = asn1.RawValue{FullBytes: spki} })
}

func point(p *party) []byte {
	b, err := p.cert.PublicKey.(*ecdsa.PublicKey).Bytes()
	if err != nil {
		panic(err)
	}
	return b
}

func flipped(b []byte) []byte {
	b = bytes.Clone(b)
	b[len(b)-1] ^= 1
	return b
}

func spki(t testing.TB, parameters []byte, key []byte, more ...asn1.RawValue) []byte {
	t.Helper()
	type identifier struct {
		OID        asn1.ObjectIdentifier
		Parameters asn1.RawValue
		More       asn1.RawValue `asn1:"optional"`
	}
	a := identifier{OID: oidECKey, Parameters: asn1.RawValue{FullBytes: parameters}}
	for _, m := range more {
		a.More = m
	}
	b, err := asn1.Marshal(struct {
		A identifier
		K asn1.BitString
	}{a, asn1.BitString{Bytes: key, BitLength: 8 * len(key)}})
	require.NoError(t, err)
	return b
}

func ecKey(t testing.TB, curve asn1.ObjectIdentifier, key []byte) []byte {
	oid, err := asn1.Marshal(curve)
	require.NoError(t, err)
	return spki(t, oid, key)
}

// oddKey is a good key whose algorithm has an element too many: crypto/x509 reads
// over it.
func oddKey(t testing.TB, key []byte) []byte {
	oid, err := asn1.Marshal(oidCurveP256)
	require.NoError(t, err)
	return spki(t, oid, key, asn1.NullRawValue)
}

func explicitKey(t testing.TB, key []byte) []byte {
	n := elliptic.P256().Params()
	b, err := asn1.Marshal(struct {
		Version int
		Field   struct {
			OID asn1.ObjectIdentifier
			P   *big.Int
		}
		Order *big.Int
	}{1, struct {
		OID asn1.ObjectIdentifier
		P   *big.Int
	}{asn1.ObjectIdentifier{1, 2, 840, 10045, 1, 1}, n.P}, n.N})
	require.NoError(t, err)
	return spki(t, b, key)
}

func must(t testing.TB, k rsa.PublicKey) []byte {
	t.Helper()
	b, err := asn1.Marshal(struct{ N, E *big.Int }{k.N, big.NewInt(int64(k.E))})
	require.NoError(t, err)
	return b
}

func TestHostileNames(t *testing.T) {
	permitted := func(f change) *party { return root(t, "ca.org1", f) }
	for _, c := range []struct {
		name string
		ca   *party
		leaf change
		cn   string
		want *wire.Reason
	}{
		{
			"C28 SAN inside", permitted(func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"org1.com"} }),
			func(c *x509.Certificate) { c.DNSNames = []string{"peer0.org1.com"} }, "peer0.org1.com", nil,
		},
		{
			"C28 SAN outside", permitted(func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"org1.com"} }),
			func(c *x509.Certificate) { c.DNSNames = []string{"peer0.org2.com"} }, "peer0.org1.com", BadName,
		},
		{
			"C28 only the CN outside", permitted(func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"org1.com"} }),
			func(c *x509.Certificate) { c.DNSNames = []string{"peer0.org1.com"} }, "peer0.org2.com", BadName,
		},
		{
			"C28 CN without SAN", permitted(func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"org1.com"} }),
			func(*x509.Certificate) {}, "peer0.org1.com", BadName,
		},
		{
			"C28 CN excluded", permitted(func(c *x509.Certificate) { c.ExcludedDNSDomains = []string{"org2.com"} }),
			func(c *x509.Certificate) { c.DNSNames = []string{"peer0.org1.com"} }, "peer0.ORG2.com", BadName,
		},
		{"C29 IP", permitted(func(c *x509.Certificate) {
			c.PermittedIPRanges = []*net.IPNet{{IP: net.IPv4(10, 0, 0, 0).To4(), Mask: net.CIDRMask(8, 32)}}
		}), func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(192, 168, 0, 1)} }, "peer 0", BadName},
		{
			"C29 URI", permitted(func(c *x509.Certificate) { c.PermittedURIDomains = []string{"org1.com"} }),
			func(c *x509.Certificate) { c.URIs = []*url.URL{{Scheme: "https", Host: "org2.com"}} }, "peer 0", BadName,
		},
		{
			"C29 e-mail", permitted(func(c *x509.Certificate) { c.PermittedEmailAddresses = []string{"org1.com"} }),
			func(c *x509.Certificate) { c.EmailAddresses = []string{"x@org2.com"} }, "peer 0", BadName,
		},
	} {
		t.Run(c.name, scene{conf: definition("Org1MSP", c.ca), der: member(t, c.ca, c.cn, "peer", c.leaf).cert.Raw, want: c.want}.play)
	}
}

func TestHostileChains(t *testing.T) {
	key := func() *ecdsa.PrivateKey { return newKey(t, elliptic.P256()) }
	ca := root(t, "ca.org1")
	with := func(intermediates ...*party) *mspproto.FabricMSPConfig {
		c := definition("Org1MSP", ca)
		for _, p := range intermediates {
			c.IntermediateCerts = append(c.IntermediateCerts, p.pem())
		}
		return c
	}
	sub := authority(t, ca, "ica.org1", key())

	t.Run("C22 wrong AKI", scene{conf: with(), want: BadKeyIdentifier, der: resign(t, ca, member(t, ca, "peer0", "peer").cert.Raw,
		func(b *tbs, _ *outer) {
			for i := range b.Extensions {
				if b.Extensions[i].Id.Equal(oidAuthorityKeyID) {
					b.Extensions[i].Value = []byte{0x30, 6, 0x80, 4, 1, 2, 3, 4}
				}
			}
		})}.play)
	t.Run("C22 CA without SKI", func(t *testing.T) {
		bare := root(t, "ca.org1", func(c *x509.Certificate) { c.IsCA = false; c.SubjectKeyId = nil })
		_, err := New(definition("Org1MSP", bare), all)
		require.Error(t, err)
		noSKI := resign(t, ca, ca.cert.Raw, func(b *tbs, _ *outer) {
			var keep []pkix.Extension
			for _, x := range b.Extensions {
				if !x.Id.Equal(oidSubjectKeyID) {
					keep = append(keep, x)
				}
			}
			b.Extensions = keep
		})
		conf := definition("Org1MSP")
		conf.RootCerts = [][]byte{pem.EncodeToMemory(&pem.Block{Type: certificateType, Bytes: noSKI})}
		_, err = New(conf, all)
		refused(t, err, BadKeyIdentifier)
	})
	t.Run("C23", func(t *testing.T) {
		a := authority(t, ca, "ica.org1", key())
		b := authority(t, nil, "ica.org1", key(), func(c *x509.Certificate) { c.SubjectKeyId = a.cert.SubjectKeyId })
		scene{conf: with(a), der: member(t, a, "peer0", "peer").cert.Raw}.play(t)
		scene{conf: with(a), der: member(t, b, "peer0", "peer").cert.Raw, want: BadChain}.play(t)
	})
	t.Run("C24", func(t *testing.T) {
		a, b := authority(t, ca, "ica.org1", key()), authority(t, ca, "ica.org1", key())
		scene{conf: with(a, b), der: member(t, b, "peer0", "peer").cert.Raw}.play(t)
		scene{conf: with(a), der: member(t, b, "peer0", "peer").cert.Raw, want: BadChain}.play(t)
	})
	t.Run("C25", func(t *testing.T) {
		ka, kb := key(), key()
		b0 := authority(t, nil, "B", kb)
		a := authority(t, b0, "A", ka)
		b := authority(t, a, "B", kb)
		_, err := New(with(a, b), all)
		refused(t, err, BadChain)
		scene{conf: with(), der: member(t, a, "peer0", "peer").cert.Raw, shown: [][]byte{a.cert.Raw, b.cert.Raw}, want: BadChain}.play(t)
	})
	t.Run("C26 in the definition", func(t *testing.T) {
		var list []*party
		last := ca
		for i := range 49 {
			last = authority(t, last, fmt.Sprint("ica", i), key())
			list = append(list, last)
		}
		scene{conf: with(list...), der: member(t, last, "peer0", "peer").cert.Raw, want: ChainTooLong}.play(t)
		scene{conf: with(list[:6]...), der: member(t, list[5], "peer0", "peer").cert.Raw}.play(t)
		scene{conf: with(list[:7]...), der: member(t, list[6], "peer0", "peer").cert.Raw, want: ChainTooLong}.play(t)
	})
	t.Run("C26 shown", scene{
		conf: with(sub), der: member(t, sub, "peer0", "peer").cert.Raw,
		shown: [][]byte{sub.cert.Raw, sub.cert.Raw, sub.cert.Raw, sub.cert.Raw, sub.cert.Raw}, want: ChainTooLong,
	}.play)
	t.Run("C27", func(t *testing.T) {
		short := authority(t, ca, "ica.org1", key(), func(c *x509.Certificate) { c.MaxPathLen = 0; c.MaxPathLenZero = true })
		scene{conf: with(short), der: member(t, short, "peer0", "peer").cert.Raw}.play(t)
		top := root(t, "ca.org1", func(c *x509.Certificate) { c.MaxPathLen = 0; c.MaxPathLenZero = true })
		below := authority(t, top, "ica.org1", key())
		conf := definition("Org1MSP", top)
		conf.IntermediateCerts = [][]byte{below.pem()}
		scene{conf: conf, der: member(t, below, "peer0", "peer").cert.Raw, want: BadPathLength}.play(t)
	})
	t.Run("below a CA with sub-CAs", scene{conf: with(sub), der: member(t, ca, "peer0", "peer").cert.Raw, want: BadChain}.play)
	t.Run("unlisted intermediate", scene{
		conf: with(), der: member(t, sub, "peer0", "peer").cert.Raw,
		shown: [][]byte{sub.cert.Raw}, want: BadChain,
	}.play)
	t.Run("renewed intermediate shown", func(t *testing.T) {
		old := authority(t, ca, "ica.org1", sub.key, func(c *x509.Certificate) { c.NotAfter = noon.Add(-time.Hour) })
		leaf := member(t, sub, "peer0", "peer").cert.Raw
		scene{conf: with(old), der: leaf, want: Expired}.play(t)
		scene{conf: with(old), der: leaf, shown: [][]byte{sub.cert.Raw}}.play(t)
		scene{conf: with(old), der: leaf, shown: [][]byte{{1, 2, 3}}, want: NotDER}.play(t)
	})
	t.Run("root of RSA", func(t *testing.T) {
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		require.NoError(t, err)
		old := authority(t, nil, "ca.org1", k)
		leaf := member(t, old, "peer0", "peer")
		scene{conf: definition("Org1MSP", old), der: leaf.cert.Raw, want: BadAlgorithm}.play(t)
		require.NoError(t, build(t, definition("Org1MSP", old)).Validate(leaf.id(t, "Org1MSP")), "Fabric takes such CAs")
	})
	t.Run("C36", func(t *testing.T) {
		renewed := authority(t, nil, "ca.org1", ca.key, func(c *x509.Certificate) { c.NotBefore = noon.AddDate(0, 0, -1) })
		older, newer := member(t, ca, "peer0", "peer"), member(t, renewed, "peer1", "peer", func(c *x509.Certificate) { c.NotBefore = noon })
		both := definition("Org1MSP", ca, renewed)
		both.FabricNodeOus.PeerOuIdentifier.Certificate = ca.pem()
		for _, p := range []*party{older, newer} {
			scene{conf: both, der: p.cert.Raw}.play(t)
			require.NoError(t, build(t, both).Validate(p.id(t, "Org1MSP")))
		}
		alone := definition("Org1MSP", renewed)
		scene{conf: alone, der: older.cert.Raw}.play(t)
		refused(t, build(t, alone).Validate(older.id(t, "Org1MSP")), Expired) // as Fabric: the root begins later
		both.IntermediateCerts = [][]byte{sub.pem()}
		both.FabricNodeOus.PeerOuIdentifier.Certificate = sub.pem()
		below := member(t, sub, "peer2", "peer")
		scene{conf: both, der: below.cert.Raw}.play(t)
		require.NoError(t, build(t, both).Validate(below.id(t, "Org1MSP")))
	})
}

package msp

import (
	"crypto/sha256"
	"crypto/sha3"
	"crypto/sha512"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"hash"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	mspproto "github.com/hyperledger/fabric-protos-go-apiv2/msp"
)

// remembered is how many certificates an MSP keeps its ledger verdict on. One
// verdict costs a chain (0.2 ms); a channel has fewer members than this.
const remembered = 512

// Features are the rules of an MSP that a channel's capabilities switch on.
type Features struct {
	NodeOUs bool // V1_4_3 and later: four OU roles, and administrators demanded
	Ed25519 bool // V3_0 and later
}

// An MSP is one organisation's definition: whose certificates count, and as
// what. It is immutable and safe for concurrent use.
type MSP struct {
	id       string
	features Features

	roots, intermediates []*x509.Certificate // low-S
	rootPool, interPool  *x509.CertPool      // the same
	inner                map[string]bool     // raw certificates of CAs that have listed sub-CAs

	family  string           // hash under ECDSA signatures
	newHash func() hash.Hash // of certification paths

	crls    []*crl
	nodeOUs bool
	roles   map[mspproto.MSPRole_MSPRoleType]*unit
	units   []*unit         // organisational units that make a member where NodeOUs are off
	admins  map[string]bool // raw certificates

	tlsRoots *x509.CertPool
	tlsPEM   [][]byte
	warnings []Warning

	verdicts *lru.Cache[[32]byte, *verdict] // by hash of the certificate as shown
}

// New builds an MSP from its definition as Fabric does, clock aside: what Fabric
// refuses to load is refused, as [BadDefinition] or for the reason within; CAs
// renewed under the same key are taken beside one another, which Fabric is not
// able to do. The definition must not be changed afterwards.
func New(conf *mspproto.FabricMSPConfig, f Features) (*MSP, error) {
	if conf.GetName() == "" {
		return nil, fmt.Errorf("MSP definition without a name: %w", BadDefinition)
	}
	m := &MSP{id: conf.Name, features: f, inner: map[string]bool{}, admins: map[string]bool{}}
	var err error
	if m.verdicts, err = lru.New[[32]byte, *verdict](remembered); err != nil {
		return nil, err
	}
	for _, part := range []func(*mspproto.FabricMSPConfig) error{
		m.setHashes, m.setCAs, m.setCRLs, m.checkCAs, m.setTLS, m.setUnits, m.setRoles, m.setAdmins,
	} {
		if err := part(conf); err != nil {
			return nil, fmt.Errorf("MSP %s: %w", m.id, err)
		}
	}
	return m, nil
}

// ID returns the MSP's name.
func (m *MSP) ID() string { return m.id }

// TLSRoots returns the CAs of the organisation's TLS certificates, intermediate
// ones among them; the pool is the caller's.
func (m *MSP) TLSRoots() *x509.CertPool { return m.tlsRoots.Clone() }

// TLSRootsPEM returns the same as PEM; the caller must not change it.
func (m *MSP) TLSRootsPEM() [][]byte { return m.tlsPEM }

// Warnings returns what is odd about the definition, without a look at the
// clock. See [MSP.WarningsAt].
func (m *MSP) Warnings() []Warning { return m.warnings }

// WarningsAt returns [MSP.Warnings] and the revocation lists whose dates do not
// cover now. They revoke all the same.
func (m *MSP) WarningsAt(now time.Time) []Warning {
	all := m.warnings[:len(m.warnings):len(m.warnings)]
	for _, l := range m.crls {
		if w, stale := l.stale(now); stale {
			all = append(all, w)
		}
	}
	return all
}

func (m *MSP) setHashes(conf *mspproto.FabricMSPConfig) error {
	m.family = sha2
	if f := conf.GetCryptoConfig().GetSignatureHashFamily(); f != "" {
		m.family = f // an unknown one makes every ECDSA signature fail, as in Fabric
	}
	switch f := conf.GetCryptoConfig().GetIdentityIdentifierHashFunction(); f {
	case "", "SHA256":
		m.newHash = sha256.New
	case "SHA384":
		m.newHash = sha512.New384
	case "SHA3_256":
		m.newHash = func() hash.Hash { return sha3.New256() }
	case "SHA3_384":
		m.newHash = func() hash.Hash { return sha3.New384() }
	default:
		return fmt.Errorf("hash function %q: %w", f, BadDefinition)
	}
	return nil
}

// setCAs takes the CAs twice: low-S forms need the chains that the forms shown
// make.
func (m *MSP) setCAs(conf *mspproto.FabricMSPConfig) error {
	if len(conf.RootCerts) == 0 {
		return fmt.Errorf("no CA certificate: %w", BadDefinition)
	}
	var err error
	if m.roots, err = readAll(conf.RootCerts); err != nil {
		return fmt.Errorf("root CAs: %w", err)
	}
	if m.intermediates, err = readAll(conf.IntermediateCerts); err != nil {
		return fmt.Errorf("intermediate CAs: %w", err)
	}
	m.rootPool, m.interPool = pool(m.roots), pool(m.intermediates)
	for _, list := range [][]*x509.Certificate{m.roots, m.intermediates} {
		for i, c := range list {
			if list[i], err = m.canonical(c); err != nil {
				return fmt.Errorf("CA %q: %w", c.Subject.CommonName, err)
			}
		}
	}
	m.rootPool, m.interPool = pool(m.roots), pool(m.intermediates)
	return nil
}

// checkCAs judges the CAs themselves; it needs the revocation lists.
func (m *MSP) checkCAs(*mspproto.FabricMSPConfig) error {
	for _, c := range m.cas() {
		chains, err := m.checkCA(c, m.rootPool, m.interPool)
		if err != nil {
			return err
		}
		for _, chain := range chains {
			for _, parent := range chain[1:] {
				m.inner[string(parent.Raw)] = true
			}
		}
	}
	return nil
}

func (m *MSP) checkCA(c *x509.Certificate, roots, intermediates *x509.CertPool) ([][]*x509.Certificate, error) {
	name := c.Subject.CommonName
	if !c.IsCA {
		return nil, fmt.Errorf("%q is listed as a CA and is none: %w", name, BadDefinition)
	}
	if _, err := subjectKeyID(c); err != nil {
		return nil, fmt.Errorf("CA: %w", err)
	}
	chains, err := fabricChains(c, roots, intermediates)
	if err != nil {
		return nil, fmt.Errorf("CA %q: %w", name, err)
	}
	for _, chain := range chains {
		if len(chain) == 1 {
			continue // a root has no one to revoke it
		}
		if err := m.revoked(chain); err != nil {
			return nil, fmt.Errorf("CA %q: %w", name, err)
		}
	}
	return chains, nil
}

// setTLS judges the TLS CAs as Fabric does, but at each one's own beginning
// where Fabric asks the real clock.
func (m *MSP) setTLS(conf *mspproto.FabricMSPConfig) error {
	roots, err := readAll(conf.TlsRootCerts)
	if err != nil {
		return fmt.Errorf("TLS root CAs: %w", err)
	}
	inter, err := readAll(conf.TlsIntermediateCerts)
	if err != nil {
		return fmt.Errorf("TLS intermediate CAs: %w", err)
	}
	all := append(roots[:len(roots):len(roots)], inter...)
	for _, c := range all {
		if _, err := m.checkCA(c, pool(roots), pool(inter)); err != nil {
			return fmt.Errorf("TLS: %w", err)
		}
	}
	m.tlsRoots = pool(all)
	m.tlsPEM = append(conf.TlsRootCerts[:len(conf.TlsRootCerts):len(conf.TlsRootCerts)], conf.TlsIntermediateCerts...)
	return nil
}

func (m *MSP) cas() []*x509.Certificate {
	return append(m.roots[:len(m.roots):len(m.roots)], m.intermediates...)
}

// read takes a certificate of a definition: the first PEM block, the rest
// ignored.
func read(text []byte) (*x509.Certificate, error) {
	b, _ := pem.Decode(text)
	if b == nil {
		return nil, fmt.Errorf("no PEM block: %w", BadPEM)
	}
	c, err := x509.ParseCertificate(b.Bytes)
	if err != nil {
		return nil, unreadable(b.Bytes, err)
	}
	return c, nil
}

func readAll(texts [][]byte) ([]*x509.Certificate, error) {
	list := make([]*x509.Certificate, len(texts))
	for i, t := range texts {
		c, err := read(t)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", i, err)
		}
		list[i] = c
	}
	return list, nil
}

func pool(list []*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range list {
		p.AddCert(c)
	}
	return p
}

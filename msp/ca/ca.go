// Package ca is a small certificate authority: it makes the keys, certificates,
// revocation lists and folders that Fabric's cryptogen makes. It serves
// development networks, tests and small consortia; a key under it lies in a
// file.
package ca

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"sync"
	"time"
)

// Life is how long certificates are valid unless a request says otherwise, and
// Backdate how far before the given time they begin: cryptogen's figures.
const (
	Life     = 3650 * 24 * time.Hour
	Backdate = 5 * time.Minute
)

// A Subject is the part of a CA's name that its certificates inherit. Empty
// Country, Province and Locality mean US, California and San Francisco, as
// cryptogen has them.
type Subject struct {
	Country, Province, Locality, Unit, Street, PostalCode string
}

// A CA is a root or intermediate certificate authority with its private key, in
// memory; [CA.Save] and [Open] keep it in a folder. It is safe for concurrent
// use.
type CA struct {
	cert  *x509.Certificate
	chain []*x509.Certificate // issuers of cert, nearest first, the root last; empty for a root
	key   crypto.Signer

	mu      sync.Mutex // guards what follows
	revoked []x509.RevocationListEntry
	number  int64 // of the newest revocation list
}

// New makes a root CA with a fresh key. org is the organisation's domain, such
// as org1.example.com, and cn the CA's own name, such as ca.org1.example.com.
func New(org, cn string, alg Algorithm, now time.Time) (*CA, error) {
	return NewWith(Subject{}, org, cn, alg, now)
}

// NewWith is [New] with a subject other than cryptogen's.
func NewWith(s Subject, org, cn string, alg Algorithm, now time.Time) (*CA, error) {
	key, err := GenerateKey(alg)
	if err != nil {
		return nil, err
	}
	name := s.name()
	name.Organization, name.CommonName = []string{org}, cn
	c, err := authority(name, key, now)
	if err != nil {
		return nil, fmt.Errorf("root %s: %w", cn, err)
	}
	cert, err := sign(c, c, key)
	if err != nil {
		return nil, fmt.Errorf("root %s: %w", cn, err)
	}
	return &CA{cert: cert, key: key}, nil
}

// Intermediate makes a CA under c, with the same subject but for cn.
func (c *CA) Intermediate(cn string, alg Algorithm, now time.Time) (*CA, error) {
	key, err := GenerateKey(alg)
	if err != nil {
		return nil, err
	}
	name := c.cert.Subject
	name.ExtraNames, name.Names, name.CommonName = nil, nil, cn
	t, err := authority(name, key, now)
	if err != nil {
		return nil, fmt.Errorf("intermediate %s: %w", cn, err)
	}
	if t.NotAfter.After(c.cert.NotAfter) {
		t.NotAfter = c.cert.NotAfter
	}
	cert, err := sign(t, c.cert, c.key)
	if err != nil {
		return nil, fmt.Errorf("intermediate %s: %w", cn, err)
	}
	chain := append([]*x509.Certificate{c.cert}, c.chain...)
	return &CA{cert: cert, chain: chain, key: key}, nil
}

// Certificate returns the CA's own certificate; read only.
func (c *CA) Certificate() *x509.Certificate { return c.cert }

// Name returns the CA's common name.
func (c *CA) Name() string { return c.cert.Subject.CommonName }

// PEM returns the CA's own certificate.
func (c *CA) PEM() []byte { return encodeCert(c.cert.Raw) }

// Root returns the root that c descends from; c's own certificate if it is one.
func (c *CA) Root() *x509.Certificate {
	if len(c.chain) == 0 {
		return c.cert
	}
	return c.chain[len(c.chain)-1]
}

// Intermediates returns c's certificate and those between it and the root,
// nearest first; none if c is a root.
func (c *CA) Intermediates() []*x509.Certificate {
	if len(c.chain) == 0 {
		return nil
	}
	return append([]*x509.Certificate{c.cert}, c.chain[:len(c.chain)-1]...)
}

// A Request asks for a leaf certificate.
type Request struct {
	CN   string
	OU   []string // roles (client, peer, admin, orderer) and other units
	SANs []string // host names and IP addresses
	// NotBefore and NotAfter: zero means the CA's own. The certificate never
	// outlives the CA.
	NotBefore, NotAfter time.Time
	TLS                 bool // for a TLS server and client rather than for signing
	Key                 crypto.PublicKey
}

// Issue returns a certificate, DER, as cryptogen makes it: the CA's subject
// without its organisation, the units of the CA and of the request, and the
// request's name.
func (c *CA) Issue(r Request) ([]byte, error) {
	if r.CN == "" {
		return nil, errors.New("issue a certificate: common name missing")
	}
	s := c.cert.Subject
	t, err := c.leaf(r.NotBefore, r.NotAfter)
	if err != nil {
		return nil, fmt.Errorf("issue %s: %w", r.CN, err)
	}
	t.PublicKey = r.Key
	t.Subject = pkix.Name{
		Country: s.Country, Province: s.Province, Locality: s.Locality,
		StreetAddress: s.StreetAddress, PostalCode: s.PostalCode,
		OrganizationalUnit: append(append([]string{}, s.OrganizationalUnit...), r.OU...),
		CommonName:         r.CN,
	}
	t.KeyUsage = x509.KeyUsageDigitalSignature
	if r.TLS {
		t.KeyUsage |= x509.KeyUsageKeyEncipherment
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	for _, n := range r.SANs {
		if ip := net.ParseIP(n); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, n)
		}
	}
	cert, err := sign(t, c.cert, c.key)
	if err != nil {
		return nil, fmt.Errorf("issue %s: %w", r.CN, err)
	}
	return cert.Raw, nil
}

// Renew returns a certificate, DER, for the subject, key, names and usages of
// old, which c must have issued, with a serial number and validity of its own.
// A revoked certificate is not renewed.
func (c *CA) Renew(old *x509.Certificate, notBefore, notAfter time.Time) ([]byte, error) {
	if err := old.CheckSignatureFrom(c.cert); err != nil {
		return nil, fmt.Errorf("renew %s: not issued by %s: %w", old.Subject.CommonName, c.Name(), err)
	}
	if old.IsCA {
		return nil, fmt.Errorf("renew %s: it is a CA's certificate", old.Subject.CommonName)
	}
	if c.Revoked(old.SerialNumber) {
		return nil, fmt.Errorf("renew %s: certificate %x is revoked", old.Subject.CommonName, old.SerialNumber)
	}
	t, err := c.leaf(notBefore, notAfter)
	if err != nil {
		return nil, fmt.Errorf("renew %s: %w", old.Subject.CommonName, err)
	}
	t.PublicKey = old.PublicKey
	t.RawSubject = old.RawSubject
	t.KeyUsage, t.ExtKeyUsage, t.UnknownExtKeyUsage = old.KeyUsage, old.ExtKeyUsage, old.UnknownExtKeyUsage
	t.DNSNames, t.IPAddresses, t.EmailAddresses, t.URIs = old.DNSNames, old.IPAddresses, old.EmailAddresses, old.URIs
	cert, err := sign(t, c.cert, c.key)
	if err != nil {
		return nil, fmt.Errorf("renew %s: %w", old.Subject.CommonName, err)
	}
	return cert.Raw, nil
}

// leaf begins a leaf's template.
func (c *CA) leaf(from, to time.Time) (*x509.Certificate, error) {
	if from.IsZero() {
		from = c.cert.NotBefore
	}
	if to.IsZero() || to.After(c.cert.NotAfter) {
		to = c.cert.NotAfter
	}
	if !to.After(from) {
		return nil, fmt.Errorf("valid from %s until %s: ends before it begins", from.UTC().Format(time.RFC3339), to.UTC().Format(time.RFC3339))
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	return &x509.Certificate{
		SerialNumber: serial, NotBefore: from.UTC(), NotAfter: to.UTC(), BasicConstraintsValid: true,
	}, nil
}

func (s Subject) name() pkix.Name {
	or := func(v, d string) []string {
		if v == "" {
			v = d
		}
		if v == "" {
			return nil
		}
		return []string{v}
	}
	return pkix.Name{
		Country: or(s.Country, "US"), Province: or(s.Province, "California"), Locality: or(s.Locality, "San Francisco"),
		OrganizationalUnit: or(s.Unit, ""), StreetAddress: or(s.Street, ""), PostalCode: or(s.PostalCode, ""),
	}
}

// authority is a CA's template, with cryptogen's usages.
func authority(name pkix.Name, key crypto.Signer, now time.Time) (*x509.Certificate, error) {
	if name.CommonName == "" {
		return nil, errors.New("common name missing")
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	ski, err := keyID(key.Public())
	if err != nil {
		return nil, err
	}
	from, to := Validity(now)
	return &x509.Certificate{
		SerialNumber: serial, Subject: name, NotBefore: from, NotAfter: to, PublicKey: key.Public(),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment |
			x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, IsCA: true, SubjectKeyId: ski,
	}, nil
}

// Validity returns the validity of a certificate that is made at now.
func Validity(now time.Time) (from, to time.Time) {
	from = now.Round(time.Minute).Add(-Backdate).UTC()
	return from, from.Add(Life)
}

// sign makes the certificate of a template that names its public key.
func sign(t, issuer *x509.Certificate, key crypto.Signer) (*x509.Certificate, error) {
	if _, err := keyID(t.PublicKey); err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, t, issuer, t.PublicKey, lowS{key})
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// newSerial returns 128 random bits, never zero.
func newSerial() (*big.Int, error) {
	b := make([]byte, 16)
	if _, err := rand.Read(b); err != nil {
		return nil, fmt.Errorf("serial number: %w", err)
	}
	if n := new(big.Int).SetBytes(b); n.Sign() > 0 {
		return n, nil
	}
	return newSerial()
}

func encodeCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// decodeCert reads a file of exactly one certificate.
func decodeCert(b []byte) (*x509.Certificate, error) {
	p, rest := pem.Decode(b)
	switch {
	case p == nil || p.Type != "CERTIFICATE":
		return nil, errors.New("no PEM certificate")
	case len(bytes.TrimSpace(rest)) > 0:
		return nil, errors.New("more than one certificate")
	}
	return x509.ParseCertificate(p.Bytes)
}

package msp

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	// earlyBy is how far ahead of our clock a certificate may begin: fresh ones
	// are used at once, on hosts whose clocks differ. There is no such allowance
	// at the end.
	earlyBy = 60 * time.Second
	// maxChain is the longest chain from leaf to root, both counted.
	maxChain = 8
	// maxShown is how many intermediates a host may show with its leaf.
	maxShown = 4
)

// ValidateLive is the live judge: may the holder of id, who shows it now with
// these intermediates (DER, leaf's issuer first), be let in as a member of this
// MSP? It uses the real clock, both ends (60 s before NotBefore, nothing after
// NotAfter), the allow-list of keys and algorithms, stricter rules on extensions
// and names than Fabric's, and every revocation list on every link. Intermediates
// count only if the definition lists them, or lists the same CA (name and key)
// under another certificate: a renewed CA needs no new configuration.
func (m *MSP) ValidateLive(id *Identity, intermediates [][]byte, now time.Time) error {
	if err := m.live(id, intermediates, now); err != nil {
		return fmt.Errorf("%s of %s: %w", id.Name(), m.id, err)
	}
	return nil
}

func (m *MSP) live(id *Identity, shown [][]byte, now time.Time) error {
	if id.mspID != m.id {
		return fmt.Errorf("certificate shown under %s: %w", id.mspID, WrongMSP)
	}
	if err := m.leaf(id.cert, now); err != nil {
		return err
	}
	if len(shown) > maxShown {
		return fmt.Errorf("%d intermediates shown, at most %d: %w", len(shown), maxShown, ChainTooLong)
	}
	between, err := m.intermediatesWith(shown)
	if err != nil {
		return err
	}
	chains, err := liveChains(id.cert, m.rootPool, between, now)
	if err != nil {
		return err
	}
	for _, chain := range chains { // one revocation is enough, whichever chain shows it
		if err := m.revokedLive(chain); err != nil {
			return err
		}
	}
	var first error
	for _, chain := range chains {
		err := m.link(chain)
		if err == nil {
			err = m.place(chain)
		}
		if err == nil {
			return nil
		}
		if first == nil {
			first = err
		}
	}
	return first
}

// leaf judges what a certificate says of itself.
func (m *MSP) leaf(c *x509.Certificate, now time.Time) error {
	if err := allowKey(c, m.features.Ed25519); err != nil {
		return err
	}
	if err := allowAlgorithm(c.SignatureAlgorithm); err != nil {
		return err
	}
	switch {
	case c.NotAfter.Before(c.NotBefore):
		return fmt.Errorf("ends %v, before it begins: %w", c.NotAfter.Format(time.RFC3339), BadValidity)
	case now.After(c.NotAfter):
		return fmt.Errorf("ended %v: %w", c.NotAfter.Format(time.RFC3339), Expired)
	case now.Add(earlyBy).Before(c.NotBefore):
		return fmt.Errorf("begins %v: %w", c.NotBefore.Format(time.RFC3339), NotYetValid)
	case c.IsCA:
		return LeafIsCA
	case c.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return fmt.Errorf("no digitalSignature: %w", BadKeyUsage)
	case len(c.UnhandledCriticalExtensions) > 0:
		return fmt.Errorf("critical extension %v: %w", c.UnhandledCriticalExtensions[0], CriticalExtension)
	}
	return bothEnds(c)
}

// bothEnds refuses certificates that list their uses and leave out one of the
// two: a host of a peer-to-peer network is client and server.
func bothEnds(c *x509.Certificate) error {
	uses := c.ExtKeyUsage
	if len(uses)+len(c.UnknownExtKeyUsage) == 0 || slices.Contains(uses, x509.ExtKeyUsageAny) ||
		slices.Contains(uses, x509.ExtKeyUsageClientAuth) && slices.Contains(uses, x509.ExtKeyUsageServerAuth) {
		return nil
	}
	return fmt.Errorf("%q is not for both clients and servers: %w", c.Subject.CommonName, BadExtKeyUsage)
}

// intermediatesWith returns the definition's intermediates and those shown that
// are the same authorities.
func (m *MSP) intermediatesWith(shown [][]byte) (*x509.CertPool, error) {
	if len(shown) == 0 {
		return m.interPool, nil
	}
	p := m.interPool.Clone()
	for i, der := range shown {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("intermediate %d: %w", i, unreadable(der, err))
		}
		if slices.ContainsFunc(m.intermediates, func(l *x509.Certificate) bool { return sameKey(l, c) }) {
			p.AddCert(c)
		}
	}
	return p, nil
}

func liveChains(c *x509.Certificate, roots, between *x509.CertPool, now time.Time) ([][]*x509.Certificate, error) {
	o := x509.VerifyOptions{
		Roots:         roots,
		Intermediates: between,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageAny}, // bothEnds is stricter
		CurrentTime:   now,
	}
	chains, err := c.Verify(o)
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) && invalid.Reason == x509.Expired {
		o.CurrentTime = now.Add(earlyBy)
		chains, err = c.Verify(o)
	}
	if err != nil {
		return nil, chainReason(err)
	}
	return chains, nil
}

// link judges what the certificates of a chain say of one another, beyond what
// crypto/x509 has asked.
func (m *MSP) link(chain []*x509.Certificate) error {
	if len(chain) > maxChain {
		return fmt.Errorf("chain of %d, at most %d: %w", len(chain), maxChain, ChainTooLong)
	}
	for i, ca := range chain[1:] {
		child, name := chain[i], ca.Subject.CommonName
		if err := allowKey(ca, true); err != nil {
			return fmt.Errorf("CA %q: %w", name, err)
		}
		if err := allowAlgorithm(child.SignatureAlgorithm); err != nil {
			return fmt.Errorf("CA %q: %w", name, err)
		}
		if err := bothEnds(ca); err != nil {
			return err
		}
		if len(ca.SubjectKeyId) == 0 || len(child.AuthorityKeyId) > 0 && !bytes.Equal(child.AuthorityKeyId, ca.SubjectKeyId) {
			return fmt.Errorf("%q names the issuer's key %x, CA %q is %x: %w",
				child.Subject.CommonName, child.AuthorityKeyId, name, ca.SubjectKeyId, BadKeyIdentifier)
		}
		if err := commonName(chain[0].Subject.CommonName, ca); err != nil {
			return err
		}
	}
	if namelessUnderConstraint(chain) {
		return fmt.Errorf("host name only in the common name, under a CA with name constraints: %w", BadName)
	}
	return nil
}

// commonName applies a CA's constraints on host names to the leaf's common name,
// which crypto/x509 does not look at.
func commonName(name string, ca *x509.Certificate) error {
	if !hostname(name) {
		return nil
	}
	under := func(domain string) bool {
		host, domain := strings.ToLower(strings.TrimSuffix(name, ".")), strings.ToLower(domain)
		if d, dotted := strings.CutPrefix(domain, "."); dotted {
			return strings.HasSuffix(host, "."+d)
		}
		return domain == "" || host == domain || strings.HasSuffix(host, "."+domain)
	}
	if slices.ContainsFunc(ca.ExcludedDNSDomains, under) ||
		len(ca.PermittedDNSDomains) > 0 && !slices.ContainsFunc(ca.PermittedDNSDomains, under) {
		return fmt.Errorf("common name %q is outside the domains of CA %q: %w", name, ca.Subject.CommonName, BadName)
	}
	return nil
}

// revokedLive asks every list about every link. Who signed a list decides, not
// what the list says of its issuer.
func (m *MSP) revokedLive(chain []*x509.Certificate) error {
	for i, issuer := range chain[1:] {
		for _, l := range m.crls {
			if !l.revokes(issuer, chain[i].SerialNumber) {
				continue
			}
			if i == 0 {
				return fmt.Errorf("serial %x: %w", chain[i].SerialNumber, Revoked)
			}
			return fmt.Errorf("CA %q: %w", chain[i].Subject.CommonName, RevokedIssuer)
		}
	}
	return nil
}

// place judges where in the organisation the chain ends: below a CA without
// listed sub-CAs, and in one role. CAs are compared by name and key.
func (m *MSP) place(chain []*x509.Certificate) error {
	issuer := chain[1]
	for _, c := range m.cas() {
		if m.inner[string(c.Raw)] && sameKey(c, issuer) {
			return fmt.Errorf("issued by a CA that has sub-CAs in the definition: %w", BadChain)
		}
	}
	fits := func(u *unit) bool { return u.ca == nil || sameKey(u.ca, issuer) }
	if m.nodeOUs {
		if err := m.oneRole(chain[0], fits); err != nil {
			return err
		}
	}
	return m.known(chain[0], fits)
}

package msp

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// fabricChains returns the chains of c as Fabric builds them: without a clock, at
// one second after the certificate's own beginning, for an extended key usage of
// serverAuth if it lists any (msp/mspimplvalidate.go). Fabric demands exactly one
// chain; here one or more do, so that a CA may be renewed.
func fabricChains(c *x509.Certificate, roots, intermediates *x509.CertPool) ([][]*x509.Certificate, error) {
	chains, err := c.Verify(x509.VerifyOptions{
		Roots:         roots,
		Intermediates: intermediates,
		CurrentTime:   c.NotBefore.Add(time.Second),
	})
	if err != nil {
		return nil, chainReason(err)
	}
	chains = slices.DeleteFunc(chains, namelessUnderConstraint)
	if len(chains) == 0 {
		return nil, fmt.Errorf("host name only in the common name, under a CA with name constraints: %w", BadName)
	}
	return chains, nil
}

// canonical returns c with a low S in its issuer's signature. For certificates
// signed with ECDSA it needs a chain, so it fails for strangers.
func (m *MSP) canonical(c *x509.Certificate) (*x509.Certificate, error) {
	if !signedWithECDSA(c) {
		return c, nil
	}
	if c.IsCA && c.CheckSignatureFrom(c) == nil {
		root, err := lowS(c, c.PublicKey)
		if err != nil {
			return nil, err
		}
		_, err = fabricChains(root, pool([]*x509.Certificate{root}), m.interPool)
		return root, err
	}
	chains, err := fabricChains(c, m.rootPool, m.interPool)
	if err != nil {
		return nil, err
	}
	if len(chains[0]) < 2 {
		return nil, fmt.Errorf("%q is listed as a root and did not sign itself: %w", c.Subject.CommonName, BadChain)
	}
	return lowS(c, chains[0][1].PublicKey)
}

// memberChains returns the chains that make c a member of the MSP: c is no CA,
// and was issued by a CA that has no listed sub-CA.
func (m *MSP) memberChains(c *x509.Certificate) ([][]*x509.Certificate, error) {
	if c.IsCA {
		return nil, LeafIsCA
	}
	chains, err := fabricChains(c, m.rootPool, m.interPool)
	if err != nil {
		return nil, err
	}
	return m.fromOutermost(chains)
}

func (m *MSP) fromOutermost(chains [][]*x509.Certificate) ([][]*x509.Certificate, error) {
	chains = slices.DeleteFunc(chains, func(chain []*x509.Certificate) bool {
		return len(chain) < 2 || m.inner[string(chain[1].Raw)]
	})
	if len(chains) == 0 {
		return nil, fmt.Errorf("issued by a CA that has sub-CAs in the definition: %w", BadChain)
	}
	return chains, nil
}

// path is Fabric's name of a chain of CAs: the hash of their certificates.
func (m *MSP) path(cas []*x509.Certificate) string {
	h := m.newHash()
	for _, c := range cas {
		h.Write(c.Raw)
	}
	return string(h.Sum(nil))
}

// namelessUnderConstraint is the rule of Go 1.14 that Fabric keeps: below a CA
// with name constraints, a leaf without subject alternative names must not have
// a host name as its common name.
func namelessUnderConstraint(chain []*x509.Certificate) bool {
	if len(chain) < 2 || hasExtension(chain[0], oidSubjectAltName) || !hostname(chain[0].Subject.CommonName) {
		return false
	}
	return slices.ContainsFunc(chain[1:], func(c *x509.Certificate) bool {
		return hasExtension(c, oidNameConstraints)
	})
}

// hostname says whether s could be a host's name, as Go 1.14 decided it.
func hostname(s string) bool {
	s = strings.TrimSuffix(s, ".")
	if s == "" {
		return false
	}
	for i, label := range strings.Split(s, ".") {
		if label == "" {
			return false
		}
		if i == 0 && label == "*" {
			continue
		}
		for j, r := range label {
			switch {
			case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '_', r == ':':
			case r == '-' && j > 0:
			default:
				return false
			}
		}
	}
	return true
}

// chainReason names the reason in an error of [x509.Certificate.Verify].
func chainReason(err error) error {
	reason := BadChain
	var invalid x509.CertificateInvalidError
	var critical x509.UnhandledCriticalExtension
	switch {
	case errors.As(err, &critical):
		reason = CriticalExtension
	case errors.As(err, &invalid):
		switch invalid.Reason {
		case x509.Expired:
			reason = Expired
		case x509.TooManyIntermediates:
			reason = BadPathLength
		case x509.IncompatibleUsage:
			reason = BadExtKeyUsage
		case x509.CANotAuthorizedForThisName, x509.NameConstraintsWithoutSANs, x509.UnconstrainedName, x509.TooManyConstraints:
			reason = BadName
		case x509.CANotAuthorizedForExtKeyUsage:
			reason = BadExtKeyUsage
		}
	}
	return fmt.Errorf("%w: %w", reason, err)
}

package msp

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"slices"

	mspproto "github.com/hyperledger/fabric-protos-go-apiv2/msp"
)

// A verdict is what the ledger judge found out about one certificate.
type verdict struct {
	unknown error             // set if Fabric could not even name the identity
	cert    *x509.Certificate // low-S
	hash    [32]byte          // of cert.Raw: two identities with one hash are one
	paths   []string          // names of the CA chains above it
	invalid error             // set if it is no valid member
}

// Validate is the ledger judge: is id a member under this definition, as a
// Fabric peer decides it, at no particular time?
func (m *MSP) Validate(id *Identity) error {
	if id.mspID != m.id {
		return fmt.Errorf("identity of MSP %s shown to %s: %w", id.mspID, m.id, WrongMSP)
	}
	return m.judge(id).invalid
}

// Verify says whether sig is id's signature over msg, as a Fabric peer with this
// definition decides it: the hash is the definition's, and bytes after the
// signature are ignored. It does not ask whether id is valid.
func (m *MSP) Verify(id *Identity, msg, sig []byte) error {
	return id.check(m.family, sig, msg)
}

func (m *MSP) judge(id *Identity) *verdict {
	if v, ok := m.verdicts.Get(id.hash); ok {
		return v
	}
	v := m.consider(id.cert)
	if v.invalid != nil {
		v.invalid = fmt.Errorf("%s of %s: %w", id.Name(), m.id, v.invalid)
	}
	m.verdicts.Add(id.hash, v)
	return v
}

func (m *MSP) consider(shown *x509.Certificate) *verdict {
	c, err := m.canonical(shown)
	if err != nil {
		return &verdict{unknown: err, invalid: err}
	}
	v := &verdict{cert: c, hash: sha256.Sum256(c.Raw)}
	chains, err := m.memberChains(c)
	if err != nil {
		v.invalid = err
		return v
	}
	for _, chain := range chains {
		v.paths = append(v.paths, m.path(chain[1:]))
	}
	v.invalid = m.member(v, chains)
	return v
}

func (m *MSP) member(v *verdict, chains [][]*x509.Certificate) error {
	switch v.cert.PublicKeyAlgorithm {
	case x509.ECDSA:
	case x509.Ed25519:
		if !m.features.Ed25519 {
			return fmt.Errorf("Ed25519 needs the channel capability V3_0: %w", BadKeyType)
		}
	default:
		return fmt.Errorf("key of type %v: %w", v.cert.PublicKeyAlgorithm, BadKeyType)
	}
	for _, chain := range chains {
		if err := m.revoked(chain); err != nil {
			return err
		}
	}
	fits := func(u *unit) bool {
		return u.ca == nil || slices.ContainsFunc(v.paths, func(p string) bool { return slices.Contains(u.paths, p) })
	}
	if m.nodeOUs {
		return m.oneRole(v.cert, fits)
	}
	return m.known(v.cert, fits)
}

// revoked applies the revocation lists to chain[0] as Fabric does: those whose
// authority key identifier is the issuer's subject key identifier and that the
// issuer signed; their dates play no part. One list without an authority key
// identifier is an error for everybody.
func (m *MSP) revoked(chain []*x509.Certificate) error {
	if len(m.crls) == 0 {
		return nil
	}
	id, err := subjectKeyID(chain[1])
	if err != nil {
		return err
	}
	for _, l := range m.crls {
		if l.authority == nil {
			return fmt.Errorf("a revocation list has no authority key identifier: %w", BadCRL)
		}
		if string(l.authority) == string(id) && l.revokes(chain[1], chain[0].SerialNumber) {
			return fmt.Errorf("serial %x: %w", chain[0].SerialNumber, Revoked)
		}
	}
	return nil
}

func (m *MSP) setAdmins(conf *mspproto.FabricMSPConfig) error {
	for i, text := range conf.Admins {
		c, err := read(text)
		if err != nil {
			return fmt.Errorf("admin %d: %w", i, err)
		}
		v := m.consider(c)
		switch {
		case v.unknown != nil:
			err = v.unknown
		case !m.nodeOUs:
			err = v.invalid
		case m.features.NodeOUs:
			if m.hasRole(v, mspproto.MSPRole_CLIENT) != nil {
				err = m.hasRole(v, mspproto.MSPRole_ADMIN)
			}
		default:
			if err = v.invalid; err == nil {
				err = m.hasRole(v, mspproto.MSPRole_CLIENT)
			}
		}
		if err != nil {
			return fmt.Errorf("admin %q: %w", c.Subject.CommonName, err)
		}
		m.admins[string(v.cert.Raw)] = true
	}
	if m.features.NodeOUs && len(m.admins) == 0 && m.roles[mspproto.MSPRole_ADMIN] == nil {
		return fmt.Errorf("neither an admin OU nor an administrator's certificate: %w", BadDefinition)
	}
	return nil
}

package msp

import (
	"fmt"
	"slices"

	mspproto "github.com/hyperledger/fabric-protos-go-apiv2/msp"
	"google.golang.org/protobuf/proto"
)

// Satisfies says whether id is what the principal of a policy describes, as a
// Fabric peer with this definition decides it (msp/mspimpl.go).
func (m *MSP) Satisfies(id *Identity, p *mspproto.MSPPrincipal) error {
	if id.mspID != m.id {
		return fmt.Errorf("identity of MSP %s shown to %s: %w", id.mspID, m.id, WrongMSP)
	}
	v := m.judge(id)
	if v.unknown != nil {
		return v.unknown
	}
	return compilePrincipal(p)(m, v)
}

// A principal says whether m's verdict v is on somebody it describes.
type principal func(m *MSP, v *verdict) error

// compilePrincipal reads a principal once; one that can't be read describes
// nobody.
func compilePrincipal(p *mspproto.MSPPrincipal) principal {
	var q principal
	var err error
	switch c := p.GetPrincipalClassification(); c {
	case mspproto.MSPPrincipal_ROLE:
		q, err = rolePrincipal(p.Principal)
	case mspproto.MSPPrincipal_ORGANIZATION_UNIT:
		q, err = unitPrincipal(p.Principal)
	case mspproto.MSPPrincipal_IDENTITY:
		q, err = identityPrincipal(p.Principal)
	case mspproto.MSPPrincipal_COMBINED:
		q, err = combinedPrincipal(p.Principal)
	case mspproto.MSPPrincipal_ANONYMITY:
		q, err = anonymityPrincipal(p.Principal)
	default:
		err = fmt.Errorf("principal of class %d: %w", c, BadPolicy)
	}
	if err != nil {
		return func(*MSP, *verdict) error { return err }
	}
	return q
}

func rolePrincipal(b []byte) (principal, error) {
	var r mspproto.MSPRole
	if err := decode(b, &r); err != nil {
		return nil, err
	}
	return func(m *MSP, v *verdict) error {
		if err := m.same(r.MspIdentifier); err != nil {
			return err
		}
		return m.plays(v, r.Role)
	}, nil
}

func unitPrincipal(b []byte) (principal, error) {
	var u mspproto.OrganizationUnit
	if err := decode(b, &u); err != nil {
		return nil, err
	}
	return func(m *MSP, v *verdict) error {
		if err := m.same(u.MspIdentifier); err != nil {
			return err
		}
		if v.invalid != nil {
			return v.invalid
		}
		if slices.Contains(v.cert.Subject.OrganizationalUnit, u.OrganizationalUnitIdentifier) &&
			slices.Contains(v.paths, string(u.CertifiersIdentifier)) {
			return nil
		}
		return fmt.Errorf("not of OU %q: %w", u.OrganizationalUnitIdentifier, BadRole)
	}, nil
}

func identityPrincipal(b []byte) (principal, error) {
	other, err := Deserialize(b)
	if err != nil {
		return nil, fmt.Errorf("principal: %w", err)
	}
	return func(m *MSP, v *verdict) error {
		if err := m.same(other.mspID); err != nil {
			return err
		}
		if w := m.judge(other); w.unknown != nil || w.hash != v.hash {
			return fmt.Errorf("another identity than the principal's: %w", BadRole)
		}
		return v.invalid
	}, nil
}

func combinedPrincipal(b []byte) (principal, error) {
	var all mspproto.CombinedPrincipal
	if err := decode(b, &all); err != nil {
		return nil, err
	}
	if len(all.Principals) == 0 {
		return nil, fmt.Errorf("combination of no principals: %w", BadPolicy)
	}
	parts := make([]principal, len(all.Principals))
	for i, q := range all.Principals {
		parts[i] = compilePrincipal(q)
	}
	return func(m *MSP, v *verdict) error {
		for _, q := range parts {
			if err := q(m, v); err != nil {
				return err
			}
		}
		return nil
	}, nil
}

func anonymityPrincipal(b []byte) (principal, error) {
	var a mspproto.MSPIdentityAnonymity
	if err := decode(b, &a); err != nil {
		return nil, err
	}
	if a.AnonymityType != mspproto.MSPIdentityAnonymity_NOMINAL {
		return nil, fmt.Errorf("an X.509 identity is not anonymous: %w", BadRole)
	}
	return func(*MSP, *verdict) error { return nil }, nil
}

// plays says whether v is in a role. An administrator listed by certificate is
// one without further questions.
func (m *MSP) plays(v *verdict, r mspproto.MSPRole_MSPRoleType) error {
	switch r {
	case mspproto.MSPRole_MEMBER:
		return v.invalid
	case mspproto.MSPRole_ADMIN:
		if m.admins[string(v.cert.Raw)] {
			return nil
		}
		if !m.features.NodeOUs || !m.nodeOUs {
			return fmt.Errorf("not among the administrators: %w", BadRole)
		}
	case mspproto.MSPRole_ORDERER:
		if !m.features.NodeOUs {
			return fmt.Errorf("role %v is unknown before V1_4_3: %w", r, BadRole)
		}
	case mspproto.MSPRole_CLIENT, mspproto.MSPRole_PEER:
	default:
		return fmt.Errorf("role %d: %w", r, BadPolicy)
	}
	if v.invalid != nil {
		return v.invalid
	}
	return m.hasRole(v, r)
}

func (m *MSP) same(mspID string) error {
	if mspID != m.id {
		return fmt.Errorf("principal of %s, identity of %s: %w", mspID, m.id, WrongMSP)
	}
	return nil
}

func decode(b []byte, m proto.Message) error {
	if err := proto.Unmarshal(b, m); err != nil {
		return fmt.Errorf("principal: %w: %w", BadPolicy, err)
	}
	return nil
}

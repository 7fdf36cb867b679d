package msp

import (
	"crypto/x509"
	"fmt"
	"slices"

	mspproto "github.com/hyperledger/fabric-protos-go-apiv2/msp"
)

// A unit is an organisational unit with a meaning, under one CA or under any.
type unit struct {
	name  string
	ca    *x509.Certificate // nil: any CA
	paths []string          // names of the chains from ca up
}

// roleOrder is the order in which Fabric enters the roles' units in its table:
// of two with one name the later holds.
var roleOrder = []mspproto.MSPRole_MSPRoleType{
	mspproto.MSPRole_CLIENT, mspproto.MSPRole_PEER, mspproto.MSPRole_ADMIN, mspproto.MSPRole_ORDERER,
}

// setRoles reads the NodeOUs: all four from V1_4_3 on, client and peer before.
func (m *MSP) setRoles(conf *mspproto.FabricMSPConfig) error {
	n := conf.FabricNodeOus
	if n == nil {
		return nil
	}
	given := map[mspproto.MSPRole_MSPRoleType]*mspproto.FabricOUIdentifier{
		mspproto.MSPRole_CLIENT: n.ClientOuIdentifier,
		mspproto.MSPRole_PEER:   n.PeerOuIdentifier,
	}
	if m.features.NodeOUs {
		given[mspproto.MSPRole_ADMIN] = n.AdminOuIdentifier
		given[mspproto.MSPRole_ORDERER] = n.OrdererOuIdentifier
	} else if n.ClientOuIdentifier.GetOrganizationalUnitIdentifier() == "" || n.PeerOuIdentifier.GetOrganizationalUnitIdentifier() == "" {
		return fmt.Errorf("NodeOUs without client or peer: %w", BadDefinition)
	}
	m.roles = map[mspproto.MSPRole_MSPRoleType]*unit{}
	for _, r := range roleOrder {
		if given[r] == nil {
			continue
		}
		u, err := m.unit(given[r].OrganizationalUnitIdentifier, given[r].Certificate)
		if err != nil {
			return fmt.Errorf("NodeOU %v: %w", r, err)
		}
		m.roles[r] = u
	}
	m.nodeOUs = n.Enable && len(m.roles) > 0
	return nil
}

func (m *MSP) setUnits(conf *mspproto.FabricMSPConfig) error {
	for _, g := range conf.OrganizationalUnitIdentifiers {
		if len(g.GetCertificate()) == 0 {
			return fmt.Errorf("organisational unit %q names no CA: %w", g.GetOrganizationalUnitIdentifier(), BadDefinition)
		}
		u, err := m.unit(g.OrganizationalUnitIdentifier, g.Certificate)
		if err != nil {
			return fmt.Errorf("organisational unit: %w", err)
		}
		m.units = append(m.units, u)
	}
	return nil
}

func (m *MSP) unit(name string, certificate []byte) (*unit, error) {
	u := &unit{name: name}
	if len(certificate) == 0 {
		return u, nil
	}
	c, err := read(certificate)
	if err != nil {
		return nil, fmt.Errorf("CA of %q: %w", name, err)
	}
	if c, err = m.canonical(c); err != nil {
		return nil, fmt.Errorf("CA of %q: %w", name, err)
	}
	if slices.ContainsFunc(m.roots, c.Equal) {
		u.paths = []string{m.path([]*x509.Certificate{c})}
	} else if slices.ContainsFunc(m.intermediates, c.Equal) {
		chains, err := fabricChains(c, m.rootPool, m.interPool)
		if err != nil {
			return nil, fmt.Errorf("CA of %q: %w", name, err)
		}
		if m.inner[string(c.Raw)] {
			return nil, fmt.Errorf("CA of %q has sub-CAs in the definition: %w", name, BadDefinition)
		}
		for _, chain := range chains {
			u.paths = append(u.paths, m.path(chain))
		}
	} else {
		return nil, fmt.Errorf("CA of %q is not in the definition: %w", name, BadDefinition)
	}
	u.ca = c
	return u, nil
}

// oneRole checks that c's organisational units give it one role; fits says
// whether a unit's CA is one above c.
func (m *MSP) oneRole(c *x509.Certificate, fits func(*unit) bool) error {
	named := map[string]mspproto.MSPRole_MSPRoleType{}
	for _, r := range roleOrder {
		if u := m.roles[r]; u != nil {
			named[u.name] = r
		}
	}
	var found []mspproto.MSPRole_MSPRoleType
	for _, ou := range c.Subject.OrganizationalUnit {
		r, ok := named[ou]
		if !ok {
			continue
		}
		if !fits(m.roles[r]) {
			return fmt.Errorf("OU %q comes from another CA than the definition names: %w", ou, BadRole)
		}
		found = append(found, r)
	}
	if len(found) != 1 {
		return fmt.Errorf("OUs %q hold %d roles, not one: %w", c.Subject.OrganizationalUnit, len(found), BadRole)
	}
	return nil
}

// known applies the definition's list of organisational units, if it has one: a
// member has one of them.
func (m *MSP) known(c *x509.Certificate, fits func(*unit) bool) error {
	if len(m.units) == 0 {
		return nil
	}
	for _, u := range m.units {
		if slices.Contains(c.Subject.OrganizationalUnit, u.name) && fits(u) {
			return nil
		}
	}
	return fmt.Errorf("none of the OUs %q makes a member of %s: %w", c.Subject.OrganizationalUnit, m.id, WrongMSP)
}

// hasRole asks for the role's unit alone; which CA gave it was asked with the
// identity's validity.
func (m *MSP) hasRole(v *verdict, r mspproto.MSPRole_MSPRoleType) error {
	u := m.roles[r]
	if !m.nodeOUs || u == nil {
		return fmt.Errorf("the definition has no OU for the role %v: %w", r, BadRole)
	}
	if len(v.paths) == 0 || !slices.Contains(v.cert.Subject.OrganizationalUnit, u.name) {
		return fmt.Errorf("no OU %q: %w", u.name, BadRole)
	}
	return nil
}

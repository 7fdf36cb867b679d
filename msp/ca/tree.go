package ca

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Generate writes, under dir, the tree that cryptogen writes for the spec:
// ordererOrganizations/DOMAIN and peerOrganizations/DOMAIN, each with ca, tlsca,
// msp, orderers or peers, and users. An organisation's folder appears whole or
// not at all; one that exists already is an error, and then nothing is written.
// Certificates are valid from [Backdate] before now.
func Generate(s *Spec, dir string, now time.Time) error {
	if err := s.Validate(); err != nil {
		return fmt.Errorf("generate: %w", err)
	}
	var orgs []*tree
	for _, o := range s.OrdererOrgs {
		orgs = append(orgs, &tree{spec: o, role: "orderer", dir: filepath.Join(dir, "ordererOrganizations", o.Domain)})
	}
	for _, o := range s.PeerOrgs {
		orgs = append(orgs, &tree{spec: o, role: "peer", dir: filepath.Join(dir, "peerOrganizations", o.Domain)})
	}
	for _, t := range orgs {
		if _, err := os.Lstat(t.dir); err == nil {
			return fmt.Errorf("generate: %s exists", t.dir)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("generate: %w", err)
		}
	}
	for _, t := range orgs {
		if err := t.generate(now); err != nil {
			return fmt.Errorf("generate %s: %w", t.spec.Domain, err)
		}
	}
	return nil
}

// A tree is one organisation's folder in the making.
type tree struct {
	spec      OrgSpec
	role      string // of its nodes: peer or orderer
	dir       string
	ca, tlsCA *CA
	admin     []byte // the Admin's certificate, PEM
}

func (t *tree) generate(now time.Time) (err error) {
	p, err := t.spec.render(t.role)
	if err != nil {
		return err
	}
	if t.ca, err = NewWith(p.subject, t.spec.Domain, p.ca.name, p.ca.alg, now); err != nil {
		return err
	}
	if t.tlsCA, err = NewWith(p.subject, t.spec.Domain, "tls"+p.ca.name, p.ca.alg, now); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(t.dir), dirMode); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(t.dir), ".new-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }() // gone by then if all went well
	if err := t.fill(tmp, p); err != nil {
		return err
	}
	if err := os.Chmod(tmp, dirMode); err != nil {
		return err
	}
	return os.Rename(tmp, t.dir)
}

func (t *tree) fill(dir string, p *plan) error {
	if err := t.ca.Save(filepath.Join(dir, "ca")); err != nil {
		return err
	}
	if err := t.tlsCA.Save(filepath.Join(dir, "tlsca")); err != nil {
		return err
	}
	for i, u := range p.users {
		role := "client"
		if i == 0 {
			role = "admin"
		}
		cert, err := t.local(filepath.Join(dir, "users", u.name), u, role)
		if err != nil {
			return err
		}
		if i == 0 {
			t.admin = cert
		}
	}
	for _, n := range p.nodes {
		if _, err := t.local(filepath.Join(dir, t.role+"s", n.name), n, t.role); err != nil {
			return err
		}
	}
	msp := filepath.Join(dir, "msp")
	if err := t.definition(msp); err != nil {
		return err
	}
	return t.admins(msp, "Admin@"+t.spec.Domain, t.admin)
}

// local writes a node's or user's msp and tls folders and returns its signing
// certificate, PEM.
func (t *tree) local(dir string, n node, role string) ([]byte, error) {
	req := Request{CN: n.name}
	if t.spec.EnableNodeOUs {
		req.OU = []string{role}
	}
	msp := filepath.Join(dir, "msp")
	if err := t.definition(msp); err != nil {
		return nil, err
	}
	cert, err := t.pair(t.ca, req, n.alg, filepath.Join(msp, "signcerts", certFile(n.name)), filepath.Join(msp, "keystore", keyFile))
	if err != nil {
		return nil, err
	}
	// Without NodeOUs a node's administrator is the organisation's Admin, and a
	// user's is the user itself.
	switch {
	case n.sans != nil:
		err = t.admins(msp, "Admin@"+t.spec.Domain, t.admin)
	default:
		err = t.admins(msp, n.name, cert)
	}
	if err != nil {
		return nil, err
	}
	kind := "server"
	if n.sans == nil {
		kind = "client"
	}
	tls := filepath.Join(dir, "tls")
	if _, err := t.pair(t.tlsCA, Request{CN: n.name, SANs: n.sans, TLS: true}, n.alg,
		filepath.Join(tls, kind+".crt"), filepath.Join(tls, kind+".key")); err != nil {
		return nil, err
	}
	return cert, write(filepath.Join(tls, "ca.crt"), t.tlsCA.PEM(), fileMode)
}

// definition writes the part of an MSP folder that says what the organisation
// is.
func (t *tree) definition(msp string) error {
	file := filepath.Join("cacerts", certFile(t.ca.Name()))
	for _, f := range []struct {
		name string
		data []byte
	}{
		{file, t.ca.PEM()},
		{filepath.Join("tlscacerts", certFile(t.tlsCA.Name())), t.tlsCA.PEM()},
	} {
		if err := put(filepath.Join(msp, f.name), f.data, fileMode); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Join(msp, "admincerts"), dirMode); err != nil {
		return err
	}
	if !t.spec.EnableNodeOUs {
		return nil
	}
	return write(filepath.Join(msp, "config.yaml"), nodeOUs(filepath.ToSlash(file)), fileMode)
}

// admins lists an administrator, unless the NodeOUs say who is one.
func (t *tree) admins(msp, name string, cert []byte) error {
	if t.spec.EnableNodeOUs {
		return nil
	}
	return write(filepath.Join(msp, "admincerts", certFile(name)), cert, fileMode)
}

// pair makes a key and its certificate and writes both. It returns the
// certificate, PEM.
func (t *tree) pair(c *CA, r Request, alg Algorithm, certFile, keyFile string) ([]byte, error) {
	cert, key, err := c.Pair(r, alg)
	if err != nil {
		return nil, err
	}
	if err := put(keyFile, key, keyMode); err != nil {
		return nil, err
	}
	return cert, put(certFile, cert, fileMode)
}

// Pair makes a private key and issues its certificate: both PEM, the key as
// PKCS#8. r.Key is ignored.
func (c *CA) Pair(r Request, alg Algorithm) (cert, key []byte, err error) {
	k, err := GenerateKey(alg)
	if err != nil {
		return nil, nil, err
	}
	r.Key = k.Public()
	der, err := c.Issue(r)
	if err != nil {
		return nil, nil, err
	}
	if key, err = EncodeKey(k); err != nil {
		return nil, nil, err
	}
	return encodeCert(der), key, nil
}

// Distribute writes a CA's revocation list into every MSP folder of an
// organisation's tree, as crls/NAME-crl.pem, each by a rename so that a reader
// sees the old list or the new.
func Distribute(orgDir, caName string, crl []byte) error {
	found := 0
	for _, pattern := range []string{"msp", "peers/*/msp", "orderers/*/msp", "users/*/msp"} {
		dirs, err := filepath.Glob(filepath.Join(escapeGlob(orgDir), filepath.FromSlash(pattern)))
		if err != nil {
			return fmt.Errorf("distribute revocation list: %w", err)
		}
		for _, d := range dirs {
			crls := filepath.Join(d, "crls")
			if err := os.MkdirAll(crls, dirMode); err != nil {
				return fmt.Errorf("distribute revocation list: %w", err)
			}
			if err := replace(filepath.Join(crls, caName+"-crl.pem"), crl); err != nil {
				return fmt.Errorf("distribute revocation list: %w", err)
			}
			found++
		}
	}
	if found == 0 {
		return fmt.Errorf("distribute revocation list: no MSP folder under %s", orgDir)
	}
	return nil
}

// nodeOUs is config.yaml as cryptogen writes it: the four roles, each under the
// organisation's CA.
func nodeOUs(cert string) []byte {
	s := "NodeOUs:\n    Enable: true\n"
	for _, r := range []struct{ key, ou string }{
		{"Client", "client"}, {"Peer", "peer"}, {"Admin", "admin"}, {"Orderer", "orderer"},
	} {
		s += fmt.Sprintf("    %sOUIdentifier:\n        Certificate: %s\n        OrganizationalUnitIdentifier: %s\n", r.key, cert, r.ou)
	}
	return []byte(s)
}

// put writes a file and the folders above it.
func put(file string, b []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(file), dirMode); err != nil {
		return err
	}
	return write(file, b, mode)
}

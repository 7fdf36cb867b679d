package main

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"grapevine/cmd/grapevine/admin"
	"grapevine/cmd/grapevine/fault"
	"grapevine/msp/ca"
)

// An organisation's folder in a tree of cryptogen's form.
type orgDir struct {
	dir, domain string
	orderer     bool
}

// orgDirs lists the organisations of a tree.
func orgDirs(tree string) ([]orgDir, error) {
	var out []orgDir
	for _, kind := range []string{"ordererOrganizations", "peerOrganizations"} {
		entries, err := os.ReadDir(filepath.Join(tree, kind))
		if err != nil && !os.IsNotExist(err) {
			return nil, fault.Newf(fault.BadFile, "cannot read %s", tree).Because(bare(err)).From(err)
		}
		for _, e := range entries {
			if e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
				out = append(out, orgDir{filepath.Join(tree, kind, e.Name()), e.Name(), kind == "ordererOrganizations"})
			}
		}
	}
	if len(out) == 0 {
		return nil, fault.Newf(fault.BadFile, "%s holds no organisation", tree).
			Because("there is neither ordererOrganizations nor peerOrganizations in it").Do("make one: grapevine ca generate")
	}
	return out, nil
}

// orgOf finds the organisation that a name belongs to: the one with the longest
// domain that the name ends in.
func orgOf(tree, name string) (*orgDir, error) {
	orgs, err := orgDirs(tree)
	if err != nil {
		return nil, err
	}
	var found *orgDir
	for i, o := range orgs {
		if (strings.HasSuffix(name, "."+o.domain) || strings.HasSuffix(name, "@"+o.domain)) && (found == nil || len(o.domain) > len(found.domain)) {
			found = &orgs[i]
		}
	}
	if found == nil {
		return nil, fault.Newf(fault.NotFound, "no organisation of %s has a domain that %s ends in", tree, name).
			Do("name it HOST.DOMAIN, or USER@DOMAIN")
	}
	return found, nil
}

// home is the folder of a node or user.
func (o *orgDir) home(name string) string {
	kind := "peers"
	switch {
	case strings.Contains(name, "@"):
		kind = "users"
	case o.orderer:
		kind = "orderers"
	}
	return filepath.Join(o.dir, kind, name)
}

// An issue is one certificate to be issued.
type issue struct {
	tree, name, role, algorithm string
	tls                         bool
	sans                        []string
}

// write issues the certificate and writes its folder, whole or not at all.
func (r *issue) write(now time.Time) (dir string, _ *admin.CertificateInfo, err error) {
	alg, err := ca.ParseAlgorithm(r.algorithm)
	if err != nil {
		return "", nil, fault.New(fault.Usage, err.Error()).Do("use ecdsa, p384 or ed25519")
	}
	if r.name != filepath.Base(r.name) || strings.HasPrefix(r.name, ".") {
		return "", nil, fault.Newf(fault.Usage, "%q is no name", r.name)
	}
	org, err := orgOf(r.tree, r.name)
	if err != nil {
		return "", nil, err
	}
	home := org.home(r.name)
	part, from := "msp", "ca"
	if r.tls {
		part, from = "tls", "tlsca"
	}
	dir = filepath.Join(home, part)
	if exists(dir) {
		return "", nil, fault.Newf(fault.BadFile, "%s exists", dir).Do("choose another name, or remove that folder first")
	}
	authority, err := ca.Open(filepath.Join(org.dir, from))
	if err != nil {
		return "", nil, fault.Newf(fault.BadFile, "cannot open the CA of %s", org.domain).Because(err.Error()).From(err)
	}
	req := ca.Request{CN: r.name, SANs: r.sans, TLS: r.tls}
	if !r.tls && exists(filepath.Join(org.dir, "msp", "config.yaml")) {
		req.OU = []string{r.ou(org)}
	}
	if r.tls && !strings.Contains(r.name, "@") {
		req.SANs = append([]string{r.name}, r.sans...)
	}
	cert, key, err := authority.Pair(req, alg)
	if err != nil {
		return "", nil, fmt.Errorf("issue %s: %w", r.name, err)
	}
	if err := os.MkdirAll(home, 0o755); err != nil {
		return "", nil, fmt.Errorf("issue %s: %w", r.name, err)
	}
	tmp, err := os.MkdirTemp(home, ".new-")
	if err != nil {
		return "", nil, fmt.Errorf("issue %s: %w", r.name, err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }() // gone by then if all went well
	if err := r.fill(tmp, org, authority, cert, key); err != nil {
		return "", nil, fmt.Errorf("issue %s: %w", r.name, err)
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return "", nil, fmt.Errorf("issue %s: %w", r.name, err)
	}
	if err := os.Rename(tmp, dir); err != nil {
		return "", nil, fmt.Errorf("issue %s: %w", r.name, err)
	}
	block, _ := pem.Decode(cert)
	parsed, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return "", nil, fmt.Errorf("issue %s: %w", r.name, err)
	}
	info := certificateInfo(dir, parsed, now)
	return dir, &info, nil
}

// ou is the role that the certificate names.
func (r *issue) ou(o *orgDir) string {
	switch {
	case r.role != "":
		return r.role
	case strings.Contains(r.name, "@"):
		return "client"
	case o.orderer:
		return "orderer"
	}
	return "peer"
}

// fill writes an msp or tls folder in cryptogen's form.
func (r *issue) fill(dir string, org *orgDir, authority *ca.CA, cert, key []byte) error {
	type file struct {
		name string
		data []byte
		mode os.FileMode
	}
	var files []file
	if r.tls {
		kind := "server"
		if strings.Contains(r.name, "@") {
			kind = "client"
		}
		files = []file{{kind + ".crt", cert, 0o644}, {kind + ".key", key, 0o600}, {"ca.crt", authority.PEM(), 0o644}}
	} else {
		if err := os.CopyFS(dir, os.DirFS(filepath.Join(org.dir, "msp"))); err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Join(dir, "admincerts"), 0o755); err != nil {
			return err
		}
		files = []file{{filepath.Join("signcerts", r.name+"-cert.pem"), cert, 0o644}, {filepath.Join("keystore", "priv_sk"), key, 0o600}}
	}
	for _, f := range files {
		p := filepath.Join(dir, f.name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(p, f.data, f.mode); err != nil {
			return err
		}
	}
	return nil
}

// revoke puts certificates of a tree on their CA's list: the signing certificate
// of that name, or the one with that serial number.
func revoke(tree, what string, now time.Time) ([]admin.CertificateInfo, error) {
	orgs, err := orgDirs(tree)
	if err != nil {
		return nil, err
	}
	byName := strings.ContainsAny(what, ".@")
	if byName {
		o, err := orgOf(tree, what)
		if err != nil {
			return nil, err
		}
		orgs = []orgDir{*o}
	}
	serial, ok := new(big.Int).SetString(strings.ReplaceAll(what, ":", ""), 16)
	if !byName && !ok {
		return nil, fault.Newf(fault.Usage, "%q is neither a name nor a serial number in hexadecimal", what)
	}
	for _, o := range orgs {
		certs, err := o.issued()
		if err != nil {
			return nil, err
		}
		certs = slices.DeleteFunc(certs, func(c *x509.Certificate) bool {
			return (byName && c.Subject.CommonName != what) || (!byName && c.SerialNumber.Cmp(serial) != 0)
		})
		if len(certs) > 0 {
			return o.revoke(certs, now)
		}
	}
	return nil, fault.Newf(fault.NotFound, "no signing certificate %s in %s", what, tree).Do("list them: grapevine ca inspect " + tree)
}

// issued returns the signing certificates in an organisation's folder.
func (o *orgDir) issued() ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for _, kind := range []string{"peers", "orderers", "users"} {
		files, err := filepath.Glob(filepath.Join(globEscape(o.dir), kind, "*", "msp", "signcerts", "*"))
		if err != nil {
			return nil, fmt.Errorf("list certificates: %w", err)
		}
		for _, f := range files {
			ders, err := readCertificates(f)
			if err != nil {
				return nil, err
			}
			c, err := x509.ParseCertificate(ders[0])
			if err != nil {
				return nil, fault.Newf("CERT006", "%s holds a certificate that cannot be read", f).Because(err.Error()).From(err)
			}
			out = append(out, c)
		}
	}
	return out, nil
}

func (o *orgDir) revoke(certs []*x509.Certificate, now time.Time) ([]admin.CertificateInfo, error) {
	dir := filepath.Join(o.dir, "ca")
	authority, err := ca.Open(dir)
	if err != nil {
		return nil, fault.Newf(fault.BadFile, "cannot open the CA of %s", o.domain).Because(err.Error()).From(err)
	}
	var infos []admin.CertificateInfo
	for _, c := range certs {
		if err := authority.Revoke(c.SerialNumber, now); err != nil {
			return nil, fmt.Errorf("revoke %s: %w", c.Subject.CommonName, err)
		}
		infos = append(infos, certificateInfo("", c, now))
	}
	crl, err := authority.SaveCRL(dir, now)
	if err != nil {
		return nil, fmt.Errorf("write the revocation list of %s: %w", o.domain, err)
	}
	if err := ca.Distribute(o.dir, authority.Name(), crl); err != nil {
		return nil, fmt.Errorf("write the revocation list of %s: %w", o.domain, err)
	}
	return infos, nil
}

// globEscape makes a path match only itself.
func globEscape(p string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(p)
}

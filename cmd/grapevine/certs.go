package main

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"grapevine/cmd/grapevine/admin"
	"grapevine/cmd/grapevine/fault"
)

// maxCertFiles bounds how many files of a folder are looked at.
const maxCertFiles = 10_000

// certificateInfo says who a certificate names, by whom, until when, for what.
func certificateInfo(file string, c *x509.Certificate, now time.Time) admin.CertificateInfo {
	info := admin.CertificateInfo{
		File: file, Subject: c.Subject.String(), Issuer: c.Issuer.String(), Serial: fmt.Sprintf("%x", c.SerialNumber),
		NotBefore: admin.Time{Time: c.NotBefore}, NotAfter: admin.Time{Time: c.NotAfter},
		ExpiresInSec: int64(c.NotAfter.Sub(now) / time.Second), CA: c.IsCA, Key: keyName(c), Use: "sign", Names: slices.Clone(c.DNSNames),
	}
	for _, ip := range c.IPAddresses {
		info.Names = append(info.Names, ip.String())
	}
	switch {
	case c.IsCA:
		info.Use = "ca"
	case len(c.ExtKeyUsage) > 0:
		info.Use = "tls"
	}
	for _, ou := range c.Subject.OrganizationalUnit {
		switch ou {
		case "client", "peer", "admin", "orderer":
			info.Role = ou
		}
	}
	return info
}

func keyName(c *x509.Certificate) string {
	switch k := c.PublicKey.(type) {
	case *ecdsa.PublicKey:
		return "ECDSA " + k.Params().Name
	case ed25519.PublicKey:
		return "Ed25519"
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", k.N.BitLen())
	}
	return c.PublicKeyAlgorithm.String()
}

// inspectFile reads the certificates of one file.
func (a *app) inspectFile(path string) ([]admin.CertificateInfo, error) {
	ders, err := readCertificates(path)
	if err != nil {
		return nil, err
	}
	var out []admin.CertificateInfo
	for _, der := range ders {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fault.Newf("CERT006", "%s holds a certificate that cannot be read", path).Because(err.Error()).From(err)
		}
		out = append(out, certificateInfo(path, c, a.now()))
	}
	return out, nil
}

// inspectFolder reads the certificates of all files below a folder; files that
// hold none, keys among them, are passed over.
func (a *app) inspectFolder(dir string) ([]admin.CertificateInfo, error) {
	var out []admin.CertificateInfo
	files := 0
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return fault.Newf(fault.BadFile, "cannot read %s", p).Because(bare(err)).From(err)
		}
		if d.IsDir() {
			return nil
		}
		if files++; files > maxCertFiles {
			return fault.Newf(fault.BadFile, "%s holds more than %d files", dir, maxCertFiles)
		}
		if ext := filepath.Ext(p); ext != ".pem" && ext != ".crt" && ext != ".cer" && ext != ".der" {
			return nil
		}
		infos, err := a.inspectFile(p)
		var e *fault.Error
		if errors.As(err, &e) && (e.Code == fault.WrongPEM || e.Code == fault.BadFile || e.Code == "CERT006") {
			return nil
		}
		out = append(out, infos...)
		return err
	})
	if err == nil && len(out) == 0 {
		err = fault.Newf(fault.BadFile, "%s holds no certificate", dir)
	}
	return out, err
}

// showCertificates writes certificates for people.
func showCertificates(t *table, certs []admin.CertificateInfo) {
	head := []any{"NAME", "USE", "ROLE", "KEY", "EXPIRES", "FILE"}
	if t.wide {
		head = append(head, "ISSUER", "SERIAL")
	}
	t.row(head...)
	for _, c := range certs {
		row := []any{commonName(c.Subject), c.Use, orDash(c.Role), c.Key, c.NotAfter.UTC().Format(time.DateOnly), c.File}
		if t.wide {
			row = append(row, commonName(c.Issuer), c.Serial)
		}
		t.row(row...)
	}
}

// commonName is the CN of a name in its text form, or all of it.
func commonName(name string) string {
	for _, part := range strings.Split(name, ",") {
		if cn, ok := strings.CutPrefix(part, "CN="); ok {
			return cn
		}
	}
	return name
}

func sortCertificates(certs []admin.CertificateInfo) {
	slices.SortFunc(certs, func(x, y admin.CertificateInfo) int {
		return cmp.Or(strings.Compare(x.File, y.File), strings.Compare(x.Subject, y.Subject), strings.Compare(x.Serial, y.Serial))
	})
}

package msp

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
)

// Load reads the signing identity of an MSP folder. The private key (PKCS#8 or
// SEC 1) is the one in keystore that belongs to a certificate in signcerts,
// whatever their names; of several such certificates the one that begins last is
// taken. A key file that others may read is refused as [KeyReadable], unless
// nobody may write it (a read-only medium) or it is a mounted Kubernetes secret;
// [LoadConfig] warns of those. Errors are [FolderError]s.
func Load(mspID, dir string) (Signer, error) {
	if err := isFolder(dir); err != nil {
		return nil, err
	}
	certs, err := signCerts(dir)
	if err != nil {
		return nil, err
	}
	keys, err := readKeys(dir)
	if err != nil {
		return nil, err
	}
	leaf, key := pair(certs, keys)
	if leaf == nil {
		return nil, &FolderError{dir, fmt.Sprintf("none of %d private keys in %s belongs to one of %d certificates in %s",
			len(keys), keyFolder, len(certs), signFolder), "put the matching pair there", KeyMismatch}
	}
	if exposed(key.file) && !key.linked && key.mode.Perm()&0o222 != 0 {
		return nil, &FolderError{
			filepath.Join(dir, keyFolder), filepath.Base(key.path) + " can be read by others",
			"chmod 600 " + key.path, KeyReadable,
		}
	}
	id, err := newIdentity(mspID, issuedLowS(dir, leaf))
	if err != nil {
		return nil, err
	}
	return NewSigner(id, key.private)
}

// LoadChain returns the intermediate CA certificates above an MSP folder's
// signing certificate, in DER, the leaf's issuer first and without the root: what
// a host shows with its leaf. They come from intermediatecerts and from the rest
// of the files in signcerts.
func LoadChain(dir string) (intermediates [][]byte, err error) {
	if err := isFolder(dir); err != nil {
		return nil, err
	}
	certs, err := signCerts(dir)
	if err != nil {
		return nil, err
	}
	keys, err := readKeys(dir)
	if err != nil {
		return nil, err
	}
	leaf, _ := pair(certs, keys)
	if leaf == nil { // the key may be in an HSM
		if i := slices.IndexFunc(certs, func(c *x509.Certificate) bool { return !c.IsCA }); i >= 0 {
			leaf = certs[i]
		} else {
			return nil, folderError(dir, "put the node's certificate there", "only CA certificates in %s", signFolder)
		}
	}
	roots, listed := folderCAs(dir)
	candidates := append(listed, certs...)
	for c := leaf; len(intermediates) < maxShown; {
		if slices.ContainsFunc(roots, func(r *x509.Certificate) bool { return issued(r, c) }) {
			break
		}
		i := slices.IndexFunc(candidates, func(p *x509.Certificate) bool { return !sameKey(p, c) && issued(p, c) })
		if i < 0 {
			break
		}
		c = candidates[i]
		intermediates = append(intermediates, c.Raw)
		candidates = slices.Delete(candidates, i, i+1)
	}
	return intermediates, nil
}

type privateKey struct {
	file
	private crypto.Signer
}

func signCerts(dir string) ([]*x509.Certificate, error) {
	sub := filepath.Join(dir, signFolder)
	all, err := files(sub)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, folderError(dir, "put the node's certificate there", "no folder %s", signFolder)
	}
	if err != nil {
		return nil, err
	}
	var list []*x509.Certificate
	for _, f := range all {
		for _, b := range blocks(f.data, certificateType) {
			c, err := x509.ParseCertificate(b.Bytes)
			if err != nil {
				return nil, folderError(sub, "replace the file", "%s: %v", filepath.Base(f.path), unreadable(b.Bytes, err))
			}
			list = append(list, c)
		}
	}
	if len(list) == 0 {
		return nil, folderError(dir, "put the node's certificate there", "no certificate in %s", signFolder)
	}
	return list, nil
}

// readKeys reads the private keys of a folder. Kinds that no peer would accept
// are passed over. No error holds a byte of a key.
func readKeys(dir string) ([]privateKey, error) {
	sub := filepath.Join(dir, keyFolder)
	all, err := files(sub)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var list []privateKey
	for _, f := range all {
		for rest := f.data; ; {
			var b *pem.Block
			if b, rest = pem.Decode(rest); b == nil {
				break
			}
			var key any
			var err error
			switch b.Type {
			case "PRIVATE KEY":
				key, err = x509.ParsePKCS8PrivateKey(b.Bytes)
			case "EC PRIVATE KEY":
				if strings.Contains(b.Headers["Proc-Type"], "ENCRYPTED") {
					return nil, folderError(sub, "store it decrypted, or in an HSM", "%s is encrypted", filepath.Base(f.path))
				}
				key, err = x509.ParseECPrivateKey(b.Bytes)
			case "ENCRYPTED PRIVATE KEY":
				return nil, folderError(sub, "store it decrypted, or in an HSM", "%s is encrypted", filepath.Base(f.path))
			default:
				continue
			}
			if err != nil {
				return nil, folderError(sub, "replace or remove it", "%s is no private key in PKCS#8 or SEC 1", filepath.Base(f.path))
			}
			switch k := key.(type) {
			case *ecdsa.PrivateKey:
				list = append(list, privateKey{f, k})
			case ed25519.PrivateKey:
				list = append(list, privateKey{f, k})
			}
		}
	}
	return list, nil
}

func pair(certs []*x509.Certificate, keys []privateKey) (leaf *x509.Certificate, key privateKey) {
	for _, c := range certs {
		if c.IsCA || leaf != nil && !c.NotBefore.After(leaf.NotBefore) {
			continue
		}
		if i := slices.IndexFunc(keys, func(k privateKey) bool { return equalKeys(k.private.Public(), c.PublicKey) }); i >= 0 {
			leaf, key = c, keys[i]
		}
	}
	return leaf, key
}

func exposed(f file) bool {
	return f.mode.Perm()&0o077 != 0 && bytes.Contains(f.data, []byte("PRIVATE KEY"))
}

// issuedLowS returns c with its issuer's signature in the low-S form, if the
// folder has the issuer: so does Fabric send it.
func issuedLowS(dir string, c *x509.Certificate) *x509.Certificate {
	roots, listed := folderCAs(dir)
	for _, ca := range append(roots, listed...) {
		if !issued(ca, c) {
			continue
		}
		if l, err := lowS(c, ca.PublicKey); err == nil {
			return l
		}
	}
	return c
}

// folderCAs returns what can be read of a folder's CAs; [LoadConfig] is the one
// to complain.
func folderCAs(dir string) (roots, intermediates []*x509.Certificate) {
	get := func(sub string) (list []*x509.Certificate) {
		texts, _, _ := material(filepath.Join(dir, sub), certificateType)
		for _, t := range texts {
			if c, err := read(t); err == nil {
				list = append(list, c)
			}
		}
		return list
	}
	return get(caFolder), get(intermediateFolder)
}

func issued(ca, c *x509.Certificate) bool {
	return bytes.Equal(ca.RawSubject, c.RawIssuer) && c.CheckSignatureFrom(ca) == nil
}

package ca

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/renameio/v2"
)

// Files of a CA's folder besides NAME-cert.pem. Only the key is cryptogen's;
// the others appear for an intermediate, and after a revocation.
const (
	keyFile   = "priv_sk"
	chainFile = "chain.pem"
	crlFile   = "crl.pem"
)

// Modes of what is written. Keys are their owner's alone.
const (
	dirMode  = 0o755
	keyMode  = 0o600
	fileMode = 0o644
)

// Save writes the CA to a folder as cryptogen does: NAME-cert.pem and priv_sk
// (PKCS#8, mode 0600); for an intermediate also chain.pem, its issuers. It
// refuses to replace another key.
func (c *CA) Save(dir string) error {
	key, err := EncodeKey(c.key)
	if err != nil {
		return fmt.Errorf("save CA %s: %w", c.Name(), err)
	}
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return fmt.Errorf("save CA %s: %w", c.Name(), err)
	}
	if old, err := os.ReadFile(filepath.Join(dir, keyFile)); err == nil && !bytes.Equal(old, key) {
		return fmt.Errorf("save CA %s: %s holds another key", c.Name(), dir)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("save CA %s: %w", c.Name(), err)
	}
	var chain []byte
	for _, x := range c.chain {
		chain = append(chain, encodeCert(x.Raw)...)
	}
	if err := write(filepath.Join(dir, keyFile), key, keyMode); err != nil {
		return err
	}
	if err := os.Chmod(filepath.Join(dir, keyFile), keyMode); err != nil { // it may have been there
		return fmt.Errorf("save CA %s: %w", c.Name(), err)
	}
	if chain != nil {
		if err := write(filepath.Join(dir, chainFile), chain, fileMode); err != nil {
			return err
		}
	}
	return write(filepath.Join(dir, certFile(c.Name())), c.PEM(), fileMode)
}

// SaveCRL signs the revocation list at now and keeps it in the CA's folder,
// where [Open] finds it. It returns the list, PEM.
func (c *CA) SaveCRL(dir string, now time.Time) ([]byte, error) {
	crl, err := c.CRL(now)
	if err != nil {
		return nil, err
	}
	return crl, replace(filepath.Join(dir, crlFile), crl)
}

// Open reads a CA from a folder that [CA.Save] or cryptogen wrote: the one
// certificate *-cert.pem, the private key that belongs to it, and, if they are
// there, its issuers and its revocation list.
func Open(dir string) (*CA, error) {
	c, err := open(dir)
	if err != nil {
		return nil, fmt.Errorf("open CA %s: %w", dir, err)
	}
	return c, nil
}

func open(dir string) (*CA, error) {
	names, err := filepath.Glob(filepath.Join(escapeGlob(dir), "*-cert.pem"))
	if err != nil {
		return nil, err
	}
	if len(names) != 1 {
		return nil, fmt.Errorf("%d files *-cert.pem: want one", len(names))
	}
	b, err := os.ReadFile(names[0])
	if err != nil {
		return nil, err
	}
	c := &CA{}
	if c.cert, err = decodeCert(b); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Base(names[0]), err)
	}
	if !c.cert.IsCA {
		return nil, fmt.Errorf("%s: the certificate is not a CA's", filepath.Base(names[0]))
	}
	if c.key, err = findKey(dir, c.cert.PublicKey); err != nil {
		return nil, err
	}
	if err := c.openChain(filepath.Join(dir, chainFile)); err != nil {
		return nil, fmt.Errorf("%s: %w", chainFile, err)
	}
	crl, err := os.ReadFile(filepath.Join(dir, crlFile))
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return nil, err
	}
	if err := c.ReadCRL(crl); err != nil {
		return nil, fmt.Errorf("%s: %w", crlFile, err)
	}
	return c, nil
}

// openChain reads the issuers of an intermediate and checks each link.
func (c *CA) openChain(file string) error {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	below := c.cert
	for p, rest := pem.Decode(b); p != nil; p, rest = pem.Decode(rest) {
		x, err := x509.ParseCertificate(p.Bytes)
		if err != nil {
			return err
		}
		if err := below.CheckSignatureFrom(x); err != nil {
			return fmt.Errorf("%s isn't the issuer of %s: %w", x.Subject.CommonName, below.Subject.CommonName, err)
		}
		c.chain = append(c.chain, x)
		below = x
	}
	return nil
}

// findKey looks through the folder's files for the private key of pub.
func findKey(dir string, pub crypto.PublicKey) (crypto.Signer, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var last error
	for _, e := range entries {
		if n := e.Name(); e.IsDir() || !strings.HasSuffix(n, "_sk") && !strings.HasSuffix(n, "key.pem") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		key, err := decodeKey(b)
		if err != nil {
			last = fmt.Errorf("%s: %w", e.Name(), err)
			continue
		}
		if k, ok := pub.(interface{ Equal(crypto.PublicKey) bool }); ok && k.Equal(key.Public()) {
			return key, nil
		}
		last = fmt.Errorf("%s belongs to another certificate", e.Name())
	}
	if last == nil {
		last = errors.New("no file *_sk")
	}
	return nil, fmt.Errorf("private key: %w", last)
}

// replace puts a whole file in place, synced, or leaves what was there: a
// revocation must not be lost to a crash, nor a reader see half a list.
func replace(file string, b []byte) error {
	if err := renameio.WriteFile(file, b, fileMode); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return nil
}

// write makes a file that can be made again: not synced, for a tree has
// hundreds.
func write(file string, b []byte, mode os.FileMode) error {
	if err := os.WriteFile(file, b, mode); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

func certFile(name string) string { return name + "-cert.pem" }

// escapeGlob keeps a folder's own name from acting as a pattern.
func escapeGlob(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(s)
}

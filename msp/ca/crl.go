package ca

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// Revoke adds a serial number to the CA's list. It is no error to revoke twice;
// the first time counts. The list reaches nobody before [CA.CRL] and
// [Distribute], or [CA.Save].
func (c *CA) Revoke(serial *big.Int, when time.Time) error {
	if serial == nil || serial.Sign() <= 0 || serial.BitLen() > 160 {
		return fmt.Errorf("revoke: serial number %v: must be positive and of at most 20 bytes", serial)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.has(serial) {
		c.revoked = append(c.revoked, x509.RevocationListEntry{
			SerialNumber: new(big.Int).Set(serial), RevocationTime: when.UTC().Truncate(time.Second),
		})
	}
	return nil
}

// Revoked says whether a serial number is on the CA's list.
func (c *CA) Revoked(serial *big.Int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.has(serial)
}

// CRL returns the revocation list, PEM, signed at now, with an authority key id
// and a number higher than all before. It ends with the CA itself: no daemon
// renews it, and a list past its end would only raise warnings while its
// revocations go on.
func (c *CA) CRL(now time.Time) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := c.cert.NotAfter
	if !next.After(now) {
		return nil, fmt.Errorf("revocation list of %s: the CA ended at %s", c.Name(), next.Format(time.RFC3339))
	}
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(c.number + 1), ThisUpdate: now.UTC(), NextUpdate: next, RevokedCertificateEntries: c.revoked,
	}, c.cert, lowS{c.key})
	if err != nil {
		return nil, fmt.Errorf("revocation list of %s: %w", c.Name(), err)
	}
	c.number++
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}), nil
}

// ReadCRL replaces the CA's list by a recorded one, which the CA must have
// signed and which must not be older than what the CA knows.
func (c *CA) ReadCRL(b []byte) error {
	p, _ := pem.Decode(b)
	if p == nil || p.Type != "X509 CRL" {
		return errors.New("read revocation list: no PEM block of type X509 CRL")
	}
	l, err := x509.ParseRevocationList(p.Bytes)
	if err != nil {
		return fmt.Errorf("read revocation list: %w", err)
	}
	if err := l.CheckSignatureFrom(c.cert); err != nil {
		return fmt.Errorf("read revocation list: not signed by %s: %w", c.Name(), err)
	}
	if l.Number == nil || !l.Number.IsInt64() {
		return fmt.Errorf("read revocation list: number %v", l.Number)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if l.Number.Int64() < c.number {
		return fmt.Errorf("read revocation list: number %d is older than %d", l.Number, c.number)
	}
	c.number = l.Number.Int64()
	c.revoked = nil
	for _, e := range l.RevokedCertificateEntries {
		c.revoked = append(c.revoked, x509.RevocationListEntry{SerialNumber: e.SerialNumber, RevocationTime: e.RevocationTime})
	}
	return nil
}

// has needs c.mu.
func (c *CA) has(serial *big.Int) bool {
	for _, e := range c.revoked {
		if e.SerialNumber.Cmp(serial) == 0 {
			return true
		}
	}
	return false
}

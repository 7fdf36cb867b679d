package msp

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"sync"
	"time"

	mspproto "github.com/hyperledger/fabric-protos-go-apiv2/msp"
)

// maxCRL is the longest revocation list that [MSP.CheckCRL] takes: some 400,000
// entries, read in 0.3 s. A definition in a channel's configuration may hold
// longer ones; the block that brings it is bounded.
const maxCRL = 16 << 20

// maxSerial is how many bytes a serial number may have (RFC 5280, 4.1.2.2).
const maxSerial = 20

var (
	oidDeltaCRL     = asn1.ObjectIdentifier{2, 5, 29, 27}
	oidDistribution = asn1.ObjectIdentifier{2, 5, 29, 28}
	oidCRLNumber    = asn1.ObjectIdentifier{2, 5, 29, 20}
	oidCertIssuer   = asn1.ObjectIdentifier{2, 5, 29, 29}
)

// A crl is a revocation list, read with Fabric's leniency.
type crl struct {
	issuer     []byte // subject of the issuer, raw
	authority  []byte // key identifier; nil if there is no such extension
	thisUpdate time.Time
	nextUpdate time.Time // zero if there is none
	serials    map[string]struct{}
	flaw       error // why it should not have been issued like this; nil if fine
	signature  func(issuer *x509.Certificate) error

	mu     sync.Mutex
	signed map[string]bool // by raw public key: did it sign the list? guarded by mu
}

// CheckCRL judges a revocation list before it is taken in: it must come from one
// of the definition's CAs, be complete (no delta, not indirect) and well formed.
// It returns [BadCRL] or [CRLTooLarge], and a warning if its dates do not cover
// now.
func (m *MSP) CheckCRL(raw []byte, now time.Time) ([]Warning, error) {
	if len(raw) > maxCRL {
		return nil, fmt.Errorf("revocation list of %d bytes, at most %d: %w", len(raw), maxCRL, CRLTooLarge)
	}
	l, err := parseCRL(raw)
	if err != nil {
		return nil, err
	}
	if err := m.flaw(l); err != nil {
		return nil, err
	}
	if w, stale := l.stale(now); stale {
		return []Warning{w}, nil
	}
	return nil, nil
}

func (m *MSP) setCRLs(conf *mspproto.FabricMSPConfig) error {
	for i, raw := range conf.RevocationList {
		l, err := parseCRL(raw)
		if err != nil {
			return fmt.Errorf("revocation list %d: %w", i, err)
		}
		m.crls = append(m.crls, l)
		if err := m.flaw(l); err != nil {
			m.warnings = append(m.warnings, warn(BadCRL.Code(), "revocation list %d of %s: %v", i, m.id, err))
		}
	}
	return nil
}

// flaw says what is wrong with a list that the ledger judge may have to take.
func (m *MSP) flaw(l *crl) error {
	if l.flaw != nil {
		return l.flaw
	}
	for _, c := range m.cas() {
		if bytes.Equal(c.RawSubject, l.issuer) && bytes.Equal(c.SubjectKeyId, l.authority) && l.from(c) {
			return nil
		}
	}
	return fmt.Errorf("revocation list signed by none of the definition's CAs: %w", BadCRL)
}

// from says whether the issuer's key signed the list.
func (l *crl) from(issuer *x509.Certificate) bool {
	key := string(issuer.RawSubjectPublicKeyInfo)
	l.mu.Lock()
	defer l.mu.Unlock()
	ok, known := l.signed[key]
	if !known {
		ok = l.signature(issuer) == nil
		l.signed[key] = ok
	}
	return ok
}

// revokes says whether the issuer revoked serial by this list.
func (l *crl) revokes(issuer *x509.Certificate, serial *big.Int) bool {
	_, listed := l.serials[serialKey(serial)]
	return listed && l.from(issuer)
}

func (l *crl) stale(now time.Time) (Warning, bool) {
	switch {
	case l.thisUpdate.After(now):
		return warn(staleCRL, "revocation list of %v begins in the future; it revokes already", l.thisUpdate.Format(time.RFC3339)), true
	case !l.nextUpdate.IsZero() && l.nextUpdate.Before(now):
		return warn(staleCRL, "revocation list was to be renewed by %v; it still revokes", l.nextUpdate.Format(time.RFC3339)), true
	}
	return Warning{}, false
}

// parseCRL reads a list in PEM or DER. Whatever Fabric reads is read.
func parseCRL(raw []byte) (*crl, error) {
	const begin = "-----BEGIN X509 CRL"
	if bytes.HasPrefix(raw, []byte(begin)) {
		if b, _ := pem.Decode(raw); b != nil && b.Type == "X509 CRL" {
			raw = b.Bytes
		}
	}
	// The modern reader is five times faster and stricter; what only the old
	// one takes is a list of version 1 or an odd encoding.
	if list, err := x509.ParseRevocationList(raw); err == nil {
		return modernCRL(list)
	}
	list, err := x509.ParseCRL(raw) //nolint:staticcheck // Fabric's reader, on purpose
	if err != nil {
		return nil, fmt.Errorf("%w: %w", BadCRL, err)
	}
	return oldCRL(list)
}

func modernCRL(list *x509.RevocationList) (*crl, error) {
	l := newCRL(list.RawIssuer, list.Extensions, len(list.RevokedCertificateEntries))
	l.thisUpdate, l.nextUpdate = list.ThisUpdate, list.NextUpdate
	for _, e := range list.RevokedCertificateEntries {
		l.add(e.SerialNumber, e.Extensions)
	}
	if err := allowAlgorithm(list.SignatureAlgorithm); err != nil && l.flaw == nil {
		l.flaw = fmt.Errorf("revocation list: %w: %s", BadCRL, err.Error())
	}
	sig := list.Signature
	if ecdsaAlgorithm(list.SignatureAlgorithm) {
		var err error
		if sig, err = sameS(sig); err != nil {
			return nil, fmt.Errorf("revocation list: %w", err)
		}
	}
	l.signature = func(issuer *x509.Certificate) error {
		return issuer.CheckSignature(list.SignatureAlgorithm, list.RawTBSRevocationList, sig)
	}
	return l, nil
}

func oldCRL(list *pkix.CertificateList) (*crl, error) {
	issuer, err := asn1.Marshal(list.TBSCertList.Issuer)
	if err != nil {
		return nil, fmt.Errorf("issuer of a revocation list: %w: %w", BadCRL, err)
	}
	l := newCRL(issuer, list.TBSCertList.Extensions, len(list.TBSCertList.RevokedCertificates))
	l.flaw = fmt.Errorf("revocation list is not as RFC 5280 has it: %w", BadCRL)
	l.thisUpdate, l.nextUpdate = list.TBSCertList.ThisUpdate, list.TBSCertList.NextUpdate
	for _, e := range list.TBSCertList.RevokedCertificates {
		l.add(e.SerialNumber, e.Extensions)
	}
	// Go has no public table from identifiers to algorithms but in this check.
	l.signature = func(issuer *x509.Certificate) error {
		if _, ok := issuer.PublicKey.(*ecdsa.PublicKey); ok {
			sig, err := sameS(list.SignatureValue.RightAlign())
			if err != nil {
				return err
			}
			list.SignatureValue = asn1.BitString{Bytes: sig, BitLength: 8 * len(sig)}
		}
		return issuer.CheckCRLSignature(list) //nolint:staticcheck // Fabric's check, on purpose
	}
	return l, nil
}

func newCRL(issuer []byte, extensions []pkix.Extension, n int) *crl {
	l := &crl{
		issuer:  issuer,
		serials: make(map[string]struct{}, n),
		signed:  map[string]bool{},
	}
	for _, x := range extensions {
		switch {
		case x.Id.Equal(oidAuthorityKeyID):
			var aki struct {
				ID []byte `asn1:"optional,tag:0"`
			}
			if _, err := asn1.Unmarshal(x.Value, &aki); err != nil {
				break // as if it were absent: an error for every identity
			}
			l.authority = append([]byte{}, aki.ID...)
		case x.Id.Equal(oidDeltaCRL):
			l.flaw = fmt.Errorf("delta revocation list: %w", BadCRL)
		case x.Id.Equal(oidCRLNumber):
		case x.Critical || x.Id.Equal(oidDistribution):
			l.flaw = fmt.Errorf("revocation list with extension %v, partial or indirect: %w", x.Id, BadCRL)
		}
	}
	if len(l.authority) == 0 {
		l.flaw = fmt.Errorf("revocation list without an authority key identifier: %w", BadCRL)
	}
	return l
}

func (l *crl) add(serial *big.Int, extensions []pkix.Extension) {
	l.serials[serialKey(serial)] = struct{}{}
	if serial.Sign() <= 0 || serial.BitLen() > 8*maxSerial {
		l.flaw = fmt.Errorf("revocation list names the serial %v: %w", serial, BadCRL)
	}
	for _, x := range extensions {
		if x.Critical || x.Id.Equal(oidCertIssuer) {
			l.flaw = fmt.Errorf("indirect revocation list: %w", BadCRL)
		}
	}
}

func serialKey(n *big.Int) string {
	if n.Sign() < 0 {
		return "-" + string(n.Bytes())
	}
	return "+" + string(n.Bytes())
}

func ecdsaAlgorithm(a x509.SignatureAlgorithm) bool {
	return signedWithECDSA(&x509.Certificate{SignatureAlgorithm: a})
}

// sameS encodes a signature in its one encoding and leaves its S.
func sameS(sig []byte) ([]byte, error) {
	r, s, err := parse(sig)
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(rs{r, s})
}

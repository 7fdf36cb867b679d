package msp

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"

	"grapevine/wire"
)

var (
	oidSubjectKeyID    = asn1.ObjectIdentifier{2, 5, 29, 14}
	oidSubjectAltName  = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidNameConstraints = asn1.ObjectIdentifier{2, 5, 29, 30}
	oidAuthorityKeyID  = asn1.ObjectIdentifier{2, 5, 29, 35}
	oidAuthorityInfo   = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 1}

	oidECKey     = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
	oidEd25519   = asn1.ObjectIdentifier{1, 3, 101, 112}
	oidCurveP256 = asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}
	oidCurveP384 = asn1.ObjectIdentifier{1, 3, 132, 0, 34}
)

// outer is a certificate's outermost layer (RFC 5280, 4.1), enough to put
// another signature on it and to say why crypto/x509 could not read it.
type outer struct {
	TBS       asn1.RawValue
	Algorithm pkix.AlgorithmIdentifier
	Signature asn1.BitString
}

type tbs struct {
	Version         int `asn1:"optional,explicit,default:0,tag:0"`
	Serial          *big.Int
	Algorithm       pkix.AlgorithmIdentifier
	Issuer          asn1.RawValue
	Validity        asn1.RawValue
	Subject         asn1.RawValue
	Key             asn1.RawValue
	UniqueID        asn1.BitString   `asn1:"optional,tag:1"`
	SubjectUniqueID asn1.BitString   `asn1:"optional,tag:2"`
	Extensions      []pkix.Extension `asn1:"optional,explicit,tag:3"`
}

type keyInfo struct {
	Algorithm struct {
		OID        asn1.ObjectIdentifier
		Parameters asn1.RawValue `asn1:"optional"`
	}
	Key asn1.BitString
}

// unreadable names the reason for which crypto/x509 refused der with err: its
// errors are texts, so the bytes are looked at once more.
func unreadable(der []byte, err error) error {
	var o outer
	var t tbs
	if rest, e := asn1.Unmarshal(der, &o); e != nil || len(rest) > 0 {
		return fmt.Errorf("%w: %w", NotDER, err)
	}
	if _, e := asn1.Unmarshal(o.TBS.FullBytes, &t); e != nil {
		return fmt.Errorf("%w: %w", NotDER, err)
	}
	if r := badKey(t.Key.FullBytes); r != nil {
		return fmt.Errorf("%w: %w", r, err)
	}
	for i, x := range t.Extensions {
		wrong := x.Critical && (x.Id.Equal(oidSubjectKeyID) || x.Id.Equal(oidAuthorityKeyID) || x.Id.Equal(oidAuthorityInfo))
		for _, y := range t.Extensions[:i] {
			wrong = wrong || x.Id.Equal(y.Id)
		}
		if wrong {
			return fmt.Errorf("extension %v twice or wrongly critical: %w", x.Id, BadExtension)
		}
	}
	return fmt.Errorf("%w: %w", NotDER, err)
}

// badKey says what is wrong with a SubjectPublicKeyInfo, or returns nil.
func badKey(spki []byte) *wire.Reason {
	if _, err := x509.ParsePKIXPublicKey(spki); err == nil {
		return nil
	}
	var k keyInfo
	if _, err := asn1.Unmarshal(spki, &k); err != nil {
		return BadKey
	}
	switch {
	case k.Algorithm.OID.Equal(oidEd25519):
		return BadKey
	case !k.Algorithm.OID.Equal(oidECKey):
		return BadKeyType
	case k.Algorithm.Parameters.Tag != asn1.TagOID:
		return BadKey // explicit curve parameters
	}
	var curve asn1.ObjectIdentifier
	if _, err := asn1.Unmarshal(k.Algorithm.Parameters.FullBytes, &curve); err != nil {
		return BadKey
	}
	if !curve.Equal(oidCurveP256) && !curve.Equal(oidCurveP384) {
		return BadCurve
	}
	return BadKey
}

// allowKey is the live judge's allow-list of keys: P-256, P-384 and, where the
// channel takes it, Ed25519. It does no arithmetic.
func allowKey(c *x509.Certificate, ed bool) error {
	switch k := c.PublicKey.(type) {
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() && k.Curve != elliptic.P384() {
			return fmt.Errorf("key on curve %s: %w", k.Curve.Params().Name, BadCurve)
		}
	case ed25519.PublicKey:
		if !ed {
			return fmt.Errorf("Ed25519 needs the channel capability V3_0: %w", BadKeyType)
		}
	default:
		return fmt.Errorf("key of type %v: %w", c.PublicKeyAlgorithm, BadKeyType)
	}
	spki, err := x509.MarshalPKIXPublicKey(c.PublicKey)
	if err != nil || !bytes.Equal(spki, c.RawSubjectPublicKeyInfo) {
		return fmt.Errorf("public key is not in its one encoding: %w", BadKey)
	}
	return nil
}

// allowAlgorithm is the live judge's allow-list of certificate signatures.
func allowAlgorithm(a x509.SignatureAlgorithm) error {
	switch a {
	case x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512, x509.PureEd25519:
		return nil
	}
	return fmt.Errorf("certificate signed with %v: %w", a, BadAlgorithm)
}

func signedWithECDSA(c *x509.Certificate) bool {
	switch c.SignatureAlgorithm {
	case x509.ECDSAWithSHA1, x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512:
		return true
	}
	return false
}

// lowS returns c, or c with its issuer's signature in the low-S form. Common
// authorities sign with either S, and anybody can turn one into the other, so
// certificates are hashed and compared in one form (Fabric: msp/cert.go).
func lowS(c *x509.Certificate, issuer any) (*x509.Certificate, error) {
	k, ok := issuer.(*ecdsa.PublicKey)
	if !ok || !signedWithECDSA(c) {
		return c, nil
	}
	sig, err := normalise(k.Curve, c.Signature)
	if err != nil {
		return nil, err
	}
	if bytes.Equal(sig, c.Signature) {
		return c, nil
	}
	var o outer
	if _, err := asn1.Unmarshal(c.Raw, &o); err != nil {
		return nil, fmt.Errorf("certificate %x: %w: %w", c.SerialNumber, NotDER, err)
	}
	o.Signature = asn1.BitString{Bytes: sig, BitLength: 8 * len(sig)}
	der, err := asn1.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("certificate %x: %w: %w", c.SerialNumber, NotDER, err)
	}
	return x509.ParseCertificate(der)
}

// subjectKeyID returns the value of c's subject key identifier, as Fabric reads
// it: present, and maybe empty.
func subjectKeyID(c *x509.Certificate) ([]byte, error) {
	for _, x := range c.Extensions {
		if x.Id.Equal(oidSubjectKeyID) {
			var id []byte
			if _, err := asn1.Unmarshal(x.Value, &id); err != nil {
				return nil, fmt.Errorf("subject key identifier of %q: %w: %w", c.Subject.CommonName, BadKeyIdentifier, err)
			}
			return id, nil
		}
	}
	return nil, fmt.Errorf("%q has no subject key identifier: %w", c.Subject.CommonName, BadKeyIdentifier)
}

func hasExtension(c *x509.Certificate, id asn1.ObjectIdentifier) bool {
	for _, x := range c.Extensions {
		if x.Id.Equal(id) {
			return true
		}
	}
	return false
}

// sameKey says whether two CA certificates are the same authority: one subject,
// one key. A renewed certificate is.
func sameKey(a, b *x509.Certificate) bool {
	return bytes.Equal(a.RawSubject, b.RawSubject) &&
		bytes.Equal(a.RawSubjectPublicKeyInfo, b.RawSubjectPublicKeyInfo)
}

package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"strings"
)

// An Algorithm is a kind of key.
type Algorithm int

// The algorithms that the MSP's live judge takes. P-256 is the zero value.
const (
	P256 Algorithm = iota
	P384
	Ed25519
)

// ParseAlgorithm reads a PublicKeyAlgorithm of crypto-config.yaml: ecdsa or
// ed25519, as in Fabric, or p256 or p384; empty means P-256.
func ParseAlgorithm(s string) (Algorithm, error) {
	switch strings.ToLower(s) {
	case "", "ecdsa", "p256":
		return P256, nil
	case "p384":
		return P384, nil
	case "ed25519":
		return Ed25519, nil
	}
	return 0, fmt.Errorf("unknown algorithm %q (ecdsa, p256, p384 or ed25519)", s)
}

// GenerateKey makes a private key.
func GenerateKey(a Algorithm) (crypto.Signer, error) {
	var curve elliptic.Curve
	switch a {
	case P256:
		curve = elliptic.P256()
	case P384:
		curve = elliptic.P384()
	case Ed25519:
		_, k, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("make an Ed25519 key: %w", err)
		}
		return k, nil
	default:
		return nil, fmt.Errorf("make a key: unknown algorithm %d", a)
	}
	k, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a %s key: %w", curve.Params().Name, err)
	}
	return k, nil
}

// EncodeKey returns a private key as PKCS#8, PEM.
func EncodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// decodeKey reads what [EncodeKey] writes, and SEC 1.
func decodeKey(b []byte) (crypto.Signer, error) {
	p, _ := pem.Decode(b)
	if p == nil {
		return nil, fmt.Errorf("no PEM key")
	}
	if p.Type == "EC PRIVATE KEY" {
		return x509.ParseECPrivateKey(p.Bytes)
	}
	k, err := x509.ParsePKCS8PrivateKey(p.Bytes)
	if err != nil {
		return nil, err
	}
	s, ok := k.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a %T doesn't sign", k)
	}
	return s, nil
}

// keyID is the subject key id that Fabric uses: SHA-256 of the uncompressed
// point, or of an Ed25519 key's bytes. It refuses every other kind of key.
func keyID(pub crypto.PublicKey) ([]byte, error) {
	var raw []byte
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() && k.Curve != elliptic.P384() {
			return nil, fmt.Errorf("curve %s: only P-256 and P-384 are issued for", k.Curve.Params().Name)
		}
		var err error
		if raw, err = k.Bytes(); err != nil {
			return nil, fmt.Errorf("public key: %w", err)
		}
	case ed25519.PublicKey:
		raw = k
	default:
		return nil, fmt.Errorf("public key %T: only ECDSA and Ed25519 are issued for", pub)
	}
	sum := sha256.Sum256(raw)
	return sum[:], nil
}

// lowS makes ECDSA signatures whose S is in the lower half. Fabric rewrites a
// certificate that was signed otherwise before it compares it.
type lowS struct{ crypto.Signer }

// Sign implements crypto.Signer.
func (k lowS) Sign(r io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	sig, err := k.Signer.Sign(r, digest, o)
	pub, ok := k.Public().(*ecdsa.PublicKey)
	if err != nil || !ok {
		return sig, err
	}
	var v struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(sig, &v); err != nil {
		return nil, fmt.Errorf("own signature: %w", err)
	}
	n := pub.Params().N
	if v.S.Cmp(new(big.Int).Rsh(n, 1)) <= 0 {
		return sig, nil
	}
	v.S.Sub(n, v.S)
	return asn1.Marshal(v)
}

package msp

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha3"
	"encoding/asn1"
	"fmt"
	"hash"
	"math/big"
	"slices"
)

// A Signer signs as an identity. It is safe for concurrent use.
type Signer interface {
	// Identity returns whose signatures these are.
	Identity() *Identity
	// Sign signs msg: ECDSA over its SHA-256, in DER with a low S, or
	// Ed25519 over msg itself.
	Sign(msg []byte) ([]byte, error)
}

// NewSigner joins an identity and its private key, which may live elsewhere (an
// HSM). It returns [KeyMismatch] if the key is another's, and [BadKeyType] or
// [BadCurve] for keys that no peer would accept.
func NewSigner(id *Identity, key crypto.Signer) (Signer, error) {
	if err := allowKey(id.cert, true); err != nil {
		return nil, fmt.Errorf("signer %s: %w", id.Name(), err)
	}
	if !equalKeys(key.Public(), id.cert.PublicKey) {
		return nil, fmt.Errorf("signer %s: the private key is not the certificate's: %w", id.Name(), KeyMismatch)
	}
	return &signer{id, key}, nil
}

type signer struct {
	id  *Identity
	key crypto.Signer // safe for concurrent use, as crypto's own are
}

func (s *signer) Identity() *Identity { return s.id }

func (s *signer) Sign(msg []byte) ([]byte, error) {
	k, ok := s.id.cert.PublicKey.(*ecdsa.PublicKey)
	if !ok {
		sig, err := s.key.Sign(rand.Reader, msg, crypto.Hash(0))
		if err != nil {
			return nil, fmt.Errorf("signing as %s: %w", s.id.Name(), err)
		}
		return sig, nil
	}
	digest := sha256.Sum256(msg)
	sig, err := s.key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("signing as %s: %w", s.id.Name(), err)
	}
	return normalise(k.Curve, sig)
}

// Verify says whether sig is the identity's signature over msg, as the live
// judge reads it: ECDSA over SHA-256 in strict DER with a low S, or Ed25519. It
// returns [BadSignatureEncoding], [HighS], [BadSignature] or, for keys that are
// not on the allow-list, [BadKeyType] or [BadCurve].
func (i *Identity) Verify(msg, sig []byte) error {
	if err := allowKey(i.cert, true); err != nil {
		return fmt.Errorf("signature of %s: %w", i.Name(), err)
	}
	if k, ok := i.cert.PublicKey.(*ecdsa.PublicKey); ok {
		if err := strict(k.Curve, sig); err != nil {
			return fmt.Errorf("signature of %s: %w", i.Name(), err)
		}
	}
	return i.check(sha2, sig, msg)
}

// The families of an MSP's crypto_config: they name the hash under ECDSA, on
// every curve.
const (
	sha2       = "SHA2"
	sha3Family = "SHA3"
)

// check verifies sig over the joined parts as Fabric does: what follows the
// signature in its encoding is ignored, a high S is not.
func (i *Identity) check(family string, sig []byte, parts ...[]byte) error {
	switch k := i.cert.PublicKey.(type) {
	case *ecdsa.PublicKey:
		var h hash.Hash
		switch family {
		case sha2:
			h = sha256.New()
		case sha3Family:
			h = sha3.New256()
		default:
			return fmt.Errorf("signature of %s: hash family %q: %w", i.Name(), family, BadDefinition)
		}
		for _, p := range parts {
			h.Write(p)
		}
		r, s, err := parse(sig)
		if err != nil {
			return fmt.Errorf("signature of %s: %w", i.Name(), err)
		}
		if high(k.Curve, s) {
			return fmt.Errorf("signature of %s: %w", i.Name(), HighS)
		}
		if !ecdsa.Verify(k, h.Sum(nil), r, s) {
			return fmt.Errorf("signature of %s does not fit: %w", i.Name(), BadSignature)
		}
		return nil
	case ed25519.PublicKey:
		if !ed25519.Verify(k, slices.Concat(parts...), sig) {
			return fmt.Errorf("signature of %s does not fit: %w", i.Name(), BadSignature)
		}
		return nil
	}
	return fmt.Errorf("signature of %s: key of type %v: %w", i.Name(), i.cert.PublicKeyAlgorithm, BadKeyType)
}

type rs struct{ R, S *big.Int }

// parse reads an ECDSA signature as Fabric does (bccsp/utils/ecdsa.go).
func parse(sig []byte) (r, s *big.Int, err error) {
	var v rs
	if _, err := asn1.Unmarshal(sig, &v); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", BadSignatureEncoding, err)
	}
	if v.R.Sign() != 1 || v.S.Sign() != 1 {
		return nil, nil, fmt.Errorf("r or s is not positive: %w", BadSignatureEncoding)
	}
	return v.R, v.S, nil
}

// strict refuses all encodings of a signature but one.
func strict(c elliptic.Curve, sig []byte) error {
	r, s, err := parse(sig)
	if err != nil {
		return err
	}
	if n := c.Params().N; r.Cmp(n) >= 0 || s.Cmp(n) >= 0 {
		return fmt.Errorf("r or s is not below the order: %w", BadSignatureEncoding)
	}
	if again, err := asn1.Marshal(rs{r, s}); err != nil || !slices.Equal(again, sig) {
		return fmt.Errorf("%d bytes for a signature of %d: %w", len(sig), len(again), BadSignatureEncoding)
	}
	if high(c, s) {
		return HighS
	}
	return nil
}

// normalise returns sig with the lower of its two S, in its one encoding.
func normalise(c elliptic.Curve, sig []byte) ([]byte, error) {
	r, s, err := parse(sig)
	if err != nil {
		return nil, err
	}
	if high(c, s) {
		s = new(big.Int).Sub(c.Params().N, s)
	}
	return asn1.Marshal(rs{r, s})
}

func high(c elliptic.Curve, s *big.Int) bool {
	return s.Cmp(new(big.Int).Rsh(c.Params().N, 1)) > 0
}

func equalKeys(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}

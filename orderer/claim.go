package orderer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"grapevine/wire"
)

// claimAge is how old, or how far in the future, a claim may be: clocks differ. It needs no nonce, for only the host that
// it names can show it.
const claimAge = 5 * time.Minute

// Claim says to a consenter, in the name of a TLS certificate, that a libp2p host is that one's consenter. The channel's configuration names
// consenters by TLS certificates, the host's handshake proves an MSP identity: the claim ties one to the other.
func Claim(cert *tls.Certificate, tag [32]byte, host peer.ID, to uint64, now time.Time) (*wire.ConsenterClaim, error) {
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		return nil, fmt.Errorf("claim to be a consenter: %w", err)
	}
	c := &wire.ConsenterClaim{Key: leaf.RawSubjectPublicKeyInfo, Time: uint64(now.Unix()), To: to}
	digest := claimed(c, tag, host)
	key, ok := cert.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("claim to be a consenter: the TLS key can't sign: %w", WeakKey)
	}
	var hash crypto.Hash
	switch leaf.PublicKey.(type) {
	case *ecdsa.PublicKey:
		hash = crypto.SHA256
	case ed25519.PublicKey:
	default:
		return nil, fmt.Errorf("claim to be a consenter: the TLS key is neither ECDSA nor Ed25519: %w", WeakKey)
	}
	if c.Signature, err = key.Sign(rand.Reader, digest[:], hash); err != nil {
		return nil, fmt.Errorf("claim to be a consenter: %w", err)
	}
	return c, nil
}

// CheckClaim returns which of the consenters the host at the other end is, by its claim, which must be meant for the
// consenter with the id self. Its errors carry Stranger, or NotConsenter if it is meant for another.
func CheckClaim(c *wire.ConsenterClaim, among []Consenter, self uint64, tag [32]byte, host peer.ID, now time.Time) (Consenter, error) {
	if c.To != self {
		return Consenter{}, fmt.Errorf("claim of %s, meant for consenter %d, not %d: %w", host, c.To, self, NotConsenter)
	}
	made := time.Unix(int64(min(c.Time, 1<<40)), 0)
	if d := now.Sub(made); d > claimAge || d < -claimAge {
		return Consenter{}, fmt.Errorf("claim of %s, made at %v: %w", host, made, Stranger)
	}
	key := Key(sha256.Sum256(c.Key))
	i := slices.IndexFunc(among, func(v Consenter) bool { return v.Holds(key) })
	if i < 0 {
		return Consenter{}, fmt.Errorf("claim of %s with a key of no consenter: %w", host, Stranger)
	}
	public, err := x509.ParsePKIXPublicKey(c.Key)
	if err != nil {
		return Consenter{}, fmt.Errorf("claim of %s: %w: %w", host, Stranger, err)
	}
	digest := claimed(c, tag, host)
	held := false
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		held = ecdsa.VerifyASN1(k, digest[:], c.Signature)
	case ed25519.PublicKey:
		held = ed25519.Verify(k, digest[:], c.Signature)
	}
	if !held {
		return Consenter{}, fmt.Errorf("claim of %s to be consenter %d doesn't verify: %w", host, among[i].ID, Stranger)
	}
	return among[i], nil
}

// claimed is what a claim's signature covers.
func claimed(c *wire.ConsenterClaim, tag [32]byte, host peer.ID) [32]byte {
	return wire.HashParts([]byte(wire.DomainConsenter), tag[:], []byte(host), c.Key, binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, c.Time), c.To))
}

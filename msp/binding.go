package msp

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/crypto/pb"

	"grapevine/wire"
)

// Limits of a binding. What a stranger can make us parse before we know who it
// is stays small: five certificates of ordinary size fit 12 KiB, and QUIC caps
// all handshake data at 16 KiB.
const (
	// BindingLife is the longest, and the usual, validity of a binding: how
	// long a stolen host key works.
	BindingLife = 24 * time.Hour
	// bindingBackdate lets a peer whose clock is behind take a fresh binding.
	bindingBackdate = 5 * time.Minute
	// bindingSkew is how far a peer's binding may lie in the future.
	bindingSkew = 60 * time.Second

	maxBindingChain = 5
	maxBindingCerts = 12 << 10 // bytes of all certificates, exclusive
	maxBindingName  = 255
	maxBindingSig   = 128 // a P-384 signature takes at most 104
	maxBinding      = maxBindingCerts + 1<<10
)

// Reasons for which a host is refused during the handshake, besides those of
// its certificate and its signature.
var (
	NoBinding      = wire.NewReason("msp.binding_missing", wire.Close)
	BadBinding     = wire.NewReason("msp.binding_malformed", wire.Close)
	HugeBinding    = wire.NewReason("msp.binding_too_large", wire.Close)
	LongBinding    = wire.NewReason("msp.binding_too_long", wire.Close) // valid for too long
	EarlyBinding   = wire.NewReason("msp.binding_not_yet_valid", wire.Close)
	ExpiredBinding = wire.NewReason("msp.binding_expired", wire.Close)
	BadHostKey     = wire.NewReason("msp.host_key", wire.Close)
)

// A Binding ties a libp2p host key to an MSP identity in one network, for a
// while. It is signed by the identity's key and travels as an extension of the
// host's TLS certificate. Its DER form is the extension's value.
type Binding struct {
	MSPID string `asn1:"utf8"`
	// Chain is the identity's certificate, then the intermediates towards its
	// root, never the root: DER.
	Chain [][]byte
	// NotBefore and NotAfter are Unix seconds, both inclusive. NotAfter is no
	// later than the certificate's.
	NotBefore, NotAfter int64
	Sig                 []byte
}

// NewBinding signs a binding of host to s's identity that begins a little
// before now, for clocks that are behind, and ends life after its beginning or
// with the certificate, whichever is sooner. life 0 means [BindingLife], which
// is also the most. intermediates come without the identity's own certificate,
// as [LoadChain] returns them.
func NewBinding(s Signer, intermediates [][]byte, networkID string, host crypto.PubKey, now time.Time, life time.Duration) (*Binding, error) {
	id := s.Identity()
	leaf := id.Certificate()
	if life == 0 {
		life = BindingLife
	}
	if life <= bindingBackdate || life > BindingLife {
		return nil, fmt.Errorf("bind %s: life %s: must be above %s and at most %s", id.Name(), life, bindingBackdate, BindingLife)
	}
	from := now.Add(-bindingBackdate)
	to := from.Add(life)
	if from.Before(leaf.NotBefore) {
		from = leaf.NotBefore
	}
	if to.After(leaf.NotAfter) {
		to = leaf.NotAfter
	}
	if !to.After(now) {
		return nil, fmt.Errorf("bind %s: its certificate ended at %s: %w", id.Name(), leaf.NotAfter.UTC().Format(time.RFC3339), ExpiredBinding)
	}
	if len(intermediates) > 0 && bytes.Equal(intermediates[0], leaf.Raw) {
		return nil, fmt.Errorf("bind %s: its own certificate stands among the intermediates", id.Name())
	}
	b := &Binding{
		MSPID: id.MSPID(), Chain: append([][]byte{leaf.Raw}, intermediates...),
		NotBefore: from.Unix(), NotAfter: to.Unix(),
	}
	if err := b.check(); err != nil {
		return nil, fmt.Errorf("bind %s: %w", id.Name(), err)
	}
	tbs, err := b.tbs(networkID, host)
	if err != nil {
		return nil, fmt.Errorf("bind %s: %w", id.Name(), err)
	}
	if b.Sig, err = s.Sign(tbs); err != nil {
		return nil, fmt.Errorf("bind %s: %w", id.Name(), err)
	}
	return b, nil
}

// Extension returns the binding as libp2p's TLS certificate carries it. It is
// not critical: libp2p's own check fails on a critical one it doesn't know.
func (b *Binding) Extension() (pkix.Extension, error) {
	v, err := asn1.Marshal(*b)
	if err != nil {
		return pkix.Extension{}, fmt.Errorf("encode binding: %w", err)
	}
	return pkix.Extension{Id: wire.BindingOID, Value: v}, nil
}

// Ends returns the last instant at which the binding is valid.
func (b *Binding) Ends() time.Time { return time.Unix(b.NotAfter, 0) }

// BindingFrom reads the one binding of a host's TLS certificate. It checks form
// and size; [Binding.Verify] checks the rest.
func BindingFrom(cert *x509.Certificate) (*Binding, error) {
	var value []byte
	n := 0
	for _, e := range cert.Extensions {
		if !e.Id.Equal(wire.BindingOID) {
			continue
		}
		if e.Critical {
			return nil, fmt.Errorf("binding is critical: %w", BadBinding)
		}
		value = e.Value
		n++
	}
	switch n {
	case 0:
		return nil, NoBinding
	case 1:
		return parseBinding(value)
	}
	return nil, fmt.Errorf("%d bindings in one certificate: %w", n, BadBinding)
}

// Verify returns the identity that the binding proves for host in networkID.
// host must be the key that the TLS handshake has just proven. judge decides on
// the certificate: [MSP.ValidateLive] of whichever organisation has the MSP ID.
// The signature is checked last, for it costs most and means nothing before.
func (b *Binding) Verify(networkID string, host crypto.PubKey, now time.Time, judge func(id *Identity, intermediates [][]byte, now time.Time) error) (*Identity, error) {
	if err := b.check(); err != nil {
		return nil, fmt.Errorf("binding: %w", err)
	}
	if now.Add(bindingSkew).Before(time.Unix(b.NotBefore, 0)) {
		return nil, fmt.Errorf("binding begins at %s: %w", time.Unix(b.NotBefore, 0).UTC().Format(time.RFC3339), EarlyBinding)
	}
	if now.After(b.Ends()) {
		return nil, fmt.Errorf("binding ended at %s: %w", b.Ends().UTC().Format(time.RFC3339), ExpiredBinding)
	}
	tbs, err := b.tbs(networkID, host)
	if err != nil {
		return nil, fmt.Errorf("binding: %w", err)
	}
	id, err := FromDER(b.MSPID, b.Chain[0])
	if err != nil {
		return nil, fmt.Errorf("binding: %w", err)
	}
	if b.Ends().After(id.Certificate().NotAfter) {
		return nil, fmt.Errorf("binding of %s outlives its certificate: %w", id.Name(), LongBinding)
	}
	if err := judge(id, b.Chain[1:], now); err != nil {
		return nil, fmt.Errorf("binding of %s (%s): %w", id.Name(), b.MSPID, err)
	}
	if err := id.Verify(tbs, b.Sig); err != nil {
		return nil, fmt.Errorf("binding of %s (%s): %w", id.Name(), b.MSPID, err)
	}
	return id, nil
}

// parseBinding reads an extension's value: one DER structure, in the one
// encoding that [Binding.Extension] makes.
func parseBinding(v []byte) (*Binding, error) {
	if len(v) > maxBinding {
		return nil, fmt.Errorf("binding of %d bytes: %w", len(v), HugeBinding)
	}
	b := &Binding{}
	rest, err := asn1.Unmarshal(v, b)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", BadBinding, err)
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("%d bytes behind the binding: %w", len(rest), BadBinding)
	}
	again, err := asn1.Marshal(*b)
	if err != nil || !bytes.Equal(again, v) {
		return nil, fmt.Errorf("not in canonical form: %w", BadBinding)
	}
	if len(b.Sig) == 0 {
		return nil, fmt.Errorf("no signature: %w", BadBinding)
	}
	return b, b.check()
}

// check holds sizes and dates against their limits, without a clock.
func (b *Binding) check() error {
	switch {
	case b.MSPID == "":
		return fmt.Errorf("no MSP ID: %w", BadBinding)
	case len(b.MSPID) > maxBindingName || len(b.Sig) > maxBindingSig:
		return fmt.Errorf("MSP ID of %d bytes, signature of %d: %w", len(b.MSPID), len(b.Sig), HugeBinding)
	case len(b.Chain) == 0:
		return fmt.Errorf("no certificate: %w", BadBinding)
	case len(b.Chain) > maxBindingChain:
		return fmt.Errorf("%d certificates in a binding: %w", len(b.Chain), ChainTooLong)
	case b.NotBefore < 0 || b.NotAfter < b.NotBefore:
		return fmt.Errorf("valid from %d until %d: %w", b.NotBefore, b.NotAfter, BadBinding)
	case b.NotAfter-b.NotBefore > int64(BindingLife/time.Second):
		return fmt.Errorf("valid for %d s: %w", b.NotAfter-b.NotBefore, LongBinding)
	}
	size := 0
	for _, c := range b.Chain {
		if len(c) == 0 {
			return fmt.Errorf("an empty certificate: %w", BadBinding)
		}
		size += len(c)
	}
	if size >= maxBindingCerts {
		return fmt.Errorf("certificates of %d bytes: %w", size, HugeBinding)
	}
	return nil
}

// tbs is what the MSP key signs. The network's name keeps a certificate that is
// used in two networks from being replayed, the host key ties it to one host,
// and the leaf's bytes to one certificate.
func (b *Binding) tbs(networkID string, host crypto.PubKey) ([]byte, error) {
	if networkID == "" {
		return nil, errors.New("network ID is empty")
	}
	if host == nil || host.Type() != pb.KeyType_Ed25519 {
		return nil, fmt.Errorf("host key is not Ed25519: %w", BadHostKey)
	}
	raw, err := crypto.MarshalPublicKey(host)
	if err != nil {
		return nil, fmt.Errorf("host key: %w: %w", BadHostKey, err)
	}
	var t [16]byte
	binary.BigEndian.PutUint64(t[:8], uint64(b.NotBefore))
	binary.BigEndian.PutUint64(t[8:], uint64(b.NotAfter))
	sum := wire.HashParts([]byte(wire.DomainBinding), []byte(networkID), []byte(b.MSPID), raw, b.Chain[0], t[:])
	return sum[:], nil
}

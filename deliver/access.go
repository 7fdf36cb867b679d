package deliver

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"grapevine/msp"
)

// reader is a client that has signed its request: its identity, and the last configuration that let it read.
type reader struct {
	id       *msp.Identity
	sequence uint64
}

// admit judges a request's signer under a channel's access (live judge: real clock, our stricter rules).
//
// Whoever isn't proven to belong to one of the channel's organisations gets an error that answers as an unknown channel
// does: a certificate is public, so a bad signature under a member's certificate proves nothing. Only a proven member
// of an organisation that may not read is told Forbidden.
func admit(r *request, id *msp.Identity, a Access, now time.Time) (*reader, error) {
	m, ok := a.MSPs[id.MSPID()]
	if !ok {
		// Verified all the same, so that the time it takes doesn't tell whose organisations the channel has.
		err := id.Verify(r.payload, r.signature)
		return nil, fmt.Errorf("%s is no organisation of the channel (signature: %v): %w", id.MSPID(), err, Unknown) //nolint:errorlint // refused as unknown, whatever the signature
	}
	if err := m.Verify(id, r.payload, r.signature); err != nil {
		return nil, fmt.Errorf("%w: %w", BadSignature, err)
	}
	if err := m.ValidateLive(id, nil, now); err != nil {
		return nil, fmt.Errorf("%w: %w", Unknown, err)
	}
	if err := msp.SatisfiedBy(a.MSPs, a.Readers, id); err != nil {
		return nil, fmt.Errorf("%w: %w", Forbidden, err)
	}
	return &reader{id: id, sequence: a.Sequence}, nil
}

// still judges the reader again when the configuration has changed since it was last admitted.
func (r *reader) still(a Access, now time.Time) error {
	if !now.Before(r.id.Certificate().NotAfter) {
		return fmt.Errorf("certificate ended %v: %w", r.id.Certificate().NotAfter, Expired)
	}
	if a.Sequence <= r.sequence {
		return nil
	}
	m, ok := a.MSPs[r.id.MSPID()]
	if !ok {
		return fmt.Errorf("%s left the channel: %w", r.id.MSPID(), Forbidden)
	}
	if err := m.ValidateLive(r.id, nil, now); err != nil {
		return fmt.Errorf("%w: %w", Forbidden, err)
	}
	if err := msp.SatisfiedBy(a.MSPs, a.Readers, r.id); err != nil {
		return fmt.Errorf("%w: %w", Forbidden, err)
	}
	r.sequence = a.Sequence
	return nil
}

// bound reports an error unless claim is the SHA-256 of the TLS certificate that the client of ctx presented.
func bound(ctx context.Context, claim []byte) error {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return fmt.Errorf("connection unknown: %w", TLSBinding)
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.PeerCertificates) == 0 {
		return fmt.Errorf("no client certificate: %w", TLSBinding)
	}
	if have := sha256.Sum256(info.State.PeerCertificates[0].Raw); !bytes.Equal(have[:], claim) {
		return fmt.Errorf("another client certificate than the one signed for: %w", TLSBinding)
	}
	return nil
}

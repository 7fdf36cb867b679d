package msp

import (
	"fmt"
	"sync/atomic"
)

// A Renewable is a signer whose certificate, and key, may be replaced while it
// is in use. It is safe for concurrent use.
type Renewable struct{ now atomic.Pointer[shown] }

// shown is what a signer shows at a time.
type shown struct {
	signer Signer
	chain  [][]byte
}

// NewRenewable makes a signer renewable. Chain are the intermediates above its
// certificate, DER, the issuer's first.
func NewRenewable(s Signer, chain [][]byte) *Renewable {
	r := &Renewable{}
	r.now.Store(&shown{Present(s), chain})
	return r
}

// Identity returns whose signatures these are now. Where an identity and a
// signature go together, both are [Present]'s.
func (r *Renewable) Identity() *Identity { return r.now.Load().signer.Identity() }

// Sign signs as the present identity.
func (r *Renewable) Sign(msg []byte) ([]byte, error) { return r.now.Load().signer.Sign(msg) }

// Chain returns the intermediates above the present certificate.
func (r *Renewable) Chain() [][]byte { return r.now.Load().chain }

// Shown returns the present signer with its intermediates.
func (r *Renewable) Shown() (Signer, [][]byte) {
	now := r.now.Load()
	return now.signer, now.chain
}

// Renew puts another certificate, with its key, in the place of the present one:
// of the same name and MSP, or nothing changes and the error is [BadIdentity].
func (r *Renewable) Renew(s Signer, chain [][]byte) error {
	if err := r.Fits(s); err != nil {
		return err
	}
	r.now.Store(&shown{Present(s), chain})
	return nil
}

// Fits says whether Renew would take a signer.
func (r *Renewable) Fits(s Signer) error {
	was, is := r.Identity(), s.Identity()
	if was.MSPID() != is.MSPID() || was.Name() != is.Name() {
		return fmt.Errorf("the certificate of %s of %s can't take the place of that of %s of %s: %w", is.Name(), is.MSPID(), was.Name(), was.MSPID(), BadIdentity)
	}
	return nil
}

// Present returns what a renewable signer is now: its identity and what it signs
// stay together. Any other signer is returned as it is.
func Present(s Signer) Signer {
	if r, ok := s.(*Renewable); ok {
		return r.now.Load().signer
	}
	return s
}

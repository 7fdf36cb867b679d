package membership

import (
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"grapevine/msp"
	"grapevine/wire"
)

// Limits of an alive message's parts, in bytes. A certificate with a P-384 key
// and all of Fabric's extensions has about 1 KiB. An honest Alive has less than
// 1 KiB too; above that it is decoded only so that the refusal names the field.
const (
	maxAlive       = 96 << 10
	maxCertificate = 8 << 10
	maxSignature   = 256
	maxChain       = 4
	maxName        = 256
)

// sign encodes and signs an alive message.
func sign(a *wire.Alive, s msp.Signer, chain [][]byte) (*wire.SignedAlive, error) {
	b, err := wire.Marshal(a)
	if err != nil {
		return nil, fmt.Errorf("encode alive: %w", err)
	}
	sum := wire.HashParts([]byte(wire.DomainAlive), b)
	sig, err := s.Sign(sum[:])
	if err != nil {
		return nil, fmt.Errorf("sign alive: %w", err)
	}
	return &wire.SignedAlive{Alive: b, Certificate: s.Identity().Certificate().Raw, Signature: sig, Chain: chain}, nil
}

// claim is an alive message that is well-formed, and nothing more.
type claim struct {
	*wire.Alive
	id     msp.PKIID
	peer   peer.ID
	wide   []ma.Multiaddr // the external endpoint
	own    []ma.Multiaddr // the internal one
	lead   *wire.Lead     // nil: it says nothing of it
	sentAt time.Time
	digest [32]byte // of what is signed
}

// parse checks the form of a signed alive message of the channel. With loopback
// an endpoint may be the loopback's.
func parse(tag [32]byte, loopback bool, s *wire.SignedAlive) (*claim, error) {
	if s == nil || len(s.Alive) > maxAlive || len(s.Certificate) > maxCertificate || len(s.Signature) > maxSignature || len(s.Chain) > maxChain {
		return nil, fmt.Errorf("alive: %w", TooLarge)
	}
	for _, c := range s.Chain {
		if len(c) > maxCertificate {
			return nil, fmt.Errorf("alive: %w", TooLarge)
		}
	}
	a := new(wire.Alive)
	if err := wire.Unmarshal(s.Alive, a); err != nil {
		return nil, fmt.Errorf("alive: %w", err)
	}
	if len(a.Tag) != 32 || len(a.PkiId) != 32 || len(a.TipHash) != 32 || a.MspId == "" || len(a.MspId) > maxName {
		return nil, fmt.Errorf("alive: %w", Malformed)
	}
	if [32]byte(a.Tag) != tag {
		return nil, fmt.Errorf("alive: %w", WrongChannel)
	}
	if len(a.Certificate) != 32 || len(a.Role) > maxName || len(a.Version) > maxName || len(a.Internal) > 0 && !a.Own || badState(a.StateHeight, a.StateHash) {
		return nil, fmt.Errorf("alive: %w", Malformed)
	}
	lead, err := readLead(a.Lead)
	if err != nil {
		return nil, fmt.Errorf("alive: lead: %w", err)
	}
	wide, err := readEndpoint(a.Endpoint, loopback)
	if err != nil {
		return nil, fmt.Errorf("alive: %w", err)
	}
	own, err := readEndpoint(a.Internal, loopback)
	if err != nil {
		return nil, fmt.Errorf("alive: %w", err)
	}
	p, err := peer.IDFromBytes(a.PeerId)
	if err != nil {
		return nil, fmt.Errorf("alive: peer ID: %w: %w", Malformed, err)
	}
	return &claim{
		Alive: a, wide: wide, own: own, lead: lead, id: msp.PKIID(a.PkiId), peer: p,
		sentAt: time.UnixMilli(int64(min(a.SentAt, 1<<53))), // later than any real one; the rule refuses it
		digest: wire.HashParts([]byte(wire.DomainAlive), s.Alive),
	}, nil
}

// readLead decodes a member's word on its part in pulling blocks; nil if it says
// nothing.
func readLead(b []byte) (*wire.Lead, error) {
	if len(b) == 0 {
		return nil, nil
	}
	l := new(wire.Lead)
	if err := wire.Unmarshal(b, l); err != nil {
		return nil, err
	}
	if l.Mode < 1 || l.Mode > 3 || l.Since == 0 && (l.Term != 0 || l.Orderer != "") || l.Since > 1<<53 || len(l.Orderer) > maxName {
		return nil, Malformed
	}
	return l, nil
}

// prove checks that the claim's identity signed it. Whether that identity is a
// member is another question.
func (c *claim) prove(id *msp.Identity, sig []byte, check func(id *msp.Identity, digest, sig []byte) error) error {
	if id.MSPID() != c.MspId || id.PKIID() != c.id {
		return fmt.Errorf("alive of %s: %w", c.id, IDMismatch)
	}
	if sum := sha256.Sum256(id.Certificate().Raw); sum != [32]byte(c.Alive.Certificate) {
		return fmt.Errorf("alive of %s: another certificate: %w", c.id, IDMismatch)
	}
	if err := check(id, c.digest[:], sig); err != nil {
		return fmt.Errorf("alive of %s: %w: %w", c.id, BadSignature, err)
	}
	return nil
}

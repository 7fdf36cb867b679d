package election

import (
	"fmt"

	"grapevine/msp"
	"grapevine/wire"
)

const (
	maxOrderer   = 256 // bytes of an address
	maxSignature = 256
)

// encode makes the frame of a ballot, and signs a claim of ours that isn't yet.
func (e *Election) encode(b ballot) ([]byte, error) {
	w := &wire.Ballot{Term: b.term, Reach: uint32(b.reach), Height: b.height, Ask: b.ask}
	if b.vote != nil {
		w.Vote, w.VoteTerm = b.vote.id[:], b.vote.term
	}
	if c := b.claim; c != nil {
		if c.raw == nil {
			if err := e.sign(c); err != nil {
				return nil, err
			}
		}
		w.Claim = c.raw
	}
	return wire.Marshal(w)
}

func (e *Election) sign(c *claim) error {
	raw, err := wire.Marshal(&wire.Claim{
		Tag: e.c.Tag[:], PkiId: c.id[:], Act: wire.Claim_Act(c.act), Term: c.term, Sequence: c.seq,
		Reach: uint32(c.reach), Height: c.height, Since: c.since, Unfit: c.unfit, Orderer: c.orderer[:min(len(c.orderer), maxOrderer)],
	})
	if err != nil {
		return fmt.Errorf("encode claim: %w", err)
	}
	sum := wire.HashParts([]byte(wire.DomainClaim), raw)
	sig, err := e.c.Self.Sign(sum[:])
	if err != nil {
		return fmt.Errorf("sign claim: %w", err)
	}
	c.raw, err = wire.Marshal(&wire.SignedClaim{Claim: raw, Signature: sig})
	return err
}

// decode checks the form of a ballot; its claim is still to be proven.
func decode(w *wire.Ballot) (ballot, *wire.SignedClaim, error) {
	b := ballot{term: w.Term, reach: reach(w.Reach), height: w.Height, ask: w.Ask}
	if len(w.Vote) != 0 && len(w.Vote) != 32 || len(w.Vote) == 0 && w.VoteTerm != 0 || w.Reach > uint32(able) {
		return ballot{}, nil, fmt.Errorf("ballot: %w", Malformed)
	}
	if len(w.Vote) == 32 {
		b.vote = &claimName{msp.PKIID(w.Vote), w.VoteTerm}
	}
	if len(w.Claim) == 0 {
		return b, nil, nil
	}
	s := new(wire.SignedClaim)
	if err := wire.Unmarshal(w.Claim, s); err != nil {
		return ballot{}, nil, fmt.Errorf("signed claim: %w", err)
	}
	return b, s, nil
}

// parse checks the form of a claim in the channel.
func parse(tag [32]byte, s *wire.SignedClaim) (*claim, error) {
	w := new(wire.Claim)
	if err := wire.Unmarshal(s.Claim, w); err != nil {
		return nil, fmt.Errorf("claim: %w", err)
	}
	if len(w.Tag) != 32 || len(w.PkiId) != 32 || len(s.Signature) > maxSignature || len(w.Orderer) > maxOrderer ||
		w.Act == wire.Claim_ACT_UNSPECIFIED || w.Term == 0 || w.Reach == uint32(cut) || w.Reach > uint32(able) ||
		(w.Act == wire.Claim_ACT_STANDING) != (w.Since == 0) || w.Sequence > 1<<62 || w.Since > 1<<62 {
		return nil, fmt.Errorf("claim: %w", Malformed)
	}
	if [32]byte(w.Tag) != tag {
		return nil, fmt.Errorf("claim: %w", WrongChannel)
	}
	raw, err := wire.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("claim: %w", err)
	}
	return &claim{
		id: msp.PKIID(w.PkiId), act: act(w.Act), term: w.Term, seq: w.Sequence, reach: reach(w.Reach), height: w.Height,
		since: w.Since, unfit: w.Unfit, orderer: w.Orderer, raw: raw,
	}, nil
}

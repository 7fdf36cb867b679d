package msp

import (
	"errors"
	"fmt"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
)

// SignedData is a signature with what it is over.
type SignedData struct {
	Creator   *Identity
	Data      [][]byte // joined, in this order
	Signature []byte
}

// A Policy decides whether a set of signatures is enough. Those made here are
// immutable and safe for concurrent use, and judge as the ledger judge.
type Policy interface {
	// Evaluate returns nil if sigs satisfy the policy. Invalid signatures and
	// those of strangers are dropped; each identity counts once, at its first
	// valid signature; the rest are matched greedily, in the order given, for
	// Fabric's peers do so and another matching would be another verdict.
	Evaluate(d Directory, sigs []SignedData) error
}

// Deny is the policy in the place of a missing one: it refuses everything, as
// [PolicyMissing].
var Deny Policy = deny{}

// An Unmet is the error of a policy that was not satisfied. It wraps
// [PolicyUnmet] and, for errors.Is, what was wrong with each signature or signer.
type Unmet struct {
	Policy string  // which, in words
	Causes []error // in the order of the signatures; empty if all were good and too few
}

// Error says which policy, and what was wrong with the first signature.
func (u *Unmet) Error() string {
	if len(u.Causes) == 0 {
		return fmt.Sprintf("%v: %s", PolicyUnmet, u.Policy)
	}
	return fmt.Sprintf("%v: %s (%v)", PolicyUnmet, u.Policy, u.Causes[0])
}

// Unwrap returns [PolicyUnmet] and the causes.
func (u *Unmet) Unwrap() []error { return append([]error{PolicyUnmet}, u.Causes...) }

// SatisfiedBy says whether id alone would satisfy p, its signature taken for
// granted: for those who have proved who they are in a handshake.
func SatisfiedBy(d Directory, p Policy, id *Identity) error {
	q, ok := p.(matcher)
	if !ok {
		return fmt.Errorf("policy of type %T takes signatures only: %w", p, BadPolicy)
	}
	m, ok := d[id.mspID]
	if !ok {
		return fmt.Errorf("identity of MSP %q: %w", id.mspID, UnknownMSP)
	}
	v := m.judge(id)
	if v.unknown != nil {
		return v.invalid
	}
	return q.match(&Ballot{voters: []voter{{m, v}}})
}

// A matcher is a policy over identities whose signatures have been verified.
type matcher interface{ match(*Ballot) error }

// A Ballot is the identities whose signatures over something hold, each once, in
// order: the costly part of judging a policy, done once for several policies. It
// is immutable and safe for concurrent use.
type Ballot struct {
	voters  []voter
	dropped []error
}

// Meets says whether those who signed satisfy p, as p's Evaluate would.
func (b *Ballot) Meets(p Policy) error {
	q, ok := p.(matcher)
	if !ok {
		return fmt.Errorf("policy of type %T takes signatures only: %w", p, BadPolicy)
	}
	return q.match(b)
}

type voter struct {
	m *MSP
	v *verdict
}

// Count verifies signatures (Fabric: SignatureSetToValidIdentities).
func Count(d Directory, sigs []SignedData) *Ballot {
	b := &Ballot{}
	type person struct {
		mspID string
		hash  [32]byte
	}
	seen := map[person]bool{}
	for _, s := range sigs {
		if s.Creator == nil {
			b.dropped = append(b.dropped, fmt.Errorf("signature of nobody: %w", BadIdentity))
			continue
		}
		m, ok := d[s.Creator.mspID]
		if !ok {
			b.dropped = append(b.dropped, fmt.Errorf("identity of MSP %q: %w", s.Creator.mspID, UnknownMSP))
			continue
		}
		v := m.judge(s.Creator)
		if v.unknown != nil {
			b.dropped = append(b.dropped, v.invalid)
			continue
		}
		who := person{m.id, v.hash}
		if seen[who] {
			continue // before its signature costs anything
		}
		if err := s.Creator.check(m.family, s.Signature, s.Data...); err != nil {
			b.dropped = append(b.dropped, err)
			continue
		}
		b.voters = append(b.voters, voter{m, v})
		seen[who] = true
	}
	return b
}

func (b *Ballot) unmet(policy string) error {
	u := &Unmet{Policy: policy, Causes: b.dropped[:len(b.dropped):len(b.dropped)]}
	for _, w := range b.voters {
		if w.v.invalid != nil {
			u.Causes = append(u.Causes, w.v.invalid)
		}
	}
	return u
}

type deny struct{}

func (deny) Evaluate(Directory, []SignedData) error { return PolicyMissing }
func (deny) match(*Ballot) error                    { return PolicyMissing }

// ImplicitMeta makes the policy that is satisfied if enough of the sub-groups'
// policies are: one, all, or more than half. A nil sub stands for a sub-group
// without such a policy: it counts, and is never satisfied. With no sub-groups at
// all it is satisfied by anything, an empty set of signatures too, as in Fabric;
// who can't live with that must refuse it. A rule that is none of the three is
// refused as [BadPolicy].
func ImplicitMeta(rule common.ImplicitMetaPolicy_Rule, subs []Policy) (Policy, error) {
	p := &meta{subs: make([]Policy, len(subs))}
	for i, s := range subs {
		if p.subs[i] = s; s == nil {
			p.subs[i] = Deny
		}
	}
	switch rule {
	case common.ImplicitMetaPolicy_ANY:
		p.need = min(1, len(subs))
	case common.ImplicitMetaPolicy_ALL:
		p.need = len(subs)
	case common.ImplicitMetaPolicy_MAJORITY:
		if len(subs) > 0 {
			p.need = len(subs)/2 + 1
		}
	default:
		return nil, fmt.Errorf("implicit meta policy with rule %d: %w", rule, BadPolicy)
	}
	return p, nil
}

type meta struct {
	need int
	subs []Policy
}

func (p *meta) Evaluate(d Directory, sigs []SignedData) error {
	b := Count(d, sigs)
	return p.ask(b, func(s Policy) error {
		if q, ok := s.(matcher); ok {
			return q.match(b)
		}
		return s.Evaluate(d, sigs)
	})
}

func (p *meta) match(b *Ballot) error {
	return p.ask(b, func(s Policy) error {
		if q, ok := s.(matcher); ok {
			return q.match(b)
		}
		return errors.ErrUnsupported
	})
}

func (p *meta) ask(b *Ballot, satisfied func(Policy) error) error {
	met := 0
	for _, s := range p.subs {
		if met >= p.need {
			break
		}
		if satisfied(s) == nil {
			met++
		}
	}
	if met < p.need {
		return b.unmet(fmt.Sprintf("%d of %d sub-policies satisfied, %d needed", met, len(p.subs), p.need))
	}
	return nil
}

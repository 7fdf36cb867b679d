package msp

import (
	"fmt"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
)

// SignaturePolicy compiles a signature policy: a tree of n-out-of gates over
// principals. Matching is Fabric's (common/cauthdsl): each leaf takes the first
// identity not yet taken that fits; a gate asks all its branches, also beyond n,
// and gives back what a failing branch took; n ≤ 0 always passes; there is no
// going back. A principal that can't be read never fits.
func SignaturePolicy(p *common.SignaturePolicyEnvelope) (Policy, error) {
	if p == nil {
		return nil, fmt.Errorf("no policy: %w", BadPolicy)
	}
	if p.Version != 0 {
		return nil, fmt.Errorf("signature policy of version %d: %w", p.Version, BadPolicy)
	}
	s := &tree{}
	for _, q := range p.Identities {
		s.principals = append(s.principals, compilePrincipal(q))
	}
	var err error
	if s.root, err = s.compile(p.Rule); err != nil {
		return nil, err
	}
	return s, nil
}

type tree struct {
	principals []principal
	root       node
}

// A node takes from voters those that it needs and are not taken.
type node func(voters []voter, taken []bool) bool

func (s *tree) Evaluate(d Directory, sigs []SignedData) error { return s.match(Count(d, sigs)) }

func (s *tree) match(b *Ballot) error {
	if s.root(b.voters, make([]bool, len(b.voters))) {
		return nil
	}
	return b.unmet(fmt.Sprintf("signature policy, %d signers", len(b.voters)))
}

func (s *tree) compile(r *common.SignaturePolicy) (node, error) {
	switch t := r.GetType().(type) {
	case *common.SignaturePolicy_SignedBy:
		if t.SignedBy < 0 || int(t.SignedBy) >= len(s.principals) {
			return nil, fmt.Errorf("signature policy names principal %d of %d: %w", t.SignedBy, len(s.principals), BadPolicy)
		}
		return signedBy(s.principals[t.SignedBy]), nil
	case *common.SignaturePolicy_NOutOf_:
		if t.NOutOf == nil {
			return nil, fmt.Errorf("signature policy with an empty gate: %w", BadPolicy)
		}
		branches := make([]node, len(t.NOutOf.Rules))
		for i, sub := range t.NOutOf.Rules {
			var err error
			if branches[i], err = s.compile(sub); err != nil {
				return nil, err
			}
		}
		return gate(int(t.NOutOf.N), branches), nil
	}
	return nil, fmt.Errorf("signature policy with an empty rule: %w", BadPolicy)
}

func signedBy(fits principal) node {
	return func(voters []voter, taken []bool) bool {
		for i, w := range voters {
			if !taken[i] && fits(w.m, w.v) == nil {
				taken[i] = true
				return true
			}
		}
		return false
	}
}

func gate(n int, branches []node) node {
	return func(voters []voter, taken []bool) bool {
		met, trial := 0, make([]bool, len(taken))
		for _, branch := range branches {
			copy(trial, taken)
			if branch(voters, trial) {
				met++
				copy(taken, trial)
			}
		}
		return met >= n
	}
}

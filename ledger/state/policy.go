package state

import (
	"errors"
	"fmt"
	"slices"

	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
)

// endorsed decides whether each transaction of a block has the endorsements that
// it needs (core/common/validation/statebased): for every namespace that it
// writes, and the invoked chaincode's, those of the chaincode, but for a key with
// a policy of its own those of the key, and for a collection with one those of
// the collection. A key whose policy an earlier transaction of the block changed,
// and whose endorsements sufficed for the key's namespace, can't be written any
// more in this block.
type endorsed struct {
	rules   *Rules
	get     func(Key) (*Entry, error)
	defs    *definitions
	changed map[Key]struct{} // keys whose policy a passing transaction of the block changed
}

// judge returns a transaction's verdict and takes note of the policies that it
// changes. The error is the view's, or Unjudged.
func (d *endorsed) judge(t *Tx) (Code, error) {
	written := []string{t.chaincode}
	byName := make(map[string]space)
	for s := range spaces(t.sets) {
		byName[s.name] = s
		if s.name != t.chaincode && s.writesAny() {
			written = append(written, s.name)
		}
	}
	// Fabric goes through them in no order; where two verdicts are possible, that
	// of the first name stands.
	slices.Sort(written)
	verdict := peer.TxValidationCode_VALID
	var unjudged error
	var passed []string
	for _, name := range written {
		code, err := d.namespace(t, name, byName[name])
		switch {
		case errors.Is(err, Unjudged):
			unjudged = err
		case err != nil:
			return 0, err
		case code == peer.TxValidationCode_VALID:
			passed = append(passed, name)
		case verdict == peer.TxValidationCode_VALID:
			verdict = code
		}
	}
	if verdict == peer.TxValidationCode_VALID && unjudged != nil {
		return 0, unjudged
	}
	for _, name := range passed {
		for k := range byName[name].policyChanges() {
			d.changed[k] = struct{}{}
		}
	}
	return verdict, nil
}

// namespace judges what t does in one namespace.
func (d *endorsed) namespace(t *Tx, name string, s space) (Code, error) {
	def, err := d.defs.of(name)
	switch {
	case err != nil:
		return 0, err
	case def == nil || def.plugin == "" || def.policy == nil:
		return peer.TxValidationCode_INVALID_CHAINCODE, nil
	case def.plugin != plugin:
		return 0, fmt.Errorf("the definition of chaincode %q names the validation plug-in %q: %w", name, def.plugin, Unjudged)
	}
	c := evaluation{d: d, def: def, t: t, asked: make(map[string]bool)}
	for k := range s.keys() {
		if ok, err := c.key(k); err != nil || !ok {
			return peer.TxValidationCode_ENDORSEMENT_POLICY_FAILURE, err
		}
	}
	if !c.some && t.signers.Meets(def.policy) != nil {
		return peer.TxValidationCode_ENDORSEMENT_POLICY_FAILURE, nil
	}
	return peer.TxValidationCode_VALID, nil
}

// An evaluation is that of one transaction in one namespace.
type evaluation struct {
	d     *endorsed
	def   *definition
	t     *Tx
	asked map[string]bool // by collection; "" is the chaincode's policy
	some  bool            // some policy was asked
}

// key asks the policy that a written key falls under.
func (c *evaluation) key(k Key) (bool, error) {
	if _, ok := c.d.changed[k]; ok {
		return false, nil
	}
	e, err := c.d.get(k)
	if err != nil {
		return false, err
	}
	if e != nil {
		if own := metadatum(e.Metadata, validationParameter); len(own) > 0 {
			if k.Collection != "" && c.def.modern {
				if _, ok := c.d.defs.collection(c.def, k.Collection); !ok {
					return false, nil
				}
			}
			if c.t.signers.Meets(c.d.rules.keyLevel(own)) != nil {
				return false, nil
			}
			c.some = true
			return true, nil
		}
	}
	return c.general(k.Collection), nil
}

// general asks the collection's policy or the chaincode's, each once.
func (c *evaluation) general(collection string) bool {
	policy, under := c.def.policy, ""
	if collection != "" {
		if c.asked[collection] {
			return true
		}
		own, ok := c.d.defs.collection(c.def, collection)
		if !ok {
			return false
		}
		if own != nil {
			policy, under = own, collection
		}
	}
	if !c.asked[under] && c.t.signers.Meets(policy) != nil {
		return false
	}
	c.asked[under], c.some = true, true
	return true
}

// writesAny reports whether a transaction writes to the namespace at all, values
// or metadata, public or hashed.
func (s space) writesAny() bool {
	for range s.keys() {
		return true
	}
	return false
}

// keys yields every key that is written, whose value or metadata.
func (s space) keys() func(func(Key) bool) {
	return func(yield func(Key) bool) {
		for w := range s.writes() {
			if !yield(Key{s.name, "", w.key}) {
				return
			}
		}
		for c := range s.collections() {
			for w := range c.writes() {
				if !yield(Key{s.name, c.name, w.key}) {
					return
				}
			}
		}
		for k := range s.policyChanges() {
			if !yield(k) {
				return
			}
		}
	}
}

// policyChanges yields the keys whose metadata is written.
func (s space) policyChanges() func(func(Key) bool) {
	return func(yield func(Key) bool) {
		for w := range s.metadataWrites() {
			if !yield(Key{s.name, "", w.key}) {
				return
			}
		}
		for c := range s.collections() {
			for w := range c.metadataWrites() {
				if !yield(Key{s.name, c.name, w.key}) {
					return
				}
			}
		}
	}
}

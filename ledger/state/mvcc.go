package state

import (
	"iter"
	"maps"
	"slices"

	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
)

// updates are what the valid transactions of a block, so far, make of the state
// (core/ledger/kvledger/txmgmt/validation).
type updates struct {
	number uint64 // of the block
	view   View
	// committed are the entries before the block that were asked for, nil for
	// absent ones.
	committed map[Key]*Entry
	// written are the entries since; those of deleted keys have no value, and the
	// version of the deletion.
	written map[Key]*Entry
	// public are the names of the public keys among them, by namespace: ranges
	// go over both.
	public map[string]map[string]struct{}
}

func newUpdates(number uint64, v View) *updates {
	return &updates{
		number: number, view: v,
		committed: make(map[Key]*Entry), written: make(map[Key]*Entry), public: make(map[string]map[string]struct{}),
	}
}

// before returns a key's entry before the block, or nil.
func (u *updates) before(k Key) (*Entry, error) {
	if e, ok := u.committed[k]; ok {
		return e, nil
	}
	e, err := u.view.Get(k)
	if err != nil {
		return nil, err
	}
	u.committed[k] = e
	return e, nil
}

// now returns a key's entry behind the transactions so far, or nil.
func (u *updates) now(k Key) (*Entry, error) {
	if e, ok := u.written[k]; ok {
		if e.Value == nil {
			return nil, nil
		}
		return e, nil
	}
	return u.before(k)
}

func (u *updates) set(k Key, e *Entry) {
	u.written[k] = e
	if k.Collection != "" {
		return
	}
	if u.public[k.Namespace] == nil {
		u.public[k.Namespace] = make(map[string]struct{})
	}
	u.public[k.Namespace][k.Key] = struct{}{}
}

// conflicts looks for what a transaction read and another changed since.
func (u *updates) conflicts(t *Tx) (Code, error) {
	for s := range spaces(t.sets) {
		for r := range s.reads() {
			if ok, err := u.stands(Key{s.name, "", r.key}, r.version); err != nil || !ok {
				return peer.TxValidationCode_MVCC_READ_CONFLICT, err
			}
		}
		for q := range s.ranges() {
			if ok, err := u.same(s.name, q); err != nil || !ok {
				return peer.TxValidationCode_PHANTOM_READ_CONFLICT, err
			}
		}
		for c := range s.collections() {
			for r := range c.reads() {
				if c.name == "" { // of no name, it holds nothing: see operations.collect
					if r.known {
						return peer.TxValidationCode_MVCC_READ_CONFLICT, nil
					}
					continue
				}
				if ok, err := u.stands(Key{s.name, c.name, r.key}, r.version); err != nil || !ok {
					return peer.TxValidationCode_MVCC_READ_CONFLICT, err
				}
			}
		}
	}
	return peer.TxValidationCode_VALID, nil
}

// stands reports whether a key still has the version that was read: none of the
// block's transactions wrote it, and none before since.
func (u *updates) stands(k Key, v version) (bool, error) {
	if _, ok := u.written[k]; ok {
		return false, nil
	}
	e, err := u.before(k)
	if err != nil {
		return false, err
	}
	if e == nil || !v.known {
		return e == nil && !v.known, nil
	}
	return e.Block == v.block && e.Tx == v.tx, nil
}

// scan yields a range of public keys as it is now, like a query of a chaincode:
// with the end itself if the query stopped there.
func (u *updates) scan(namespace string, q rangeQuery) iter.Seq2[Found, error] {
	return func(yield func(Found, error) bool) {
		recent := slices.Sorted(maps.Keys(u.public[namespace]))
		recent = slices.DeleteFunc(recent, func(k string) bool { return k < q.from || q.to != "" && k >= q.to })
		// show yields a recent key, if it wasn't deleted.
		show := func(k string) bool {
			e := u.written[Key{namespace, "", k}]
			return e.Value == nil || yield(Found{k, e.Block, e.Tx}, nil)
		}
		for f, err := range u.view.Range(namespace, q.from, q.to) {
			if err != nil {
				yield(Found{}, err)
				return
			}
			for len(recent) > 0 && recent[0] < f.Key {
				if !show(recent[0]) {
					return
				}
				recent = recent[1:]
			}
			if len(recent) > 0 && recent[0] == f.Key {
				if !show(recent[0]) {
					return
				}
				recent = recent[1:]
				continue
			}
			if !yield(f, nil) {
				return
			}
		}
		for _, k := range recent {
			if !show(k) {
				return
			}
		}
		if q.exhausted {
			return
		}
		switch e, err := u.now(Key{namespace, "", q.to}); {
		case err != nil:
			yield(Found{}, err)
		case e != nil:
			yield(Found{q.to, e.Block, e.Tx}, nil)
		}
	}
}

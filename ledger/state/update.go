package state

import (
	"crypto/sha256"
	"maps"
	"slices"

	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"google.golang.org/protobuf/encoding/protowire"
)

// What a transaction does to one key, as Fabric adds it up
// (core/ledger/kvledger/txmgmt/validation/tx_ops.go). It adds flags where one
// would join them, so that a key written twice in one set carries the flag of
// another act: two values look like metadata alone, which keeps the committed
// value; two deletions look like nothing. That is the state that its peers have,
// so it is done here to the same effect. No chaincode of Fabric's makes such a
// set.
type operation struct {
	flags    uint8
	value    []byte
	metadata []byte
}

const (
	putsValue uint8 = 1 << iota
	putsMetadata
	dropsMetadata
	dropsKey
)

func (o *operation) deletes() bool { return o.flags&dropsKey != 0 }

// whole reports whether value and metadata are both given.
func (o *operation) whole() bool {
	return o.flags&putsValue != 0 && o.flags&(putsMetadata|dropsMetadata) != 0
}

type operations map[Key]*operation

func (ops operations) at(k Key) *operation {
	o := ops[k]
	if o == nil {
		o = &operation{}
		ops[k] = o
	}
	return o
}

func (ops operations) put(k Key, w write, deletes bool) {
	o := ops.at(k)
	if deletes {
		o.flags += dropsKey
		return
	}
	o.flags += putsValue
	o.value = w.value
}

func (ops operations) describe(k Key, w metadataWrite) {
	entries := make(map[string][]byte)
	for name, value := range w.all() {
		entries[name] = value
	}
	o := ops.at(k)
	if len(entries) == 0 {
		o.flags += dropsMetadata
		return
	}
	o.flags += putsMetadata
	o.metadata = nil
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		o.metadata = protowire.AppendString(o.metadata, name)
		o.metadata = protowire.AppendBytes(o.metadata, entries[name])
	}
}

// collect adds up what a transaction writes in a namespace. Hashed writes of a
// collection without a name fall to the public keys, as they do in Fabric.
func (ops operations) collect(s space) {
	for w := range s.writes() {
		ops.put(Key{s.name, "", w.key}, w, w.delete || len(w.value) == 0)
	}
	for w := range s.metadataWrites() {
		ops.describe(Key{s.name, "", w.key}, w)
	}
	for c := range s.collections() {
		for w := range c.writes() {
			ops.put(Key{s.name, c.name, w.key}, w, w.delete || len(w.value) == 0 || string(w.value) == string(hashOfNothing[:]))
		}
		for w := range c.metadataWrites() {
			ops.describe(Key{s.name, c.name, w.key}, w)
		}
	}
}

// hashOfNothing is the hash of a private value that deletes.
var hashOfNothing = sha256.Sum256(nil)

// apply makes a valid transaction's writes, under its version. A value keeps the
// metadata there was, metadata keeps the value, and metadata for a key that isn't
// there does nothing.
func (u *updates) apply(t *Tx, index uint64) error {
	ops := make(operations)
	for s := range spaces(t.sets) {
		ops.collect(s)
	}
	for k, o := range ops {
		if o.deletes() {
			u.set(k, &Entry{Block: u.number, Tx: index})
			continue
		}
		e := &Entry{Block: u.number, Tx: index, Value: o.value, Metadata: o.metadata}
		if !o.whole() {
			last, err := u.now(k)
			switch {
			case err != nil:
				return err
			case o.flags&^putsValue == 0:
				if last != nil {
					e.Metadata = last.Metadata
				}
			case last == nil:
				continue
			default:
				e.Value = last.Value
			}
		}
		u.set(k, e)
	}
	return nil
}

// touches lists the public keys that a transaction writes, once each, sorted: the
// history of a key knows them by their last act in the set.
func touches(t *Tx, index uint64) []Touch {
	acts := make(map[Key]bool)
	for s := range spaces(t.sets) {
		for w := range s.writes() {
			acts[Key{s.name, "", w.key}] = w.delete || len(w.value) == 0
		}
	}
	list := make([]Touch, 0, len(acts))
	for _, k := range slices.SortedFunc(maps.Keys(acts), Key.compare) {
		list = append(list, Touch{Namespace: k.Namespace, Key: k.Key, Tx: index, Deleted: acts[k]})
	}
	return list
}

// Written returns what a valid transaction wrote to a public key, nil if it
// didn't, or deleted it.
func Written(entry []byte, namespace, key string) []byte {
	var e envelope
	if walk(entry, func(f field) bool {
		if f.is(1) {
			e.payload = f.bytes
		}
		return true
	}) != nil {
		return nil
	}
	p, err := readPayload(e.payload)
	if err != nil {
		return nil
	}
	h, _, ok := p.read()
	if !ok {
		return nil
	}
	a, err := readAction(p)
	if err != nil {
		return nil
	}
	t := &Tx{}
	if t.readResponse(h, a) != peer.TxValidationCode_VALID {
		return nil
	}
	var value []byte
	for s := range spaces(t.sets) {
		for w := range s.writes() {
			if s.name == namespace && w.key == key {
				value = w.value
			}
		}
	}
	return value
}

package state

import (
	"fmt"
	"slices"

	"github.com/hyperledger/fabric-protos-go-apiv2/ledger/rwset/kvrwset"
	"google.golang.org/protobuf/proto"
)

// ResultsOf returns the set of an endorser transaction, or nil.
func ResultsOf(entry []byte) []byte { return Prepare(&Rules{}, entry).sets }

// Sets is a set as generated code reads it.
type Sets struct{ All []SetOf }

type SetOf struct {
	Name        string
	Public      *kvrwset.KVRWSet
	Collections []CollectionOf
}

type CollectionOf struct {
	Name   string
	Hashed *kvrwset.HashedRWSet
}

// ReadSets reads a set with the readers in place.
func ReadSets(raw []byte) (*Sets, error) {
	if err := checkSets(raw); err != nil {
		return nil, err
	}
	out := &Sets{}
	for s := range spaces(raw) {
		set := SetOf{Name: s.name, Public: &kvrwset.KVRWSet{}}
		for r := range s.reads() {
			set.Public.Reads = append(set.Public.Reads, r.proto())
		}
		for q := range s.ranges() {
			set.Public.RangeQueriesInfo = append(set.Public.RangeQueriesInfo, q.proto())
		}
		for w := range s.writes() {
			set.Public.Writes = append(set.Public.Writes, &kvrwset.KVWrite{Key: w.key, IsDelete: w.delete, Value: w.value})
		}
		for w := range s.metadataWrites() {
			set.Public.MetadataWrites = append(set.Public.MetadataWrites, &kvrwset.KVMetadataWrite{Key: w.key, Entries: w.proto()})
		}
		for c := range s.collections() {
			h := &kvrwset.HashedRWSet{}
			for r := range c.reads() {
				p := r.proto()
				h.HashedReads = append(h.HashedReads, &kvrwset.KVReadHash{KeyHash: []byte(p.Key), Version: p.Version})
			}
			for w := range c.writes() {
				h.HashedWrites = append(h.HashedWrites, &kvrwset.KVWriteHash{KeyHash: []byte(w.key), IsDelete: w.delete, ValueHash: w.value})
			}
			for w := range c.metadataWrites() {
				h.MetadataWrites = append(h.MetadataWrites, &kvrwset.KVMetadataWriteHash{KeyHash: []byte(w.key), Entries: w.proto()})
			}
			set.Collections = append(set.Collections, CollectionOf{c.name, h})
		}
		out.All = append(out.All, set)
	}
	return out, nil
}

func (r read) proto() *kvrwset.KVRead {
	p := &kvrwset.KVRead{Key: r.key}
	if r.known {
		p.Version = &kvrwset.Version{BlockNum: r.block, TxNum: r.tx}
	}
	return p
}

func (q rangeQuery) proto() *kvrwset.RangeQueryInfo {
	p := &kvrwset.RangeQueryInfo{StartKey: q.from, EndKey: q.to, ItrExhausted: q.exhausted}
	switch {
	case q.merkle != nil:
		m := &kvrwset.QueryReadsMerkleSummary{}
		if err := proto.Unmarshal(q.merkle, m); err != nil {
			panic(fmt.Sprintf("checked, and yet: %v", err))
		}
		p.ReadsInfo = &kvrwset.RangeQueryInfo_ReadsMerkleHashes{ReadsMerkleHashes: m}
	case q.reads != nil:
		reads := &kvrwset.QueryReads{}
		for r := range messages(q.reads, 1, readOf) {
			reads.KvReads = append(reads.KvReads, r.proto())
		}
		p.ReadsInfo = &kvrwset.RangeQueryInfo_RawReads{RawReads: reads}
	}
	return p
}

func (w metadataWrite) proto() (list []*kvrwset.KVMetadataEntry) {
	for name, value := range w.all() {
		list = append(list, &kvrwset.KVMetadataEntry{Name: name, Value: value})
	}
	return list
}

// EqualSets compares what two readers read: unknown fields and what isn't asked
// for (IsPurge) aside.
func EqualSets(a, b *Sets) bool {
	plain := func(m proto.Message) []byte {
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil {
			panic(err)
		}
		clone := m.ProtoReflect().New().Interface()
		if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(b, clone); err != nil {
			panic(err)
		}
		if h, ok := clone.(*kvrwset.HashedRWSet); ok {
			for _, w := range h.HashedWrites {
				w.IsPurge = false
			}
		}
		if b, err = (proto.MarshalOptions{Deterministic: true}).Marshal(clone); err != nil {
			panic(err)
		}
		return b
	}
	return slices.EqualFunc(a.All, b.All, func(x, y SetOf) bool {
		return x.Name == y.Name && string(plain(x.Public)) == string(plain(y.Public)) &&
			slices.EqualFunc(x.Collections, y.Collections, func(c, d CollectionOf) bool {
				return c.Name == d.Name && string(plain(c.Hashed)) == string(plain(d.Hashed))
			})
	})
}

// Parse reads a payload as Prepare does behind the creator's signature.
func Parse(raw []byte) Code {
	p, err := readPayload(raw)
	if err != nil {
		return -1
	}
	channel, _, ok := p.read()
	if !ok {
		return -1
	}
	a, err := readAction(p)
	if err != nil {
		return -1
	}
	t := &Tx{}
	code := t.readResponse(channel, a)
	a.signatures(&Rules{})
	return code
}

package state

import (
	"cmp"
	"crypto/sha256"
	"maps"
	"math/bits"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// compare orders keys by namespace, collection and key, in the order of bytes.
func (k Key) compare(o Key) int {
	return cmp.Or(cmp.Compare(k.Namespace, o.Namespace), cmp.Compare(k.Collection, o.Collection), cmp.Compare(k.Key, o.Key))
}

// commitHash chains what a block made of the state, as Fabric's peers write it
// into slot 4 of a block's metadata (core/ledger/kvledger/kv_ledger.go):
// SHA-256(uvarint(number of codes) ‖ codes ‖ updates ‖ previous). It begins at
// block 1, behind nothing.
func commitHash(previous, codes []byte, u *updates) []byte {
	h := sha256.New()
	h.Write(protowire.AppendVarint(nil, uint64(len(codes))))
	h.Write(codes)
	h.Write(u.marshal())
	h.Write(previous)
	return h.Sum(nil)
}

// marshal gives the updates in their one order, as
// core/ledger/kvledger/txmgmt/privacyenabledstate/update_batch_bytes.go does: a
// message of messages {1 namespace, 2 collection, 3 key, 4 deleted, 5 value,
// 6 version}. A namespace or collection is named at its first key alone; that of
// the configuration, "", is left out.
func (u *updates) marshal() []byte {
	var out []byte
	var last Key
	for _, k := range u.sorted() {
		if k.Namespace == "" {
			continue
		}
		fresh := k.Namespace != last.Namespace
		var m []byte
		if fresh {
			m = appendText(m, 1, k.Namespace)
		}
		if fresh || k.Collection != last.Collection {
			m = appendText(m, 2, k.Collection)
		}
		m = appendText(m, 3, k.Key)
		e := u.written[k]
		if e.Value == nil {
			m = append(m, 4<<3|byte(protowire.VarintType), 1)
		} else {
			m = protowire.AppendBytes(protowire.AppendTag(m, 5, protowire.BytesType), e.Value)
		}
		m = protowire.AppendBytes(protowire.AppendTag(m, 6, protowire.BytesType), appendOrdered(appendOrdered(nil, e.Block), e.Tx))
		out = protowire.AppendBytes(protowire.AppendTag(out, 1, protowire.BytesType), m)
		last = k
	}
	return out
}

func (u *updates) sorted() []Key { return slices.SortedFunc(maps.Keys(u.written), Key.compare) }

// appendText appends a field that is left out when empty.
func appendText(dst []byte, num protowire.Number, v string) []byte {
	if v == "" {
		return dst
	}
	return protowire.AppendString(protowire.AppendTag(dst, num, protowire.BytesType), v)
}

// appendOrdered appends a number as the count of its bytes and its bytes, high
// ones first (common/ledger/util: EncodeOrderPreservingVarUint64).
func appendOrdered(dst []byte, n uint64) []byte {
	size := (bits.Len64(n) + 7) / 8
	dst = append(dst, byte(size))
	for i := size - 1; i >= 0; i-- {
		dst = append(dst, byte(n>>(8*i)))
	}
	return dst
}

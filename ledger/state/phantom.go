package state

import (
	"bytes"
	"crypto/sha256"
	"iter"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// same reports whether a range query would find the same keys in the same
// versions again.
func (u *updates) same(namespace string, q rangeQuery) (bool, error) {
	if q.merkle != nil {
		return sameSummary(u.scan(namespace, q), q.merkle)
	}
	next, stop := iter.Pull(messages(q.reads, 1, readOf))
	defer stop()
	for f, err := range u.scan(namespace, q) {
		if err != nil {
			return false, err
		}
		r, more := next()
		if !more || r.key != f.Key || !r.known || r.block != f.Block || r.tx != f.Tx {
			return false, nil
		}
	}
	_, more := next()
	return !more, nil
}

// A summary stands for what a long range query found
// (core/ledger/kvledger/txmgmt/rwsetutil/query_results_helper.go): reads in
// bundles of degree+1 are hashed to leaves, leaves in bundles of degree+1 to the
// nodes of the next level, and so on; at the end what is left over on each level
// goes up.
type summary struct {
	degree, level uint64
	hashes        [][]byte // of the highest level
}

// sameSummary reports whether what found yields has this summary. A degree below
// 2, over which a Fabric peer stumbles, fits nothing.
func sameSummary(found iter.Seq2[Found, error], raw []byte) (bool, error) {
	var want summary
	each(raw, func(f field) {
		switch {
		case f.counts(1):
			want.degree = uint64(uint32(f.number))
		case f.counts(2):
			want.level = uint64(uint32(f.number))
		case f.is(3):
			want.hashes = append(want.hashes, f.bytes)
		}
	})
	if want.degree < 2 {
		return false, nil
	}
	t := tree{degree: want.degree, levels: [][][]byte{nil}}
	for f, err := range found {
		if err != nil {
			return false, err
		}
		t.add(f)
	}
	got, ok := t.summary()
	return ok && got.level == want.level && slices.EqualFunc(got.hashes, want.hashes, bytes.Equal), nil
}

// A tree is a summary under construction. Hashed away below, its levels hold at
// most degree hashes each.
type tree struct {
	degree  uint64
	pending []byte // marshalled reads of the next leaf
	count   uint64 // of them
	levels  [][][]byte
}

func (t *tree) add(f Found) {
	var v []byte
	if f.Block > 0 {
		v = protowire.AppendVarint(protowire.AppendTag(v, 1, protowire.VarintType), f.Block)
	}
	if f.Tx > 0 {
		v = protowire.AppendVarint(protowire.AppendTag(v, 2, protowire.VarintType), f.Tx)
	}
	var r []byte
	if f.Key != "" {
		r = protowire.AppendString(protowire.AppendTag(r, 1, protowire.BytesType), f.Key)
	}
	r = protowire.AppendBytes(protowire.AppendTag(r, 2, protowire.BytesType), v)
	t.pending = protowire.AppendBytes(protowire.AppendTag(t.pending, 1, protowire.BytesType), r)
	if t.count++; t.count > t.degree {
		t.leaf()
	}
}

// leaf hashes the pending reads, and full levels into the next one.
func (t *tree) leaf() {
	h := sha256.Sum256(t.pending)
	t.pending, t.count = nil, 0
	t.levels[0] = append(t.levels[0], h[:])
	for i := 0; uint64(len(t.levels[i])) > t.degree; i++ {
		if i+1 == len(t.levels) {
			t.levels = append(t.levels, nil)
		}
		t.levels[i+1] = append(t.levels[i+1], join(t.levels[i]))
		t.levels[i] = nil
	}
}

// summary completes the tree. Of reads that don't fill one bundle there is none.
func (t *tree) summary() (summary, bool) {
	top := len(t.levels) - 1
	if top == 0 && len(t.levels[0]) == 0 {
		return summary{}, false
	}
	if t.count > 0 {
		t.leaf()
		top = len(t.levels) - 1
	}
	for i := range top {
		switch n := len(t.levels[i]); n {
		case 0:
		case 1:
			t.levels[i+1] = append(t.levels[i+1], t.levels[i][0])
		default:
			t.levels[i+1] = append(t.levels[i+1], join(t.levels[i]))
		}
	}
	hashes := t.levels[top]
	if uint64(len(hashes)) > t.degree {
		return summary{level: uint64(top) + 2, hashes: [][]byte{join(hashes)}}, true
	}
	return summary{level: uint64(top) + 1, hashes: hashes}, true
}

func join(hashes [][]byte) []byte {
	h := sha256.New()
	for _, b := range hashes {
		h.Write(b)
	}
	return h.Sum(nil)
}

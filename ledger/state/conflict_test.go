package state_test

import (
	"crypto/sha256"
	"fmt"
	"testing"

	"github.com/hyperledger/fabric-protos-go-apiv2/ledger/rwset/kvrwset"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"grapevine/block/tx"
	"grapevine/ledger/state"
)

// at reads keys in the versions they have.
func (p *play) at(keys ...string) (reads []*kvrwset.KVRead) {
	for _, k := range keys {
		reads = append(reads, &kvrwset.KVRead{Key: k, Version: p.version(k)})
	}
	return reads
}

// incr reads and writes a key.
func (p *play) incr(key, value string) []byte {
	return p.call("cc", p.set(&kvrwset.KVRWSet{
		Reads: p.at(key), Writes: []*kvrwset.KVWrite{{Key: key, Value: []byte(value)}},
	}), "A", "B")
}

func TestReadConflicts(t *testing.T) {
	p := newPlay(t)
	p.block(p.incr("k", "1"), p.incr("k", "2"), p.incr("l", "1")).gives(0, 11, 0)
	old := p.incr("k", "old")
	p.block(p.call("cc", p.put("k", "3"), "A", "B")).gives(0)
	require.Equal(t, "3", p.value("k"))
	p.block(old, p.incr("k", "4"), p.call("cc", p.put("k", "5"), "A", "B")).gives(11, 0, 0)
	require.Equal(t, "5", p.value("k"))
	// A deletion conflicts in its block and behind it; what was absent must be.
	del := p.call("cc", p.put("k", ""), "A", "B")
	late := p.incr("k", "6")
	p.block(del, late).gives(0, 11)
	p.block(p.incr("k", "7")).gives(0)
	absent := p.call("cc", p.set(&kvrwset.KVRWSet{Reads: []*kvrwset.KVRead{{Key: "k"}}}), "A", "B")
	p.block(absent).gives(11)
	// What isn't valid conflicts with nobody.
	p.block(p.call("cc", p.put("k", "8"), "A"), p.incr("k", "9")).gives(10, 0)
}

// query is a range of cc as a chaincode would have seen it.
func (p *play) query(from, to string, exhausted bool, keys ...string) []byte {
	return p.call("cc", p.set(&kvrwset.KVRWSet{RangeQueriesInfo: []*kvrwset.RangeQueryInfo{{
		StartKey: from, EndKey: to, ItrExhausted: exhausted,
		ReadsInfo: &kvrwset.RangeQueryInfo_RawReads{RawReads: &kvrwset.QueryReads{KvReads: p.at(keys...)}},
	}}}), "A", "B")
}

func TestPhantoms(t *testing.T) {
	p := newPlay(t)
	p.block(p.call("cc", p.put("b", "1", "d", "1", "f", "1"), "A", "B")).gives(0)
	p.block(
		p.query("b", "f", true, "b", "d"), p.query("", "", true, "b", "d", "f"), p.query("a", "e", true, "b", "d"),
		p.query("b", "d", false, "b", "d"), // stopped at d, which it saw
		p.query("b", "d", false, "b"), p.query("b", "f", true, "b"), p.query("b", "f", true, "b", "d", "f"),
		p.query("g", "", true), p.query("d", "b", true), p.query("b", "f", true, "d", "b"),
	).gives(0, 0, 0, 0, 12, 12, 12, 0, 0, 12)
	stale := p.query("b", "f", true, "b", "d")
	p.block(p.call("cc", p.put("c", "1"), "A", "B"), stale, p.query("d", "f", true, "d")).gives(0, 12, 0)
	stale = p.query("b", "f", true, "b", "c", "d")
	p.block(stale, p.call("cc", p.put("c", "2"), "A", "B"), stale, p.query("d", "", true, "d", "f")).gives(0, 0, 9, 0)
	p.block(p.query("b", "f", true, "b", "c", "d"), p.call("cc", p.put("d", "", "e", "1"), "A", "B"),
		p.query("b", "d", false, "b", "c", "d"), // deleted in the block
		p.query("d", "f", true, "d"), p.query("f", "", true, "f"),
	).gives(0, 0, 12, 12, 0)
	p.block(p.call("cc", p.set(&kvrwset.KVRWSet{RangeQueriesInfo: []*kvrwset.RangeQueryInfo{{
		StartKey: "b", EndKey: "d", ItrExhausted: true,
		ReadsInfo: &kvrwset.RangeQueryInfo_RawReads{RawReads: &kvrwset.QueryReads{KvReads: []*kvrwset.KVRead{{Key: "b"}, {Key: "c"}}}},
	}}}), "A", "B")).gives(12) // versions missing
}

// merkle summarises reads from the front, as the text of Fabric's rule says; the
// product builds its tree as results come.
func merkle(degree int, reads []*kvrwset.KVRead) *kvrwset.QueryReadsMerkleSummary {
	type node struct {
		level int
		hash  []byte
	}
	var stack []node // levels fall towards the end
	push := func(n node) {
		stack = append(stack, n)
		for {
			same := 0
			for i := len(stack) - 1; i >= 0 && stack[i].level == stack[len(stack)-1].level; i-- {
				same++
			}
			if same <= degree {
				return
			}
			h := sha256.New()
			level := stack[len(stack)-1].level
			for _, x := range stack[len(stack)-same:] {
				h.Write(x.hash)
			}
			stack = append(stack[:len(stack)-same], node{level + 1, h.Sum(nil)})
		}
	}
	leaf := func(some []*kvrwset.KVRead) {
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(&kvrwset.QueryReads{KvReads: some})
		if err != nil {
			panic(err)
		}
		h := sha256.Sum256(b)
		push(node{1, h[:]})
	}
	if len(reads) <= degree {
		return nil
	}
	for len(reads) > degree {
		leaf(reads[:degree+1])
		reads = reads[degree+1:]
	}
	if len(reads) > 0 {
		leaf(reads)
	}
	top := stack[0].level
	for level := 1; level < top; level++ {
		var up []node
		var rest []node
		for _, x := range stack {
			if x.level == level {
				up = append(up, x)
			} else {
				rest = append(rest, x)
			}
		}
		switch len(up) {
		case 0:
			continue
		case 1:
			stack = append(rest, node{level + 1, up[0].hash})
		default:
			h := sha256.New()
			for _, x := range up {
				h.Write(x.hash)
			}
			stack = append(rest, node{level + 1, h.Sum(nil)})
		}
	}
	if len(stack) > degree {
		h := sha256.New()
		for _, x := range stack {
			h.Write(x.hash)
		}
		stack = []node{{top + 1, h.Sum(nil)}}
		top++
	}
	m := &kvrwset.QueryReadsMerkleSummary{MaxDegree: uint32(degree), MaxLevel: uint32(top)}
	for _, x := range stack {
		m.MaxLevelHashes = append(m.MaxLevelHashes, x.hash)
	}
	return m
}

func TestMerkleSummaries(t *testing.T) {
	p := newPlay(t)
	summed := func(from, to string, m *kvrwset.QueryReadsMerkleSummary) []byte {
		return p.call("cc", p.set(&kvrwset.KVRWSet{RangeQueriesInfo: []*kvrwset.RangeQueryInfo{{
			StartKey: from, EndKey: to, ItrExhausted: true, ReadsInfo: &kvrwset.RangeQueryInfo_ReadsMerkleHashes{ReadsMerkleHashes: m},
		}}}), "A", "B")
	}
	var keys, kv []string
	for i := range 60 {
		keys = append(keys, fmt.Sprintf("k%02d", i))
		kv = append(kv, keys[i], "v")
	}
	p.block(p.call("cc", p.put(kv...), "A", "B")).gives(0)
	for _, degree := range []int{2, 3, 5} {
		for n := degree + 1; n < len(keys); n++ {
			right := summed("k00", keys[n], merkle(degree, p.at(keys[:n]...)))
			less := summed("k00", keys[n-1], merkle(degree, p.at(keys[:n]...)))
			p.block(right, less).gives(0, 12)
		}
	}
	few := merkle(2, p.at(keys[:3]...))
	p.block(
		summed("k00", "k02", few), summed("k00", "k03", few), // two reads have no summary
		summed("k00", "k01", &kvrwset.QueryReadsMerkleSummary{MaxDegree: 2}), // nor is nothing one
		summed("k00", "k03", &kvrwset.QueryReadsMerkleSummary{MaxDegree: 1, MaxLevel: few.MaxLevel, MaxLevelHashes: few.MaxLevelHashes}),
		p.call("cc", p.put("k015", "new"), "A", "B"), summed("k00", "k03", few),
	).gives(12, 0, 12, 12, 0, 12)
}

// hashed is what a transaction does in a collection.
func (p *play) hashed(name string, h *kvrwset.HashedRWSet, endorsers ...string) []byte {
	return p.call("cc", p.set(&kvrwset.KVRWSet{}, coll(p.t, name, h)), endorsers...)
}

func sum(s string) []byte {
	h := sha256.Sum256([]byte(s))
	return h[:]
}

func hashedPut(key, value string) *kvrwset.HashedRWSet {
	return &kvrwset.HashedRWSet{HashedWrites: []*kvrwset.KVWriteHash{{KeyHash: sum(key), ValueHash: sum(value), IsDelete: value == ""}}}
}

// Hashes of private data conflict, are guarded and expire as Fabric's do.
func TestCollections(t *testing.T) {
	p := newPlay(t)
	p.block(p.call(tx.Lifecycle, p.define("cc", reference("/Channel/Application/Endorsement"), "vscc",
		&peer.StaticCollectionConfig{Name: "open"},
		&peer.StaticCollectionConfig{Name: "ofC", EndorsementPolicy: signedBy(nOutOf(1, "C"))},
		&peer.StaticCollectionConfig{Name: "brief", BlockToLive: 2},
	), "A", "B")).gives(0)
	at := func(name, key string) *state.Entry {
		return p.entries[state.Key{Namespace: "cc", Collection: name, Key: string(sum(key))}]
	}
	read := func(name, key string) *kvrwset.HashedRWSet {
		r := &kvrwset.KVReadHash{KeyHash: sum(key)}
		if e := at(name, key); e != nil {
			r.Version = &kvrwset.Version{BlockNum: e.Block, TxNum: e.Tx}
		}
		return &kvrwset.HashedRWSet{HashedReads: []*kvrwset.KVReadHash{r}}
	}
	out := p.block(
		p.hashed("open", hashedPut("k", "1"), "A"), p.hashed("open", hashedPut("k", "1"), "A", "B"),
		p.hashed("ofC", hashedPut("k", "1"), "A", "B"), p.hashed("ofC", hashedPut("k", "1"), "C"),
		p.hashed("unknown", hashedPut("k", "1"), "A", "B"),
		p.hashed("_implicit_org_A", hashedPut("k", "1"), "A"), p.hashed("_implicit_org_A", hashedPut("k", "1"), "B"),
		p.hashed("_implicit_org_B", hashedPut("k", "1"), "B"), // no policy in the configuration: any member
		p.hashed("_implicit_org_Z", hashedPut("k", "1"), "A", "B"),
	).gives(10, 0, 10, 0, 10, 0, 10, 0, 10)
	require.Len(t, out.Writes, 4)
	require.Empty(t, out.Touches, "the history is that of public keys")

	stale := p.hashed("open", read("open", "k"), "A", "B")
	p.block(p.hashed("open", read("open", "k"), "A", "B"), p.hashed("open", hashedPut("k", "2"), "A", "B"), stale).gives(0, 0, 11)
	p.block(stale, p.hashed("open", hashedPut("k", ""), "A", "B")).gives(9, 0)
	require.Nil(t, at("open", "k"))
	nothing := &kvrwset.HashedRWSet{HashedWrites: []*kvrwset.KVWriteHash{{KeyHash: sum("k"), ValueHash: sum("")}}}
	p.block(p.hashed("ofC", nothing, "C"), p.hashed("", read("", "k"), "A", "B")).gives(0, 0)
	require.Nil(t, at("ofC", "k"), "the hash of nothing deletes")

	// A hashed key's own policy.
	guard := &kvrwset.HashedRWSet{MetadataWrites: []*kvrwset.KVMetadataWriteHash{{
		KeyHash: sum("g"), Entries: []*kvrwset.KVMetadataEntry{{Name: "VALIDATION_PARAMETER", Value: marshal(t, nOutOf(1, "C"))}},
	}}}
	p.block(p.hashed("open", hashedPut("g", "1"), "A", "B")).gives(0)
	p.block(p.hashed("open", guard, "A", "B"), p.hashed("open", hashedPut("g", "2"), "A", "B")).gives(0, 10)
	p.block(p.hashed("open", hashedPut("g", "2"), "A", "B"), p.hashed("open", hashedPut("g", "3"), "C")).gives(10, 0)

	// Written at n, gone at n+3, unless written since.
	out = p.block(p.hashed("brief", hashedPut("x", "1"), "A", "B"), p.hashed("brief", hashedPut("y", "1"), "A", "B")).gives(0, 0)
	written := p.height - 1
	require.Len(t, out.Schedule, 2)
	require.Equal(t, written+3, out.Schedule[0].At)
	p.block(p.hashed("brief", hashedPut("y", "2"), "A", "B")).gives(0)
	p.block(p.call("cc", p.put(), "A", "B")).gives(0)
	require.NotNil(t, at("brief", "x"))
	// In the block of its end a key is still there to be read.
	out = p.block(p.hashed("brief", read("brief", "x"), "A", "B")).gives(0)
	require.Equal(t, written+3, p.height-1)
	require.Nil(t, at("brief", "x"))
	require.NotNil(t, at("brief", "y"))
	require.Len(t, out.Writes, 1)
	p.block(p.hashed("brief", hashedPut("y", "3"), "A", "B")).gives(0)
	require.NotNil(t, at("brief", "y"), "written in the block of its end")
}

// A set that no chaincode makes: what Fabric's sums of flags come to.
func TestOddSets(t *testing.T) {
	write := func(values ...string) *kvrwset.KVRWSet {
		s := &kvrwset.KVRWSet{}
		for _, v := range values {
			s.Writes = append(s.Writes, &kvrwset.KVWrite{Key: "k", Value: []byte(v)})
		}
		return s
	}
	for _, c := range []struct {
		name    string
		values  []string
		present bool
		want    string
	}{
		{"two values of an absent key are metadata for nothing", []string{"1", "2"}, false, ""},
		{"two values of a present key keep the committed one", []string{"1", "2"}, true, "0"},
		{"three values are a value and metadata", []string{"1", "2", "3"}, true, "3"},
		{"a value and a deletion delete", []string{"1", ""}, true, ""},
		{"two deletions keep the committed value", []string{"", ""}, true, "0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPlay(t)
			if c.present {
				p.block(p.call("cc", p.put("k", "0"), "A", "B")).gives(0)
			}
			p.block(p.call("cc", p.set(write(c.values...)), "A", "B")).gives(0)
			require.Equal(t, c.want, p.value("k"))
		})
	}
	// Hashed writes of a collection without a name are public ones.
	p := newPlay(t)
	p.block(p.hashed("", &kvrwset.HashedRWSet{HashedWrites: []*kvrwset.KVWriteHash{{KeyHash: []byte("k"), ValueHash: []byte("v")}}}, "A", "B")).gives(0)
	require.Equal(t, "v", p.value("k"))
}

// History knows every valid write of a public key, in order.
func TestTouches(t *testing.T) {
	p := newPlay(t)
	out := p.block(p.call("cc", p.put("b", "1", "a", "1"), "A", "B"), p.call("cc", p.put("c", "1"), "A"), p.call("cc", p.put("a", ""), "A", "B")).gives(0, 10, 0)
	require.Equal(t, []state.Touch{
		{Namespace: "cc", Key: "a"}, {Namespace: "cc", Key: "b"}, {Namespace: "cc", Key: "a", Tx: 2, Deleted: true},
	}, out.Touches)
}

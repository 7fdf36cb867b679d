package state_test

import (
	"testing"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/ledger/rwset"
	"github.com/hyperledger/fabric-protos-go-apiv2/ledger/rwset/kvrwset"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"grapevine/ledger/state"
)

// seeds are the recorded chains' entries.
func seeds(f *testing.F) (entries [][]byte) {
	for _, network := range []string{"raft", "bft"} {
		dir := fixtures(f, network)
		for n := range 31 {
			entries = append(entries, recorded(f, dir, "blocks", n).Data.Data...)
		}
	}
	return entries
}

// decoded reads a set as Fabric does, with generated code.
func decoded(raw []byte) (*state.Sets, bool) {
	var all rwset.TxReadWriteSet
	if proto.Unmarshal(raw, &all) != nil {
		return nil, false
	}
	out := &state.Sets{}
	for _, n := range all.NsRwset {
		var kv kvrwset.KVRWSet
		if proto.Unmarshal(n.Rwset, &kv) != nil {
			return nil, false
		}
		s := state.SetOf{Name: n.Namespace, Public: &kv}
		for _, c := range n.CollectionHashedRwset {
			var h kvrwset.HashedRWSet
			if proto.Unmarshal(c.HashedRwset, &h) != nil {
				return nil, false
			}
			s.Collections = append(s.Collections, state.CollectionOf{Name: c.CollectionName, Hashed: &h})
		}
		out.All = append(out.All, s)
	}
	return out, true
}

// FuzzRWSet holds the reader in place against generated code: what the one takes
// the other takes, and both read the same.
func FuzzRWSet(f *testing.F) {
	for _, e := range seeds(f) {
		if set := state.ResultsOf(e); set != nil {
			f.Add(set)
		}
	}
	f.Add([]byte{})
	// of each oneof, message and scalar, the last one counts, and messages merge
	merged := &kvrwset.KVRWSet{RangeQueriesInfo: []*kvrwset.RangeQueryInfo{{
		StartKey: "a", ReadsInfo: &kvrwset.RangeQueryInfo_RawReads{RawReads: &kvrwset.QueryReads{KvReads: []*kvrwset.KVRead{{Key: "x", Version: &kvrwset.Version{BlockNum: 1}}}}},
	}}}
	b := marshal(f, merged)
	f.Add(marshal(f, sets(&rwset.NsReadWriteSet{Namespace: "n", Rwset: append(b, b...)})))
	f.Fuzz(func(t *testing.T, raw []byte) {
		want, ok := decoded(raw)
		got, err := state.ReadSets(raw)
		require.Equal(t, ok, err == nil, "%v", err)
		if ok {
			require.True(t, state.EqualSets(want, got), "%v\n%v", want, got)
		}
	})
}

// FuzzTransaction: no entry makes Prepare or Execute panic, or takes another
// verdict the second time.
func FuzzTransaction(f *testing.F) {
	for _, e := range seeds(f) {
		f.Add(e)
	}
	p := newPlay(f)
	f.Add(p.call("cc", p.put("k", "v"), "A", "B"))
	f.Fuzz(func(t *testing.T, entry []byte) {
		var codes []byte
		for range 2 {
			a := state.Prepare(p.rules, entry)
			out, err := state.Execute(p.rules, p.view(), p.mark, p.height, []*state.Tx{a, a})
			if err != nil {
				require.ErrorIs(t, err, state.Unjudged)
				return
			}
			require.Len(t, out.Codes, 2)
			if codes != nil {
				require.Equal(t, codes, out.Codes)
			}
			codes = out.Codes
		}
	})
}

// FuzzMark: a mark that is taken is written the same again.
func FuzzMark(f *testing.F) {
	w := newWorld()
	f.Add([]byte{})
	f.Add(w.mark.Marshal())
	p := newPlay(f)
	f.Add(p.mark.Marshal())
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := state.ParseMark(raw)
		if err != nil || len(raw) == 0 {
			return
		}
		require.Equal(t, raw, m.Marshal())
	})
}

// FuzzAction: whatever a creator signs is read without harm.
func FuzzAction(f *testing.F) {
	for _, e := range seeds(f) {
		var env common.Envelope
		if proto.Unmarshal(e, &env) == nil {
			f.Add(env.Payload)
		}
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		require.Equal(t, state.Parse(payload), state.Parse(payload))
	})
}

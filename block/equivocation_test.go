package block

import (
	"errors"
	"slices"
	"testing"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"grapevine/msp"
)

// inRound makes the metadata of a BFT block say in which view it was signed, and
// has consenters sign it.
func (w *world) inRound(b *common.Block, view uint64, ids ...uint32) *common.Block {
	round := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), view)
	round = protowire.AppendVarint(protowire.AppendTag(round, 2, protowire.VarintType), b.Header.Number)
	value := marshal(w.t, &common.OrdererBlockMetadata{LastConfig: &common.LastConfig{}, ConsenterMetadata: round})
	md := &common.Metadata{Value: value}
	for _, id := range ids {
		md.Signatures = append(md.Signatures, w.signature(b, value, id, w.signers[id-1]))
	}
	setSignatures(w.t, b, md, 0)
	return b
}

// Nobody is accused but who signed two headers that follow one block: not who
// signs copies of one block, nor who signs blocks of several channels, nor who
// stands beside the one that does.
func TestEquivocationAccusesNobodyElse(t *testing.T) {
	bft, raft := newWorld(t, 7, true), newWorld(t, 4, false)
	rapid.Check(t, func(t *rapid.T) {
		w, quorum := raft, 1
		if rapid.Bool().Draw(t, "bft") {
			w, quorum = bft, bft.rules.Quorum()
		}
		n := uint32(len(w.signers))
		subset := func(label string) []uint32 {
			perm := rapid.Permutation(seqTo(n)).Draw(t, label)
			if quorum == 1 {
				return perm[:1]
			}
			return perm[:rapid.IntRange(quorum, int(n)).Draw(t, label+" count")]
		}
		make := func(text string, previous byte, view uint64, by []uint32) *common.Block {
			b := w.next(endorser(w.t, text))
			b.Header.PreviousHash = slices.Clone(b.Header.PreviousHash)
			b.Header.PreviousHash[31] = previous
			if w.rules.BFT {
				return w.inRound(b, view, by...)
			}
			require.NoError(t, Sign(b, w.signers[by[0]-1], 0, []byte{byte(view)}))
			return b
		}
		sameText, sameChannel := rapid.Bool().Draw(t, "same text"), rapid.Bool().Draw(t, "same channel")
		text, previous := "a", byte(0)
		if !sameText {
			text = "b"
		}
		if !sameChannel {
			previous = 1
		}
		first, second := subset("first"), subset("second")
		v, u := rapid.Uint64Range(1, 2).Draw(t, "view"), rapid.Uint64Range(1, 2).Draw(t, "other view")
		one, other := make("a", 0, v, first), make(text, previous, u, second)
		accused, err := Equivocation(w.rules, one, other)
		if sameText || !sameChannel {
			require.ErrorIs(t, err, NoConflict)
			require.Empty(t, accused)
			return
		}
		require.NoError(t, err)
		want := map[msp.PKIID]bool{}
		for _, id := range first {
			if slices.Contains(second, id) && (!w.rules.BFT || u == v) {
				want[w.signers[id-1].Identity().PKIID()] = true
			}
		}
		require.Len(t, accused, len(want))
		for _, who := range accused {
			require.True(t, want[who.PKIID()])
		}
		again, err := Equivocation(w.rules, other, one)
		require.NoError(t, err)
		require.Len(t, again, len(accused))
	})
}

func seqTo(n uint32) []uint32 {
	list := make([]uint32, n)
	for i := range list {
		list[i] = uint32(i + 1)
	}
	return list
}

// What isn't validly signed, or signed under another's name, proves nothing.
func TestEquivocationNeedsSignatures(t *testing.T) {
	w := newWorld(t, 4, true)
	good := w.inRound(w.next(endorser(t, "a")), 1, 1, 2, 3)
	few := w.inRound(w.next(endorser(t, "b")), 1, 1, 2)
	_, err := Equivocation(w.rules, good, few)
	require.ErrorIs(t, err, NoQuorum)
	none := proto.Clone(good).(*common.Block)
	none.Header.DataHash[0] ^= 1
	_, err = Equivocation(w.rules, good, none)
	require.ErrorIs(t, err, NoQuorum)
	_, err = Equivocation(w.rules, good, nil)
	require.ErrorIs(t, err, NoConflict)
	zero := &common.Block{Header: &common.BlockHeader{DataHash: make([]byte, 32)}}
	_, err = Equivocation(w.rules, zero, &common.Block{Header: &common.BlockHeader{DataHash: make([]byte, 31)}})
	require.ErrorIs(t, err, NoConflict, "genesis blocks follow nothing")

	// Somebody else's signature under a consenter's id accuses nobody.
	forged := w.inRound(w.next(endorser(t, "b")), 1, 1, 2, 3)
	md := signatures(t, forged)
	md.Signatures = append(md.Signatures, w.signature(forged, md.Value, 4, w.peer))
	setSignatures(t, forged, md, 0)
	other := w.inRound(w.next(endorser(t, "a")), 1, 2, 3, 4)
	accused, err := Equivocation(w.rules, other, forged)
	require.NoError(t, err)
	require.Len(t, accused, 2)
	signed, err := Signers(w.rules, forged)
	require.NoError(t, err)
	require.Len(t, signed, 3)
}

// FuzzEquivocation: whatever comes, no panic, and a proof names only who signed.
func FuzzEquivocation(f *testing.F) {
	w := newWorld(f, 4, true)
	one := w.inRound(w.next(endorser(f, "a")), 1, 1, 2, 3)
	other := w.inRound(w.next(endorser(f, "b")), 1, 2, 3, 4)
	f.Add(marshal(f, one), marshal(f, other))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		x, err := Decode(a)
		if err != nil {
			return
		}
		y, err := Decode(b)
		if err != nil {
			return
		}
		accused, err := Equivocation(w.rules, x, y)
		if err != nil {
			require.Empty(t, accused)
			return
		}
		require.True(t, Conflicting(x.Header, y.Header))
		_, err = Equivocation(w.rules, x, x)
		require.True(t, errors.Is(err, NoConflict))
	})
}

package block

import (
	"bytes"
	"crypto/elliptic"
	"encoding/asn1"
	"math/big"
	"testing"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"

	"grapevine/msp"
	"grapevine/msp/ca"
	"grapevine/wire"
)

// A hostile case spoils the block after the tip of a fresh world.
type hostile struct {
	id   string
	bft  bool
	want *wire.Reason // nil: accepted
	make func(t *testing.T, w *world) *common.Block
}

func TestHostileForm(t *testing.T) {
	run(t, []hostile{
		{"B1", false, NoHeader, spoil(func(b *common.Block) { b.Header = nil })},
		{"B2", false, NoData, spoil(func(b *common.Block) { b.Data = nil })},
		{"B3 nil", false, NoMetadata, spoil(func(b *common.Block) { b.Metadata = nil })},
		{"B3 short", false, NoMetadata, spoil(func(b *common.Block) { b.Metadata.Metadata = b.Metadata.Metadata[:4] })},
		{"B11 empty", false, BadLink, spoil(func(b *common.Block) { b.Header.PreviousHash = nil })},
		{"B11 long", false, BadLink, spoil(func(b *common.Block) { b.Header.PreviousHash = make([]byte, 33) })},
		{"B12", false, BadDataHash, spoil(func(b *common.Block) { b.Header.DataHash = make([]byte, 32) })},
		{"B13", false, NotCanonical, spoil(func(b *common.Block) { // one entry holds both
			b.Data.Data = [][]byte{bytes.Join(b.Data.Data, nil)}
		})},
		{"B13 inside", false, NotCanonical, spoil(func(b *common.Block) {
			joined := bytes.Join(b.Data.Data, nil)
			b.Data.Data = [][]byte{joined[:20], joined[20:]}
		})},
		{"B14 trailing", false, NotCanonical, content(func(t *testing.T) [][]byte { return [][]byte{append(endorser(t, "a"), 0)} })},
		{"B14 overlong", false, NotCanonical, content(func(t *testing.T) [][]byte {
			p := payload(t, common.HeaderType_ENDORSER_TRANSACTION, channelName, []byte("a"))
			raw := append([]byte{0x0a, byte(len(p)) | 0x80, 0}, p...)
			return [][]byte{append(raw, 0x12, 1, 's')}
		})},
		{"B14 reordered", false, NotCanonical, content(func(t *testing.T) [][]byte {
			raw := protowire.AppendBytes([]byte{0x12}, []byte("s"))
			p := payload(t, common.HeaderType_ENDORSER_TRANSACTION, channelName, []byte("a"))
			return [][]byte{protowire.AppendBytes(append(raw, 0x0a), p)}
		})},
		{"B14 no signature", false, NotCanonical, content(func(t *testing.T) [][]byte {
			p := payload(t, common.HeaderType_ENDORSER_TRANSACTION, channelName, []byte("a"))
			return [][]byte{marshal(t, &common.Envelope{Payload: p})}
		})},
		{"unknown field", false, nil, content(func(t *testing.T) [][]byte {
			return [][]byte{append(endorser(t, "a"), 0x9a, 0x01, 1, 'x')}
		})},
		{"odd type", false, nil, content(func(t *testing.T) [][]byte {
			return [][]byte{transaction(t, common.HeaderType_MESSAGE, channelName, "garbage")}
		})},
		{"B15", false, Empty, content(func(*testing.T) [][]byte { return nil })},
		{"B16", false, TooManyTransactions, content(func(t *testing.T) [][]byte {
			var list [][]byte
			for range 11 {
				list = append(list, endorser(t, "a"))
			}
			return list
		})},
		{"B16 million", false, NotCanonical, content(func(*testing.T) [][]byte { return make([][]byte, 1_000_000) })},
		{"B17", false, TooLarge, content(func(t *testing.T) [][]byte {
			return [][]byte{endorser(t, string(make([]byte, 1<<20)))}
		})},
		{"B18", false, WrongChannel, content(func(t *testing.T) [][]byte {
			return [][]byte{transaction(t, common.HeaderType_ENDORSER_TRANSACTION, "other", "a")}
		})},
		{"B18 second", false, WrongChannel, content(func(t *testing.T) [][]byte {
			return [][]byte{endorser(t, "a"), transaction(t, common.HeaderType_ENDORSER_TRANSACTION, "other", "a")}
		})},
		{"B19", false, ConfigNotAlone, content(func(t *testing.T) [][]byte {
			return [][]byte{configEntry(t, 1), endorser(t, "a")}
		})},
		{"B19 two", false, ConfigNotAlone, content(func(t *testing.T) [][]byte {
			return [][]byte{configEntry(t, 1), configEntry(t, 1)}
		})},
		{"B38 extra slot", false, UnsignedMetadata, spoil(func(b *common.Block) { b.Metadata.Metadata = append(b.Metadata.Metadata, []byte("x")) })},
		{"B38 last config", false, UnsignedMetadata, spoil(func(b *common.Block) { b.Metadata.Metadata[1] = []byte{10, 2, 8, 7} })},
		{"B38 filter", false, UnsignedMetadata, spoil(func(b *common.Block) { b.Metadata.Metadata[2] = []byte{0} })},
		{"B38 orderer", false, UnsignedMetadata, spoil(func(b *common.Block) { b.Metadata.Metadata[3] = []byte{10, 1, 1} })},
		{"B38 commit hash", false, UnsignedMetadata, spoil(func(b *common.Block) { b.Metadata.Metadata[4] = []byte{10, 1, 1} })},
		{"peer's copy", false, nil, spoil(func(b *common.Block) {
			b.Metadata.Metadata[2] = []byte{0, 11}
			b.Metadata.Metadata[4] = append([]byte{10, 32}, make([]byte, 32)...)
		})},
	})
}

func TestHostileSigners(t *testing.T) {
	run(t, []hostile{
		{"B20", false, NoSignature, func(t *testing.T, w *world) *common.Block {
			b := w.signed(endorser(t, "a"))
			md := signatures(t, b)
			md.Signatures = nil
			setSignatures(t, b, md, 0)
			return b
		}},
		{"B21", false, BadSigner, func(t *testing.T, w *world) *common.Block {
			b := w.next(endorser(t, "a"))
			require.NoError(t, Sign(b, w.peer, 0, nil))
			return b
		}},
		{"B22", false, BadSigner, func(t *testing.T, w *world) *common.Block {
			foreign := must(ca.NewOrg("OtherMSP", "other.example.com", epoch))(t)
			b := w.next(endorser(t, "a"))
			require.NoError(t, Sign(b, must(foreign.Identity("orderer", "orderer"))(t), 0, nil))
			return b
		}},
		{"B22 same MSP ID", false, BadSigner, func(t *testing.T, w *world) *common.Block {
			foreign := must(ca.NewOrg("OrdererMSP", "example.com", epoch))(t)
			b := w.next(endorser(t, "a"))
			require.NoError(t, Sign(b, must(foreign.Identity("orderer1", "orderer"))(t), 0, nil))
			return b
		}},
		{"B23", false, SignerRevoked, func(t *testing.T, w *world) *common.Block {
			b := w.signed(endorser(t, "a"))
			require.NoError(t, w.orderers.Revoke(w.signers[0].Identity().Certificate().SerialNumber, epoch))
			w.rules = w.newRules(false)
			return b
		}},
		{"B30 raft", false, TooManySignatures, repeat(17)},
		{"B30", false, TooManySignatures, repeat(100_000)},
		{"B30 bft", true, TooManySignatures, repeat(17)},
		{"B31 without value", false, BadSignature, resign(func(_, header []byte, h *common.BlockHeader) []byte {
			return SigningBytes(nil, header, h)
		})},
		{"B31 other block", false, BadSignature, resign(func(value, header []byte, h *common.BlockHeader) []byte {
			return SigningBytes(value, header, &common.BlockHeader{Number: 7, DataHash: h.DataHash})
		})},
		{"C18", false, msp.HighS, reencode(func(sig *ecdsaSignature) { sig.S.Sub(elliptic.P256().Params().N, sig.S) })},
		{"C19", false, msp.BadSignatureEncoding, reencode(func(sig *ecdsaSignature) { sig.S.SetInt64(0) })},
		{"stuffed signature", false, Malformed, func(t *testing.T, w *world) *common.Block {
			b := w.signed(endorser(t, "a"))
			md := signatures(t, b)
			md.Signatures[0].Signature = append(md.Signatures[0].Signature, make([]byte, 2<<10)...)
			setSignatures(t, b, md, 0)
			return b
		}},
		{"B32", false, AmbiguousSigner, ambiguous},
		{"B32 bft", true, AmbiguousSigner, ambiguous},
		{"garbage beside a good one", false, nil, func(t *testing.T, w *world) *common.Block {
			b := w.signed(endorser(t, "a"))
			md := signatures(t, b)
			bad := &common.MetadataSignature{SignatureHeader: md.Signatures[0].SignatureHeader, Signature: []byte("x")}
			md.Signatures = append([]*common.MetadataSignature{bad}, md.Signatures...)
			setSignatures(t, b, md, 0)
			return b
		}},
	})
}

func TestHostileQuorum(t *testing.T) {
	ids := func(ids ...uint32) func(*testing.T, *world) *common.Block {
		return func(t *testing.T, w *world) *common.Block {
			b := w.next(endorser(t, "a"))
			w.signBFT(b, 0, ids...)
			return b
		}
	}
	run(t, []hostile{
		{"three of four", true, nil, ids(4, 1, 3)},
		{"all", true, nil, ids(1, 2, 3, 4)},
		{"B24", true, NoQuorum, ids(2, 2, 2)},
		{"B25", true, NoQuorum, func(t *testing.T, w *world) *common.Block {
			// Orderer 2 signs by id, and again showing its certificate.
			b := w.next(endorser(t, "a"))
			w.signBFT(b, 0, 1, 2)
			md := signatures(t, b)
			header := marshal(t, &common.SignatureHeader{Creator: w.signers[1].Identity().Serialized()})
			sig := must(w.signers[1].Sign(SigningBytes(md.Value, header, b.Header)))(t)
			md.Signatures = append(md.Signatures, &common.MetadataSignature{SignatureHeader: header, Signature: sig})
			setSignatures(t, b, md, 0)
			return b
		}},
		{"signer by certificate", true, nil, func(t *testing.T, w *world) *common.Block {
			b := w.next(endorser(t, "a"))
			w.signBFT(b, 0, 1, 2)
			md := signatures(t, b)
			header := marshal(t, &common.SignatureHeader{Creator: w.signers[2].Identity().Serialized()})
			sig := must(w.signers[2].Sign(SigningBytes(md.Value, header, b.Header)))(t)
			md.Signatures = append(md.Signatures, &common.MetadataSignature{SignatureHeader: header, Signature: sig})
			setSignatures(t, b, md, 0)
			return b
		}},
		{"B26", true, NoQuorum, func(t *testing.T, w *world) *common.Block {
			b := ids(1, 2)(t, w)
			md := signatures(t, b)
			md.Signatures = append(md.Signatures, w.signature(b, md.Value, 9, w.peer))
			setSignatures(t, b, md, 0)
			return b
		}},
		{"B26 stolen id", true, NoQuorum, func(t *testing.T, w *world) *common.Block {
			b := ids(1, 2)(t, w)
			md := signatures(t, b)
			md.Signatures = append(md.Signatures, w.signature(b, md.Value, 3, w.peer))
			setSignatures(t, b, md, 0)
			return b
		}},
		{"B27", true, NoQuorum, func(t *testing.T, w *world) *common.Block {
			b := ids(1, 2, 3)(t, w)
			for id := range w.rules.Consenters { // the set changes, the ids stay
				w.rules.Consenters[id] = must(w.orderers.Identity("new", "orderer"))(t).Identity()
			}
			return b
		}},
		{"B28", true, NoQuorum, func(t *testing.T, w *world) *common.Block {
			for i := range w.signers {
				w.signers[i] = must(w.orderers.Identity("next", "orderer"))(t)
			}
			return ids(1, 2, 3)(t, w)
		}},
		{"B29", true, NoQuorum, garbage(ids(1, 2))},
		{"B29 quorum and garbage", true, nil, garbage(ids(1, 2, 3))},
		{"B29 quorum, one doubled", true, nil, ids(1, 1, 2, 3)},
		{"B31 bft", true, NoQuorum, func(t *testing.T, w *world) *common.Block {
			b := ids(1, 2, 3)(t, w)
			other := w.next(endorser(t, "b"))
			w.signBFT(other, 0, 1, 2, 3)
			b.Metadata = other.Metadata
			return b
		}},
	})
}

// garbage adds a broken signature of another consenter in front.
func garbage(build func(*testing.T, *world) *common.Block) func(*testing.T, *world) *common.Block {
	return func(t *testing.T, w *world) *common.Block {
		b := build(t, w)
		md := signatures(t, b)
		bad := w.signature(b, md.Value, 4, w.signers[3])
		bad.Signature[len(bad.Signature)-1] ^= 1
		md.Signatures = append([]*common.MetadataSignature{bad}, md.Signatures...)
		setSignatures(t, b, md, 0)
		return b
	}
}

func ambiguous(t *testing.T, w *world) *common.Block {
	b := w.signed(endorser(t, "a"))
	md := signatures(t, b)
	md.Signatures[0].SignatureHeader = marshal(t, &common.SignatureHeader{Creator: []byte("x")})
	md.Signatures[0].IdentifierHeader = marshal(t, &common.IdentifierHeader{Identifier: 1})
	setSignatures(t, b, md, 0)
	return b
}

func repeat(n int) func(*testing.T, *world) *common.Block {
	return func(t *testing.T, w *world) *common.Block {
		b := w.signed(endorser(t, "a"))
		md := signatures(t, b)
		list := make([]*common.MetadataSignature, n)
		for i := range list {
			list[i] = md.Signatures[0]
		}
		md.Signatures = list
		setSignatures(t, b, md, 0)
		return b
	}
}

// resign replaces the one signature by one over other bytes.
func resign(over func(value, header []byte, h *common.BlockHeader) []byte) func(*testing.T, *world) *common.Block {
	return func(t *testing.T, w *world) *common.Block {
		b := w.signed(endorser(t, "a"))
		md := signatures(t, b)
		s := md.Signatures[0]
		s.Signature = must(w.signers[0].Sign(over(md.Value, s.SignatureHeader, b.Header)))(t)
		setSignatures(t, b, md, 0)
		return b
	}
}

type ecdsaSignature struct{ R, S *big.Int }

// reencode changes the numbers of the one signature.
func reencode(f func(*ecdsaSignature)) func(*testing.T, *world) *common.Block {
	return func(t *testing.T, w *world) *common.Block {
		b := w.signed(endorser(t, "a"))
		md := signatures(t, b)
		var sig ecdsaSignature
		_, err := asn1.Unmarshal(md.Signatures[0].Signature, &sig)
		require.NoError(t, err)
		f(&sig)
		md.Signatures[0].Signature = must(asn1.Marshal(sig))(t)
		setSignatures(t, b, md, 0)
		return b
	}
}

// spoil changes a good block of two transactions.
func spoil(f func(*common.Block)) func(*testing.T, *world) *common.Block {
	return func(t *testing.T, w *world) *common.Block {
		b := w.signed(endorser(t, "a"), endorser(t, "b"))
		f(b)
		return b
	}
}

// content signs a block of the entries given.
func content(f func(*testing.T) [][]byte) func(*testing.T, *world) *common.Block {
	return func(t *testing.T, w *world) *common.Block { return w.signed(f(t)...) }
}

func run(t *testing.T, cases []hostile) {
	raft, bft := newWorld(t, 1, false), newWorld(t, 4, true)
	for _, c := range cases {
		t.Run(c.id, func(t *testing.T) {
			w := *raft
			if c.bft {
				w = *bft
				w.signers = append([]msp.Signer(nil), bft.signers...)
			}
			w.t = t
			w.rules = w.newRulesLike()
			b := c.make(t, &w)
			checked, err := CheckBlock(w.rules, b)
			if c.want != nil {
				refused(t, c.want, err)
				_, err = CheckBlock(w.rules, b) // a verdict is stable
				refused(t, c.want, err)
				return
			}
			require.NoError(t, err)
			v, err := Verify(w.rules, w.tip, checked)
			require.NoError(t, err)
			require.Equal(t, w.tip.Height, v.Number())
		})
	}
}

// newRulesLike returns fresh rules equal to the world's: they remember nothing.
func (w *world) newRulesLike() *Rules {
	r := &Rules{
		Channel: w.rules.Channel, MSPs: w.rules.MSPs, BlockValidation: w.rules.BlockValidation,
		BFT: w.rules.BFT, IdentifierHeaders: w.rules.IdentifierHeaders,
		MaxMessages: w.rules.MaxMessages, AbsoluteMaxBytes: w.rules.AbsoluteMaxBytes,
		LastConfig: w.rules.LastConfig, Sequence: w.rules.Sequence,
		Consenters: make(map[uint32]*msp.Identity),
	}
	for id, c := range w.rules.Consenters {
		r.Consenters[id] = c
	}
	return r
}

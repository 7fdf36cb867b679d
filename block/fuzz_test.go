package block

import (
	"bytes"
	"crypto/sha256"
	"testing"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"grapevine/wire"
)

// FuzzBlock: what Decode takes is what protobuf says, and its one encoding.
func FuzzBlock(f *testing.F) {
	w := newWorld(f, 1, false)
	f.Add(marshal(f, w.signed(endorser(f, "a"), endorser(f, "b"))))
	f.Add([]byte{})
	f.Add([]byte{0x0a, 2, 0x08, 0x01, 0x12, 0, 0x1a, 0})
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := Decode(raw)
		if err != nil {
			require.NotNil(t, wire.ReasonOf(err))
			return
		}
		var want common.Block
		require.NoError(t, proto.Unmarshal(raw, &want))
		require.True(t, proto.Equal(&want, b))
		require.True(t, bytes.Equal(raw, marshal(t, b)))
	})
}

// FuzzBlockMetadata: no slot makes the reader panic, and what it takes as
// signed is what protobuf reads.
func FuzzBlockMetadata(f *testing.F) {
	w := newWorld(f, 4, true)
	m := w.signed(endorser(f, "a")).Metadata.Metadata
	f.Add(m[0], m[1], []byte{}, []byte{}, []byte{})
	f.Add([]byte{}, m[1], []byte{0}, []byte{}, append([]byte{10, 32}, make([]byte, 32)...))
	f.Fuzz(func(t *testing.T, signed, last, filter, orderer, commit []byte) {
		md, err := readMetadata(&common.BlockMetadata{Metadata: [][]byte{signed, last, filter, orderer, commit}}, 1)
		if err != nil {
			require.NotNil(t, wire.ReasonOf(err))
			return
		}
		var want common.Metadata
		require.NoError(t, proto.Unmarshal(signed, &want))
		require.True(t, bytes.Equal(want.Value, md.value))
		require.Len(t, md.signatures, len(want.Signatures))
		for i, s := range md.signatures {
			require.True(t, bytes.Equal(want.Signatures[i].Signature, s.bytes))
			require.True(t, bytes.Equal(want.Signatures[i].SignatureHeader, s.header))
			require.True(t, bytes.Equal(want.Signatures[i].IdentifierHeader, s.identifier))
		}
	})
}

// FuzzBlockHash: the header's bytes are those of encoding/asn1.
func FuzzBlockHash(f *testing.F) {
	f.Add(uint64(0), []byte{}, []byte{})
	f.Add(uint64(1)<<63, make([]byte, 32), make([]byte, 200))
	f.Fuzz(func(t *testing.T, n uint64, previous, data []byte) {
		h := &common.BlockHeader{Number: n, PreviousHash: previous, DataHash: data}
		want := fabricHeader(t, h)
		require.True(t, bytes.Equal(want, HeaderBytes(h)))
		require.Equal(t, sha256.Sum256(want), HeaderHash(h))
	})
}

// FuzzTxEnvelope: an entry is well-formed for us exactly if Fabric finds it so,
// and its headers read the same.
func FuzzTxEnvelope(f *testing.F) {
	f.Add(endorser(f, "a"))
	f.Add(configEntry(f, 1))
	f.Add(append(endorser(f, "a"), 0x9a, 0x01, 1, 'x'))
	f.Add(append(endorser(f, "a"), 0x0b, 0x0a, 0, 0x0c))
	f.Fuzz(func(t *testing.T, raw []byte) {
		e, err := readEntry(raw)
		var env common.Envelope
		wellFormed := proto.Unmarshal(raw, &env) == nil && len(env.Payload) > 0 && len(env.Signature) > 0
		if wellFormed {
			again, err := proto.Marshal(&env)
			wellFormed = err == nil && bytes.Equal(raw, again)
		}
		h, named := fabricChannelHeader(env.Payload)
		if err != nil {
			require.NotNil(t, wire.ReasonOf(err))
			require.False(t, wellFormed && named)
			return
		}
		require.Equal(t, wellFormed, e.canonical)
		require.True(t, named)
		require.Equal(t, h.Type, e.typ)
		require.Equal(t, h.ChannelId, e.channel)
		require.Equal(t, h.TxId, e.txID)
	})
}

// fabricChannelHeader reads the channel header as an orderer does.
func fabricChannelHeader(raw []byte) (*common.ChannelHeader, bool) {
	var p common.Payload
	var h common.ChannelHeader
	if proto.Unmarshal(raw, &p) != nil || p.Header == nil || proto.Unmarshal(p.Header.ChannelHeader, &h) != nil {
		return nil, false
	}
	return &h, true
}

// FuzzVerify: no bytes make Check or Verify panic, verdicts are stable, and
// nothing verifies but a block with the header that was signed.
func FuzzVerify(f *testing.F) {
	raft, bft := newWorld(f, 1, false), newWorld(f, 4, true)
	worlds := []*world{raft, bft}
	var signed [][32]byte
	for i, w := range worlds {
		for _, b := range []*common.Block{w.signed(endorser(f, "a")), w.signed(configEntry(f, 1))} {
			if IsConfig(b) && w.rules.BFT {
				w.signBFT(b, 1, 1, 2, 3)
			} else if IsConfig(b) {
				require.NoError(f, Sign(b, w.signers[0], 1, nil))
			}
			signed = append(signed, HeaderHash(b.Header))
			f.Add(marshal(f, b), i == 1)
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte, second bool) {
		w := worlds[0]
		if second {
			w = worlds[1]
		}
		c, err := Check(w.rules, raw)
		_, again := Check(w.rules, raw)
		require.Equal(t, wire.ReasonOf(err), wire.ReasonOf(again))
		if err != nil {
			require.NotNil(t, wire.ReasonOf(err), "%v", err)
			return
		}
		v, err := Verify(w.rules, w.tip, c)
		if err != nil {
			require.NotNil(t, wire.ReasonOf(err), "%v", err)
			return
		}
		require.Contains(t, signed, v.Hash())
		require.True(t, bytes.Equal(raw, marshal(t, v.Block())))
	})
}

package wire

import (
	"bytes"
	"encoding/hex"
	"io"
	"math"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

func fill(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }

// TestGolden pins the bytes that the network agrees on. A difference here is a
// new protocol version, not a new golden value.
func TestGolden(t *testing.T) {
	for name, c := range map[string]struct {
		m    proto.Message
		want string
	}{
		"announcement": {
			&Announcement{Tag: fill(1, 4), Block: fill(2, 3), Size: 300, Announcer: fill(3, 2), Signature: fill(4, 2)},
			"0a0401010101120302020218ac02220203032a020404",
		},
		"alive": {
			&Alive{Tag: fill(1, 2), PkiId: fill(2, 2), MspId: "Org1MSP", PeerId: fill(3, 2), Incarnation: 1 << 40, Sequence: 7, SentAt: 9, Height: 31, TipHash: fill(4, 2), Endpoint: [][]byte{[]byte("h:1")}},
			"0a02010112020202" + "1a074f7267314d5350" + "22020303" + "28808080808020" + "3007" + "3809" + "401f" + "4a020404" + "5203683a31",
		},
		"alive for the own organisation": {
			&Alive{Tag: fill(1, 2), PkiId: fill(2, 2), Sequence: 8, Own: true, Internal: [][]byte{[]byte("h:1")}, Certificate: fill(3, 2), Left: true, Role: "peer", Version: "1"},
			"0a0201011202020230085801" + "6203683a31" + "6a020303" + "7001" + "7a0470656572" + "82010131",
		},
		"word": {
			&Word{Ping: 1, Target: fill(1, 2), Ack: 2, Nack: 3, Accused: [][]byte{fill(2, 1)}, Incarnation: 4, Sequence: 5, Height: 6, TipHash: fill(3, 1), Digest: 7, Alive: [][]byte{fill(4, 1)}, Have: fill(5, 1), Ask: true, Want: [][]byte{fill(6, 1)}},
			"0801" + "12020101" + "1802" + "2003" + "2a0102" + "3004" + "3805" + "4006" + "4a0103" + "5007" + "5a0104" + "620105" + "6801" + "720106",
		},
		"signed alive":   {&SignedAlive{Alive: fill(1, 1), Certificate: fill(2, 1), Signature: fill(3, 1), Chain: [][]byte{fill(4, 1), fill(5, 1)}}, "0a01011201021a0103220104220105"},
		"blocks request": {&BlocksRequest{First: 5, Count: 64, Nonce: 1, WaitMs: 2000}, "08051040180120d00f"},
		"blocks status":  {&BlocksStatus{Code: BlocksStatus_CODE_NOT_FOUND, Nonce: 1, Lowest: 2, Height: 3}, "0802100118022003"},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := Marshal(c.m)
			require.NoError(t, err)
			require.Equal(t, c.want, hex.EncodeToString(b))
			back := c.m.ProtoReflect().New().Interface()
			require.NoError(t, Unmarshal(b, back))
			require.True(t, proto.Equal(c.m, back))
		})
	}
}

func TestNamesAreGolden(t *testing.T) {
	tag := ChannelTag("net", fill(7, 32))
	require.Equal(t, "05e44aa673cf0b28380b7d1110efd16eceec19226d5687dfe2357067bc05a2ac", hex.EncodeToString(tag[:]))
	require.Equal(t, "/gv/"+hex.EncodeToString(tag[:])+"/mesh", ProtocolID(tag, KindMesh))
	require.Equal(t, "members", KindMembers)
	require.NotEqual(t, HashParts([]byte("ab"), []byte("c")), HashParts([]byte("a"), []byte("bc")))
	for _, arc := range BindingOID {
		require.LessOrEqual(t, arc, math.MaxInt32)
	}
}

func TestFrames(t *testing.T) {
	for _, n := range []int{1, 127, 128, step, step + 1, 5 * step} {
		var b bytes.Buffer
		require.NoError(t, WriteFrame(&b, fill(9, n)))
		require.Equal(t, b.Bytes(), AppendFrame(nil, fill(9, n)))
		got, err := ReadFrame(iotest.OneByteReader(&b), n)
		require.NoError(t, err)
		require.Equal(t, fill(9, n), got)
		_, err = ReadFrame(&b, n)
		require.ErrorIs(t, err, io.EOF)
	}
}

type never struct{}

func (never) Read([]byte) (int, error) {
	panic("read the body of a frame that is refused by its length")
}

type timeout struct{}

func (timeout) Error() string { return "deadline" }
func (timeout) Timeout() bool { return true }

func TestHostileFrames(t *testing.T) {
	const limit = 1000
	for _, c := range []struct {
		id   string
		r    io.Reader
		want *Reason
	}{
		{"W2 length 0", strings.NewReader("\x00"), Empty},
		{"W3 limit + 1", io.MultiReader(bytes.NewReader(protowire.AppendVarint(nil, limit+1)), never{}), TooLarge},
		{"W4 length 2^31-1", io.MultiReader(bytes.NewReader(protowire.AppendVarint(nil, 1<<31-1)), never{}), TooLarge},
		{"W5 ten 0xFF", bytes.NewReader(fill(0xff, 10)), BadVarint},
		{"W5 overlong", bytes.NewReader([]byte{0x81, 0x00, 1}), BadVarint},
		{"W6 stalls", io.MultiReader(strings.NewReader("\x05ab"), iotest.ErrReader(timeout{})), Stalled},
		{"cut off", strings.NewReader("\x05ab"), Truncated},
		{"cut off in the length", strings.NewReader("\xff"), Truncated},
	} {
		t.Run(c.id, func(t *testing.T) {
			_, err := ReadFrame(c.r, limit)
			require.ErrorIs(t, err, c.want)
			require.Equal(t, c.want.Verdict(), VerdictOf(err))
		})
	}
}

func TestHostileMessages(t *testing.T) {
	good, err := Marshal(&Alive{Tag: fill(1, 32), MspId: "m", Sequence: 300})
	require.NoError(t, err)
	status, err := Marshal(&BlocksStatus{Code: BlocksStatus_CODE_OK})
	require.NoError(t, err)
	field := func(n protowire.Number, v []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, n, protowire.BytesType), v)
	}
	for _, c := range []struct {
		id   string
		b    []byte
		m    proto.Message
		want *Reason
	}{
		{"W1 empty", nil, &Alive{}, Empty},
		{"W7 many items", bytes.Repeat(field(4, nil), 1<<19), &SignedAlive{}, TooManyItems},
		{"W10 unknown field", append(bytes.Clone(good), field(60, fill(1, 9))...), &Alive{}, UnknownFields},
		{"W11 twice", append(bytes.Clone(good), field(9, nil)...), &Alive{}, NotCanonical},
		{"W11 singular twice", append(bytes.Clone(good), good...), &Alive{}, NotCanonical},
		{"W12 order", append(field(3, []byte("m")), field(1, fill(1, 32))...), &Alive{}, NotCanonical},
		{"W12 overlong varint", []byte{0x08, 0x81, 0x00}, &BlocksStatus{}, NotCanonical},
		{"W13 utf8", field(3, []byte{0xff}), &Alive{}, BadUTF8},
		{"W14 group", []byte{0x0b, 0x0c}, &Alive{}, BadWireType},
		{"W14 wrong type", []byte{0x08, 0x01}, &Alive{}, BadWireType},
		{"W17 enum", []byte{0x08, 0x7f}, &BlocksStatus{}, BadEnum},
		{"W17 negative enum", protowire.AppendVarint([]byte{0x08}, math.MaxUint64), &BlocksStatus{}, BadEnum},
		{"W18 trailing bytes", append(bytes.Clone(status), 0xff), &BlocksStatus{}, TrailingBytes},
		{"W18 cut off", good[:len(good)-1], &Alive{}, TrailingBytes},
	} {
		t.Run(c.id, func(t *testing.T) {
			err := Unmarshal(c.b, c.m)
			require.ErrorIs(t, err, c.want)
			require.Equal(t, Reject, VerdictOf(err))
		})
	}
}

// TestSchemaIsFlat covers W9, W15 and W16 by what the schema can't say: no
// message nests, none has a oneof, and field numbers fit the scan's bit set.
func TestSchemaIsFlat(t *testing.T) {
	ms := File_wire_wire_proto.Messages()
	require.Positive(t, ms.Len())
	for i := range ms.Len() {
		require.Zero(t, ms.Get(i).Oneofs().Len())
		fs := ms.Get(i).Fields()
		for j := range fs.Len() {
			require.Less(t, int(fs.Get(j).Number()), 64)
			require.NotEqual(t, protoreflect.MessageKind, fs.Get(j).Kind(), "give Unmarshal a check for missing fields (wire.missing_field) first")
		}
	}
}

func TestVerdicts(t *testing.T) {
	require.Equal(t, Accept, VerdictOf(nil))
	require.Equal(t, Ignore, VerdictOf(io.EOF), "unknown trouble is ours")
	require.Nil(t, ReasonOf(io.EOF))
	require.Equal(t, "reject", Reject.String())
	require.Equal(t, "unknown", Verdict(99).String())
}

func FuzzFrameReader(f *testing.F) {
	f.Add([]byte("\x03abc"), 5)
	f.Add(fill(0xff, 11), 1)
	f.Fuzz(func(t *testing.T, b []byte, limit int) {
		limit &= 1<<16 - 1
		whole, err := ReadFrame(bytes.NewReader(b), limit)
		again, err2 := ReadFrame(iotest.OneByteReader(bytes.NewReader(b)), limit)
		require.Equal(t, whole, again, "chunking changes nothing")
		require.Equal(t, ReasonOf(err), ReasonOf(err2))
		if err == nil {
			require.True(t, bytes.HasPrefix(b, AppendFrame(nil, whole)))
		}
	})
}

// FuzzUnmarshal holds the scan against the full decoding: what is accepted
// re-marshals to itself, and what the decoder refuses is refused.
func FuzzUnmarshal(f *testing.F) {
	for _, m := range []proto.Message{&Alive{Tag: fill(1, 32), MspId: "m"}, &SignedAlive{Chain: [][]byte{{1}, {2}}}, &BlocksStatus{Code: 2}} {
		b, err := Marshal(m)
		require.NoError(f, err)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, m := range []proto.Message{&Announcement{}, &Alive{}, &SignedAlive{}, &BlocksRequest{}, &BlocksStatus{}} {
			err := Unmarshal(b, m)
			if err != nil {
				require.NotNil(t, ReasonOf(err))
				continue
			}
			again, err := Marshal(m)
			require.NoError(t, err)
			require.Equal(t, b, again)
			require.NoError(t, proto.Unmarshal(b, m.ProtoReflect().New().Interface()))
		}
	})
}

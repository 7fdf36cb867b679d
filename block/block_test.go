package block

import (
	"bytes"
	"crypto/sha256"
	"encoding/asn1"
	"math"
	"math/big"
	"testing"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/stretchr/testify/require"
)

// fabricHeader is the header's encoding by the standard library, as Fabric
// makes it.
func fabricHeader(t testing.TB, h *common.BlockHeader) []byte {
	raw, err := asn1.Marshal(struct {
		Number       *big.Int
		PreviousHash []byte
		DataHash     []byte
	}{new(big.Int).SetUint64(h.Number), h.PreviousHash, h.DataHash})
	require.NoError(t, err)
	return raw
}

func TestHeaderBytes(t *testing.T) {
	numbers := []uint64{0, 1, 127, 128, 255, 256, 32767, 32768, 1 << 31, 1<<63 - 1, 1 << 63, math.MaxUint64}
	for _, n := range numbers {
		for _, size := range []int{0, 1, 32, 127, 128, 255, 256, 70000} {
			h := &common.BlockHeader{Number: n, PreviousHash: make([]byte, size), DataHash: bytes.Repeat([]byte{7}, size/2)}
			want := fabricHeader(t, h)
			require.Equal(t, want, HeaderBytes(h), "number %d, %d bytes", n, size)
			require.Equal(t, sha256.Sum256(want), HeaderHash(h))
		}
	}
}

func TestDataHash(t *testing.T) {
	for _, data := range [][][]byte{nil, {[]byte("a")}, {[]byte("a"), []byte("bc")}} {
		require.Equal(t, sha256.Sum256(bytes.Join(data, nil)), DataHash(&common.BlockData{Data: data}))
	}
}

func TestQuorum(t *testing.T) {
	for n, want := range map[int]int{0: 0, 1: 1, 4: 3, 5: 4, 6: 4, 7: 5, 10: 7} {
		require.Equal(t, want, quorum(n), "%d consenters", n)
	}
}

// TestDecodeOneEncoding: every other encoding of the same block is refused.
func TestDecodeOneEncoding(t *testing.T) {
	w := newWorld(t, 1, false)
	raw := marshal(t, w.signed(endorser(t, "a")))
	b, err := Decode(raw)
	require.NoError(t, err)
	require.Equal(t, raw, marshal(t, b))

	again, err := Marshal(b)
	require.NoError(t, err)
	require.Equal(t, raw, again)

	for name, bad := range map[string][]byte{
		"trailing":      append(bytes.Clone(raw), 0),
		"unknown field": append(bytes.Clone(raw), 0x22, 0),
		"header twice":  append(bytes.Clone(raw[:2+int(raw[1])]), raw...),
		"truncated":     raw[:len(raw)-1],
		"zero number":   {0x0a, 2, 0x08, 0},
		"empty hash":    {0x0a, 2, 0x12, 0},
		"overlong":      {0x0a, 3, 0x08, 0x81, 0},
		"group":         {0x0b, 0x0c},
	} {
		_, err := Decode(bad)
		require.ErrorIs(t, err, Malformed, name)
	}
	b, err = Decode(nil)
	require.NoError(t, err)
	require.Nil(t, b.Header)
}

func TestHeaderAndConfig(t *testing.T) {
	env := &common.Envelope{Payload: payload(t, common.HeaderType_CONFIG, channelName, []byte("x"))}
	h, _, err := Header(env)
	require.NoError(t, err)
	require.Equal(t, channelName, h.ChannelId)
	_, _, err = Header(&common.Envelope{Payload: []byte{1}})
	require.Error(t, err)
	_, _, err = Header(nil)
	require.Error(t, err)

	require.False(t, IsConfig(nil))
	require.False(t, IsConfig(&common.Block{Data: &common.BlockData{Data: [][]byte{endorser(t, "a")}}}))
	b := &common.Block{Data: &common.BlockData{Data: [][]byte{configEntry(t, 7)}}}
	require.True(t, IsConfig(b))
	c, err := ConfigEnvelope(b)
	require.NoError(t, err)
	require.EqualValues(t, 7, c.Config.Sequence)
	_, err = ConfigEnvelope(nil)
	refused(t, BadConfig, err)
}

func TestRulesForgetInBounds(t *testing.T) {
	var r Rules
	for i := range 3 * maxAttested {
		r.remember([32]byte{byte(i), byte(i >> 8)})
	}
	require.LessOrEqual(t, len(r.attested), maxAttested)
}

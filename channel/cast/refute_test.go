package cast

import (
	"bytes"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
	"grapevine/wire"
)

// saying is what verifies the announcement of h.
func saying(h *Head) func([]byte) (*Head, error) {
	return func(raw []byte) (*Head, error) {
		if !bytes.Equal(raw, h.Raw) {
			return nil, wire.NotCanonical
		}
		return h, nil
	}
}

// TestRefuteChunks: chunks that give another body than the header's prove it
// against their announcer, at whoever got them, with parity or without.
func TestRefuteChunks(t *testing.T) {
	for _, size := range []int{16 << 10, 300 << 10} {
		p := newPlay(t, 1, 20, 1)
		liar := p.nodes[0]
		h, _ := p.head(1, size, liar)
		lie, err := p.coder.Encode(pattern(size))
		require.NoError(t, err)
		h = p.announce(h.Block, lie, liar)
		p.nodes[1].mute = true
		liar.cast(h, lie)
		p.run(20 * time.Second)
		proven := 0
		for _, a := range p.nodes[1:] {
			if a.lies == 0 {
				continue
			}
			proven++
			require.NoError(t, p.coder.Refute(&block.Rules{}, a.proof, saying(h)))
		}
		require.Positive(t, proven)
	}
}

// TestRefuteHonest: nobody is accused by what is true, by what he didn't
// announce, or by what isn't a proof.
func TestRefuteHonest(t *testing.T) {
	p := newPlay(t, 1, 2, 1)
	leader := p.nodes[0]
	h, code := p.head(1, 20<<10, leader)
	signed, err := proto.Marshal(&common.Metadata{Value: orderers(t)})
	require.NoError(t, err)
	h.Block.Metadata.Metadata = [][]byte{signed, {}, {}, {}, {}}
	body := fxLie{head: h, body: code.body}
	chunks := chunksOf(h, code, code.Shape.M, code.Shape.N()) // data must be computed
	other := pattern(len(code.body))
	false1 := func() *Head { // an announcement of the true body, by other chunks
		lie, err := p.coder.Encode(other)
		require.NoError(t, err)
		return p.announce(h.Block, lie, leader)
	}()
	require.NoError(t, p.coder.Refute(&block.Rules{}, evidence(fxLie{head: false1, body: code.body}), saying(false1)))

	first := len(appendHead(nil, hopKeep, h.Raw))
	for name, c := range map[string]struct {
		proof []byte
		want  *wire.Reason
	}{
		"K16 the true body":             {evidence(body), block.NoConflict},
		"K16 the true chunks":           {evidence(chunks), block.NoConflict},
		"K16 a body he never announced": {evidence(fxLie{head: h, body: other}), block.NoConflict},
		"K16 of another announcement":   {evidence(fxLie{head: false1, body: code.body}), BadFrame},
		"K17 nothing":                   {nil, wire.Truncated},
		"K17 no announcement":           {evidence(body)[first:], BadFrame},
		"K17 the announcement alone":    {evidence(body)[:first], wire.Truncated},
		"K17 two announcements":         {append(appendHead(nil, hopKeep, h.Raw), evidence(body)...), BadFrame},
		"K17 half a body":               {evidence(body)[:first+17+len(code.body)-1], wire.Truncated},
		"K17 too few chunks":            {evidence(chunksOf(h, code, 1, code.Shape.K)), wire.Truncated},
		"K17 too many chunks":           {evidence(chunksOf(h, code, 0, code.Shape.N())), BadFrame},
		"K17 a word":                    {appendWord(evidence(body), frameDone, uint64(h.id())), BadFrame},
		"K18 a chunk that isn't his": {func() []byte {
			raw := bytes.Clone(evidence(chunks))
			raw[len(raw)-1] ^= 1
			return raw
		}(), BadChunk},
		"K18 a chunk twice": {func() []byte {
			fx := chunksOf(h, code, code.Shape.M, code.Shape.N())
			fx.pieces[0][1] = fx.pieces[0][0]
			return evidence(fx)
		}(), BadFrame},
		"K18 a body's part twice": {append(append(appendHead(nil, hopKeep, h.Raw), append(appendPart(nil, h.id(), 0, len(code.body)), code.body...)...),
			append(appendPart(nil, h.id(), 0, 1), 1)...), BadFrame},
	} {
		t.Run(name, func(t *testing.T) {
			require.ErrorIs(t, p.coder.Refute(&block.Rules{}, c.proof, saying(h)), c.want)
		})
	}
}

// orderers is what they sign of a block's place.
func orderers(t *testing.T) []byte {
	raw, err := proto.Marshal(&common.OrdererBlockMetadata{LastConfig: &common.LastConfig{}})
	require.NoError(t, err)
	return raw
}

// chunksOf is what a lie of chunks from one on would be kept as.
func chunksOf(h *Head, code *Encoding, from, to int) fxLie {
	fx := fxLie{head: h, pieces: make([][]proof, code.Shape.Segments)}
	for i, s := range code.segs {
		for k := from; k < to; k++ {
			levels, hashes := s.tree.path(k, newTree(code.Shape.N(), code.Shape.roots(h.Roots, i)).known)
			fx.pieces[i] = append(fx.pieces[i], proof{k, levels, hashes, s.chunks[k]})
		}
	}
	return fx
}

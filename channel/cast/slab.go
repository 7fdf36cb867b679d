package cast

import (
	"fmt"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"google.golang.org/protobuf/encoding/protowire"

	"grapevine/block"
)

// dataField is the number of a block's field for its data.
const dataField = 2

// A slab is where a block grows from the chunks of its body: the marshalled
// block, with header and metadata from the announcement in front and behind, so
// that nothing is copied once it is whole. Chunks that reach beyond the body's
// end lie beside it until then. It is laid out when the first chunk comes.
type slab struct {
	shape         Shape
	front, behind []byte
	raw           []byte
	ends          map[int][]byte // by number of the data chunk
}

func newSlab(s Shape, head *common.Block) (*slab, error) {
	front, err := block.Marshal(&common.Block{Header: head.Header})
	if err != nil {
		return nil, err
	}
	behind, err := block.Marshal(&common.Block{Metadata: head.Metadata})
	if err != nil {
		return nil, err
	}
	front = protowire.AppendTag(front, dataField, protowire.BytesType)
	front = protowire.AppendVarint(front, uint64(s.Size))
	return &slab{shape: s, front: front, behind: behind}, nil
}

// slot returns the place of a data chunk, numbered through all segments.
func (s *slab) slot(n int) []byte {
	if s.raw == nil {
		s.raw = s.lay()
	}
	at, to := n*s.shape.Chunk, (n+1)*s.shape.Chunk
	if to <= s.shape.Size {
		return s.raw[len(s.front)+at : len(s.front)+to : len(s.front)+to]
	}
	if s.ends == nil {
		s.ends = make(map[int][]byte)
	}
	if s.ends[n] == nil {
		s.ends[n] = make([]byte, s.shape.Chunk)
	}
	return s.ends[n]
}

// lay makes room for the marshalled block, all of it but the body in place.
func (s *slab) lay() []byte {
	raw := make([]byte, len(s.front)+s.shape.Size+len(s.behind))
	copy(raw, s.front)
	copy(raw[len(s.front)+s.shape.Size:], s.behind)
	return raw
}

// body returns the part of a marshalled block, laid out by lay, that is cast.
func (s *slab) body(raw []byte) []byte {
	at, to := len(s.front), len(s.front)+s.shape.Size
	return raw[at:to:to]
}

// whole returns the marshalled block, once all data chunks are in place.
func (s *slab) whole() []byte {
	body := s.body(s.raw)
	for n, b := range s.ends {
		copy(body[min(n*s.shape.Chunk, len(body)):], b)
	}
	return s.raw
}

// Body returns the part of a marshalled block that is cast: its marshalled
// BlockData.
func Body(c *block.Checked) ([]byte, error) {
	rest := c.Bytes()
	for len(rest) > 0 {
		num, typ, n := protowire.ConsumeTag(rest)
		if n < 0 || typ != protowire.BytesType {
			break
		}
		v, m := protowire.ConsumeBytes(rest[n:])
		if m < 0 {
			break
		}
		if num == dataField {
			return v, nil
		}
		rest = rest[n+m:]
	}
	return nil, fmt.Errorf("block %d: %w", c.Number(), block.NoData)
}

package block

import (
	"fmt"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"grapevine/wire"
)

// minEntry is the size, framing included, below which no entry of a block can
// be well-formed: it bounds what a list of entries may make us allocate.
const minEntry = 8

// Decode reads a marshalled block without copying: the block's byte slices
// point into raw, which must not change afterwards. It takes only the one
// encoding that Fabric's own marshalling gives (fields in order, no unknown
// ones), for nobody signs the outer bytes; the entries are left as they are.
// Parts that lack are nil.
func Decode(raw []byte) (*common.Block, error) {
	if len(raw) > wire.MaxBlock {
		return nil, fmt.Errorf("block of %d bytes: %w", len(raw), TooLarge)
	}
	b := &common.Block{}
	rest := fields(raw)
	if v, ok := rest.bytes(1); ok {
		b.Header = &common.BlockHeader{}
		h := fields(v)
		b.Header.Number = h.number(1)
		b.Header.PreviousHash = h.filled(2)
		b.Header.DataHash = h.filled(3)
		if len(h) > 0 {
			return nil, fmt.Errorf("block header: %w", Malformed)
		}
	}
	if v, ok := rest.bytes(2); ok {
		list, err := decodeList(v, minEntry)
		if err != nil {
			return nil, fmt.Errorf("block data: %w", err)
		}
		b.Data = &common.BlockData{Data: list}
	}
	if v, ok := rest.bytes(3); ok {
		list, err := decodeList(v, 0)
		if err != nil {
			return nil, fmt.Errorf("block metadata: %w", err)
		}
		b.Metadata = &common.BlockMetadata{Metadata: list}
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("block: %w", Malformed)
	}
	return b, nil
}

// Marshal returns the one encoding that [Decode] takes.
func Marshal(b *common.Block) ([]byte, error) {
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("marshal block: %w", err)
	}
	return raw, nil
}

// decodeList reads a message whose only field is a repeated bytes field 1.
// Lists of more items than could each take least bytes are refused; with
// least 0 (metadata), those of more than maxSlots.
func decodeList(raw []byte, least int) ([][]byte, error) {
	n := 0
	for rest := fields(raw); len(rest) > 0; n++ {
		if _, ok := rest.bytes(1); !ok {
			return nil, Malformed
		}
	}
	if least > 0 && n > len(raw)/least+1 {
		return nil, NotCanonical
	}
	if least == 0 && n > slots {
		return nil, UnsignedMetadata
	}
	list := make([][]byte, 0, n)
	for rest := fields(raw); len(rest) > 0; {
		v, _ := rest.bytes(1)
		list = append(list, v)
	}
	return list, nil
}

// fields is what remains of a message in canonical encoding. Its methods take
// one field off the front; a field that isn't there, or not in canonical form,
// is left, so that a message is canonical if nothing remains after its last.
type fields []byte

// bytes takes a field of bytes, which may be empty.
func (f *fields) bytes(num protowire.Number) (v []byte, ok bool) {
	if len(*f) == 0 || (*f)[0] != byte(num<<3|2) {
		return nil, false
	}
	n, w := protowire.ConsumeVarint((*f)[1:])
	if w < 0 || w != protowire.SizeVarint(n) || n > uint64(len(*f)-1-w) {
		return nil, false
	}
	end := 1 + w + int(n)
	v = (*f)[1+w : end : end]
	*f = (*f)[end:]
	return v, true
}

// filled takes a singular field of bytes, which is not encoded when empty.
func (f *fields) filled(num protowire.Number) []byte {
	if len(*f) >= 2 && (*f)[1] == 0 {
		return nil
	}
	v, _ := f.bytes(num)
	return v
}

// number takes a varint field, which is not encoded when zero.
func (f *fields) number(num protowire.Number) uint64 {
	if len(*f) == 0 || (*f)[0] != byte(num<<3) {
		return 0
	}
	n, w := protowire.ConsumeVarint((*f)[1:])
	if w < 0 || w != protowire.SizeVarint(n) || n == 0 {
		return 0
	}
	*f = (*f)[1+w:]
	return n
}

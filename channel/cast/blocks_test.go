package cast

import (
	"testing"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
)

// head makes a block of a size, and its announcement by a node.
func (p *play) head(number uint64, size int, by *actor) (*Head, *Encoding) {
	data := &common.BlockData{Data: [][]byte{entry(p.t, size-64)}}
	for more := size - 64; len(marshalled(data)) < size; more++ {
		data.Data[0] = entry(p.t, more)
	}
	sum := block.DataHash(data)
	b := &common.Block{
		Header:   &common.BlockHeader{Number: number, PreviousHash: make([]byte, 32), DataHash: sum[:]},
		Metadata: &common.BlockMetadata{Metadata: [][]byte{make([]byte, 900), {}, {}, {}, {}}},
	}
	code, err := p.coder.Encode(marshalled(data))
	if err != nil {
		p.t.Fatal(err)
	}
	return p.announce(b, code, by), code
}

// entry makes an entry of a block that is in form, with some bytes of payload.
func entry(t testing.TB, bytes int) []byte {
	marshal := func(m proto.Message) []byte {
		raw, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	payload := &common.Payload{Header: &common.Header{ChannelHeader: marshal(&common.ChannelHeader{ChannelId: "ch"})}, Data: pattern(bytes)}
	return marshal(&common.Envelope{Payload: marshal(payload), Signature: []byte{1}})
}

func (p *play) announce(b *common.Block, code *Encoding, by *actor) *Head {
	return &Head{
		Number: b.Header.Number, Hash: block.HeaderHash(b.Header), Block: b, Size: uint64(code.Shape.Size), Roots: code.Roots,
		Announcer: by.id, Raw: make([]byte, 1300+len(code.Roots)),
	}
}

func marshalled(d *common.BlockData) []byte {
	raw, err := block.Marshal(&common.Block{Data: d})
	if err != nil {
		panic(err)
	}
	b, err := block.Decode(raw)
	if err != nil || len(b.Data.Data) != len(d.Data) {
		panic("not as it was")
	}
	for n := 1; ; n++ { // behind tag and length
		if raw[n] < 0x80 {
			return raw[n+1:]
		}
	}
}

package orderer

import (
	"encoding/binary"
	"fmt"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/orderer/etcdraft"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// entryBatch is the first byte of a Raft entry that makes a block. Others are for later kinds.
const entryBatch = 1

// batchEntry is what one Raft entry says: the envelopes of one block, as they will stand in it, cut under the rules of
// the configuration with this sequence.
type batchEntry struct {
	sequence uint64
	data     [][]byte
}

// marshal lays the entry out: kind, sequence (8 bytes, big endian), then each envelope behind its length as a varint.
func (e batchEntry) marshal() []byte {
	n := 9
	for _, d := range e.data {
		n += protowire.SizeBytes(len(d))
	}
	b := append(make([]byte, 0, n), entryBatch)
	b = binary.BigEndian.AppendUint64(b, e.sequence)
	for _, d := range e.data {
		b = protowire.AppendBytes(b, d)
	}
	return b
}

// parseEntry reads an entry; the envelopes are slices of b.
func parseEntry(b []byte) (batchEntry, error) {
	if len(b) < 9 || b[0] != entryBatch {
		return batchEntry{}, fmt.Errorf("raft entry of an unknown kind")
	}
	e := batchEntry{sequence: binary.BigEndian.Uint64(b[1:])}
	for b = b[9:]; len(b) > 0; {
		d, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return batchEntry{}, fmt.Errorf("raft entry: %w", protowire.ParseError(n))
		}
		e.data = append(e.data, d)
		b = b[n:]
	}
	return e, nil
}

// signedValue reads what the orderer signed of a block beside its header; empty if there is nothing.
func signedValue(b *common.Block) (*common.OrdererBlockMetadata, error) {
	var slot common.Metadata
	var out common.OrdererBlockMetadata
	list := b.GetMetadata().GetMetadata()
	if len(list) == 0 {
		return &out, nil
	}
	err := proto.Unmarshal(list[common.BlockMetadataIndex_SIGNATURES], &slot)
	if err == nil {
		err = proto.Unmarshal(slot.Value, &out)
	}
	if err != nil {
		return nil, fmt.Errorf("signed metadata of block %d: %w", b.GetHeader().GetNumber(), err)
	}
	return &out, nil
}

// metadataOf reads what a block's signed metadata says of consensus; empty if it says nothing.
func metadataOf(b *common.Block) (*etcdraft.BlockMetadata, error) {
	value, err := signedValue(b)
	if err != nil {
		return nil, err
	}
	var inner common.Metadata
	var out etcdraft.BlockMetadata
	if err = proto.Unmarshal(value.ConsenterMetadata, &inner); err == nil {
		err = proto.Unmarshal(inner.Value, &out)
	}
	if err != nil {
		return nil, fmt.Errorf("consensus metadata of block %d: %w", b.GetHeader().GetNumber(), err)
	}
	return &out, nil
}

// lastConfigOf is the number of the configuration block that was in force when a block was made.
func lastConfigOf(b *common.Block) (uint64, error) {
	value, err := signedValue(b)
	return value.GetLastConfig().GetIndex(), err
}

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

// raftIndex reads from a block's signed metadata the index of the Raft entry that it was made of; 0 if there is none.
func raftIndex(raw []byte) (uint64, error) {
	var (
		b     common.Block
		slot  common.Metadata
		value common.OrdererBlockMetadata
		inner common.Metadata
		index etcdraft.BlockMetadata
	)
	if err := proto.Unmarshal(raw, &b); err != nil {
		return 0, fmt.Errorf("raft index: %w", err)
	}
	list := b.GetMetadata().GetMetadata()
	if len(list) == 0 {
		return 0, nil
	}
	for _, step := range []struct {
		from func() []byte
		to   proto.Message
	}{
		{func() []byte { return list[common.BlockMetadataIndex_SIGNATURES] }, &slot},
		{func() []byte { return slot.Value }, &value},
		{func() []byte { return value.ConsenterMetadata }, &inner},
		{func() []byte { return inner.Value }, &index},
	} {
		if err := proto.Unmarshal(step.from(), step.to); err != nil {
			return 0, fmt.Errorf("raft index of block %d: %w", b.GetHeader().GetNumber(), err)
		}
	}
	return index.RaftIndex, nil
}

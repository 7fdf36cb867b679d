package block

import (
	"crypto/rand"
	"fmt"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"google.golang.org/protobuf/proto"

	"grapevine/msp"
)

// Sign fills a block's metadata as a Raft orderer does: slot 0 with the signed
// value and one signature, slot 1 with the copy of the last configuration's
// number, 2 to 4 empty. ConsenterMetadata is the marshalled
// etcdraft.BlockMetadata, which the value wraps as Fabric does; it may be
// empty. B.Header must be complete.
func Sign(b *common.Block, s msp.Signer, lastConfig uint64, consenterMetadata []byte) error {
	if b.GetHeader() == nil {
		return fmt.Errorf("sign block: %w", NoHeader)
	}
	last := &common.LastConfig{Index: lastConfig}
	wrapped, err := proto.Marshal(&common.Metadata{Value: consenterMetadata})
	if err != nil {
		return fmt.Errorf("wrap consenter metadata: %w", err)
	}
	value, err := proto.Marshal(&common.OrdererBlockMetadata{LastConfig: last, ConsenterMetadata: wrapped})
	if err != nil {
		return fmt.Errorf("marshal orderer metadata: %w", err)
	}
	signed, err := signValue(value, b.Header, s)
	if err != nil {
		return err
	}
	index, err := proto.Marshal(last)
	if err != nil {
		return fmt.Errorf("marshal last config: %w", err)
	}
	lastSlot, err := proto.Marshal(&common.Metadata{Value: index})
	if err != nil {
		return fmt.Errorf("marshal last config: %w", err)
	}
	b.Metadata = &common.BlockMetadata{Metadata: [][]byte{signed, lastSlot, nil, nil, nil}}
	return nil
}

// SignAgain returns b with the signed value that it has, and s's signature over
// it in place of those that it came with. B must verify; it isn't changed, and
// shares its header and data with what is returned.
func SignAgain(b *common.Block, s msp.Signer) (*common.Block, error) {
	slots := b.GetMetadata().GetMetadata()
	if b.GetHeader() == nil || len(slots) == 0 {
		return nil, fmt.Errorf("sign block again: %w", NoMetadata)
	}
	var first common.Metadata
	if err := proto.Unmarshal(slots[0], &first); err != nil {
		return nil, fmt.Errorf("sign block %d again: %w: %w", b.Header.Number, Malformed, err)
	}
	signed, err := signValue(first.Value, b.Header, s)
	if err != nil {
		return nil, err
	}
	return &common.Block{
		Header: b.Header, Data: b.Data,
		Metadata: &common.BlockMetadata{Metadata: append([][]byte{signed}, slots[1:]...)},
	}, nil
}

// signValue is slot 0 of a block's metadata: value, and one signature over it.
func signValue(value []byte, h *common.BlockHeader, s msp.Signer) ([]byte, error) {
	s = msp.Present(s)
	nonce := make([]byte, 24)
	rand.Read(nonce) // never fails
	header, err := proto.Marshal(&common.SignatureHeader{Creator: s.Identity().Serialized(), Nonce: nonce})
	if err != nil {
		return nil, fmt.Errorf("marshal signature header: %w", err)
	}
	sig, err := s.Sign(SigningBytes(value, header, h))
	if err != nil {
		return nil, fmt.Errorf("sign block %d: %w", h.Number, err)
	}
	signed, err := proto.Marshal(&common.Metadata{
		Value:      value,
		Signatures: []*common.MetadataSignature{{SignatureHeader: header, Signature: sig}},
	})
	if err != nil {
		return nil, fmt.Errorf("marshal signatures: %w", err)
	}
	return signed, nil
}

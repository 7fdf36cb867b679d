package block

import (
	"fmt"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"google.golang.org/protobuf/proto"
)

// Slots of a block's metadata. Fabric's enum stops at COMMIT_HASH; slot 3
// (ORDERER) is empty since 1.4.1.
const (
	slotSignatures = int(common.BlockMetadataIndex_SIGNATURES)
	slotLastConfig = int(common.BlockMetadataIndex_LAST_CONFIG) //nolint:staticcheck // old blocks have it
	slotFilter     = int(common.BlockMetadataIndex_TRANSACTIONS_FILTER)
	slotOrderer    = 3
	slotCommitHash = int(common.BlockMetadataIndex_COMMIT_HASH)
	slots          = 5
)

// maxSignatures bounds what is decoded before the rules, and with them the
// number of consenters, are looked at.
const maxSignatures = 1024

// Bounds on the parts of one signature, which relays could else stuff: Fabric
// ignores what follows a signature's own encoding, and garbage beside enough
// good signatures. A header holds a certificate, a P-521 signature 139 bytes.
const (
	maxSignature       = 1 << 10
	maxSignatureHeader = 64 << 10
)

// metadata is what the signed slot says.
type metadata struct {
	slot       []byte // slot 0 as it came
	value      []byte // what every signature covers
	lastConfig uint64
	signatures []signature
}

// A signature carries the header that names its signer: a SignatureHeader, or
// an IdentifierHeader where that is empty.
type signature struct{ header, identifier, bytes []byte }

// readMetadata reads the signed slot and refuses whatever beside it nobody
// signed and contradicts. Entries is the number of the block's transactions,
// or -1 if they aren't at hand.
func readMetadata(m *common.BlockMetadata, entries int) (metadata, error) {
	list := m.GetMetadata()
	if len(list) < slots {
		return metadata{}, fmt.Errorf("%d metadata slots of %d: %w", len(list), slots, NoMetadata)
	}
	if len(list) > slots {
		return metadata{}, fmt.Errorf("%d metadata slots of %d: %w", len(list), slots, UnsignedMetadata)
	}
	md := metadata{slot: list[slotSignatures]}
	rest := fields(md.slot)
	md.value = rest.filled(1)
	var err error
	if md.signatures, err = readSignatures(rest); err != nil {
		return metadata{}, err
	}

	// Orderers before 1.4.1 signed an empty value, and told the last
	// configuration in a slot of its own.
	legacy := len(md.value) == 0
	if !legacy {
		var value common.OrdererBlockMetadata
		if err := proto.Unmarshal(md.value, &value); err != nil {
			return metadata{}, fmt.Errorf("orderer block metadata: %w: %w", Malformed, err)
		}
		md.lastConfig = value.GetLastConfig().GetIndex()
	}
	if err := md.readLastConfig(list[slotLastConfig], legacy); err != nil {
		return metadata{}, err
	}
	if n := len(list[slotFilter]); n > 0 && entries >= 0 && n != entries {
		return metadata{}, fmt.Errorf("%d validation codes for %d transactions: %w", n, entries, UnsignedMetadata)
	}
	if len(list[slotOrderer]) > 0 && !legacy {
		return metadata{}, fmt.Errorf("orderer slot filled: %w", UnsignedMetadata)
	}
	if hash := fields(list[slotCommitHash]); len(hash) > 0 {
		if v := hash.filled(1); len(v) != 32 || len(hash) > 0 {
			return metadata{}, fmt.Errorf("commit hash: %w", UnsignedMetadata)
		}
	}
	return md, nil
}

// readLastConfig reads the unsigned copy of the last configuration's number.
// No bytes at all are what index 0 encodes to.
func (m *metadata) readLastConfig(slot []byte, legacy bool) error {
	if len(slot) == 0 {
		return nil
	}
	rest := fields(slot)
	value := fields(rest.filled(1))
	index := value.number(1)
	if legacy {
		if len(value) > 0 {
			return fmt.Errorf("last config slot: %w", UnsignedMetadata)
		}
		m.lastConfig = index
		return nil
	}
	if len(rest) > 0 || len(value) > 0 || index != m.lastConfig {
		return fmt.Errorf("last config %d in its slot, %d signed: %w", index, m.lastConfig, UnsignedMetadata)
	}
	return nil
}

// readSignatures reads a list of MetadataSignature, all of what remains of
// the signed slot.
func readSignatures(rest fields) ([]signature, error) {
	n := 0
	for r := rest; len(r) > 0; n++ {
		if _, ok := r.bytes(2); !ok {
			return nil, fmt.Errorf("signatures: %w", Malformed)
		}
		if n == maxSignatures {
			return nil, fmt.Errorf("more than %d signatures: %w", maxSignatures, TooManySignatures)
		}
	}
	list := make([]signature, 0, n)
	for len(rest) > 0 {
		v, _ := rest.bytes(2)
		f := fields(v)
		s := signature{header: f.filled(1)}
		s.bytes = f.filled(2)
		s.identifier = f.filled(3)
		if len(f) > 0 || len(s.bytes) > maxSignature || len(s.header)+len(s.identifier) > maxSignatureHeader {
			return nil, fmt.Errorf("signature %d: %w", len(list), Malformed)
		}
		list = append(list, s)
	}
	return list, nil
}

// LastConfigOf returns the signed number of the last configuration block, which
// is a configuration block's own. The block is one that was verified.
func LastConfigOf(b *common.Block) (uint64, error) {
	m, err := readMetadata(b.GetMetadata(), -1)
	if err != nil {
		return 0, fmt.Errorf("block %d: %w", b.GetHeader().GetNumber(), err)
	}
	return m.lastConfig, nil
}

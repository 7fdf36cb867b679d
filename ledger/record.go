package ledger

import (
	"encoding/binary"
	"fmt"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
)

// formatVersion is written to the folder's marker and to every record. It goes
// up when an older program would misread what a newer one wrote.
const formatVersion = 1

// A record says which number a channel's keys carry and which chain it is.
type record struct {
	number  uint32
	genesis [32]byte // header hash of block 0
	kept    span     // as it was when the ledger was opened: see mark
}

// A span says what is left of a chain whose beginning isn't kept. The zero value
// is a whole one.
type span struct {
	blocks  uint64 // the first of the blocks that are kept without a gap, and judged
	history uint64 // keys' histories begin here
}

// A record of the second version has a span, which an older program would take
// for damage.
const (
	recordLen     = 1 + 4 + 32
	keptVersion   = formatVersion + 1
	keptRecordLen = recordLen + 8 + 8
)

func (r record) marshal() []byte {
	b := append(make([]byte, 0, keptRecordLen), formatVersion)
	b = binary.BigEndian.AppendUint32(b, r.number)
	b = append(b, r.genesis[:]...)
	if r.kept == (span{}) {
		return b
	}
	b[0] = keptVersion
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, r.kept.blocks), r.kept.history)
}

func parseRecord(b []byte) (record, error) {
	if len(b) == 0 || b[0] != formatVersion && b[0] != keptVersion {
		return record{}, fmt.Errorf("channel record of another format: %w", ErrForeign)
	}
	if len(b) != recordLen && b[0] == formatVersion || len(b) != keptRecordLen && b[0] == keptVersion {
		return record{}, fmt.Errorf("channel record of %d bytes: %w", len(b), ErrCorrupt)
	}
	r := record{number: binary.BigEndian.Uint32(b[1:])}
	copy(r.genesis[:], b[5:])
	if b[0] == keptVersion {
		r.kept = span{binary.BigEndian.Uint64(b[recordLen:]), binary.BigEndian.Uint64(b[recordLen+8:])}
	}
	return r, nil
}

// A mark is where a channel's chain ends. It is the one key from which
// everything else follows, and is written in the batch of the blocks it counts.
type mark struct {
	block.Tip
	config uint64 // number of the newest configuration block below the height
	state  stateMark
	kept   span // lies in the channel's record; it may say more is gone than is, never less
}

// A stateMark is how far the world state has come, and lies in a record of its
// own: height is that of the blocks before, at most the mark's, and carry what the
// executor wants back. Before block 0 it is the zero value.
type stateMark struct {
	height uint64
	hash   [32]byte
	carry  []byte
}

const stateMarkLen = 1 + 8 + 32

func (s stateMark) marshal() []byte {
	b := append(make([]byte, 0, stateMarkLen+len(s.carry)), formatVersion)
	b = binary.BigEndian.AppendUint64(b, s.height)
	return append(append(b, s.hash[:]...), s.carry...)
}

func parseStateMark(b []byte) (stateMark, error) {
	if len(b) == 0 || b[0] != formatVersion {
		return stateMark{}, fmt.Errorf("state record of another format: %w", ErrForeign)
	}
	if len(b) < stateMarkLen {
		return stateMark{}, fmt.Errorf("state record of %d bytes: %w", len(b), ErrCorrupt)
	}
	s := stateMark{height: binary.BigEndian.Uint64(b[1:]), carry: b[stateMarkLen:]}
	copy(s.hash[:], b[9:])
	return s, nil
}

const markLen = 1 + 8 + 32 + 8

func (m mark) marshal() []byte {
	b := append(make([]byte, 0, markLen), formatVersion)
	b = binary.BigEndian.AppendUint64(b, m.Height)
	b = append(b, m.Hash[:]...)
	return binary.BigEndian.AppendUint64(b, m.config)
}

func parseMark(b []byte) (mark, error) {
	if len(b) == 0 || b[0] != formatVersion {
		return mark{}, fmt.Errorf("tip record of another format: %w", ErrForeign)
	}
	if len(b) != markLen {
		return mark{}, fmt.Errorf("tip record of %d bytes: %w", len(b), ErrCorrupt)
	}
	m := mark{config: binary.BigEndian.Uint64(b[41:])}
	m.Height = binary.BigEndian.Uint64(b[1:])
	copy(m.Hash[:], b[9:])
	if m.Height == 0 || m.config >= m.Height {
		return mark{}, fmt.Errorf("tip record with height %d and config %d: %w", m.Height, m.config, ErrCorrupt)
	}
	return m, nil
}

// holdsConfig reports whether a kept block holds a configuration.
func holdsConfig(raw []byte) (bool, error) {
	b, err := block.Decode(raw)
	if err != nil {
		return false, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return block.IsConfig(b), nil
}

// header reads the header of a kept block without decoding its data, which may
// be a hundred megabytes. Fields come in any order and the last one counts, as
// in every protobuf decoder.
func header(raw []byte) (*common.BlockHeader, error) {
	const headerField = 1
	var h *common.BlockHeader
	for len(raw) > 0 {
		field, typ, n := protowire.ConsumeTag(raw)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		raw = raw[n:]
		if field != headerField || typ != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(field, typ, raw); n < 0 {
				return nil, protowire.ParseError(n)
			}
			raw = raw[n:]
			continue
		}
		v, n := protowire.ConsumeBytes(raw)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		raw = raw[n:]
		if h == nil {
			h = new(common.BlockHeader)
		}
		if err := (proto.UnmarshalOptions{Merge: true}).Unmarshal(v, h); err != nil {
			return nil, err
		}
	}
	if h == nil {
		return nil, fmt.Errorf("no header")
	}
	return h, nil
}

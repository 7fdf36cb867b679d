package ledger

import (
	"encoding/binary"
	"fmt"
)

// An entry is kept as block, index, length of the metadata (unsigned varints),
// metadata, value.

func marshalEntry(e *Entry) []byte {
	b := make([]byte, 0, 3*binary.MaxVarintLen64+len(e.Metadata)+len(e.Value))
	b = binary.AppendUvarint(b, e.Block)
	b = binary.AppendUvarint(b, e.Tx)
	b = binary.AppendUvarint(b, uint64(len(e.Metadata)))
	return append(append(b, e.Metadata...), e.Value...)
}

// parseEntry takes an entry apart; it points into b.
func parseEntry(b []byte) (*Entry, error) {
	e := &Entry{}
	block, b, err := version(b)
	if err != nil {
		return nil, err
	}
	tx, b, err := version(b)
	if err != nil {
		return nil, err
	}
	size, b, err := version(b)
	if err != nil {
		return nil, err
	}
	if size > uint64(len(b)) {
		return nil, fmt.Errorf("entry cut short: %w", ErrCorrupt)
	}
	e.Block, e.Tx = block, tx
	if size > 0 {
		e.Metadata = b[:size:size]
	}
	e.Value = b[size:]
	return e, nil
}

func version(b []byte) (uint64, []byte, error) {
	v, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, nil, fmt.Errorf("entry cut short: %w", ErrCorrupt)
	}
	return v, b[n:], nil
}

// A verdict is kept as state hash, length of the commit hash, commit hash, codes.

func (v Verdict) marshal() []byte {
	b := append(make([]byte, 0, 33+len(v.CommitHash)+len(v.Codes)), v.StateHash[:]...)
	b = append(b, byte(len(v.CommitHash)))
	return append(append(b, v.CommitHash...), v.Codes...)
}

func parseVerdict(b []byte) (v Verdict, err error) {
	if len(b) < 33 || len(b) < 33+int(b[32]) {
		return v, fmt.Errorf("verdict of %d bytes: %w", len(b), ErrCorrupt)
	}
	copy(v.StateHash[:], b)
	n := 33 + int(b[32])
	v.CommitHash, v.Codes = b[33:n:n], b[n:]
	return v, nil
}

func appendNumber(dst []byte, n uint64) []byte { return binary.BigEndian.AppendUint64(dst, n) }

package state

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// A Mark is what the next block's outcome needs of all blocks before: Fabric's
// commit hash, which is chained, and the sum behind the state hash. The zero value
// stands before block 0. It is not changed once it is made.
type Mark struct {
	CommitHash []byte // 32 bytes, or none: before block 1 there is none
	Sum        Sum
}

const (
	markVersion = 1
	hashBytes   = 32
)

var errMark = errors.New("not a mark of the state")

// StateHash is the digest of the state at the mark.
func (m *Mark) StateHash() [32]byte { return m.Sum.Digest() }

// Marshal encodes the mark.
func (m *Mark) Marshal() []byte {
	b := make([]byte, 0, 2+hashBytes+sumBytes)
	b = append(b, markVersion, byte(len(m.CommitHash)))
	b = append(b, m.CommitHash...)
	return m.Sum.append(b)
}

// ParseMark decodes what Marshal wrote; nothing at all is the zero mark.
func ParseMark(b []byte) (*Mark, error) {
	m := &Mark{}
	if len(b) == 0 {
		return m, nil
	}
	if b[0] != markVersion {
		return nil, fmt.Errorf("mark of format %d: %w", b[0], errMark)
	}
	if len(b) < 2 || b[1] != 0 && b[1] != hashBytes || len(b) != 2+int(b[1])+sumBytes {
		return nil, fmt.Errorf("%d bytes: %w", len(b), errMark)
	}
	if b[1] > 0 {
		m.CommitHash = append(m.CommitHash, b[2:2+hashBytes]...)
	}
	for i, v := 0, b[2+int(b[1]):]; i < sumLanes; i++ {
		m.Sum[i] = binary.LittleEndian.Uint16(v[2*i:])
	}
	return m, nil
}

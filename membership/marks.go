package membership

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"grapevine/msp"
)

// Marks are stored as one value: a version byte, then 64 bytes for each
// identity, ascending: PKI-ID, incarnation, sequence, time sent and end of the
// certificate in milliseconds since 1970, big-endian.
const (
	marksVersion = 1
	markSize     = 32 + 4*8
)

// encode returns the marks as they are stored.
func (v *view) encode() []byte {
	ids := make([]msp.PKIID, 0, len(v.marks))
	for id := range v.marks {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b msp.PKIID) int { return slices.Compare(a[:], b[:]) })
	out := make([]byte, 1, 1+len(ids)*markSize)
	out[0] = marksVersion
	for _, id := range ids {
		m := v.marks[id]
		out = append(out, id[:]...)
		out = binary.BigEndian.AppendUint64(out, m.incarnation)
		out = binary.BigEndian.AppendUint64(out, m.sequence)
		out = binary.BigEndian.AppendUint64(out, uint64(m.sentAt.UnixMilli()))
		out = binary.BigEndian.AppendUint64(out, uint64(m.notAfter.UnixMilli()))
	}
	return out
}

// decode takes stored marks in. What doesn't decode is our own disk's fault
// and an error: without the marks a replay could pass.
func (v *view) decode(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	if b[0] != marksVersion || len(b[1:])%markSize != 0 || len(b[1:])/markSize > maxMarks {
		return fmt.Errorf("stored marks: version %d, %d bytes", b[0], len(b))
	}
	last := []byte(nil)
	for b = b[1:]; len(b) > 0; b = b[markSize:] {
		id := b[:32]
		if last != nil && bytes.Compare(id, last) <= 0 {
			return fmt.Errorf("stored marks: %x after %x", id, last)
		}
		last = id
		u := func(i int) uint64 { return binary.BigEndian.Uint64(b[32+8*i:]) }
		v.marks[msp.PKIID(id)] = &mark{
			incarnation: u(0), sequence: u(1),
			sentAt: time.UnixMilli(int64(u(2))), notAfter: time.UnixMilli(int64(u(3))),
		}
	}
	return nil
}

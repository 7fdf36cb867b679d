package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Reasons for which a frame is refused.
var (
	Empty     = NewReason("wire.empty", Reject)
	TooLarge  = NewReason("wire.too_large", Close)
	BadVarint = NewReason("wire.bad_varint", Close)
	Stalled   = NewReason("wire.stalled", Close)
	Truncated = NewReason("wire.truncated", Close)
)

// step is how much is read at a time: what a peer claims is never allocated
// before it came.
const step = 64 << 10

// ReadFrame reads one frame: its length as an unsigned varint, then as many
// bytes. A length above max is refused before anything is allocated. At a
// clean end before the first byte the error is io.EOF. Time limits are the
// stream's deadlines, set by the caller: an expired one gives [Stalled].
func ReadFrame(r io.Reader, max int) ([]byte, error) {
	n, err := readLength(r)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, fmt.Errorf("frame of no bytes: %w", Empty)
	}
	if n > uint64(max) {
		return nil, fmt.Errorf("frame of %d bytes, limit %d: %w", n, max, TooLarge)
	}
	b := make([]byte, 0, min(int(n), step))
	for len(b) < int(n) {
		if len(b) == cap(b) {
			b = append(make([]byte, 0, min(int(n), 2*cap(b))), b...)
		}
		m, err := io.ReadFull(r, b[len(b):cap(b)])
		b = b[:len(b)+m]
		if err != nil {
			return nil, fmt.Errorf("frame of %d bytes, got %d: %w", n, len(b), streamError(err))
		}
	}
	return b, nil
}

// AppendFrame appends b as a frame to dst.
func AppendFrame(dst, b []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}

// WriteFrame writes b as a frame. A small one goes out in one Write.
func WriteFrame(w io.Writer, b []byte) error {
	if len(b) <= step {
		_, err := w.Write(AppendFrame(make([]byte, 0, len(b)+binary.MaxVarintLen64), b))
		return err
	}
	if _, err := w.Write(binary.AppendUvarint(nil, uint64(len(b)))); err != nil {
		return err
	}
	_, err := w.Write(b)
	return err
}

// readLength reads an unsigned varint byte by byte, so that nothing behind the
// frame is taken from r; it refuses encodings longer than needed.
func readLength(r io.Reader) (uint64, error) {
	var n uint64
	var b [1]byte
	for i := 0; ; i++ {
		if _, err := io.ReadFull(r, b[:]); err != nil {
			if err == io.EOF && i == 0 {
				return 0, io.EOF
			}
			return 0, fmt.Errorf("frame length: %w", streamError(err))
		}
		if i == 9 && b[0] > 1 || i > 0 && b[0] == 0 {
			return 0, fmt.Errorf("frame length: %w", BadVarint)
		}
		n |= uint64(b[0]&0x7f) << (7 * i)
		if b[0] < 0x80 {
			return n, nil
		}
	}
}

func streamError(err error) error {
	var t interface{ Timeout() bool }
	switch {
	case errors.As(err, &t) && t.Timeout():
		return fmt.Errorf("%w: %w", Stalled, err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: %w", Truncated, io.ErrUnexpectedEOF)
	}
	return err
}

package wire

import (
	"bufio"
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
	n, err := ReadHead(r, max)
	if err != nil {
		return nil, err
	}
	return ReadBody(r, n, step, nil)
}

// Ahead reads ahead from a stream on which many small frames come and nothing
// else, so that the length of one takes no read of its own.
func Ahead(r io.Reader) io.Reader { return bufio.NewReaderSize(r, 512) }

// ReadHead is the first half of [ReadFrame]: it reads and judges the length.
func ReadHead(r io.Reader, max int) (int, error) {
	n, err := readLength(r)
	if err != nil {
		return 0, err
	}
	if n == 0 {
		return 0, fmt.Errorf("frame of no bytes: %w", Empty)
	}
	if n > uint64(max) {
		return 0, fmt.Errorf("frame of %d bytes, limit %d: %w", n, max, TooLarge)
	}
	return int(n), nil
}

// ReadBody is the second half of [ReadFrame]: it allocates ahead bytes before
// they came, and then no more than came already. Before it allocates more it
// asks grow, if that isn't nil, whether it may take so many in all.
func ReadBody(r io.Reader, n, ahead int, grow func(to int) error) ([]byte, error) {
	b := make([]byte, 0, min(n, ahead))
	for len(b) < n {
		if len(b) == cap(b) {
			to := min(n, 2*cap(b))
			if grow != nil {
				if err := grow(to); err != nil {
					return nil, err
				}
			}
			b = append(make([]byte, 0, to), b...)
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
	for i := 0; ; i++ {
		b, err := readByte(r)
		if err != nil {
			if errors.Is(err, io.EOF) && i == 0 {
				return 0, io.EOF
			}
			return 0, fmt.Errorf("frame length: %w", streamError(err))
		}
		if i == 9 && b > 1 || i > 0 && b == 0 {
			return 0, fmt.Errorf("frame length: %w", BadVarint)
		}
		n |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			return n, nil
		}
	}
}

func readByte(r io.Reader) (byte, error) {
	if r, ok := r.(io.ByteReader); ok {
		return r.ReadByte()
	}
	var b [1]byte
	_, err := io.ReadFull(r, b[:])
	return b[0], err
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

package cast

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"

	"grapevine/wire"
)

const (
	readBuffer = 16 << 10
	// frameTime is how long a frame may take, once it has begun.
	frameTime = 10 * time.Second
	// Frames without data that a member may send a second, and at once: an
	// honest one sends a few for each block.
	framesPerSecond = 2000
	framesAtOnce    = 8000
	// streamMemory is what a stream's buffers take.
	streamMemory = readBuffer + maxChunk
)

// Serve takes what a member sends on a stream, until the stream ends.
func (c *Cast) Serve(s network.Stream, from peer.ID) {
	if err := s.Scope().ReserveMemory(streamMemory, network.ReservationPriorityMedium); err != nil {
		_ = s.ResetWithError(network.StreamResourceLimitExceeded) // nothing more is read from it
		return
	}
	defer s.Scope().ReleaseMemory(streamMemory)
	r := reader{
		cast: c, from: from, stream: s, in: bufio.NewReaderSize(s, readBuffer),
		words: rate.NewLimiter(framesPerSecond, framesAtOnce),
	}
	for {
		err := r.frame()
		if err == nil {
			continue
		}
		if errors.Is(err, io.EOF) && wire.ReasonOf(err) == nil {
			_ = s.Close() // the other side has ended it
			return
		}
		c.log.Debug("a stream ended", "peer", from, "err", err)
		if reason := wire.ReasonOf(err); reason != nil {
			c.refused(from, reason)
		}
		_ = s.Reset() // nothing more is read from it
		return
	}
}

// A reader is one member's stream to this node.
type reader struct {
	cast   *Cast
	from   peer.ID
	stream network.Stream
	in     *bufio.Reader
	words  *rate.Limiter
	rest   [frameMost]byte
	late   bool // a deadline is set
}

// need makes sure that n bytes come within a frame's time.
func (r *reader) need(n int) error {
	if r.late || r.in.Buffered() >= n {
		return nil
	}
	r.late = true
	return r.stream.SetReadDeadline(time.Now().Add(frameTime))
}

// frame takes one frame.
func (r *reader) frame() error {
	b, err := r.in.ReadByte()
	if err != nil {
		return err // io.EOF between frames is an end like any
	}
	t := frameType(b)
	if t == 0 || t >= frameTypes {
		return fmt.Errorf("frame of type %d: %w", t, BadFrame)
	}
	rest := r.rest[:frameLengths[t]]
	if err := r.read(rest); err != nil {
		return err
	}
	switch t {
	case frameChunk:
		err = r.chunk(rest)
	case framePart:
		err = r.part(rest)
	default:
		err = r.word(t, rest)
	}
	if err == nil && r.late {
		r.late = false
		err = r.stream.SetReadDeadline(time.Time{})
	}
	return err
}

func (r *reader) read(b []byte) error {
	err := r.need(len(b))
	if err == nil {
		_, err = io.ReadFull(r.in, b)
	}
	return inFrame(err)
}

// inFrame says what an error means within a frame.
func inFrame(err error) error {
	var t interface{ Timeout() bool }
	switch {
	case err == nil:
		return nil
	case errors.As(err, &t) && t.Timeout():
		return fmt.Errorf("%w: %w", wire.Stalled, err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: %w", wire.Truncated, io.ErrUnexpectedEOF)
	}
	return err
}

// chunk takes a chunk. What nobody needs isn't kept nor hashed.
func (r *reader) chunk(rest []byte) error {
	ch, hashes, length, err := readChunk(rest)
	if err != nil {
		return err
	}
	wanted, err := r.cast.wants(r.from, ch, length)
	if err != nil {
		return fmt.Errorf("chunk %d of segment %d: %w", ch.index, ch.segment, err)
	}
	r.cast.received.Add(uint64(len(rest) + 1 + hashes*HashSize + length))
	if err := r.need(hashes*HashSize + length); err != nil {
		return err
	}
	if !wanted {
		r.cast.refused(r.from, Duplicate)
		_, err := r.in.Discard(hashes*HashSize + length)
		return inFrame(err)
	}
	if hashes > 0 {
		ch.hashes = make([]hash, hashes)
		for i := range ch.hashes {
			if err := r.read(ch.hashes[i][:]); err != nil {
				return err
			}
		}
	}
	buf := r.cast.buffers.Get().(*[maxChunk]byte)
	defer r.cast.buffers.Put(buf)
	ch.data = buf[:length]
	if err := r.read(ch.data); err != nil {
		return err
	}
	ch.leaf = leafOf(ch.data)
	r.cast.take(evChunk{r.from, ch})
	return nil
}

// part takes a part of a body, straight to its place.
func (r *reader) part(rest []byte) error {
	id, offset, length, err := readPart(rest)
	if err != nil {
		return err
	}
	room, why, err := r.cast.place(r.from, id, offset, length)
	if err != nil {
		return fmt.Errorf("%d bytes of a body from %d on: %w", length, offset, err)
	}
	r.cast.received.Add(uint64(1 + len(rest) + length))
	if err := r.need(length); err != nil {
		return err
	}
	if room == nil {
		r.cast.refused(r.from, why)
		_, err := r.in.Discard(length)
		return inFrame(err)
	}
	if err := r.read(room); err != nil {
		return err
	}
	r.cast.take(evPart{r.from, id, length})
	return nil
}

// word takes any other frame.
func (r *reader) word(t frameType, rest []byte) error {
	if !r.words.Allow() {
		return RateLimit
	}
	if t == frameHead {
		return r.head(rest)
	}
	n := binary.BigEndian.Uint64(rest)
	id := sessionID(n)
	switch t {
	case frameDone:
		r.cast.take(evDone{r.from, id})
	case frameNeed:
		s, segment, have := readNeed(rest)
		r.cast.take(evNeed{r.from, s, segment, have})
	case frameAsk:
		r.cast.take(evAsk{r.from, id})
	case frameNone:
		r.cast.take(evNone{r.from, id})
	case framePing:
		r.cast.pong(r.from, n)
	case framePong:
		r.cast.ponged(r.from, n)
	}
	return nil
}

// head takes an announcement, which the channel judges as if it had come on the
// topic.
func (r *reader) head(rest []byte) error {
	h, length, err := readHead(rest)
	if err != nil {
		return err
	}
	raw := make([]byte, 0, min(length, readBuffer))
	for len(raw) < length {
		n := min(length-len(raw), readBuffer)
		raw = append(raw, make([]byte, n)...)
		if err := r.read(raw[len(raw)-n:]); err != nil {
			return err
		}
	}
	r.cast.received.Add(uint64(1 + len(rest) + length))
	return r.cast.headed(r.from, h, raw)
}

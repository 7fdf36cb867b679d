package blocksync

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"google.golang.org/protobuf/proto"

	"grapevine/wire"
)

// ahead is how much of a block is allocated before it came: what a peer claims
// beyond that is believed as it comes.
const ahead = 1 << 20

// asking is one request and what becomes of its answer.
type asking struct {
	first, count uint64
	nonce        uint64
	wait         time.Duration
	room         func(n uint64, from, to int) error // sets memory aside for block n: to bytes instead of from
	free         func(bytes int)                    // gives it back
	each         func(n uint64, raw []byte) error   // takes block n, and the memory set aside for it
	all          func() error                       // all that will come was read: is any of it wrong?
	moved        func(n int)                        // n bytes came
	owner        func(nonce uint64) bool            // tells whether another request in flight has this nonce

	status   *wire.BlocksStatus // what the peer said, once it did
	finished bool               // all that was asked for came, and is right
}

// run asks on a fresh stream and takes the blocks in. The stream is closed or
// reset when it returns. Errors of the peer's making carry a reason; Busy and
// errLacking are its refusals.
func (a *asking) run(ctx context.Context, s network.Stream) (err error) {
	defer func() {
		if err != nil {
			s.ResetWithError(resetCode(err))
			err = remote(err)
			return
		}
		_ = s.Close() // all that will be read has been
	}()
	defer context.AfterFunc(ctx, func() { s.Reset() })()
	if err := writeRequest(s, &wire.BlocksRequest{First: a.first, Count: a.count, Nonce: a.nonce, WaitMs: uint32(a.wait.Milliseconds())}); err != nil {
		return err
	}
	r := bufio.NewReaderSize(&meter{s: s, moved: a.moved, patience: progressTime + a.wait}, 64<<10)
	if err := a.readStatus(r); err != nil {
		return err
	}
	if err := a.readBlocks(r); err != nil {
		return err
	}
	if err := a.all(); err != nil || !a.finished {
		return err
	}
	return a.readEnd(r)
}

// writeRequest writes the one request.
func writeRequest(s network.Stream, m proto.Message) error {
	req, err := wire.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	if err := s.SetWriteDeadline(time.Now().Add(requestTime)); err != nil {
		return fmt.Errorf("set deadline: %w", err)
	}
	if err := wire.WriteFrame(s, req); err != nil {
		return fmt.Errorf("write request: %w", err)
	}
	return s.CloseWrite()
}

func (a *asking) readStatus(r io.Reader) error {
	b, err := wire.ReadFrame(r, wire.MaxRequest)
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("no status: %w", Truncated)
	} else if err != nil {
		return fmt.Errorf("read status: %w", err)
	}
	status := new(wire.BlocksStatus)
	if err := wire.Unmarshal(b, status); err != nil {
		return fmt.Errorf("status: %w", err)
	}
	if status.Nonce != a.nonce {
		if a.owner != nil && a.owner(status.Nonce) {
			return fmt.Errorf("status: %w", WrongPeer)
		}
		return fmt.Errorf("status: %w", Unasked)
	}
	a.status = status
	switch status.Code {
	case wire.BlocksStatus_CODE_OK:
		if status.Lowest > a.first {
			return fmt.Errorf("serves block %d and holds none below %d: %w", a.first, status.Lowest, BadStatus)
		}
		return nil
	case wire.BlocksStatus_CODE_NOT_FOUND:
		return errLacking
	case wire.BlocksStatus_CODE_BUSY:
		return Busy
	}
	return fmt.Errorf("status %s: %w", status.Code, BadStatus)
}

// readBlocks takes what comes until all is there, or the server ends earlier,
// which it may after the first.
func (a *asking) readBlocks(r io.Reader) error {
	budget := maxBytes
	for i := range a.count {
		limit := budget
		if i == 0 {
			limit = wire.MaxBlock
		}
		raw, err := a.readBlock(r, a.first+i, limit)
		switch {
		case errors.Is(err, io.EOF) && i == 0:
			return fmt.Errorf("block %d: %w", a.first, Empty)
		case errors.Is(err, io.EOF):
			return nil
		case i > 0 && errors.Is(err, wire.TooLarge):
			return fmt.Errorf("block %d: %w: %w", a.first+i, OverBudget, err)
		case errors.Is(err, wire.Truncated):
			return fmt.Errorf("block %d: %w: %w", a.first+i, Truncated, err)
		case err != nil:
			return fmt.Errorf("block %d: %w", a.first+i, err)
		}
		budget -= min(len(raw), budget)
		if err := a.order(i, raw); err != nil {
			a.free(len(raw))
			return err
		}
		if err := a.each(a.first+i, raw); err != nil {
			return fmt.Errorf("block %d: %w", a.first+i, err)
		}
	}
	a.finished = true
	return nil
}

// readBlock reads one frame, for which there must be room.
func (a *asking) readBlock(r io.Reader, n uint64, limit int) ([]byte, error) {
	size, err := wire.ReadHead(r, limit)
	if err != nil {
		return nil, err
	}
	has := 0
	grow := func(to int) error {
		err := a.room(n, has, to)
		if err == nil {
			has = to
		}
		return err
	}
	if err := grow(min(size, ahead)); err != nil {
		return nil, err
	}
	raw, err := wire.ReadBody(r, size, ahead, grow)
	if err != nil {
		a.free(has)
	}
	return raw, err
}

// order refuses, before anything costly, what isn't the i-th block asked for.
func (a *asking) order(i uint64, raw []byte) error {
	if bytes.HasPrefix(raw, []byte{0x1f, 0x8b}) || bytes.HasPrefix(raw, []byte{0x28, 0xb5, 0x2f, 0xfd}) {
		return fmt.Errorf("block %d: %w", a.first+i, Compressed)
	}
	n, ok := numberOf(raw)
	switch want := a.first + i; {
	case !ok || n == want: // what is no block at all is found out by its check
		return nil
	case n >= a.first+a.count && i > 0:
		return fmt.Errorf("block %d instead of %d: %w", n, want, OverRange)
	case i == 0:
		return fmt.Errorf("block %d instead of %d: %w", n, want, WrongRange)
	default:
		return fmt.Errorf("block %d instead of %d: %w", n, want, OutOfOrder)
	}
}

// readEnd makes sure that nothing follows.
func (a *asking) readEnd(r io.Reader) error {
	var b [1]byte
	if _, err := io.ReadFull(r, b[:]); err == nil {
		return fmt.Errorf("after block %d: %w", a.first+a.count-1, OverRange)
	}
	return nil // it ended, or broke off when all was here
}

// remote maps what the other side's reset says.
func remote(err error) error {
	var e *network.StreamError
	if errors.As(err, &e) && e.Remote {
		switch e.ErrorCode {
		case network.StreamRateLimited, network.StreamResourceLimitExceeded:
			return fmt.Errorf("%w: %w", Busy, err)
		}
	}
	return err
}

// meter counts what is read, and gives each read a deadline of its own.
type meter struct {
	s        network.Stream
	moved    func(n int)
	patience time.Duration
}

func (m *meter) Read(b []byte) (int, error) {
	if err := m.s.SetReadDeadline(time.Now().Add(m.patience)); err != nil {
		return 0, err
	}
	n, err := m.s.Read(b)
	if n > 0 {
		m.moved(n)
	}
	return n, err
}

package blocksync

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/libp2p/go-libp2p/core/network"

	"grapevine/wire"
)

// Bounds of what is taken of one peer's word.
const (
	maxOffers = 16      // snapshots that one peer offers
	maxFrames = 1 << 14 // of a head
	maxIndex  = 64 << 20
)

// Offers asks the peer at the other end of s which snapshots it has. The stream is
// closed or reset when it returns.
func Offers(ctx context.Context, s network.Stream) (offers []*wire.SnapshotOffer, err error) {
	a := inquiry{
		req: &wire.SnapshotsRequest{What: wire.SnapshotsRequest_WHAT_LIST}, most: maxOffers,
		limit: func(uint64) int { return wire.MaxOffer },
		take: func(_ uint64, b []byte) error {
			o := new(wire.SnapshotOffer)
			if err := wire.Unmarshal(b, o); err != nil {
				return fmt.Errorf("offer: %w: %w", BadSnapshot, err)
			}
			offers = append(offers, o)
			return nil
		},
	}
	return offers, a.run(ctx, s)
}

// Head asks for a snapshot's index, and the blocks that lead to it. That
// the peer doesn't hold it is an error without a reason.
func Head(ctx context.Context, s network.Stream, name [32]byte) (index []byte, blocks [][]byte, err error) {
	a := inquiry{
		req: &wire.SnapshotsRequest{What: wire.SnapshotsRequest_WHAT_HEAD, Name: name[:]}, least: 2, most: maxFrames,
		limit: func(i uint64) int {
			if i == 0 {
				return maxIndex
			}
			return wire.MaxBlock
		},
		take: func(i uint64, b []byte) error {
			if i == 0 {
				index = b
			} else {
				blocks = append(blocks, b)
			}
			return nil
		},
	}
	return index, blocks, a.run(ctx, s)
}

// An inquiry is one request for something of a snapshot, and what becomes of it.
type inquiry struct {
	req         *wire.SnapshotsRequest
	least, most uint64                         // frames of the answer
	limit       func(i uint64) int             // bytes of frame i
	take        func(i uint64, b []byte) error // takes frame i
	moved       func(n int)                    // n bytes came; may be nil
}

// run asks on a fresh stream, which is closed or reset when it returns. Errors of
// the peer's making carry a reason.
func (a *inquiry) run(ctx context.Context, s network.Stream) (err error) {
	defer func() {
		if err != nil {
			s.ResetWithError(resetCode(err))
			err = remote(err)
			return
		}
		_ = s.Close() // all that will be read has been
	}()
	defer context.AfterFunc(ctx, func() { s.Reset() })()
	a.req.Nonce = newNonce()
	if err := writeRequest(s, a.req); err != nil {
		return err
	}
	moved := a.moved
	if moved == nil {
		moved = func(int) {}
	}
	r := bufio.NewReaderSize(&meter{s: s, moved: moved, patience: progressTime}, 64<<10)
	frames, err := a.readStatus(r)
	if err != nil {
		return err
	}
	for i := range frames {
		b, err := wire.ReadFrame(r, a.limit(i))
		switch {
		case errors.Is(err, io.EOF):
			return fmt.Errorf("frame %d of %d: %w", i, frames, Truncated)
		case errors.Is(err, wire.TooLarge), errors.Is(err, wire.Empty):
			return fmt.Errorf("frame %d of a snapshot: %w: %w", i, BadSnapshot, err)
		case errors.Is(err, wire.Truncated):
			return fmt.Errorf("frame %d of %d: %w: %w", i, frames, Truncated, err)
		case err != nil:
			return fmt.Errorf("frame %d of %d: %w", i, frames, err)
		}
		if err := a.take(i, b); err != nil {
			return err
		}
	}
	var more [1]byte
	if _, err := io.ReadFull(r, more[:]); err == nil {
		return fmt.Errorf("after frame %d: %w", frames, OverRange)
	}
	return nil
}

func (a *inquiry) readStatus(r io.Reader) (frames uint64, err error) {
	b, err := wire.ReadFrame(r, wire.MaxRequest)
	if errors.Is(err, io.EOF) {
		return 0, fmt.Errorf("no status: %w", Truncated)
	} else if err != nil {
		return 0, fmt.Errorf("read status: %w", err)
	}
	status := new(wire.SnapshotsStatus)
	if err := wire.Unmarshal(b, status); err != nil {
		return 0, fmt.Errorf("status: %w", err)
	}
	switch {
	case status.Nonce != a.req.Nonce:
		return 0, fmt.Errorf("status: %w", Unasked)
	case status.Code == wire.SnapshotsStatus_CODE_NOT_FOUND && status.Frames == 0:
		return 0, errLacking
	case status.Code != wire.SnapshotsStatus_CODE_OK:
		return 0, fmt.Errorf("status %s: %w", status.Code, BadStatus)
	case status.Frames < a.least || status.Frames > a.most:
		return 0, fmt.Errorf("%d frames in the answer, at most %d make sense: %w", status.Frames, a.most, BadSnapshot)
	}
	return status.Frames, nil
}

package blocksync

import (
	"bufio"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"grapevine/wire"
)

// The protocol, kind "snapshots": the asker writes one SnapshotsRequest and closes
// its side; the server answers with a SnapshotsStatus and, if that is OK, with as
// many frames as it says, and closes. What a peer is given counts with the blocks
// that it is given: the limits are the same.

// maxChunks bounds the chunks of one request.
const maxChunks = 16

// Library is what a peer has to give of snapshots. All functions are set, and safe
// for concurrent use; what isn't held is nil.
type Library struct {
	// Offers are those of the snapshots held, marshalled, the highest first.
	Offers func() [][]byte
	// Head is a snapshot's index, and the blocks that lead to it.
	Head func(name [32]byte) ([][]byte, error)
	// Chunk is one chunk.
	Chunk func(name [32]byte, i uint64) ([]byte, error)
}

// ServeSnapshots answers one request for snapshots, as [Sync.Serve] does for blocks.
func (s *Sync) ServeSnapshots(stream network.Stream, from peer.ID, lib Library) {
	err := s.serveSnapshots(stream, from, lib)
	if err == nil {
		_ = stream.Close() // all is written
		return
	}
	stream.ResetWithError(resetCode(err))
	log.Debugw("a request for a snapshot ended early", "peer", from, "error", err)
	s.refuse(from, wire.ReasonOf(err))
}

func (s *Sync) serveSnapshots(stream network.Stream, from peer.ID, lib Library) error {
	org := ""
	if s.c.Org != nil {
		org = s.c.Org(from)
	}
	q := s.quotas.enter(from, org)
	if q == nil {
		return fmt.Errorf("request: %w", Busy)
	}
	defer q.leave()
	req := new(wire.SnapshotsRequest)
	if err := readRequest(stream, req); err != nil {
		return err
	}
	if err := stream.Scope().ReserveMemory(reserved+chunkMemory, network.ReservationPriorityMedium); err != nil {
		return fmt.Errorf("%w: %w", Busy, err)
	}
	defer stream.Scope().ReleaseMemory(reserved + chunkMemory)
	w := bufio.NewWriterSize(stream, 64<<10)
	status, frame, err := lib.answer(req)
	if err != nil {
		return err
	}
	if status.Code == wire.SnapshotsStatus_CODE_BAD_RANGE {
		s.refuse(from, BadRange)
	}
	if err := writeStatus(stream, w, status); err != nil {
		return err
	}
	for i := range status.Frames {
		b, err := frame(i)
		if err != nil {
			return fmt.Errorf("read a snapshot: %w", err)
		}
		s.served.Add(uint64(len(b)))
		if err := s.pace(w, q, len(b)); err != nil {
			return err
		}
		if err := stream.SetWriteDeadline(time.Now().Add(progressTime)); err != nil {
			return err
		}
		if err := writeFrame(stream, w, b); err != nil {
			return fmt.Errorf("write a snapshot: %w", err)
		}
	}
	return w.Flush()
}

// chunkMemory is what a chunk that is served takes.
const chunkMemory = 2 << 20

// answer judges a request, and says how to get the frames of its answer.
func (lib *Library) answer(req *wire.SnapshotsRequest) (*wire.SnapshotsStatus, func(uint64) ([]byte, error), error) {
	status := &wire.SnapshotsStatus{Code: wire.SnapshotsStatus_CODE_NOT_FOUND, Nonce: req.Nonce}
	named, ranged := len(req.Name) == 32, req.First != 0 || req.Count != 0
	var all [][]byte
	switch {
	case req.What == wire.SnapshotsRequest_WHAT_LIST && len(req.Name) == 0 && !ranged:
		all = lib.Offers()
		status.Code = wire.SnapshotsStatus_CODE_OK
	case req.What == wire.SnapshotsRequest_WHAT_HEAD && named && !ranged:
		var err error
		if all, err = lib.Head([32]byte(req.Name)); err != nil {
			return nil, nil, fmt.Errorf("read a snapshot: %w", err)
		}
	case req.What == wire.SnapshotsRequest_WHAT_CHUNKS && named && req.Count > 0 && req.Count <= maxChunks && req.First+req.Count > req.First:
		name := [32]byte(req.Name)
		first, err := lib.Chunk(name, req.First)
		if err != nil || first == nil {
			return status, nil, err
		}
		status.Code, status.Frames = wire.SnapshotsStatus_CODE_OK, req.Count
		return status, func(i uint64) ([]byte, error) {
			if i == 0 {
				return first, nil
			}
			b, err := lib.Chunk(name, req.First+i)
			if err == nil && b == nil {
				err = errLacking // it was removed, or there are fewer
			}
			return b, err
		}, nil
	default:
		status.Code = wire.SnapshotsStatus_CODE_BAD_RANGE
	}
	if len(all) > 0 {
		status.Code, status.Frames = wire.SnapshotsStatus_CODE_OK, uint64(len(all))
	}
	return status, func(i uint64) ([]byte, error) { return all[i], nil }, nil
}

package blocksync

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"grapevine/wire"
)

// reserved is the memory of one stream: the buffer that gathers small blocks,
// and a frame being copied. Blocks themselves lie in the ledger's cache or in
// the window.
const reserved = 192 << 10

// Serve answers one request for blocks. The door has let the stream in, so that
// its peer is a member; the channel's name is known to both. It returns when
// the stream is closed or reset. The door named the stream's service already.
func (s *Sync) Serve(stream network.Stream, from peer.ID) {
	err := s.serve(stream, from)
	if err == nil {
		_ = stream.Close() // all is written
		return
	}
	stream.ResetWithError(resetCode(err))
	log.Debugw("a request ended early", "peer", from, "error", err)
	s.refuse(from, wire.ReasonOf(err))
}

func (s *Sync) serve(stream network.Stream, from peer.ID) error {
	org := ""
	if s.c.Org != nil {
		org = s.c.Org(from)
	}
	q := s.quotas.enter(from, org)
	if q == nil {
		return fmt.Errorf("request: %w", Busy)
	}
	defer q.leave()
	req := new(wire.BlocksRequest)
	if err := readRequest(stream, req); err != nil {
		return err
	}
	if err := stream.Scope().ReserveMemory(reserved, network.ReservationPriorityMedium); err != nil {
		return fmt.Errorf("%w: %w", Busy, err)
	}
	defer stream.Scope().ReleaseMemory(reserved)
	w := bufio.NewWriterSize(stream, 64<<10)
	status := s.answer(req)
	if err := writeStatus(stream, w, status); err != nil {
		return err
	}
	switch status.Code {
	case wire.BlocksStatus_CODE_BAD_RANGE:
		s.refuse(from, BadRange)
	case wire.BlocksStatus_CODE_OK:
		if err := s.writeBlocks(stream, w, req, q); err != nil {
			return fmt.Errorf("write blocks: %w", err)
		}
	}
	return w.Flush()
}

// readRequest reads the one request.
func readRequest(stream network.Stream, req proto.Message) error {
	if err := stream.SetReadDeadline(time.Now().Add(requestTime)); err != nil {
		return fmt.Errorf("set deadline: %w", err)
	}
	b, err := wire.ReadFrame(stream, wire.MaxRequest)
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("no request: %w", wire.Truncated)
	} else if err != nil {
		return fmt.Errorf("read request: %w", err)
	}
	if err := stream.CloseRead(); err != nil {
		return fmt.Errorf("close reading: %w", err)
	}
	if err := wire.Unmarshal(b, req); err != nil {
		return fmt.Errorf("request: %w", err)
	}
	return nil
}

// answer judges a request, and waits for its first block if it asks for that.
func (s *Sync) answer(req *wire.BlocksRequest) *wire.BlocksStatus {
	status := &wire.BlocksStatus{Nonce: req.Nonce, Code: wire.BlocksStatus_CODE_OK}
	wait := time.Duration(req.WaitMs) * time.Millisecond
	switch {
	case req.Count == 0 || req.Count > maxCount || req.First+req.Count < req.First || wait > maxWait:
		status.Code = wire.BlocksStatus_CODE_BAD_RANGE
	case !s.await(req.First, wait):
		status.Code = wire.BlocksStatus_CODE_NOT_FOUND
	}
	if s.c.Lowest != nil {
		status.Lowest = s.c.Lowest()
	}
	if status.Lowest > req.First && status.Code == wire.BlocksStatus_CODE_OK {
		status.Code = wire.BlocksStatus_CODE_NOT_FOUND
	}
	status.Height = s.c.Ledger.Tip().Height
	return status
}

// await returns whether block n is here, or comes within a time.
func (s *Sync) await(n uint64, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		s.mu.Lock()
		_, ok := s.window.get(n)
		ok = ok || n < s.tip.Height
		news := s.news
		s.mu.Unlock()
		if ok || wait == 0 {
			return ok
		}
		select {
		case <-news:
		case <-timer.C:
			return false
		case <-s.over:
			return false
		}
	}
}

func writeStatus(stream network.Stream, w *bufio.Writer, status proto.Message) error {
	b, err := wire.Marshal(status)
	if err != nil {
		return fmt.Errorf("encode status: %w", err)
	}
	if err := stream.SetWriteDeadline(time.Now().Add(progressTime)); err != nil {
		return fmt.Errorf("set deadline: %w", err)
	}
	return wire.WriteFrame(w, b)
}

// writeBlocks writes the blocks straight as the ledger has them, and those not
// yet committed from the window, up to the limits of one request.
func (s *Sync) writeBlocks(stream network.Stream, w *bufio.Writer, req *wire.BlocksRequest, q *place) error {
	budget, next, end := maxBytes, req.First, req.First+req.Count
	write := func(raw []byte) (more bool, err error) {
		if next > req.First && len(raw) > budget {
			return false, nil
		}
		budget -= min(len(raw), budget)
		next++
		s.served.Add(uint64(len(raw)))
		if err := s.pace(w, q, len(raw)); err != nil {
			return false, err
		}
		if err := stream.SetWriteDeadline(time.Now().Add(progressTime)); err != nil {
			return false, err
		}
		return true, writeFrame(stream, w, raw)
	}
	if height := s.c.Ledger.Tip().Height; next < height {
		for raw, err := range s.c.Ledger.Range(next, min(end, height)) {
			if err != nil {
				return err
			}
			if more, err := write(raw); err != nil || !more {
				return err
			}
		}
	}
	for next < end {
		s.mu.Lock()
		h, ok := s.window.get(next)
		s.mu.Unlock()
		if !ok {
			return nil
		}
		if more, err := write(h.block.Bytes()); err != nil || !more {
			return err
		}
	}
	return nil
}

// writeFrame writes a frame by pieces, each with a deadline of its own: on a
// thin line one block may take minutes.
func writeFrame(stream network.Stream, w *bufio.Writer, raw []byte) error {
	const piece = 1 << 20
	if _, err := w.Write(binary.AppendUvarint(w.AvailableBuffer(), uint64(len(raw)))); err != nil {
		return err
	}
	if len(raw) <= piece {
		_, err := w.Write(raw)
		return err
	}
	for len(raw) > 0 {
		if err := stream.SetWriteDeadline(time.Now().Add(progressTime)); err != nil {
			return err
		}
		n, err := w.Write(raw[:min(piece, len(raw))])
		if err != nil {
			return err
		}
		raw = raw[n:]
	}
	return nil
}

// pace keeps to the asker's share of bytes. What was written goes out before a
// pause.
func (s *Sync) pace(w *bufio.Writer, q *place, n int) error {
	d := q.delay(n)
	if d <= 0 {
		return nil
	}
	if err := w.Flush(); err != nil {
		return err
	}
	select {
	case <-time.After(d):
		return nil
	case <-s.over:
		return errOver
	}
}

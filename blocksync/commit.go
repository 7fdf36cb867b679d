package blocksync

import (
	"context"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"

	"grapevine/block"
	"grapevine/wire"
)

// What is committed together. A block that is alone is appended at once; while
// one append syncs, others gather behind it, up to these.
const (
	batchBlocks = 256
	batchBytes  = 16 << 20
)

// A full disk is tried again after firstTry, doubled up to lastTry, so that
// commits resume within 5 s of there being room.
const (
	firstTry = 250 * time.Millisecond
	lastTry  = 3 * time.Second
)

// commit is the channel's only writer: it takes what follows the ledger without
// a gap, verifies, appends, and tells.
func (s *Sync) commit(ctx context.Context) error {
	for {
		s.mu.Lock()
		run, tip := s.window.next(batchBlocks, batchBytes), s.tip
		s.mu.Unlock()
		if len(run) == 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-s.ready:
			}
			continue
		}
		batch, tip, err := s.verify(tip, run)
		if err != nil {
			return err
		}
		if len(batch) == 0 {
			continue
		}
		began := time.Now()
		if err := s.append(ctx, batch); err != nil {
			return err
		}
		if s.c.Appended != nil {
			s.c.Appended(len(batch), time.Since(began))
		}
		if s.c.Committed != nil {
			if err := s.c.Committed(batch); err != nil {
				return fmt.Errorf("take up blocks %d to %d: %w", batch[0].Number(), tip.Height-1, err)
			}
		}
		s.committed(tip, run[:len(batch)])
	}
}

// verify proves blocks in order until one fails or is a configuration, which
// ends a batch: what follows is judged by it. A block that fails is dropped
// and comes again from elsewhere; only a verdict that halts the channel is an
// error.
func (s *Sync) verify(tip block.Tip, run []held) ([]block.Verified, block.Tip, error) {
	rules := s.c.Rules()
	batch := make([]block.Verified, 0, len(run))
	for _, h := range run {
		v, err := block.Verify(rules, tip, h.block)
		if err != nil {
			if wire.VerdictOf(err) == wire.Halt {
				if len(batch) > 0 { // first what is before it
					break
				}
				return nil, tip, err
			}
			s.unfit(h, err)
			break
		}
		batch = append(batch, v)
		tip = block.Tip{Height: h.number + 1, Hash: h.hash}
		if v.IsConfig() {
			break
		}
	}
	return batch, tip, nil
}

// unfit drops a block that doesn't hold and sees to its source. If it was
// pulled, all else that came from there goes too: a relay of what is pushed
// can't know the link, but who serves his ledger does.
func (s *Sync) unfit(h held, err error) {
	log.Warnw("dropped a block that doesn't verify", "block", h.number, "from", h.name, "by", h.kind, "error", err)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse(h.from, wire.ReasonOf(err))
	if !h.pulled() || wire.VerdictOf(err) == wire.Ignore {
		s.window.drop(h.number)
		s.step(evDropped{h.number})
		return
	}
	s.step(evBad{h.from})
	for _, n := range s.window.pulledFrom(h.from) {
		s.window.drop(n)
		s.step(evDropped{n})
	}
}

// append writes a batch, and waits out what passes.
func (s *Sync) append(ctx context.Context, batch []block.Verified) error {
	tries := backoff.NewExponentialBackOff()
	tries.InitialInterval, tries.MaxInterval, tries.Multiplier = firstTry, lastTry, 2
	for first := true; ; first = false {
		err := s.c.Ledger.Append(batch...)
		if err == nil {
			if !first {
				log.Infow("commits go on", "block", batch[0].Number())
				s.pause(nil)
			}
			return nil
		}
		if s.c.Retriable == nil || !s.c.Retriable(err) {
			return fmt.Errorf("append blocks from %d: %w", batch[0].Number(), err)
		}
		if first {
			log.Errorw("commits pause", "block", batch[0].Number(), "error", err)
			s.pause(err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(tries.NextBackOff()):
		}
	}
}

func (s *Sync) pause(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paused = err
}

// committed moves the window on.
func (s *Sync) committed(tip block.Tip, run []held) {
	now, bytes := time.Now(), int64(0)
	for _, h := range run {
		bytes += h.size
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	last := run[len(run)-1]
	s.tip, s.kind, s.name = tip, last.kind, last.name
	s.window.advance(tip.Height)
	s.step(evCommitted{tip.Height})
	s.progress.Add(len(run), bytes, now)
	s.progress.look(tip.Height, s.sched.target(now), now)
	s.tell()
}

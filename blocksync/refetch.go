package blocksync

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"grapevine/wire"
)

// ErrNobody means that no peer could be asked for a block, or none had it.
var ErrNobody = errors.New("no peer has it")

// Refetch asks peers, one after the other, the fastest first, for block n, which
// the ledger has lost, until take is content with what one sent. Take's refusal,
// with a reason, bans the sender. The one block lies in memory beside the budget.
func (s *Sync) Refetch(ctx context.Context, n uint64, take func(raw []byte) error) (from peer.ID, err error) {
	failed := ErrNobody
	for _, p := range s.holders(n) {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		err := s.refetch(ctx, p, n, take)
		if err == nil {
			return p, nil
		}
		failed = errors.Join(failed, fmt.Errorf("%s: %w", p, err))
	}
	return "", fmt.Errorf("fetch block %d again: %w", n, failed)
}

// holders returns who may be asked for block n.
func (s *Sync) holders(n uint64) []peer.ID {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*source
	for _, p := range s.sched.sources {
		if !p.gone && !p.barred.After(now) && n < max(p.height, p.shown) && n >= p.lowest {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b *source) int {
		return cmp.Or(cmp.Compare(b.rate, a.rate), cmp.Compare(spread(s.c.Self, a.id, n), spread(s.c.Self, b.id, n)))
	})
	ids := make([]peer.ID, len(all))
	for i, p := range all {
		ids[i] = p.id
	}
	return ids
}

func (s *Sync) refetch(ctx context.Context, p peer.ID, n uint64, take func(raw []byte) error) error {
	a := asking{
		first: n, count: 1, nonce: newNonce(),
		moved: func(n int) { s.pulled.Add(uint64(n)) },
		room:  func(uint64, int, int) error { return nil },
		free:  func(int) {},
		each:  func(_ uint64, raw []byte) error { return take(raw) },
		all:   func() error { return nil },
		owner: s.owner,
	}
	err := s.open(ctx, fxFetch{peer: p}, &a)
	r := wire.ReasonOf(err)
	switch {
	case err == nil:
		return nil
	case r == nil || ctx.Err() != nil || errors.Is(err, Busy):
	case faultOf(r) == wrong:
		s.refuse(p, wire.NewReason(r.Code(), wire.Ban))
		s.report(evBad{p})
	default:
		s.refuse(p, r)
	}
	return err
}

// faultOf says whose fault an answer is that was refused for a reason.
func faultOf(r *wire.Reason) fault {
	if r == nil || r.Verdict() == wire.Ignore || r == Truncated || r == TooSlow || r == Empty || r == wire.Stalled {
		return broken
	}
	return wrong
}

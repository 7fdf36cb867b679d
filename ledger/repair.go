package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"grapevine/block"
)

// A Fetcher brings block n, whose header hash is hash, from elsewhere, verified
// under the configuration in force before it.
type Fetcher func(ctx context.Context, n uint64, hash [32]byte) (block.Verified, error)

// Repaired is what Repair made good.
type Repaired struct {
	Tables int    // that were replaced
	Blocks uint64 // that were fetched and put back
	Index  int    // entries of indexes
	Tip    bool   // the record of the chain's end
	State  bool   // the state was dropped, to be judged again: by CatchUp
	Lost   uint64 // blocks at the end that are gone, and come again as new ones do
}

// Repair makes good what is known to be damaged, and lets the channel go on if
// nothing is left. Reads go on meanwhile. Blocks come from fetch; without one, only
// what follows from the rest is made good. The error says what is left, wrapped in
// ErrCorrupt, and why.
func (l *Ledger) Repair(ctx context.Context, fetch Fetcher) (r Repaired, err error) {
	for {
		n, err := l.db.Mend(ctx)
		r.Tables += n
		if err != nil {
			return r, fmt.Errorf("repair channel %s: %w", l.name, err)
		}
		before := l.Damage()
		r.Lost = before.Lost
		if before.None() {
			break
		}
		failed := l.repairOnce(ctx, before, fetch, &r)
		if err := ctx.Err(); err != nil {
			return r, err
		}
		now := l.Damage()
		if now.None() || l.Heal() {
			break
		}
		if slices.Equal(before.Blocks, now.Blocks) && before.Index == now.Index && before.State == now.State && before.Tip == now.Tip && now.Tables == 0 {
			return r, fmt.Errorf("repair channel %s: %w: %w", l.name, ErrCorrupt, failed)
		}
	}
	l.Heal()
	return r, nil
}

// repairOnce tries each thing that is damaged. The highest block comes first: the
// one behind it says what it was.
func (l *Ledger) repairOnce(ctx context.Context, d Damage, fetch Fetcher, r *Repaired) (failed error) {
	if d.Tip {
		err := l.RestoreTip()
		r.Tip = r.Tip || err == nil
		failed = errors.Join(failed, err)
	}
	for _, n := range slices.Backward(d.Blocks) {
		err := l.refetch(ctx, n, fetch)
		switch {
		case err == nil:
			r.Blocks++
		case failed == nil || ctx.Err() != nil:
			failed = err
		}
		if ctx.Err() != nil {
			return failed
		}
	}
	if d.State {
		err := l.ForgetState()
		r.State = r.State || err == nil
		failed = errors.Join(failed, err)
	}
	if d.Index && len(l.Damage().Blocks) == 0 {
		n, err := l.Reindex()
		r.Index += n
		failed = errors.Join(failed, err)
	}
	return failed
}

// refetch puts one block back.
func (l *Ledger) refetch(ctx context.Context, n uint64, fetch Fetcher) error {
	if n == 0 {
		if raw, err := l.fromCharter(0); err == nil {
			if v, err := block.Genesis(raw); err == nil {
				return l.PutBack(v)
			}
		}
	}
	if fetch == nil {
		return l.wrap(n, errors.New("it must be fetched from elsewhere"))
	}
	hash, err := l.HashAt(n)
	if err != nil {
		return err
	}
	v, err := fetch(ctx, n, hash)
	if err != nil {
		return l.wrap(n, err)
	}
	return l.PutBack(v)
}

package orderer

import (
	"context"
	"math/rand/v2"
	"time"
)

// Bounds of one pause between two attempts. Fabric's formula, 100 ms times 1.2 to the n-th, but capped so that blocks
// flow again within 5 s of an orderer's return (PROMISES L5), and never given up.
const (
	minBackoff  = 100 * time.Millisecond
	maxBackoff  = 2 * time.Second
	longBackoff = 10 * time.Second // no configuration makes a pause longer
	growth      = 1.2
	jitter      = 0.2 // each way, so that peers that lost one orderer don't return in step
)

// backoff grows with each failure in a row. The zero value with bounds set is ready.
type backoff struct {
	min, max time.Duration
	pause    time.Duration // the last one, before jitter
}

// next is the pause to make before the next attempt. It never exceeds the maximum.
func (b *backoff) next() time.Duration {
	b.pause = min(max(b.min, time.Duration(float64(b.pause)*growth)), b.max)
	return min(b.max, time.Duration(float64(b.pause)*(1+jitter*(2*rand.Float64()-1))))
}

// reset forgets the failures.
func (b *backoff) reset() { b.pause = 0 }

// sleep waits, or returns early when ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

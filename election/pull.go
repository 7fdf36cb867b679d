package election

import (
	"context"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// A lead that returns although its context lives is called again after a
// pause, which grows from firstPause to lastPause (PROMISES L5: at most 10 s)
// and starts anew once a lead has lasted settled.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 10 * time.Second
	settled    = 30 * time.Second
)

// pull runs lead, one at a time. Its methods are for one goroutine.
type pull struct {
	lead func(ctx context.Context)
	on   bool
	stop context.CancelFunc
	done chan struct{} // closed when the last lead has returned
	over sync.WaitGroup
}

func newPull(lead func(ctx context.Context)) *pull {
	p := &pull{lead: lead, done: make(chan struct{})}
	close(p.done)
	return p
}

// begin lets lead run, once the one before it has returned.
func (p *pull) begin(ctx context.Context) {
	if p.on || ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	before, done := p.done, make(chan struct{})
	p.on, p.stop, p.done = true, cancel, done
	p.over.Go(func() {
		defer close(done)
		defer cancel()
		<-before
		p.again(ctx)
	})
}

// end lets it end, and doesn't wait.
func (p *pull) end() {
	if p.on {
		p.on = false
		p.stop()
	}
}

func (p *pull) wait() {
	p.end()
	p.over.Wait()
}

// again calls lead until ctx ends.
func (p *pull) again(ctx context.Context) {
	pauses := newPauses()
	for ctx.Err() == nil {
		began := time.Now()
		p.lead(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) >= settled {
			pauses.Reset()
		}
		pause := pauses.NextBackOff()
		log.Warnw("leading ended by itself; it starts again", "after", pause)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

func newPauses() *backoff.ExponentialBackOff {
	p := backoff.NewExponentialBackOff()
	p.InitialInterval, p.MaxInterval, p.Multiplier = firstPause, lastPause/2, 2
	p.RandomizationFactor = 0.5
	p.Reset()
	return p
}

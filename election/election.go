// Package election decides which peer of an organisation talks to the ordering
// service of a channel. Leadership is a context: it lives while the peer leads
// and ends when it no longer does.
//
// Static leaders lead for as long as they run; several in one organisation are
// allowed, for a block that comes twice is committed once. Standby peers never
// lead and rely on the others. Neither needs a message; the state machine of
// dynamic election takes the same place behind [Election.Run].
package election

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	golog "github.com/ipfs/go-log/v2"
)

// A lead that returns although its context lives is called again after a
// pause, which grows from firstPause to lastPause (PROMISES L5: at most 10 s)
// and starts anew once a lead has lasted settled.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 10 * time.Second
	settled    = 30 * time.Second
)

var log = golog.Logger("grapevine/election")

// Election runs one peer's part in one channel's election. It is safe for
// concurrent use; Run is called once at a time.
type Election struct {
	mode    Mode
	leading atomic.Bool
	running atomic.Bool
}

// New returns an election in mode m. It refuses what [Mode.Validate] refuses.
func New(m Mode) (*Election, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	return &Election{mode: m}, nil
}

// Run calls lead with a context of its own each time this peer becomes leader,
// and ends that context when the peer stops to be it. lead MUST return soon
// after its context ended: the next one, here or elsewhere, starts only then.
// If lead returns by itself it is called again after a pause. Run returns
// ctx's error when ctx ends, and not before the last lead returned.
func (e *Election) Run(ctx context.Context, lead func(ctx context.Context)) error {
	if !e.running.CompareAndSwap(false, true) {
		return fmt.Errorf("election in mode %s: %w", e.mode, ErrRunning)
	}
	defer e.running.Store(false)
	if e.mode == Static {
		return e.static(ctx, lead)
	}
	<-ctx.Done()
	return ctx.Err()
}

// Mode returns the mode.
func (e *Election) Mode() Mode { return e.mode }

// Leading tells whether this peer leads now.
func (e *Election) Leading() bool { return e.leading.Load() }

// static leads until ctx ends.
func (e *Election) static(ctx context.Context, lead func(ctx context.Context)) error {
	pauses := newPauses()
	for ctx.Err() == nil {
		began := time.Now()
		e.lead(ctx, lead)
		if ctx.Err() != nil {
			break
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
	return ctx.Err()
}

// lead runs one term of leadership.
func (e *Election) lead(ctx context.Context, lead func(ctx context.Context)) {
	term, end := context.WithCancel(ctx)
	defer end()
	e.leading.Store(true)
	defer e.leading.Store(false)
	lead(term)
}

func newPauses() *backoff.ExponentialBackOff {
	p := backoff.NewExponentialBackOff()
	p.InitialInterval, p.MaxInterval, p.Multiplier = firstPause, lastPause/2, 2
	p.RandomizationFactor = 0.5
	p.Reset()
	return p
}

package membership

import (
	"context"
	"iter"

	"github.com/libp2p/go-libp2p/core/peer"
)

// What an [Event] tells.
const (
	Joined    Kind = iota // heard for the first time, or again after death or leave
	Suspected             // it doesn't answer
	Recovered             // it was suspect, or dead, and lives
	Died                  // for us
	Departed              // it said that it leaves
	Expelled              // it isn't a member any more
	Cloned                // two live hosts speak in its name
	Refuted               // we were accused, and say anew that we live
	Lost                  // this listener was too slow: some events are missing, look at the list
	Diverged              // its world state isn't that of most organisations
	Agreed                // its world state is again, or is ours
)

// A Kind of event.
type Kind int

// String returns the kind's name in lower case.
func (k Kind) String() string {
	return [...]string{"joined", "suspected", "recovered", "died", "left", "expelled", "cloned", "refuted", "lost", "diverged", "agreed"}[k]
}

// An Event is something that happened to a member, which is as it was after.
type Event struct {
	Kind   Kind
	Member Member  // Cloned: of the host that started last, which counts
	Was    State   // Recovered: suspect or dead before
	Other  peer.ID // Cloned: the host that doesn't count
}

// eventBuffer is how far a listener may fall behind.
const eventBuffer = 256

// Events yields what happens from now on, until ctx ends. A listener that falls
// too far behind gets one Lost in the place of what it missed.
func (m *Members) Events(ctx context.Context) iter.Seq[Event] {
	c := make(chan Event, eventBuffer)
	m.mu.Lock()
	m.watchers[c] = true
	m.mu.Unlock()
	forget := func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.watchers, c)
	}
	stop := context.AfterFunc(ctx, forget)
	return func(yield func(Event) bool) {
		defer stop()
		defer forget()
		for {
			select {
			case e := <-c:
				if !yield(e) {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}
}

// notify tells of an event. Called under mu, so that all see one order.
func (m *Members) notify(e Event) {
	for c := range m.watchers {
		switch {
		case len(c) < cap(c)-1:
			c <- e
		case len(c) == cap(c)-1:
			c <- Event{Kind: Lost}
		}
	}
	if m.c.Changed != nil {
		m.c.Changed(e)
	}
}

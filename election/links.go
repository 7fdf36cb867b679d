package election

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"grapevine/wire"
)

const (
	linkQueue = 16                     // ballots that wait for one peer; more are dropped
	linkPause = 300 * time.Millisecond // after a stream that failed
	openTime  = 2 * time.Second
	writeTime = 4 * time.Second
)

// links send ballots to the neighbours: a stream and a goroutine for each. But
// for write, its methods are for one goroutine.
type links struct {
	open func(ctx context.Context, p peer.ID) (network.Stream, error)
	ctx  func() context.Context // of run; nil while it doesn't run
	all  map[peer.ID]*link
	over sync.WaitGroup
	busy atomic.Int64 // ballots queued or under way
}

type link struct {
	peer  peer.ID
	queue chan []byte
	stop  context.CancelFunc
}

func newLinks(open func(context.Context, peer.ID) (network.Stream, error)) *links {
	return &links{open: open, all: make(map[peer.ID]*link)}
}

// run lets links be added until ctx ends; what it returns waits for them.
func (l *links) run(ctx context.Context) (wait func()) {
	l.ctx = func() context.Context { return ctx }
	return func() {
		l.over.Wait()
		l.ctx = nil
		clear(l.all)
	}
}

func (l *links) add(p peer.ID) {
	if l.all[p] != nil || l.open == nil {
		return
	}
	ctx, cancel := context.WithCancel(l.ctx())
	k := &link{peer: p, queue: make(chan []byte, linkQueue), stop: cancel}
	l.all[p] = k
	l.over.Go(func() {
		defer cancel()
		l.write(ctx, k)
	})
}

func (l *links) remove(p peer.ID) {
	if k := l.all[p]; k != nil {
		delete(l.all, p)
		k.stop()
	}
}

// send queues a ballot. It doesn't block.
func (l *links) send(p peer.ID, b []byte) {
	k := l.all[p]
	if k == nil {
		return
	}
	l.busy.Add(1)
	select {
	case k.queue <- b:
	default:
		l.busy.Add(-1)
	}
}

// flush waits until what is queued was written, but no longer than d.
func (l *links) flush(d time.Duration) {
	end := time.NewTimer(d)
	defer end.Stop()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for l.busy.Load() > 0 {
		select {
		case <-end.C:
			return
		case <-look.C:
		}
	}
}

// write sends a link's ballots, on one stream as long as it holds.
func (l *links) write(ctx context.Context, k *link) {
	var s network.Stream
	drop := func() {
		if s != nil {
			_ = s.Reset() // it failed, or the peer is gone
			s = nil
		}
	}
	defer func() {
		drop()
		for len(k.queue) > 0 {
			<-k.queue
			l.busy.Add(-1)
		}
	}()
	var failed time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case b := <-k.queue:
			held := s != nil
			var err error
			if held || time.Since(failed) >= linkPause {
				if s, err = l.put(ctx, k.peer, s, b); err != nil && held {
					drop() // it was reset since the last ballot
					s, err = l.put(ctx, k.peer, nil, b)
				}
			}
			if err != nil {
				log.Debugw("a ballot didn't go out", "peer", k.peer, "error", err)
				drop()
				failed = time.Now()
			}
			l.busy.Add(-1)
		}
	}
}

// put writes one ballot, and opens the stream before if there is none.
func (l *links) put(ctx context.Context, p peer.ID, s network.Stream, b []byte) (network.Stream, error) {
	if s == nil {
		ctx, cancel := context.WithTimeout(ctx, openTime)
		defer cancel()
		var err error
		if s, err = l.open(ctx, p); err != nil {
			return nil, err
		}
	}
	if err := s.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
		return s, err
	}
	if err := wire.WriteFrame(s, b); err != nil {
		return s, err
	}
	return s, s.SetWriteDeadline(time.Time{}) // one that is left wakes the process when it is over
}

package membership

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
	linkQueue = 128              // words that wait for one member; more are dropped
	linkPause = time.Second      // after a stream that failed
	writeTime = 10 * time.Second // for one word: a member that never reads is given up
	flushTime = time.Second      // for the last words
	openTime  = 5 * time.Second
)

// links send words to the connected members: a stream and a goroutine for each,
// the stream opened with the first word. It is safe for concurrent use.
type links struct {
	open    func(ctx context.Context, p peer.ID) (network.Stream, error)
	deliver func(p peer.ID, w *wire.Word) bool // replaces streams in tests
	dropped atomic.Uint64

	mu    sync.Mutex
	start func(*link) // starts a link's goroutine; nil while run doesn't; owned by mu
	all   map[peer.ID]*link
}

type link struct {
	peer  peer.ID
	queue chan *wire.Word
	again chan struct{} // holds one: try now
	stop  context.CancelFunc
	busy  atomic.Int64 // words queued or under way
}

func newLinks(open func(context.Context, peer.ID) (network.Stream, error)) *links {
	return &links{open: open, all: make(map[peer.ID]*link)}
}

// run lets words flow until ctx ends; what it returns waits for the end.
func (l *links) run(ctx context.Context) (wait func()) {
	ctx, cancel := context.WithCancel(ctx)
	var over sync.WaitGroup
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open != nil {
		l.start = func(k *link) {
			ctx, cancel := context.WithCancel(ctx)
			k.stop = cancel
			over.Go(func() {
				defer cancel()
				l.write(ctx, k)
			})
		}
		for _, k := range l.all {
			l.start(k)
		}
	}
	return func() {
		l.mu.Lock()
		l.start = nil
		l.mu.Unlock()
		cancel()
		over.Wait()
	}
}

func (l *links) add(p peer.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all[p] != nil {
		return
	}
	k := &link{peer: p, queue: make(chan *wire.Word, linkQueue), again: make(chan struct{}, 1)}
	l.all[p] = k
	if l.start != nil {
		l.start(k)
	}
}

func (l *links) remove(p peer.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k := l.all[p]; k != nil {
		delete(l.all, p)
		if k.stop != nil {
			k.stop()
		}
	}
}

// retry ends a pause.
func (l *links) retry(p peer.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k := l.all[p]; k != nil {
		select {
		case k.again <- struct{}{}:
		default:
		}
	}
}

// send queues a word. It doesn't block.
func (l *links) send(p peer.ID, w *wire.Word) {
	if l.deliver != nil {
		l.deliver(p, w)
		return
	}
	l.mu.Lock()
	k := l.all[p]
	l.mu.Unlock()
	if k == nil {
		return
	}
	k.busy.Add(1)
	select {
	case k.queue <- w:
	default:
		k.busy.Add(-1)
		l.dropped.Add(1)
	}
}

// flush waits until what is queued was written, for a short while.
func (l *links) flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, flushTime)
	defer cancel()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for l.waiting() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-look.C:
		}
	}
	return nil
}

func (l *links) waiting() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, k := range l.all {
		if k.busy.Load() > 0 && l.start != nil {
			return true
		}
	}
	return false
}

// write sends a link's words, on one stream as long as it holds.
func (l *links) write(ctx context.Context, k *link) {
	var s network.Stream
	drop := func() {
		if s != nil {
			_ = s.Reset() // it failed, or the member is gone
			s = nil
		}
	}
	defer drop()
	var last time.Time // failure
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.again:
			drop() // the other side has begun anew
			last = time.Time{}
		case w := <-k.queue:
			if s == nil && time.Since(last) < linkPause {
				k.busy.Add(-1)
				l.dropped.Add(1)
				continue
			}
			held := s != nil
			var err error
			if s, err = l.put(ctx, k.peer, s, w); err != nil && held {
				drop() // it was reset since the last word
				s, err = l.put(ctx, k.peer, nil, w)
			}
			if err != nil {
				log.Debugw("a word didn't go out", "peer", k.peer, "error", err)
				drop()
				last = time.Now()
			}
			k.busy.Add(-1)
		}
	}
}

// put writes one word, and opens the stream before if there is none.
func (l *links) put(ctx context.Context, p peer.ID, s network.Stream, w *wire.Word) (network.Stream, error) {
	b, err := wire.Marshal(w)
	if err != nil || len(b) == 0 {
		return s, err
	}
	if s == nil {
		ctx, cancel := context.WithTimeout(ctx, openTime)
		defer cancel()
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

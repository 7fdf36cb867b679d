package cast

import (
	"bufio"
	"context"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// queueBytes bounds the chunks that wait for one member because others sent
	// them; more are dropped: he has other relays, and may ask.
	queueBytes = 8 << 20
	// wordsMost bounds what else waits for one member.
	wordsMost   = 1024
	writeBuffer = 64 << 10
	writeTime   = 10 * time.Second // for one write: a member that never reads is given up
	openTime    = 5 * time.Second
	linkPause   = time.Second // after a stream that failed
	idleTime    = time.Minute // after which a stream isn't kept
	pingEvery   = time.Second // while something is sent
)

// A link is the way to one member: what waits, and the stream that takes it,
// written by one goroutine that lives while there is something to write.
type link struct {
	peer peer.ID
	more chan struct{} // holds one: something waits

	mu      sync.Mutex
	words   []effect // announcements, done-signals, questions and answers: they go first
	bulk    []queued // the rest, in order
	bytes   int64    // of what isn't own
	running bool     // a goroutine writes
	closed  bool
	stop    context.CancelFunc
}

// queued is what waits: a chunk, a body of which a part was sent already, or a
// mark behind them; and what it counts for.
type queued struct {
	effect
	size int64
	sent int
}

func newLink(p peer.ID) *link { return &link{peer: p, more: make(chan struct{}, 1)} }

// put queues an effect; a chunk from others has so many bytes. It returns false
// if the queue is full, and whether a writer must be started.
func (l *link) put(fx effect, size int64) (taken, start bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false, false
	}
	switch {
	case !inOrder(fx) && len(l.words) >= wordsMost, l.bytes+size > queueBytes && size > 0:
		return false, false
	case inOrder(fx):
		l.bytes += size
		l.bulk = append(l.bulk, queued{effect: fx, size: size})
	default:
		l.words = append(l.words, fx)
	}
	select {
	case l.more <- struct{}{}:
	default:
	}
	start = !l.running
	l.running = true
	return true, start
}

// inOrder says whether something waits behind what came before it.
func inOrder(fx effect) bool {
	switch fx := fx.(type) {
	case fxChunk:
		return !fx.urgent
	case fxBody, fxMark:
		return true
	}
	return false
}

// next takes what is to be written now, or nil.
func (l *link) next() effect {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.words) > 0 {
		fx := l.words[0]
		l.words[0] = nil
		if l.words = l.words[1:]; len(l.words) == 0 {
			l.words = nil
		}
		return fx
	}
	if len(l.bulk) == 0 {
		return nil
	}
	q := &l.bulk[0]
	fx := q.effect
	if b, ok := fx.(fxBody); ok {
		fx = fxPart{b.to, b.session, q.sent, b.size, b.probe}
		if q.sent += partBytes; q.sent < b.size {
			return fx
		}
	}
	l.bytes -= q.size
	if l.bulk = l.bulk[1:]; len(l.bulk) == 0 {
		l.bulk = nil
	}
	return fx
}

// waits says whether something waits for a writer that never began.
func (l *link) waits() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.running
}

// rest says whether nothing waits; then the writer ends.
func (l *link) rest() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.words)+len(l.bulk) > 0 {
		return false
	}
	l.running = false
	return true
}

// clear forgets what waits.
func (l *link) clear() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n = len(l.words) + len(l.bulk)
	l.words, l.bulk, l.bytes = nil, nil, 0
	return n
}

// close ends the link for good.
func (l *link) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.words, l.bulk, l.bytes = nil, nil, 0
	if l.stop != nil {
		l.stop()
	}
}

// write writes what waits for l's member until nothing did for a while.
func (c *Cast) write(ctx context.Context, l *link) {
	w := writer{cast: c, link: l}
	defer w.close()
	idle := time.NewTimer(idleTime)
	defer idle.Stop()
	for {
		select {
		case <-ctx.Done():
			w.reset()
			return
		case <-l.more:
			if err := w.all(ctx); err != nil {
				c.log.Debug("a stream failed", "peer", l.peer, "err", err)
				w.reset()
				c.dropped.Add(uint64(l.clear()))
				pause(ctx, linkPause)
				c.dropped.Add(uint64(l.clear()))
			}
			idle.Reset(idleTime)
		case <-idle.C:
			if l.rest() {
				return
			}
			idle.Reset(idleTime)
		}
	}
}

// A writer is the open stream of a link.
type writer struct {
	cast   *Cast
	link   *link
	stream network.Stream
	buf    *bufio.Writer
	head   []byte
	pinged time.Time
}

// all writes until nothing waits.
func (w *writer) all(ctx context.Context) error {
	for {
		fx := w.link.next()
		if fx == nil {
			if w.buf == nil {
				return nil
			}
			return w.buf.Flush()
		}
		head, data := w.cast.encode(w.head[:0], fx)
		w.head = head[:0]
		if len(head) == 0 {
			continue // nobody needs it any more
		}
		if err := w.open(ctx); err != nil {
			return err
		}
		if err := w.stream.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
			return err
		}
		if now := time.Now(); now.Sub(w.pinged) >= pingEvery {
			w.pinged = now
			if _, err := w.buf.Write(appendWord(nil, framePing, uint64(now.UnixNano()))); err != nil {
				return err
			}
		}
		if _, err := w.buf.Write(head); err != nil {
			return err
		}
		if _, err := w.buf.Write(data); err != nil {
			return err
		}
		w.cast.sent.Add(uint64(len(head) + len(data)))
	}
}

func (w *writer) open(ctx context.Context) error {
	if w.stream != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	s, err := w.cast.conf.Open(ctx, w.link.peer)
	if err != nil {
		return err
	}
	w.stream, w.buf = s, bufio.NewWriterSize(s, writeBuffer)
	return nil
}

// close ends the stream; what was written still arrives.
func (w *writer) close() {
	if w.stream != nil {
		_ = w.stream.Close() // it is of no more use, whatever comes of this
	}
}

// reset gives the stream up with what was on its way.
func (w *writer) reset() {
	if w.stream != nil {
		_ = w.stream.Reset() // it failed already
		w.stream, w.buf = nil, nil
	}
	w.cast.forgetKnown(w.link.peer)
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

package orderer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// waitingLinks is how many streams from other consenters may wait to be taken up.
const waitingLinks = 16

var errLinksClosed = errors.New("the links to the other orderers are closed")

// Links are streams between the consenters of one channel. Each end has proven to the other which of them it is before
// either sees the stream.
type Links interface {
	// Dial opens a stream to another consenter. An error that is a Stranger says that the other one answers, and doesn't
	// count this node among the consenters.
	Dial(ctx context.Context, to Consenter) (net.Conn, error)
	// Accept hands over the streams that other consenters open from now on to the consenter with the id self. take doesn't
	// block. Nil ends it.
	Accept(self uint64, take func(net.Conn))
}

// layer is Links as Raft's transport sees them: addresses are consenters' ids, and who that is at the moment is looked up
// at each dial. It knows all its streams, so that closing it ends every call under way.
type layer struct {
	links    Links
	self     uint64
	refused  atomic.Bool // another consenter doesn't count this node among them
	find     func(id uint64) (Consenter, bool)
	incoming chan net.Conn
	done     chan struct{} // closed by Close

	mu    sync.Mutex
	conns map[*link]struct{} // guarded by mu; nil once closed
}

var _ raft.StreamLayer = (*layer)(nil)

func newLayer(links Links, self uint64, find func(uint64) (Consenter, bool)) *layer {
	l := &layer{
		links: links, self: self, find: find,
		incoming: make(chan net.Conn, waitingLinks), done: make(chan struct{}), conns: make(map[*link]struct{}),
	}
	links.Accept(self, l.take)
	return l
}

// Dial opens a stream to the consenter with an id.
func (l *layer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	id, err := strconv.ParseUint(string(address), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("consenter %q: %w", address, err)
	}
	to, ok := l.find(id)
	if !ok {
		return nil, fmt.Errorf("consenter %d isn't in the configuration any more", id)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	go func() { // ends with ctx
		select {
		case <-l.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	c, err := l.links.Dial(ctx, to)
	if errors.Is(err, Stranger) {
		l.refused.Store(true)
	}
	if err != nil {
		return nil, err
	}
	return l.keep(c)
}

// Accept waits for a stream that another consenter opens.
func (l *layer) Accept() (net.Conn, error) {
	select {
	case c := <-l.incoming:
		return l.keep(c)
	case <-l.done:
		return nil, errLinksClosed
	}
}

// Addr is this consenter's id.
func (l *layer) Addr() net.Addr { return consenterAddr(serverID(l.self)) }

// Close ends all streams. It may be called again.
func (l *layer) Close() error {
	l.links.Accept(l.self, nil)
	l.mu.Lock()
	conns := l.conns
	l.conns = nil
	l.mu.Unlock()
	if conns == nil {
		return nil
	}
	close(l.done)
	for c := range conns {
		_ = c.Conn.Close() // nothing more is to be said on it
	}
	for {
		select {
		case c := <-l.incoming:
			_ = c.Close() // it was never taken up
		default:
			return nil
		}
	}
}

func (l *layer) take(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns != nil {
		select {
		case l.incoming <- c:
			return
		default:
		}
	}
	_ = c.Close() // the other dials again
}

func (l *layer) keep(c net.Conn) (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns == nil {
		return nil, errors.Join(errLinksClosed, c.Close())
	}
	k := &link{c, l}
	l.conns[k] = struct{}{}
	return k, nil
}

// link is a stream that its layer knows of.
type link struct {
	net.Conn
	layer *layer
}

func (k *link) Close() error {
	k.layer.mu.Lock()
	delete(k.layer.conns, k)
	k.layer.mu.Unlock()
	return k.Conn.Close()
}

type consenterAddr string

func (consenterAddr) Network() string  { return "consenter" }
func (a consenterAddr) String() string { return string(a) }

// transport is Raft's, over a layer. It notes whom the leader has brought level with its log: Raft begins to pipeline only
// then.
type transport struct {
	*raft.NetworkTransport
	layer *layer
	blank blank

	mu    sync.Mutex
	level map[raft.ServerID]bool // guarded by mu
}

// rpcTimeout bounds one call between orderers: what is sent, written and synced for it.
const rpcTimeout = 10 * time.Second

func newTransport(l *layer, out *logLines) *transport {
	return &transport{
		NetworkTransport: raft.NewNetworkTransport(l, 3, rpcTimeout, out),
		layer:            l, level: make(map[raft.ServerID]bool),
	}
}

// Consumer hands over the others' calls.
func (t *transport) Consumer() <-chan raft.RPC {
	return t.blank.gate(t.NetworkTransport.Consumer(), t.layer.done)
}

// AppendEntriesPipeline notes that the follower is level with the log.
func (t *transport) AppendEntriesPipeline(id raft.ServerID, target raft.ServerAddress) (raft.AppendPipeline, error) {
	t.mu.Lock()
	t.level[id] = true
	t.mu.Unlock()
	return t.NetworkTransport.AppendEntriesPipeline(id, target)
}

// isLevel says whether a follower has been level since the notes were last forgotten.
func (t *transport) isLevel(id raft.ServerID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.level[id]
}

// forget drops the notes: another leader knows nothing of them.
func (t *transport) forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.level)
}

package channel

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"grapevine/wire"
)

// Limits of the door, for streams that haven't said yet where they go. None of
// them depends on a channel, so none tells a stranger of one.
const (
	// firstFrame is the longest first frame: a protocol ID of ours has 77
	// bytes at most.
	firstFrame = 96
	// firstFrameTime is how long a stream may take to say where it goes, from
	// its first byte to its last (PROMISES W6).
	firstFrameTime = 5 * time.Second
	// waitingPerPeer is how many streams of one peer may be in that state at
	// once: each holds a goroutine. An honest peer's first frame comes with the
	// packet that opens the stream; one that is refused in a burst is retried.
	waitingPerPeer = 16
)

// Reasons for which the door refuses a stream. What the peer sees is one and
// the same reset for all of them.
var (
	UnknownChannel = wire.NewReason("channel.unknown", wire.Refuse)
	NotMember      = wire.NewReason("channel.not_member", wire.Reject)
	DoorBusy       = wire.NewReason("channel.door_busy", wire.Refuse)
	OldProtocol    = wire.NewReason("channel.old_protocol", wire.Refuse)
)

// A Door is a host's only handler for the protocols of all its channels. A
// stream's first frame says which channel and which protocol it is for; before
// anything else is read, the door asks that channel whether the remote host is
// a member. An unknown channel and a foreign one get the same answer, and
// identify shows nothing but the door.
//
// A Door is safe for concurrent use. It starts no goroutine.
type Door struct {
	host    host.Host
	refused atomic.Pointer[func(peer.ID, *wire.Reason)]

	mu      sync.Mutex
	routes  map[protocol.ID]route // guarded by mu; replaced entries only by their view
	views   map[[32]byte]*View    // guarded by mu
	waiting map[peer.ID]streamSet // streams before their first frame; guarded by mu; an entry goes with its last stream
	closed  bool                  // guarded by mu
	serving sync.WaitGroup        // streams before their first frame
}

type streamSet map[network.Stream]struct{}

// A route is where a first frame leads.
type route struct {
	view    *View
	handler network.StreamHandler
}

// NewDoor sets the door's handler on h, which shows it to every peer from then
// on, whatever channels are opened.
func NewDoor(h host.Host) *Door {
	d := &Door{
		host:    h,
		routes:  make(map[protocol.ID]route),
		views:   make(map[[32]byte]*View),
		waiting: make(map[peer.ID]streamSet),
	}
	h.SetStreamHandler(wire.DoorID, d.serve)
	h.Network().Notify((*doorNotifiee)(d))
	return d
}

// OnRefused sets who is told of streams that the door refused: once for each,
// with the reason that the peer doesn't get to see. f must not block.
func (d *Door) OnRefused(f func(peer.ID, *wire.Reason)) { d.refused.Store(&f) }

// Open makes the view of the host for the channel with this tag. isMember says
// of any peer whether it is a member now; it must be cheap and not block, for
// it is asked for every stream and every message. When its answer changes, the
// caller MUST call [View.Arrive] or [View.Expel]. A view that is open under the
// same tag is closed first.
func (d *Door) Open(tag [32]byte, isMember func(peer.ID) bool) *View {
	v := newView(d, tag, isMember)
	d.mu.Lock()
	old := d.views[tag]
	d.mu.Unlock()
	if old != nil {
		_ = old.Close() // could only tell that its emitters were closed before
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.views[tag] = v
	return v
}

// Close takes the handler off the host and closes all views. It waits until no
// stream is being handled.
func (d *Door) Close() error {
	d.host.RemoveStreamHandler(wire.DoorID)
	d.host.Network().StopNotify((*doorNotifiee)(d))
	d.mu.Lock()
	d.closed = true
	for _, set := range d.waiting {
		for s := range set {
			_ = s.Reset() // its reader returns
		}
	}
	d.mu.Unlock()
	var errs []error
	for _, v := range d.all() {
		errs = append(errs, v.Close())
	}
	d.serving.Wait()
	return errors.Join(errs...)
}

// serve takes one stream from the host.
func (d *Door) serve(s network.Stream) {
	p := s.Conn().RemotePeer()
	if !d.enter(p, s) {
		d.refuse(s, fmt.Errorf("stream from %s: %w", p, DoorBusy))
		return
	}
	id, err := d.read(s)
	d.leave(p, s)
	if err != nil {
		d.refuse(s, fmt.Errorf("first frame from %s: %w", p, err))
		return
	}
	r, ok := d.route(id)
	if !ok {
		reason := UnknownChannel
		if !strings.HasPrefix(string(id), "/gv/") {
			reason = OldProtocol // floodsub, randomsub, gossipsub by its own names
		}
		d.refuse(s, fmt.Errorf("stream from %s: %w", p, reason))
		return
	}
	if err := r.view.serve(s, id, r.handler); err != nil {
		d.refuse(s, fmt.Errorf("stream from %s: %w", p, err))
	}
}

// read takes the first frame from s, and nothing behind it.
func (d *Door) read(s network.Stream) (protocol.ID, error) {
	if err := s.SetReadDeadline(time.Now().Add(firstFrameTime)); err != nil {
		return "", err
	}
	b, err := wire.ReadFrame(s, firstFrame)
	if err != nil {
		return "", err
	}
	return protocol.ID(b), s.SetReadDeadline(time.Time{})
}

// refuse answers s as every refused stream is answered.
func (d *Door) refuse(s network.Stream, err error) {
	_ = s.ResetWithError(network.StreamProtocolNegotiationFailed) // it is of no more use, whatever comes of this
	reason := wire.ReasonOf(err)
	if errors.Is(err, io.EOF) || reason == nil {
		return // the peer went away, or the connection did
	}
	if f := d.refused.Load(); f != nil {
		(*f)(s.Conn().RemotePeer(), reason)
	}
}

// enter takes in a stream of p that hasn't said where it goes.
func (d *Door) enter(p peer.ID, s network.Stream) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || len(d.waiting[p]) >= waitingPerPeer {
		return false
	}
	if d.waiting[p] == nil {
		d.waiting[p] = make(streamSet)
	}
	d.waiting[p][s] = struct{}{}
	d.serving.Add(1)
	return true
}

func (d *Door) leave(p peer.ID, s network.Stream) {
	defer d.serving.Done()
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.waiting[p], s)
	if len(d.waiting[p]) == 0 {
		delete(d.waiting, p)
	}
}

func (d *Door) route(id protocol.ID) (route, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r, ok := d.routes[id]
	return r, ok
}

// set routes id to a handler of v, or nowhere if h is nil.
func (d *Door) set(id protocol.ID, v *View, h network.StreamHandler) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if h != nil {
		d.routes[id] = route{v, h}
	} else if d.routes[id].view == v {
		delete(d.routes, id)
	}
}

// drop forgets v and its routes.
func (d *Door) drop(v *View) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, r := range d.routes {
		if r.view == v {
			delete(d.routes, id)
		}
	}
	if d.views[v.tag] == v {
		delete(d.views, v.tag)
	}
}

func (d *Door) all() []*View {
	d.mu.Lock()
	defer d.mu.Unlock()
	vs := make([]*View, 0, len(d.views))
	for _, v := range d.views {
		vs = append(vs, v)
	}
	return vs
}

// doorNotifiee is a Door as the network sees it: it hears of connections and
// tells those views whose members they are.
type doorNotifiee Door

func (d *doorNotifiee) Connected(_ network.Network, c network.Conn) {
	for _, v := range (*Door)(d).all() {
		v.connected(c)
	}
}

func (d *doorNotifiee) Disconnected(n network.Network, c network.Conn) {
	for _, v := range (*Door)(d).all() {
		v.disconnected(c, n.Connectedness(c.RemotePeer()) != network.Connected)
	}
}

package channel

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multistream"

	"grapevine/wire"
)

var errClosed = errors.New("the channel's view is closed")

// A View is the host as one channel sees it: only members exist. Streams to
// and from anyone else aren't there, nor are their connections, addresses and
// events. It is a [host.Host], so that GossipSub runs on it unchanged.
//
// The view has an event bus of its own. On it a member arrives when it is
// connected and admitted, whichever comes last, so that a certificate or a
// configuration that comes late never locks a member out; and leaves when it is
// expelled or disconnected.
//
// A View is safe for concurrent use. It starts no goroutine; handlers run on
// those of the host.
type View struct {
	door     *Door
	host     host.Host
	tag      [32]byte
	isMember func(peer.ID) bool
	net      *viewNetwork
	bus      event.Bus
	arrived  event.Emitter // EvtPeerProtocolsUpdated
	changed  event.Emitter // EvtPeerConnectednessChanged

	mu      sync.Mutex
	streams map[*stream]struct{} // open ones, both directions; guarded by mu
	closed  bool                 // guarded by mu
	serving sync.WaitGroup       // handlers that run
}

var _ host.Host = (*View)(nil)

func newView(d *Door, tag [32]byte, isMember func(peer.ID) bool) *View {
	v := &View{
		door:     d,
		host:     d.host,
		tag:      tag,
		isMember: isMember,
		bus:      eventbus.NewBus(),
		streams:  make(map[*stream]struct{}),
	}
	v.net = &viewNetwork{Network: d.host.Network(), view: v}
	// A fresh bus refuses no emitter: these are its only errors (a type that
	// is no pointer).
	v.arrived, _ = v.bus.Emitter(new(event.EvtPeerProtocolsUpdated))
	v.changed, _ = v.bus.Emitter(new(event.EvtPeerConnectednessChanged))
	return v
}

// Close shuts this view, not the host: all its streams are reset, and it
// returns when no handler runs any more. A handler MUST NOT call it.
func (v *View) Close() error {
	v.door.drop(v)
	v.mu.Lock()
	again := v.closed
	v.closed = true
	v.mu.Unlock()
	v.reset(func(*stream) bool { return true })
	v.serving.Wait()
	if again {
		return nil
	}
	return errors.Join(v.arrived.Close(), v.changed.Close())
}

// Arrive tells the channel's protocols that p is here. The caller says it of a
// peer that became a member while connected; the view itself says it of members
// that connect or that open the mesh stream first. To say it of anyone else, or
// twice, does nothing.
func (v *View) Arrive(p peer.ID) {
	if !v.admits(p) || v.host.Network().Connectedness(p) != network.Connected {
		return
	}
	_ = v.arrived.Emit(event.EvtPeerProtocolsUpdated{Peer: p, Added: []protocol.ID{v.meshID()}}) // errs when closed
}

// Expel ends all that this channel has with p: its streams in both directions
// and, with them, its place in the mesh. The connection and other channels'
// streams stay. The caller MUST have made isMember refuse p before.
func (v *View) Expel(p peer.ID) {
	v.reset(func(s *stream) bool { return s.Conn().RemotePeer() == p })
	_ = v.changed.Emit(event.EvtPeerConnectednessChanged{Peer: p, Connectedness: network.NotConnected}) // errs when closed
	for _, c := range v.host.Network().ConnsToPeer(p) {
		v.net.notifiees.each(func(f network.Notifiee) { f.Disconnected(v.net, conn{c, v}) })
	}
}

// Members returns the members that are connected, in no order.
func (v *View) Members() []peer.ID { return v.net.Peers() }

// Handle sets the handler of this channel's streams of a kind.
func (v *View) Handle(kind string, h network.StreamHandler) {
	v.SetStreamHandler(protocol.ID(wire.ProtocolID(v.tag, kind)), h)
}

// Stream opens a stream of a kind to a member. That it succeeds doesn't say
// that the other took it: errors show at the first read. The host may dial.
func (v *View) Stream(ctx context.Context, p peer.ID, kind string) (network.Stream, error) {
	return v.NewStream(ctx, p, protocol.ID(wire.ProtocolID(v.tag, kind)))
}

// NewStream opens a stream at p's door for the first of ids.
func (v *View) NewStream(ctx context.Context, p peer.ID, ids ...protocol.ID) (network.Stream, error) {
	if len(ids) == 0 {
		return nil, errors.New("opening a stream: no protocol named")
	}
	if !v.admits(p) {
		return nil, fmt.Errorf("opening a stream to %s: %w", p, NotMember)
	}
	if ids[0] == v.meshID() {
		ctx = network.WithNoDial(ctx, "the mesh takes the members that are here")
	}
	raw, err := v.host.NewStream(ctx, p, wire.DoorID)
	if err != nil {
		return nil, fmt.Errorf("opening a stream to %s: %w", p, err)
	}
	s, err := v.take(raw, ids[0])
	if err != nil {
		_ = raw.Reset() // nothing was said on it
		return nil, fmt.Errorf("opening a stream to %s: %w", p, err)
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = s.SetWriteDeadline(deadline) // where a stream has none, the muxer's own holds
	}
	if err := wire.WriteFrame(s, []byte(ids[0])); err != nil {
		_ = s.Reset()
		return nil, fmt.Errorf("opening a stream to %s: %w", p, err)
	}
	_ = s.SetWriteDeadline(time.Time{}) // further deadlines are the caller's
	return s, nil
}

// ID returns the host's peer ID.
func (v *View) ID() peer.ID { return v.host.ID() }

// Addrs returns the host's addresses.
func (v *View) Addrs() []ma.Multiaddr { return v.host.Addrs() }

// Network returns the host's network with its members only.
func (v *View) Network() network.Network { return v.net }

// Peerstore returns the host's peer store with its members only.
func (v *View) Peerstore() peerstore.Peerstore {
	return viewPeerstore{v.host.Peerstore(), v}
}

// Mux returns an empty one: no protocol of a channel is ever set on the host.
func (v *View) Mux() protocol.Switch { return multistream.NewMultistreamMuxer[protocol.ID]() }

// ConnManager returns the host's.
func (v *View) ConnManager() connmgr.ConnManager { return v.host.ConnManager() }

// EventBus returns the view's own bus.
func (v *View) EventBus() event.Bus { return v.bus }

// Connect connects to a member.
func (v *View) Connect(ctx context.Context, pi peer.AddrInfo) error {
	if !v.admits(pi.ID) {
		return fmt.Errorf("connecting to %s: %w", pi.ID, NotMember)
	}
	return v.host.Connect(ctx, pi)
}

// SetStreamHandler sets a handler behind the door.
func (v *View) SetStreamHandler(id protocol.ID, h network.StreamHandler) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.closed {
		v.door.set(id, v, h)
	}
}

// SetStreamHandlerMatch sets a handler behind the door, for id alone: the
// first frame names a protocol exactly.
func (v *View) SetStreamHandlerMatch(id protocol.ID, _ func(protocol.ID) bool, h network.StreamHandler) {
	v.SetStreamHandler(id, h)
}

// RemoveStreamHandler takes a handler away.
func (v *View) RemoveStreamHandler(id protocol.ID) { v.door.set(id, v, nil) }

// admits says whether p may have anything to do with this channel.
func (v *View) admits(p peer.ID) bool { return p != v.host.ID() && v.isMember(p) }

func (v *View) meshID() protocol.ID { return protocol.ID(wire.ProtocolID(v.tag, wire.KindMesh)) }

// serve runs h on a stream that came for id.
func (v *View) serve(raw network.Stream, id protocol.ID, h network.StreamHandler) error {
	s, err := v.take(raw, id)
	if err != nil {
		return err
	}
	defer v.serving.Done()
	if id == v.meshID() {
		// The other has this channel now, if it hadn't before: GossipSub opens
		// its own stream if it has none.
		v.Arrive(s.Conn().RemotePeer())
	}
	h(s)
	return nil
}

// take makes raw one of the view's streams. For an inbound one it adds to
// serving. The member is asked for after the stream is in the set, so that of
// Expel and take one sees the other.
func (v *View) take(raw network.Stream, id protocol.ID) (*stream, error) {
	s := &stream{Stream: raw, id: id, view: v}
	v.mu.Lock()
	if v.closed {
		v.mu.Unlock()
		return nil, fmt.Errorf("%w: %w", UnknownChannel, errClosed)
	}
	v.streams[s] = struct{}{}
	inbound := raw.Stat().Direction == network.DirInbound
	if inbound {
		v.serving.Add(1)
	}
	v.mu.Unlock()
	err := error(nil)
	if !v.admits(raw.Conn().RemotePeer()) {
		err = NotMember
	} else if e := raw.Scope().SetService("grapevine." + kindOf(id)); e != nil {
		err = fmt.Errorf("%w: %w", DoorBusy, e)
	}
	if err != nil {
		v.forget(s)
		if inbound {
			v.serving.Done()
		}
		return nil, err
	}
	return s, nil
}

func (v *View) forget(s *stream) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.streams, s)
}

// reset resets the streams that which picks.
func (v *View) reset(which func(*stream) bool) {
	for _, s := range v.open() {
		if which(s) {
			_ = s.Reset() // what is dead already is as good
		}
	}
}

// open returns the streams that are open.
func (v *View) open() []*stream {
	v.mu.Lock()
	defer v.mu.Unlock()
	ss := make([]*stream, 0, len(v.streams))
	for s := range v.streams {
		ss = append(ss, s)
	}
	return ss
}

func (v *View) connected(c network.Conn) {
	if !v.admits(c.RemotePeer()) {
		return
	}
	v.net.notifiees.each(func(f network.Notifiee) { f.Connected(v.net, conn{c, v}) })
	v.Arrive(c.RemotePeer())
}

// disconnected hears of a connection that ended, and whether it was the last.
func (v *View) disconnected(c network.Conn, last bool) {
	p := c.RemotePeer()
	v.reset(func(s *stream) bool { return s.Stream.Conn() == c || last && s.Conn().RemotePeer() == p })
	if !v.admits(p) {
		return
	}
	if last {
		_ = v.changed.Emit(event.EvtPeerConnectednessChanged{Peer: p, Connectedness: network.NotConnected}) // errs when closed
	}
	v.net.notifiees.each(func(f network.Notifiee) { f.Disconnected(v.net, conn{c, v}) })
}

// kindOf returns what ProtocolID put behind the tag.
func kindOf(id protocol.ID) string { return string(id[strings.LastIndexByte(string(id), '/')+1:]) }

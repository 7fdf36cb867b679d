package channel

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	ic "github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
)

var errHostOnly = errors.New("a channel's view can't do that to the host's network")

// viewNetwork is the host's network as far as a channel sees it.
type viewNetwork struct {
	network.Network
	view      *View
	notifiees notifiees
}

// Peers returns the members that are connected.
func (n *viewNetwork) Peers() []peer.ID {
	return slices.DeleteFunc(n.Network.Peers(), func(p peer.ID) bool {
		return !n.view.admits(p) || n.Network.Connectedness(p) != network.Connected
	})
}

// Conns returns the connections to members.
func (n *viewNetwork) Conns() []network.Conn { return n.wrap(n.Network.Conns()) }

// ConnsToPeer returns the connections to p, if it is a member.
func (n *viewNetwork) ConnsToPeer(p peer.ID) []network.Conn { return n.wrap(n.Network.ConnsToPeer(p)) }

func (n *viewNetwork) wrap(cs []network.Conn) []network.Conn {
	var out []network.Conn
	for _, c := range cs {
		if n.view.admits(c.RemotePeer()) {
			out = append(out, conn{c, n.view})
		}
	}
	return out
}

// Connectedness says that nobody but members is connected.
func (n *viewNetwork) Connectedness(p peer.ID) network.Connectedness {
	if !n.view.admits(p) {
		return network.NotConnected
	}
	return n.Network.Connectedness(p)
}

// DialPeer dials a member.
func (n *viewNetwork) DialPeer(ctx context.Context, p peer.ID) (network.Conn, error) {
	if !n.view.admits(p) {
		return nil, fmt.Errorf("dialling %s: %w", p, NotMember)
	}
	c, err := n.Network.DialPeer(ctx, p)
	if err != nil {
		return nil, err
	}
	return conn{c, n.view}, nil
}

// CanDial says no of anyone but members.
func (n *viewNetwork) CanDial(p peer.ID, a ma.Multiaddr) bool {
	return n.view.admits(p) && n.Network.CanDial(p, a)
}

// Peerstore returns the view's.
func (n *viewNetwork) Peerstore() peerstore.Peerstore { return n.view.Peerstore() }

// Notify registers f for members' connections.
func (n *viewNetwork) Notify(f network.Notifiee) { n.notifiees.add(f) }

// StopNotify takes f off.
func (n *viewNetwork) StopNotify(f network.Notifiee) { n.notifiees.remove(f) }

// ClosePeer ends this channel's streams with p; the connection is the host's.
func (n *viewNetwork) ClosePeer(p peer.ID) error {
	n.view.reset(func(s *stream) bool { return s.Conn().RemotePeer() == p })
	return nil
}

// NewStream, Listen and Close are the host's alone, and no stream reaches a
// handler but through the door.
func (n *viewNetwork) NewStream(context.Context, peer.ID) (network.Stream, error) {
	return nil, errHostOnly
}
func (n *viewNetwork) Listen(...ma.Multiaddr) error           { return errHostOnly }
func (n *viewNetwork) Close() error                           { return errHostOnly }
func (n *viewNetwork) SetStreamHandler(network.StreamHandler) {}

// conn is a connection to a member with this channel's streams only.
type conn struct {
	network.Conn
	view *View
}

// GetStreams returns this channel's streams on the connection, under their own
// protocol IDs: GossipSub tells by them who dialled whom.
func (c conn) GetStreams() []network.Stream {
	var out []network.Stream
	for _, s := range c.view.open() {
		if s.Stream.Conn() == c.Conn {
			out = append(out, s)
		}
	}
	return out
}

// NewStream is refused: streams are opened at the door.
func (c conn) NewStream(context.Context) (network.Stream, error) { return nil, errHostOnly }

// stream is a stream behind the door, under the protocol ID that its first
// frame named.
type stream struct {
	network.Stream
	id   protocol.ID
	view *View
	once sync.Once // leaves the view's set
}

// Protocol returns the ID that the first frame named.
func (s *stream) Protocol() protocol.ID { return s.id }

// SetProtocol is refused.
func (s *stream) SetProtocol(protocol.ID) error { return errHostOnly }

// Close, Reset and ResetWithError also take the stream out of the view's set.
func (s *stream) Close() error {
	s.leave()
	return s.Stream.Close()
}

func (s *stream) Reset() error {
	s.leave()
	return s.Stream.Reset()
}

func (s *stream) ResetWithError(code network.StreamErrorCode) error {
	s.leave()
	return s.Stream.ResetWithError(code)
}

func (s *stream) leave() { s.once.Do(func() { s.view.forget(s) }) }

// viewPeerstore is the host's peer store as far as it is about members. What is
// learned of anyone else is dropped.
type viewPeerstore struct {
	peerstore.Peerstore
	view *View
}

func (s viewPeerstore) Peers() peer.IDSlice          { return s.only(s.Peerstore.Peers()) }
func (s viewPeerstore) PeersWithAddrs() peer.IDSlice { return s.only(s.Peerstore.PeersWithAddrs()) }
func (s viewPeerstore) PeersWithKeys() peer.IDSlice  { return s.only(s.Peerstore.PeersWithKeys()) }

func (s viewPeerstore) only(ps peer.IDSlice) peer.IDSlice {
	return slices.DeleteFunc(ps, func(p peer.ID) bool { return !s.view.admits(p) })
}

func (s viewPeerstore) Addrs(p peer.ID) []ma.Multiaddr {
	if !s.view.admits(p) {
		return nil
	}
	return s.Peerstore.Addrs(p)
}

func (s viewPeerstore) PeerInfo(p peer.ID) peer.AddrInfo {
	return peer.AddrInfo{ID: p, Addrs: s.Addrs(p)}
}

func (s viewPeerstore) AddAddr(p peer.ID, a ma.Multiaddr, ttl time.Duration) {
	s.AddAddrs(p, []ma.Multiaddr{a}, ttl)
}

func (s viewPeerstore) AddAddrs(p peer.ID, as []ma.Multiaddr, ttl time.Duration) {
	if s.view.admits(p) {
		s.Peerstore.AddAddrs(p, as, ttl)
	}
}

// PrivKey gives nothing: no protocol of a channel signs with the host's key.
func (s viewPeerstore) PrivKey(peer.ID) ic.PrivKey { return nil }

package channel

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	ic "github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"

	"grapevine/wire"
)

// eventTime bounds how long a test on the real clock waits for what must come.
const eventTime = 20 * time.Second

// onLoopback makes a host on TCP, whose connections aren't encrypted, so that
// what is on the wire can be read.
func onLoopback(t *testing.T, key ic.PrivKey, dialler ...tcp.ContextDialer) host.Host {
	t.Helper()
	var how []any
	if len(dialler) > 0 {
		how = append(how, tcp.WithDialerForAddr(func(ma.Multiaddr) (tcp.ContextDialer, error) { return dialler[0], nil }))
	}
	if key == nil {
		key = newKey(t)
	}
	h, err := libp2p.New(libp2p.Identity(key), libp2p.Transport(tcp.NewTCPTransport, how...),
		libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.NoSecurity,
		libp2p.DisableRelay(), libp2p.DisableMetrics(), libp2p.ForceReachabilityPublic())
	require.NoError(t, err)
	return h
}

func newKey(t *testing.T) ic.PrivKey {
	t.Helper()
	key, _, err := ic.GenerateEd25519Key(rand.Reader)
	require.NoError(t, err)
	return key
}

// grafts is a tracer that tells who came into a topic's mesh.
type grafts chan peer.ID

func (g grafts) Graft(p peer.ID, topic string) {
	if topic == wire.TopicAlive {
		g <- p
	}
}
func (grafts) OnNewOutboundStream(peer.ID, protocol.ID) {}
func (grafts) OnClosedOutboundStream(peer.ID)           {}
func (grafts) Join(string)                              {}
func (grafts) Leave(string)                             {}
func (grafts) Prune(peer.ID, string)                    {}
func (grafts) ValidateMessage(*pubsub.Message)          {}
func (grafts) DeliverMessage(*pubsub.Message)           {}
func (grafts) RejectMessage(*pubsub.Message, string)    {}
func (grafts) DuplicateMessage(*pubsub.Message)         {}
func (grafts) ThrottlePeer(peer.ID)                     {}
func (grafts) RecvRPC(*pubsub.RPC)                      {}
func (grafts) SendRPC(*pubsub.RPC, peer.ID)             {}
func (grafts) DropRPC(*pubsub.RPC, peer.ID)             {}
func (grafts) UndeliverableMessage(*pubsub.Message)     {}
func (g grafts) set(c *MeshConfig)                      { c.Tracer = g }
func (g grafts) wait(t *testing.T, p peer.ID)           { t.Helper(); waitFor(t, g, p) }
func waitFor[T comparable](t *testing.T, c <-chan T, v T) {
	t.Helper()
	late := time.After(eventTime)
	for {
		select {
		case got := <-c:
			if got == v {
				return
			}
		case <-late:
			t.Fatalf("%v didn't come", v)
		}
	}
}

// hearing tells of alive messages' payloads.
func hearing(c chan string) func(*MeshConfig) {
	return func(m *MeshConfig) {
		m.Alive = func(_ peer.ID, a *wire.SignedAlive) error {
			c <- string(a.Certificate)
			return nil
		}
	}
}

// wiretap keeps what the connections of one dialler receive.
type wiretap struct {
	mu  sync.Mutex
	got bytes.Buffer
}

type tappedConn struct {
	net.Conn
	tap *wiretap
}

func (c tappedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.tap.mu.Lock()
	defer c.tap.mu.Unlock()
	c.tap.got.Write(b[:n])
	return n, err
}

func (w *wiretap) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return tappedConn{c, w}, nil
}

func (w *wiretap) bytes() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	return bytes.Clone(w.got.Bytes())
}

// TestNothingOnTheWire (S8): of all bytes that reach an outsider on TCP, in
// clear, identify and the muxer's included, none holds the channel's tag, name
// or payload; the same tap on a member finds them.
func TestNothingOnTheWire(t *testing.T) {
	for _, member := range []bool{false, true} {
		t.Run(map[bool]string{false: "outsider", true: "member"}[member], func(t *testing.T) {
			tapOf := &wiretap{}
			hs := []host.Host{onLoopback(t, nil), onLoopback(t, nil), onLoopback(t, nil, tapOf)}
			defer closeAll(t, hs)
			r := rollOf(hs[:2]...)
			r.put(hs[2].ID(), member)
			heard, grafted := make(chan string, 16), make(grafts, 16)
			ns := []*node{start(t, hs[0], r, grafted.set), start(t, hs[1], r, hearing(heard)), start(t, hs[2], rollOf(hs...), hearing(heard))}
			defer leaveAll(t, ns)
			connect(t, hs[:2]...)
			for _, m := range hs[:2] { // the tap is on those that it dials
				require.NoError(t, hs[2].Connect(context.Background(), peer.AddrInfo{ID: m.ID(), Addrs: m.Addrs()}))
			}
			last := hs[1].ID()
			if member {
				last = hs[2].ID()
			}
			grafted.wait(t, last)
			ns[0].say(t, canary)
			waitFor(t, heard, canary)
			if member {
				waitFor(t, heard, canary)
			}
			for _, m := range hs[:2] { // it asks in vain, and then all that was under way has come
				for _, kind := range []string{wire.KindMesh, wire.KindBlocks} {
					s, err := ns[2].view.Stream(context.Background(), m.ID(), kind)
					require.NoError(t, err)
					_ = s.CloseWrite()
					if kind == wire.KindBlocks || !member {
						_, err = io.ReadAll(s)
						require.Error(t, err)
					}
					_ = s.Reset()
				}
				ctx, cancel := context.WithTimeout(context.Background(), eventTime)
				require.NoError(t, (<-ping.Ping(ctx, hs[2], m.ID())).Error)
				cancel()
			}
			got := tapOf.bytes()
			require.Contains(t, string(got), wire.DoorID, "the tap works")
			for what, secret := range map[string][]byte{
				"payload": []byte(canary), "tag": testTag[:], "tag in hex": []byte(hex.EncodeToString(testTag[:])), "topic": []byte(wire.TopicAlive),
			} {
				if found := bytes.Contains(got, secret); !member {
					require.False(t, found, what)
				} else if what == "payload" {
					require.True(t, found, "the tap would find it")
				}
			}
		})
	}
}

// A host that restarts with the same key, while the others may still hold its
// old connection, is in the mesh again.
func TestHostRestarts(t *testing.T) {
	key := newKey(t)
	hs := []host.Host{onLoopback(t, nil), onLoopback(t, key)}
	defer func() { closeAll(t, hs) }()
	heard, grafted := make(chan string, 16), make(grafts, 64)
	r := rollOf(hs...)
	first := start(t, hs[0], r, grafted.set, hearing(heard))
	defer first.leave(t)
	for i := range 3 {
		theirs := make(grafts, 64)
		again := start(t, hs[1], r, theirs.set)
		connect(t, hs...)
		grafted.wait(t, hs[1].ID())
		theirs.wait(t, hs[0].ID()) // who speaks before has nobody to speak to
		again.say(t, "run "+string(rune('0'+i)))
		waitFor(t, heard, "run "+string(rune('0'+i)))
		gone := make(chan struct{}, 8)
		n := &network.NotifyBundle{DisconnectedF: func(network.Network, network.Conn) { gone <- struct{}{} }}
		hs[0].Network().Notify(n)
		again.leave(t)
		require.NoError(t, hs[1].Close())
		waitFor(t, gone, struct{}{})
		hs[0].Network().StopNotify(n)
		hs[1] = onLoopback(t, key)
	}
}

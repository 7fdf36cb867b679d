package node

import (
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/stretchr/testify/require"

	"grapevine/wire"
)

var transports = []string{"tcp", "quic-v1"}

// Renewing the binding re-opens the listeners: the ports stay, connections and
// streams live on in both directions, and new handshakes show the new binding.
func TestRenewalKeepsConnections(t *testing.T) {
	for _, transport := range transports {
		t.Run(transport, func(t *testing.T) {
			ctx := patience(t)
			w := newWorld(t)
			g := w.genesis("mychannel", 0, 1)
			open := func(org int, name string) *Node { c, _ := w.config(org, name); return start(t, c, g) }
			n, a, b := open(0, "peer0.org1"), open(1, "peer0.org2"), open(1, "peer1.org2")
			const echo = protocol.ID("/test/echo")
			for _, h := range []*Node{n, a} {
				h.host.SetStreamHandler(echo, func(s network.Stream) {
					b := make([]byte, 1)
					for {
						if _, err := s.Read(b); err != nil {
							return
						}
						if _, err := s.Write(b); err != nil {
							return
						}
					}
				})
			}
			require.NoError(t, a.host.Connect(ctx, at(t, n, transport)))
			in, err := a.host.NewStream(ctx, n.PeerID(), echo)
			require.NoError(t, err)
			out, err := n.host.NewStream(ctx, a.PeerID(), echo)
			require.NoError(t, err)
			speak := func(s network.Stream) {
				t.Helper()
				require.NoError(t, s.SetDeadline(time.Now().Add(10*time.Second)))
				_, err := s.Write([]byte{1})
				require.NoError(t, err)
				_, err = s.Read(make([]byte, 1))
				require.NoError(t, err)
			}
			speak(in)
			speak(out)
			conns := n.host.Network().ConnsToPeer(a.PeerID())
			before := recordCertificate(t, at(t, n, "tcp"))
			listen := n.Listen()
			for range 3 {
				require.NoError(t, n.renew())
			}
			speak(in)
			speak(out)
			require.Equal(t, conns, n.host.Network().ConnsToPeer(a.PeerID()))
			now := n.Listen()
			slices.Sort(listen)
			slices.Sort(now)
			require.Equal(t, listen, now)
			after := recordCertificate(t, at(t, n, "tcp"))
			require.NotEqual(t, before.Extensions, after.Extensions)

			require.NoError(t, b.host.Connect(ctx, at(t, n, transport)), "a newcomer by the new binding")
			id, _, ok := b.guard.identity(n.PeerID())
			require.True(t, ok)
			require.Equal(t, n.Identity().PKIID(), id.PKIID())
			n.showBinding(ctx, a.PeerID())
			require.Equal(t, conns[0], n.host.Network().ConnsToPeer(a.PeerID())[0])
			speak(in)
			require.NoError(t, in.Reset())
			require.NoError(t, out.Reset())
		})
	}
}

// Of two hosts with one identity the older is told on either transport, and
// shuns the teller.
func TestSupplantedHostIsTold(t *testing.T) {
	for _, transport := range transports {
		t.Run(transport, func(t *testing.T) {
			ctx := patience(t)
			w := newWorld(t)
			open := func(name string) Config { c, _ := w.config(0, name); return c }
			n := start(t, open("peer0.org1"))
			c, d := open("peer1.org1"), open("peer1.org1")
			d.Signer = c.Signer
			older, newer := start(t, c), start(t, d)
			gone := watch(older.host.Network())
			require.NoError(t, older.host.Connect(ctx, at(t, n, transport)))
			require.True(t, await(t, ctx, gone, "the connection").open)
			require.NoError(t, newer.host.Connect(ctx, at(t, n, transport)))
			require.False(t, await(t, ctx, gone, "its end").open)
			// Of the notified, the node may be told after this test is.
			until(t, ctx, func() bool { return older.meet.shunnedFor(n.PeerID()) > 0 })
			require.Equal(t, network.Connected, newer.host.Network().Connectedness(n.PeerID()))
			require.LessOrEqual(t, newer.meet.shunnedFor(n.PeerID()), time.Duration(0))
		})
	}
}

// T6-T8: a valid member of the network who isn't of a channel gets the same
// answer about it as about a channel that doesn't exist, and identify shows no
// more than to anybody.
func TestForeignChannelIsAsGoodAsNone(t *testing.T) {
	for _, transport := range transports {
		t.Run(transport, func(t *testing.T) {
			ctx := patience(t)
			w := newWorld(t)
			secret, shared := w.genesis("secret", 0, 1), w.genesis("shared", 0, 2)
			cfg, reg := w.config(0, "peer0.org1")
			n := start(t, cfg, secret, shared)
			c, _ := w.config(2, "peer0.org3")
			outsider := start(t, c, shared)
			require.NoError(t, outsider.host.Connect(ctx, at(t, n, transport)))
			hidden, err := n.Channel("secret")
			require.NoError(t, err)
			common, err := n.Channel("shared")
			require.NoError(t, err)
			until(t, ctx, func() bool { return len(common.Connected()) > 0 })
			require.Empty(t, hidden.Connected())

			ask := func(frame string) network.StreamErrorCode {
				s, err := outsider.host.NewStream(ctx, n.PeerID(), wire.DoorID)
				require.NoError(t, err)
				require.NoError(t, wire.WriteFrame(s, []byte(frame)))
				b := make([]byte, 64)
				got, err := s.Read(b)
				require.Zero(t, got)
				var why *network.StreamError
				require.ErrorAs(t, err, &why)
				require.True(t, why.Remote)
				return why.ErrorCode
			}
			none := ask(wire.ProtocolID([32]byte{1}, wire.KindBlocks))
			for _, kind := range []string{wire.KindMesh, wire.KindBlocks, "nothing"} {
				require.Equal(t, none, ask(wire.ProtocolID(hidden.tag, kind)), kind)
			}
			require.EqualValues(t, 4, counted(t, reg, "grapevine_rejected_total", "channel", ""), "each refusal is counted once")

			bare, _ := w.config(0, "peer1.org1")
			empty := start(t, bare)
			stranger, _ := w.config(0, "peer2.org1")
			s := start(t, stranger)
			show := func(p *Node) []protocol.ID {
				require.NoError(t, s.host.Connect(ctx, peer.AddrInfo{ID: p.PeerID(), Addrs: at(t, p, transport).Addrs}))
				ids, err := s.host.Peerstore().GetProtocols(p.PeerID())
				require.NoError(t, err)
				slices.Sort(ids)
				return ids
			}
			require.Equal(t, show(empty), show(n), "identify says the same with channels and without")
		})
	}
}

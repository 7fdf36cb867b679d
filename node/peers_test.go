package node

import (
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/stretchr/testify/require"

	"grapevine/membership"
	"grapevine/wire"
)

// What a node tells of its peers, and what it can be asked to do with them.
func TestPeers(t *testing.T) {
	ctx := patience(t)
	w := newWorld(t)
	mine, _ := w.config(0, "peer0.org1")
	first := settle(t, &mine)
	beside, _ := w.config(0, "peer1.org1")
	settle(t, &beside)
	beside.Bootstrap = []string{first}
	foreign, _ := w.config(1, "peer0.org2")
	other := settle(t, &foreign)
	g := w.anchored("mychannel", map[int]string{0: first, 1: other, 2: other}, 0, 1, 2)
	n := start(t, mine, g)
	b := start(t, beside, g, w.genesis("elsewhere", 0))
	f := start(t, foreign, g)
	get := func(of *Node) (Peer, bool) {
		for _, p := range n.Peers() {
			if p.ID == of.PeerID() {
				return p, true
			}
		}
		return Peer{}, false
	}
	until(t, ctx, func() bool {
		p, ok := get(b)
		q, okay := get(f)
		return ok && okay && p.RTT > 0 && q.RTT > 0 && len(p.Conns) > 0 && len(q.Conns) > 0 && len(p.Channels) > 0 && p.Channels[0].Streams["members"] > 0
	})
	all := n.Peers()
	require.Len(t, all, 3)
	require.Equal(t, []string{"peer0.org1", "peer1.org1", "peer0.org2"}, []string{all[0].Name, all[1].Name, all[2].Name})
	self := all[0]
	require.True(t, self.Self)
	require.True(t, self.Anchor)
	require.Equal(t, first, self.External)
	p, q := all[1], all[2]
	require.Equal(t, membership.Alive, p.State)
	require.Equal(t, b.Identity().PKIID(), p.PKIID)
	require.Equal(t, b.Identity().Certificate().Raw, p.Certificate.Raw)
	require.Equal(t, beside.Endpoint, p.Endpoint)
	require.False(t, p.Anchor)
	require.Len(t, p.Channels, 1, "not those that aren't shared")
	require.EqualValues(t, 1, p.Channels[0].Height)
	require.Equal(t, "tcp", p.Conns[0].Transport)
	require.Empty(t, q.Endpoint)
	require.Equal(t, other, q.External)
	require.True(t, q.Anchor)

	on, echo, err := n.Ping(ctx, q.PKIID, "")
	require.NoError(t, err)
	require.Equal(t, "mychannel", on)
	require.Positive(t, echo.RTT)
	require.Empty(t, echo.Via)
	_, _, err = n.Ping(ctx, self.PKIID, "")
	require.ErrorIs(t, err, ErrNoPeer)

	ch, err := n.Channel("mychannel")
	require.NoError(t, err)
	anchors := ch.Anchors(ctx)
	require.Len(t, anchors, 3)
	require.True(t, anchors[0].Self)
	require.Equal(t, f.PeerID(), anchors[1].Peer)
	require.Equal(t, "peer0.org2", anchors[1].Name)
	require.NoError(t, anchors[1].Err)
	require.Equal(t, wrongOrg, wire.ReasonOf(anchors[2].Err))

	_, err = n.Connect(ctx, first)
	require.ErrorIs(t, err, errSelf)
	_, err = n.Connect(ctx, "/ip4/127.0.0.1/tcp/1")
	require.Error(t, err)

	there := at(t, f, "tcp").Addrs[0].String()
	// A ban cuts, keeps out in both directions and through a restart, and ends.
	require.NoError(t, n.Ban(q.PKIID, 0))
	until(t, ctx, func() bool { return n.host.Network().Connectedness(f.PeerID()) != network.Connected })
	_, err = n.Connect(ctx, there)
	require.Equal(t, banned, wire.ReasonOf(err))
	_ = f.host.Connect(ctx, at(t, n, "tcp")) // a TLS client is done before it is refused
	until(t, ctx, func() bool { return f.host.Network().Connectedness(n.PeerID()) != network.Connected })
	p, _ = get(f)
	require.True(t, p.Banned.After(time.Now()))
	again := newGuard("test", func(*wire.Reason, string) {})
	kept := n.guard
	n.guard = again
	require.NoError(t, n.loadBans())
	n.guard = kept
	require.True(t, again.isBanned(q.PKIID))
	require.NoError(t, n.Unban(q.PKIID))
	id, err := n.Connect(ctx, there)
	require.NoError(t, err)
	require.Equal(t, f.PeerID(), id)
	require.NoError(t, n.Ban(q.PKIID, time.Nanosecond))
	until(t, ctx, func() bool { return !n.guard.isBanned(q.PKIID) })
	require.Empty(t, n.guard.banned())
	require.ErrorIs(t, n.Ban(self.PKIID, 0), ErrNoPeer)
}

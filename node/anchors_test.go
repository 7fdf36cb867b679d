package node

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/stretchr/testify/require"

	"grapevine/membership"
)

// Anchors A, B and C as in Fabric's documentation: the configuration names one
// peer of each organisation. A and B never reach each other's anchor entry, for
// theirs is wrong; each reaches C, once. B's peer learns A's through C, they talk
// directly, and go on when C is gone for good.
func TestAnchorsLearnOfEachOther(t *testing.T) {
	play(t, func(t *testing.T, b *bubble) {
		var configs [3]Config
		var ends [3]string
		for i, name := range []string{"peer0.org1", "peer0.org2", "peer0.org3"} {
			configs[i], ends[i] = b.node(i, name)
			configs[i].ExternalEndpoint = ends[i]
		}
		g := b.anchored("mychannel", map[int]string{0: "203.0.113.1:7051", 1: "203.0.113.2:7051", 2: ends[2]}, 0, 1, 2)
		b.nw.Start()
		c := open(t, configs[2], g)
		stop := running(t, c)
		t.Cleanup(stop)
		nodes := []*Node{start(t, configs[0], g), start(t, configs[1], g)}
		time.Sleep(15 * time.Second)
		for i, n := range nodes {
			other := nodes[1-i].PeerID()
			m, ok := find(n, "mychannel", other)
			require.True(t, ok, "it has never heard of the other")
			require.Equal(t, ends[1-i], m.Endpoint)
			require.Equal(t, network.Connected, n.host.Network().Connectedness(other), "they talk through C only")
		}
		stop()
		time.Sleep(10 * time.Second)
		for i, n := range nodes {
			m, _ := find(n, "mychannel", c.PeerID())
			require.GreaterOrEqual(t, m.State, membership.Dead, "C")
			ch, err := n.Channel("mychannel")
			require.NoError(t, err)
			other := nodes[1-i]
			_, e, err := n.Ping(t.Context(), other.Identity().PKIID(), "mychannel")
			require.NoError(t, err)
			require.Empty(t, e.Via, "directly")
			require.True(t, slices.ContainsFunc(ch.Members(), func(m membership.Member) bool {
				return m.Peer == other.PeerID() && m.State == membership.Alive
			}))
		}
		// Their connection breaks: without C they find each other again.
		require.NoError(t, nodes[0].Disconnect(nodes[1].PeerID()))
		time.Sleep(10 * time.Second)
		for i, n := range nodes {
			m, _ := find(n, "mychannel", nodes[1-i].PeerID())
			require.Equal(t, membership.Alive, m.State)
			require.Equal(t, network.Connected, n.host.Network().Connectedness(m.Peer))
		}
	})
}

// One anchor that is reachable for a few seconds, out of many minutes, is enough.
// Casts know it meanwhile.
func TestAnchorReachableOnce(t *testing.T) {
	play(t, func(t *testing.T, b *bubble) {
		c, where := b.node(0, "peer0.org1")
		c.ExternalEndpoint = where
		var later []Config
		for i := range 2 {
			d, e := b.node(1+i, fmt.Sprintf("peer0.org%d", 2+i))
			d.ExternalEndpoint = e
			later = append(later, d)
		}
		g := b.anchored("mychannel", map[int]string{0: where}, 0, 1, 2)
		b.nw.Start()
		nodes := []*Node{start(t, later[0], g), start(t, later[1], g)}
		time.Sleep(20 * time.Minute) // nobody there
		anchor := open(t, c, g)
		stop := running(t, anchor)
		t.Cleanup(stop)
		time.Sleep(25 * time.Second)
		for _, n := range append(nodes, anchor) {
			ch, err := n.Channel("mychannel")
			require.NoError(t, err)
			hubs := 1
			if n == anchor {
				hubs = 0
			}
			require.Equal(t, hubs, ch.Traffic().Cast.Hubs)
		}
		stop()
		time.Sleep(time.Minute)
		for i, n := range nodes {
			m, ok := find(n, "mychannel", nodes[1-i].PeerID())
			require.True(t, ok)
			require.Equal(t, membership.Alive, m.State)
		}
	})
}

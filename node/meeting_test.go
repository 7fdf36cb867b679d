package node

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	"grapevine/membership"
)

// settle gives a configuration a port that is free, as its endpoint for the own
// organisation, and for others too.
func settle(t *testing.T, c *Config) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	e := l.Addr().String()
	_, port, err := net.SplitHostPort(e)
	require.NoError(t, err)
	c.Listen = []string{"/ip4/127.0.0.1/tcp/" + port}
	c.Endpoint, c.ExternalEndpoint = e, e
	return e
}

// find returns how a node sees another on a channel.
func find(n *Node, ch string, p peer.ID) (membership.Member, bool) {
	c, err := n.Channel(ch)
	if err != nil {
		return membership.Member{}, false
	}
	for _, m := range c.Members() {
		if m.Peer == p {
			return m, true
		}
	}
	return membership.Member{}, false
}

func sees(n *Node, p peer.ID, s membership.State) func() bool {
	return func() bool { m, ok := find(n, "mychannel", p); return ok && m.State == s }
}

// The organisation of a bootstrap peer is its certificate's: another's, or this
// node itself, is refused with a code, and tried again for ever.
func TestBootstrapOfAnotherOrganisation(t *testing.T) {
	ctx := patience(t)
	w := newWorld(t)
	g := w.genesis("mychannel", 0, 1)
	other, _ := w.config(1, "peer0.org2")
	foreign := settle(t, &other)
	start(t, other, g)
	c, reg := w.config(0, "peer0.org1")
	self := settle(t, &c)
	c.ExternalEndpoint, c.Endpoint = "", ""
	c.Bootstrap = []string{foreign, self}
	n := start(t, c, g)
	until(t, ctx, func() bool {
		return counted(t, reg, "grapevine_rejected_total", "reason", "config.bootstrap_wrong_org") >= 3 &&
			counted(t, reg, "grapevine_rejected_total", "reason", "config.bootstrap_self") == 1
	})
	require.Empty(t, n.host.Network().Peers())
}

// A whole network restarts from its address books, without bootstrap peers.
func TestAddressBook(t *testing.T) {
	ctx := patience(t)
	w := newWorld(t)
	g := w.genesis("mychannel", 0, 1)
	var configs []Config
	var endpoints []string
	for i := range 4 {
		c, _ := w.config(i%2, fmt.Sprintf("peer%d.org%d", i/2, i%2+1))
		endpoints = append(endpoints, settle(t, &c))
		if i >= 2 {
			c.Bootstrap = endpoints[i%2 : i%2+1]
		}
		configs = append(configs, c)
	}
	run := func(join ...*common.Block) (nodes []*Node, stop func()) {
		var stops []func()
		for _, c := range configs {
			n, err := Open(c)
			require.NoError(t, err)
			for _, b := range join {
				_, err := n.Join(ctx, b)
				require.NoError(t, err)
			}
			nodes, stops = append(nodes, n), append(stops, running(t, n))
		}
		return nodes, func() {
			for _, s := range stops {
				s()
			}
		}
	}
	whole := func(nodes []*Node) func() bool {
		return func() bool {
			for _, n := range nodes {
				for _, p := range nodes {
					if m, ok := find(n, "mychannel", p.PeerID()); !ok || m.State != membership.Alive {
						return false
					}
				}
			}
			return true
		}
	}
	nodes, stop := run(g)
	require.NoError(t, nodes[0].host.Connect(ctx, at(t, nodes[1], "tcp"))) // no anchors are configured
	until(t, ctx, whole(nodes))
	m, _ := find(nodes[0], "mychannel", nodes[2].PeerID())
	require.Equal(t, endpoints[2], m.Internal)
	m, _ = find(nodes[0], "mychannel", nodes[1].PeerID())
	require.Empty(t, m.Internal, "another organisation's internal endpoint")
	until(t, ctx, func() bool {
		for _, n := range nodes {
			b, err := n.db.Meta(bookKey("mychannel"))
			for _, p := range nodes {
				if err != nil || p != n && !containsPeer(b, p.PeerID()) {
					return false
				}
			}
		}
		return true
	})
	stop()
	for i := range configs {
		configs[i].Bootstrap = nil
	}
	began := time.Now()
	nodes, stop = run()
	defer stop()
	until(t, ctx, whole(nodes))
	t.Logf("%d nodes found each other again in %v", len(nodes), time.Since(began).Round(time.Millisecond))
}

func TestDeathAndLeaveAreSeen(t *testing.T) {
	ctx := patience(t)
	w := newWorld(t)
	g := w.genesis("mychannel", 0)
	var nodes []*Node
	var endpoints []string
	var stops []func()
	for i := range 4 {
		c, _ := w.config(0, fmt.Sprintf("peer%d.org1", i))
		endpoints = append(endpoints, settle(t, &c))
		c.Bootstrap = endpoints[:1:1]
		n, err := Open(c)
		require.NoError(t, err)
		_, err = n.Join(ctx, g)
		require.NoError(t, err)
		nodes, stops = append(nodes, n), append(stops, running(t, n))
		t.Cleanup(stops[i])
	}
	for _, n := range nodes {
		for _, p := range nodes {
			until(t, ctx, sees(n, p.PeerID(), membership.Alive))
		}
	}
	began := time.Now()
	require.NoError(t, nodes[3].Leave(ctx, "mychannel", false))
	for _, n := range nodes[:3] {
		until(t, ctx, sees(n, nodes[3].PeerID(), membership.Left))
	}
	t.Logf("left: seen after %v", time.Since(began).Round(time.Millisecond))
	_, err := nodes[3].Join(ctx, g)
	require.NoError(t, err)
	for _, n := range nodes[:3] {
		until(t, ctx, sees(n, nodes[3].PeerID(), membership.Alive))
	}
	began = time.Now()
	stops[2]() // without a word
	for _, n := range nodes[:2] {
		until(t, ctx, sees(n, nodes[2].PeerID(), membership.Dead))
	}
	t.Logf("gone: dead after %v", time.Since(began).Round(time.Millisecond))
}

// Leave does all it has to even if there is no time to tell anybody: the channel
// is closed, and can be joined again, or is gone.
func TestLeaveInNoTime(t *testing.T) {
	w := newWorld(t)
	g := w.genesis("mychannel", 0)
	c, _ := w.config(0, "peer0.org1")
	n := start(t, c, g)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, purge := range []bool{false, true, false} {
		require.NoError(t, n.Leave(ctx, "mychannel", purge))
		require.ErrorIs(t, n.Leave(ctx, "mychannel", purge), ErrNoChannel)
		require.Equal(t, !purge, n.left("mychannel"))
		require.Equal(t, !purge, slices.Contains(n.db.Channels(), "mychannel"))
		ch, err := n.Join(t.Context(), g)
		require.NoError(t, err)
		require.False(t, n.left("mychannel"))
		until(t, patience(t), func() bool { return ch.MemberStats().Signed > 0 })
	}
}

func containsPeer(b []byte, p peer.ID) bool { return bytes.Contains(b, []byte(p.String())) }

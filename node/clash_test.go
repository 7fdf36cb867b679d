package node

import (
	"context"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/stretchr/testify/require"

	"grapevine/membership"
)

// Two live hosts with one certificate: both and the others report it, and
// everybody ends up with the one that started last, also those that only ever
// met the other.
func TestTwoLiveHostsOfOneCertificate(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	w := newWorld(t)
	g := w.genesis("mychannel", 0)
	var others [3]*Node
	var first string
	for i := range others {
		c, _ := w.config(0, "peer"+string(rune('0'+i))+".org1")
		e := settle(t, &c)
		c.Alive = 200 * time.Millisecond
		if i == 0 {
			first = e
		}
		c.Bootstrap = []string{first}
		others[i] = start(t, c, g)
	}
	c, _ := w.config(0, "twin.org1")
	d, reg := w.config(0, "twin.org1")
	d.Signer = c.Signer
	settle(t, &c)
	settle(t, &d)
	c.Bootstrap, d.Bootstrap = []string{first}, []string{first}
	older := start(t, c, g)
	for _, n := range others {
		until(t, ctx, func() bool {
			return sees(n, older.PeerID(), membership.Alive)() && n.host.Network().Connectedness(older.PeerID()) == network.Connected
		})
	}
	newer, err := Open(d)
	require.NoError(t, err)
	_, err = newer.Join(ctx, g)
	require.NoError(t, err)
	stop := running(t, newer)
	t.Cleanup(stop)
	one := Clash{
		PKIID: older.Identity().PKIID(), Name: "twin.org1", MSPID: "Org1MSP",
		Newer: newer.PeerID(), Older: older.PeerID(),
	}
	for _, n := range append(others[:], older, newer) {
		until(t, ctx, func() bool {
			all := n.Clashes()
			for i := range all {
				all[i].Seen = time.Time{}
			}
			return len(all) == 1 && all[0] == one
		})
	}
	settled := func() bool {
		for _, n := range others {
			m, ok := find(n, "mychannel", newer.PeerID())
			if !ok || m.State != membership.Alive || n.host.Network().Connectedness(newer.PeerID()) != network.Connected ||
				n.host.Network().Connectedness(older.PeerID()) == network.Connected {
				return false
			}
		}
		return true
	}
	until(t, ctx, settled)
	require.Equal(t, 1.0, counted(t, reg, "grapevine_member_events_total", "event", "cloned"))

	// The older one comes again, and is sent away without harm to the newer.
	for _, n := range others {
		_ = older.host.Connect(ctx, at(t, n, "tcp")) // it may seem to succeed
		until(t, ctx, func() bool { return n.host.Network().Connectedness(older.PeerID()) != network.Connected })
	}
	require.True(t, settled())
	// When the newer one has gone, it is welcome.
	stop()
	until(t, ctx, func() bool {
		_ = older.host.Connect(ctx, at(t, others[0], "tcp"))
		return others[0].host.Network().Connectedness(older.PeerID()) == network.Connected
	})
}

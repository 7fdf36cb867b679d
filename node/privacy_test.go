package node

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/stretchr/testify/require"

	"grapevine/membership"
	"grapevine/wire"
)

// A wiretap keeps every byte that reaches a host, decrypted: it lies between the
// secure channel and the multiplexer.
type wiretap struct {
	mu  sync.Mutex
	all map[net.Conn]*bytes.Buffer // guarded by mu
}

func (w *wiretap) option() libp2p.Option {
	w.all = map[net.Conn]*bytes.Buffer{}
	return libp2p.Muxer(yamux.ID, w)
}

// NewConn makes a wiretap a multiplexer.
func (w *wiretap) NewConn(c net.Conn, server bool, scope network.PeerScope) (network.MuxedConn, error) {
	return yamux.DefaultTransport.NewConn(&tapped{c, w}, server, scope)
}

// tapped is one connection. It goes without the other's optional methods.
type tapped struct {
	net.Conn
	tap *wiretap
}

func (c *tapped) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.tap.mu.Lock()
	defer c.tap.mu.Unlock()
	if c.tap.all[c.Conn] == nil {
		c.tap.all[c.Conn] = new(bytes.Buffer)
	}
	c.tap.all[c.Conn].Write(b[:n])
	return n, err
}

// heard says whether a byte string came on any one connection.
func (w *wiretap) heard(what []byte) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, b := range w.all {
		if bytes.Contains(b.Bytes(), what) {
			return true
		}
	}
	return false
}

func (w *wiretap) size() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, b := range w.all {
		n += b.Len()
	}
	return n
}

// canary settles a configuration, with an address in its internal endpoint that
// stands nowhere else.
func canary(t *testing.T, c *Config, n int) (address net.IP) {
	e := settle(t, c)
	address = net.ParseIP(fmt.Sprintf("fd99:6361:6e61:7279::%d", n))
	c.Endpoint = fmt.Sprintf("%s /ip6/%s/tcp/7051", e, address)
	c.Alive = 200 * time.Millisecond
	return address
}

// A foreign organisation never hears of internal endpoints, nor of a peer that
// has no external endpoint, whatever happens to it: not by alive messages,
// accusations, identify, peer records, errors or certificates. Every byte that
// reaches it is searched.
func TestNothingInternalGetsOut(t *testing.T) {
	ctx := patience(t)
	w := newWorld(t)
	var tap wiretap

	foreign, _ := w.config(1, "peer0.org2")
	canary(t, &foreign, 20)
	beside, _ := w.config(1, "peer1.org2")
	ours := canary(t, &beside, 21)
	foreign.Libp2p = append(foreign.Libp2p, tap.option())
	beside.Bootstrap = []string{foreign.ExternalEndpoint}

	var configs [3]Config
	var canaries []net.IP
	for i := range configs {
		configs[i], _ = w.config(0, fmt.Sprintf("peer%d.org1", i))
		canaries = append(canaries, canary(t, &configs[i], 10+i))
		configs[i].Bootstrap = []string{configs[0].ExternalEndpoint}
	}
	const shy = 2
	configs[shy].ExternalEndpoint = ""
	g := w.anchored("mychannel", map[int]string{0: configs[0].ExternalEndpoint, 1: foreign.ExternalEndpoint}, 0, 1)

	f := start(t, foreign, g)
	start(t, beside, g)
	var nodes [3]*Node
	var stop [3]func()
	for i, c := range configs {
		n, err := Open(c)
		require.NoError(t, err)
		_, err = n.Join(ctx, g)
		require.NoError(t, err)
		nodes[i], stop[i] = n, running(t, n)
		t.Cleanup(func() { stop[i]() })
	}
	others := []*Node{nodes[0], nodes[1], f}
	for i, n := range others {
		for j, m := range others {
			until(t, ctx, func() bool { return i == j || sees(n, m.PeerID(), membership.Alive)() })
		}
	}
	hidden := nodes[shy].PeerID()
	inside := func(s membership.State) {
		t.Helper()
		for _, n := range nodes[:shy] {
			until(t, ctx, sees(n, hidden, s))
		}
	}
	inside(membership.Alive)
	stop[shy]()
	inside(membership.Dead)
	n, err := Open(configs[shy])
	require.NoError(t, err)
	nodes[shy], stop[shy] = n, running(t, n)
	inside(membership.Alive)
	require.NoError(t, n.Leave(ctx, "mychannel", false))
	inside(membership.Left)
	_, err = n.Join(ctx, g)
	require.NoError(t, err)
	inside(membership.Alive)
	// Who has heard of it elsewhere, and asks, gets nothing more.
	id := nodes[shy].Identity().PKIID()
	ch, err := f.Channel("mychannel")
	require.NoError(t, err)
	s, err := ch.view.Stream(ctx, nodes[0].PeerID(), wire.KindMembers)
	require.NoError(t, err)
	const nonce = 0x7e57ca4a7e57ca4a
	question, err := wire.Marshal(&wire.Word{Ping: nonce, Target: id[:], Have: make([]byte, 48), Ask: true, Want: [][]byte{id[:]}})
	require.NoError(t, err)
	require.NoError(t, wire.WriteFrame(s, question))
	answer := func(w *wire.Word) []byte {
		b, err := wire.Marshal(w)
		require.NoError(t, err)
		return b
	}
	until(t, ctx, func() bool { return tap.heard(answer(&wire.Word{Nack: nonce})) })
	require.NoError(t, s.Reset())
	stop[1]()
	until(t, ctx, sees(f, nodes[1].PeerID(), membership.Dead))

	require.Empty(t, f.host.Network().ConnsToPeer(hidden), "it called at the anchor of another organisation")
	_, seen := find(f, "mychannel", hidden)
	require.False(t, seen)
	_, port, err := net.SplitHostPort(strings.Fields(configs[shy].Endpoint)[0])
	require.NoError(t, err)
	_, where, err := wire.EncodeEndpoint("/ip4/127.0.0.1/tcp/" + port)
	require.NoError(t, err)
	for what, b := range map[string][]byte{
		"the hidden peer's PKI-ID": id[:], "its PKI-ID in hexadecimal": []byte(hex.EncodeToString(id[:])), "its peer ID": []byte(hidden),
		"its peer ID as text": []byte(hidden.String()), "its certificate": nodes[shy].Identity().Certificate().Raw, "its name": []byte("peer2.org1"),
		"an answer of it": answer(&wire.Word{Ack: nonce}), "its address": where[0], "its address as text": []byte("127.0.0.1:" + port),
	} {
		require.False(t, tap.heard(b), "%s was told", what)
	}
	for _, ip := range canaries {
		require.False(t, tap.heard(ip), "an internal endpoint was told")
	}
	require.False(t, tap.heard([]byte("fd99:6361")), "an internal endpoint was told as text")
	require.NotContains(t, string(recordCertificate(t, at(t, nodes[0], "tcp")).Raw), string(canaries[0][:8]))
	t.Logf("%d bytes searched", tap.size())

	// The search finds what is told.
	require.True(t, tap.heard(ours), "the own organisation's internal endpoint")
	_, external, err := wire.EncodeEndpoint(configs[0].ExternalEndpoint)
	require.NoError(t, err)
	require.True(t, tap.heard(external[0]), "an external endpoint")
	require.True(t, tap.heard([]byte("peer0.org1")), "a name")
}

// About a member, only organisations that share a channel with it are told:
// a peer of both channels, A and C's, B and C's, lets A and B hear nothing of
// each other.
func TestNothingCrossesChannels(t *testing.T) {
	ctx := patience(t)
	w := newWorld(t)
	var taps [2]wiretap
	between, _ := w.config(2, "peer0.org3")
	canary(t, &between, 30)
	var configs [2]Config
	for i := range configs {
		configs[i], _ = w.config(i, fmt.Sprintf("peer0.org%d", i+1))
		canary(t, &configs[i], i)
		configs[i].Libp2p = append(configs[i].Libp2p, taps[i].option())
	}
	anchor := map[int]string{2: between.ExternalEndpoint}
	channels := []string{"with-a", "with-b"}
	genesis := []*common.Block{w.anchored(channels[0], anchor, 0, 2), w.anchored(channels[1], anchor, 1, 2)}
	c := start(t, between, genesis...)
	var nodes [2]*Node
	for i := range nodes {
		nodes[i] = start(t, configs[i], genesis[i])
	}
	for i, name := range channels {
		until(t, ctx, func() bool {
			m, ok := find(nodes[i], name, c.PeerID())
			o, okay := find(c, name, nodes[i].PeerID())
			return ok && okay && m.State == membership.Alive && o.State == membership.Alive
		})
	}
	ch, err := nodes[1].Channel("with-b")
	require.NoError(t, err)
	require.NoError(t, nodes[0].Leave(ctx, "with-a", false))
	before := ch.MemberStats().Words
	until(t, ctx, func() bool { return ch.MemberStats().Words > before+10 })
	for i := range nodes {
		other := nodes[1-i]
		id := other.Identity().PKIID()
		_, where, err := wire.EncodeEndpoint(other.cfg.ExternalEndpoint)
		require.NoError(t, err)
		for what, b := range map[string][]byte{
			"PKI-ID": id[:], "MSP ID": []byte(other.Identity().MSPID()), "name": []byte(other.Identity().Name()), "peer ID": []byte(other.PeerID()), "endpoint": where[0],
		} {
			require.False(t, taps[i].heard(b), "%d was told the other's %s", i, what)
		}
		require.True(t, taps[i].heard([]byte("Org3MSP")))
	}
}

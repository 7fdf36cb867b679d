package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"grapevine/channel/genesis"
	"grapevine/election"
	"grapevine/msp"
	"grapevine/msp/ca"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A world is what exists before any node: three organisations and an ordering
// one.
type world struct {
	t       testing.TB
	orgs    []*ca.Org
	orderer *ca.Org
	seats   []seat // of the consenters; the first is at port 7051

	endpoints []string // of the orderers' gRPC
}

// A seat is where a consenter listens, and its TLS certificate.
type seat struct {
	port int
	cert tls.Certificate
}

func newWorld(t testing.TB) *world {
	w := &world{t: t}
	var err error
	w.orderer, err = ca.NewOrg("OrdererMSP", "orderer", time.Now())
	require.NoError(t, err)
	w.sit(7051)
	for i := 1; i <= 3; i++ {
		o, err := ca.NewOrg(fmt.Sprintf("Org%dMSP", i), fmt.Sprintf("org%d", i), time.Now())
		require.NoError(t, err)
		w.orgs = append(w.orgs, o)
	}
	return w
}

// sit makes the seat of one more consenter.
func (w *world) sit(port int) {
	w.t.Helper()
	cert, err := w.orderer.TLS("localhost", "localhost", "127.0.0.1")
	require.NoError(w.t, err)
	w.seats = append(w.seats, seat{port, cert})
}

// genesis is block 0 of a channel of some organisations, whose consenters sit on
// all seats.
func (w *world) genesis(name string, orgs ...int) *common.Block {
	w.t.Helper()
	return w.anchored(name, nil, orgs...)
}

// anchored is the same with anchor peers, host:port.
func (w *world) anchored(name string, anchors map[int]string, orgs ...int) *common.Block {
	w.t.Helper()
	endpoints := w.endpoints
	if endpoints == nil {
		endpoints = []string{"127.0.0.1:7050"}
	}
	p := genesis.Profile{
		Channel:  name,
		Orderers: []genesis.Org{{Name: "OrdererOrg", MSPID: "OrdererMSP", MSP: w.orderer.MSPConfig(), Endpoints: endpoints}},
		Timeout:  200 * time.Millisecond,
		Time:     time.Now(),
	}
	for _, s := range w.seats {
		p.Consenters = append(p.Consenters, genesis.Consenter{
			Host: "127.0.0.1", Port: uint32(s.port),
			ServerTLS: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.cert.Certificate[0]}),
		})
	}
	for _, i := range orgs {
		o := w.orgs[i]
		org := genesis.Org{Name: o.Domain, MSPID: o.MSPID, MSP: o.MSPConfig()}
		if a := anchors[i]; a != "" {
			org.Anchors = []string{a}
		}
		p.Orgs = append(p.Orgs, org)
	}
	b, err := genesis.Block(p)
	require.NoError(w.t, err)
	return b
}

func (w *world) identity(org int, name string) msp.Signer {
	w.t.Helper()
	s, err := w.orgs[org].Identity(name, "peer")
	require.NoError(w.t, err)
	return s
}

// signed makes an identity of a certificate that r asks for.
func (w *world) signed(org int, r ca.Request) msp.Signer {
	w.t.Helper()
	key, err := ca.GenerateKey(ca.P256)
	require.NoError(w.t, err)
	r.OU, r.Key = []string{"peer"}, key.Public()
	der, err := w.orgs[org].CA.Issue(r)
	require.NoError(w.t, err)
	id, err := msp.FromDER(w.orgs[org].MSPID, der)
	require.NoError(w.t, err)
	s, err := msp.NewSigner(id, key)
	require.NoError(w.t, err)
	return s
}

// config is a node of an organisation on free loopback ports, with its own
// metrics.
func (w *world) config(org int, name string) (Config, *prometheus.Registry) {
	w.t.Helper()
	m, err := msp.New(w.orgs[org].MSPConfig(), msp.Features{NodeOUs: true, Ed25519: true})
	require.NoError(w.t, err)
	reg := prometheus.NewRegistry()
	c := Default()
	c.Dir, c.Name, c.NetworkID, c.Signer, c.MSP = w.t.TempDir(), name, "test", w.identity(org, name), m
	c.Listen = []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"}
	c.Metrics, c.Leader = reg, election.Standby
	return c, reg
}

// start opens a node, joins the channels and runs it until the test ends.
func start(t *testing.T, c Config, join ...*common.Block) *Node {
	t.Helper()
	n := open(t, c, join...)
	stop := running(t, n)
	t.Cleanup(stop)
	return n
}

// open opens a node and joins the channels; the test runs and closes it.
func open(t *testing.T, c Config, join ...*common.Block) *Node {
	t.Helper()
	n, err := Open(c)
	require.NoError(t, err)
	for _, g := range join {
		_, err := n.Join(t.Context(), g)
		require.NoError(t, err)
	}
	return n
}

// running runs a node; what it returns ends and closes it, once.
func running(t *testing.T, n *Node) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	stopped := false
	return func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := errors.Join(<-done, n.Close()); err != nil {
			t.Error(err)
		}
	}
}

// patience bounds a wait; nothing ever sleeps it out.
func patience(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// at is where a node listens on one transport ("tcp" or "quic-v1"), or on all.
func at(t testing.TB, n *Node, transport string) peer.AddrInfo {
	t.Helper()
	code := ma.ProtocolWithName(transport).Code
	out := peer.AddrInfo{ID: n.PeerID()}
	for _, a := range n.host.Network().ListenAddresses() {
		if _, err := a.ValueForProtocol(code); transport == "" || err == nil {
			out.Addrs = append(out.Addrs, a)
		}
	}
	require.NotEmpty(t, out.Addrs)
	return out
}

// An arrival is a connection that a node opened or lost.
type arrival struct {
	peer peer.ID
	open bool
}

// watch tells of a node's connections from now on.
func watch(n network.Network) <-chan arrival {
	c := make(chan arrival, 1024)
	n.Notify(&network.NotifyBundle{
		ConnectedF:    func(_ network.Network, v network.Conn) { c <- arrival{v.RemotePeer(), true} },
		DisconnectedF: func(_ network.Network, v network.Conn) { c <- arrival{v.RemotePeer(), false} },
	})
	return c
}

// await takes the next value, or fails with the context.
func await[T any](t testing.TB, ctx context.Context, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-ctx.Done():
		require.FailNow(t, "waited in vain for "+what)
		panic("unreachable")
	}
}

// until polls where no event tells.
func until(t testing.TB, ctx context.Context, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		await(t, ctx, tick.C, "a condition")
	}
}

// counted is the sum of a counter's values whose labels include these, pairs
// of name and value.
func counted(t testing.TB, reg *prometheus.Registry, name string, labels ...string) float64 {
	t.Helper()
	all, err := reg.Gather()
	require.NoError(t, err)
	sum := 0.0
	for _, f := range all {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			have := map[string]string{}
			for _, l := range m.GetLabel() {
				have[l.GetName()] = l.GetValue()
			}
			match := true
			for i := 0; i < len(labels); i += 2 {
				match = match && have[labels[i]] == labels[i+1]
			}
			if match {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// selfSigned is an identity that vouches for itself in an organisation's name.
func selfSigned(t testing.TB, mspID string) msp.Signer {
	t.Helper()
	key, err := ca.GenerateKey(ca.P256)
	require.NoError(t, err)
	tmpl := &x509.Certificate{
		SerialNumber: newSerial(t), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
	tmpl.Subject.CommonName, tmpl.Subject.OrganizationalUnit = "peer0.org1", []string{"peer"}
	der, err := x509.CreateCertificate(nil, tmpl, tmpl, key.Public(), key)
	require.NoError(t, err)
	id, err := msp.FromDER(mspID, der)
	require.NoError(t, err)
	s, err := msp.NewSigner(id, key)
	require.NoError(t, err)
	return s
}

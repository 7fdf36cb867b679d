package node

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	mss "github.com/multiformats/go-multistream"
	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"grapevine/msp"
	"grapevine/msp/ca"
	"grapevine/wire"
)

func newSerial(t testing.TB) *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	require.NoError(t, err)
	return n
}

// An intruder is a host as ours, that lets everybody in and shows whatever
// certificate it is given.
type intruder struct {
	host.Host
	key crypto.PrivKey
}

func intrude(t *testing.T, w *world, show func(key crypto.PrivKey) pkix.Extension) *intruder {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	require.NoError(t, err)
	own := &credentials{host: key, signer: msp.NewRenewable(w.identity(0, "anybody"), nil), networkID: "test", life: bindingLife}
	g := newGuard("test", func(*wire.Reason, string) {})
	g.setJudge("", func(*msp.Identity, [][]byte, time.Time) error { return nil })
	h, q, err := newHost(hostSpec{own: own, guard: g, listen: []string{"/ip4/127.0.0.1/tcp/0"}, maxPeers: 8})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, h.Close())
		require.NoError(t, q.Close())
	})
	template := func() *x509.Certificate {
		c := &x509.Certificate{SerialNumber: newSerial(t), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour)}
		if show != nil {
			c.ExtraExtensions = []pkix.Extension{show(key)}
		}
		return c
	}
	id, err := libp2ptls.NewIdentity(key, libp2ptls.WithCertTemplate(template()))
	require.NoError(t, err)
	own.tls.Store(id)
	require.NoError(t, q.renew(template()))
	return &intruder{h, key}
}

// bound returns what makes a binding as a member would, but for one thing.
func bound(t testing.TB, s msp.Signer, networkID string, now time.Time, life time.Duration) func(crypto.PrivKey) pkix.Extension {
	return func(key crypto.PrivKey) pkix.Extension {
		b, err := msp.NewBinding(s, nil, networkID, key.GetPublic(), now, life)
		require.NoError(t, err)
		e, err := b.Extension()
		require.NoError(t, err)
		return e
	}
}

// recordCertificate shakes hands with a member, as anybody can, and keeps the
// certificate that it shows.
func recordCertificate(t testing.TB, member peer.AddrInfo) *x509.Certificate {
	t.Helper()
	c := dialTLS(t, member, tls.Certificate{})
	defer c.Close()
	require.NoError(t, c.Handshake(), "a TLS 1.3 client is done before the server refuses it")
	return c.ConnectionState().PeerCertificates[0]
}

// dialTLS opens a raw TLS connection to a node, which shows cert if it has one.
func dialTLS(t testing.TB, to peer.AddrInfo, cert tls.Certificate) *tls.Conn {
	t.Helper()
	family, addr, err := manet.DialArgs(to.Addrs[0])
	require.NoError(t, err)
	raw, err := net.Dial(family, addr)
	require.NoError(t, err)
	_, err = mss.SelectOneOf([]string{wire.SecurityID}, raw)
	require.NoError(t, err)
	conf := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, NextProtos: []string{yamux.ID}}
	if cert.Certificate != nil {
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	}
	return tls.Client(raw, conf)
}

// knock tries to reach a node's protocols and returns what it got to read.
func knock(ctx context.Context, h host.Host, to peer.AddrInfo) (got int) {
	if h.Connect(ctx, to) != nil {
		return 0
	}
	for _, id := range []protocol.ID{"/ipfs/id/1.0.0", wire.DoorID, "/ipfs/ping/1.0.0"} {
		s, err := h.NewStream(network.WithNoDial(ctx, "no second handshake"), to.ID, id)
		if err != nil {
			continue
		}
		if id == wire.DoorID { // who says nothing waits there for as long as a frame may take
			_ = wire.WriteFrame(s, []byte("/gv/none/mesh"))
		}
		b := make([]byte, 1024)
		for {
			n, err := s.Read(b)
			got += n
			if err != nil {
				break
			}
		}
		_ = s.Reset()
	}
	return got
}

// Whoever is no member reaches nothing on either transport: the node never
// hears of a connection, the stranger reads no byte, not even identify's, and
// the refusal is counted once, under its reason.
func TestStrangersStayOutside(t *testing.T) {
	ctx := patience(t)
	w := newWorld(t)
	now := time.Now()
	wrong, err := ca.NewOrg("Org1MSP", "org1", now)
	require.NoError(t, err)
	foreign, err := wrong.Identity("peer0.org1", "peer")
	require.NoError(t, err)
	nobody, err := ca.NewOrg("EvilMSP", "evil", now)
	require.NoError(t, err)
	unknown, err := nobody.Identity("peer0.evil", "peer")
	require.NoError(t, err)
	member := w.identity(0, "peer1.org1")
	old := w.signed(0, ca.Request{CN: "peer2.org1", NotBefore: now.Add(-72 * time.Hour), NotAfter: now.Add(72 * time.Hour)})
	client, err := w.orgs[0].Identity("User1@org1", "client")
	require.NoError(t, err)

	cfg, reg := w.config(0, "peer0.org1")
	n := start(t, cfg, w.genesis("mychannel", 0, 1))
	conns := watch(n.host.Network())
	refusals := make(chan string, 16)
	counts := n.guard.refused
	n.guard.refused = func(r *wire.Reason, transport string) {
		counts(r, transport)
		refusals <- r.Code()
	}
	other := start(t, func() Config { c, _ := w.config(1, "peer0.org2"); return c }())
	recorded := func(crypto.PrivKey) pkix.Extension {
		for _, e := range recordCertificate(t, at(t, other, "tcp")).Extensions {
			if e.Id.Equal(wire.BindingOID) {
				return pkix.Extension{Id: e.Id, Value: e.Value}
			}
		}
		require.FailNow(t, "the member shows no binding")
		panic("unreachable")
	}

	for _, c := range []struct {
		name, reason string
		show         func(crypto.PrivKey) pkix.Extension
	}{
		{"no binding", "msp.binding_missing", nil},
		{"self-signed", "msp.bad_chain", bound(t, selfSigned(t, "Org1MSP"), "test", now, 0)},
		{"wrong CA", "msp.bad_chain", bound(t, foreign, "test", now, 0)},
		{"unknown organisation", "node.unknown_msp", bound(t, unknown, "test", now, 0)},
		{"expired", "msp.binding_expired", bound(t, old, "test", now.Add(-48*time.Hour), time.Hour)},
		{"not yet valid", "msp.binding_not_yet_valid", bound(t, member, "test", now.Add(time.Hour), 0)},
		{"other network", "msp.bad_signature", bound(t, member, "other", now, 0)},
		{"T35 recorded", "msp.bad_signature", recorded},
	} {
		for _, transport := range []string{"tcp", "quic-v1"} {
			t.Run(c.name+" "+transport, func(t *testing.T) {
				before := counted(t, reg, "grapevine_handshakes_refused_total")
				s := intrude(t, w, c.show)
				require.Zero(t, knock(ctx, s, at(t, n, transport)))
				require.Equal(t, c.reason, await(t, ctx, refusals, "the refusal"))
				label := map[string]string{"tcp": "tcp", "quic-v1": "quic"}[transport]
				require.EqualValues(t, 1, counted(t, reg, "grapevine_handshakes_refused_total")-before)
				require.Positive(t, counted(t, reg, "grapevine_handshakes_refused_total", "reason", c.reason, "transport", label))
				require.Empty(t, conns)
				require.Empty(t, n.host.Network().Conns())
			})
		}
	}

	t.Run("stock libp2p", func(t *testing.T) {
		for _, transport := range []string{"tcp", "quic-v1"} {
			h, err := libp2p.New(libp2p.NoListenAddrs)
			require.NoError(t, err)
			require.Zero(t, knock(ctx, h, at(t, n, transport)))
			require.NoError(t, h.Close())
		}
		require.Equal(t, "msp.binding_missing", await(t, ctx, refusals, "the refusal of QUIC; TCP found no security protocol"))
	})

	t.Run("no certificate", func(t *testing.T) {
		c := dialTLS(t, at(t, n, "tcp"), tls.Certificate{})
		require.NoError(t, c.SetDeadline(now.Add(20*time.Second)))
		got, err := c.Read(make([]byte, 1))
		require.Zero(t, got)
		require.ErrorContains(t, err, "certificate required")
		require.NoError(t, c.NetConn().Close())
		require.Equal(t, "node.handshake", await(t, ctx, refusals, "the refusal"))

		q := dialQUIC(t, ctx, at(t, n, "quic-v1").Addrs[0])
		await(t, ctx, q.Context().Done(), "QUIC to close")
	})

	t.Run("T35 certificate replayed without its key", func(t *testing.T) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		require.NoError(t, err)
		c := dialTLS(t, at(t, n, "tcp"), tls.Certificate{
			Certificate: [][]byte{recordCertificate(t, at(t, other, "tcp")).Raw}, PrivateKey: key,
		})
		require.NoError(t, c.SetDeadline(now.Add(20*time.Second)))
		got, err := c.Read(make([]byte, 1))
		require.Zero(t, got)
		require.Error(t, err)
		require.NoError(t, c.NetConn().Close())
		require.Equal(t, "node.handshake", await(t, ctx, refusals, "the refusal"))
		_, _, known := n.guard.identity(other.PeerID())
		require.False(t, known, "what was replayed says nothing of the member")
	})

	t.Run("a client is no peer of the channel", func(t *testing.T) {
		s := intrude(t, w, bound(t, client, "test", now, 0))
		require.NoError(t, s.Connect(ctx, at(t, n, "tcp")))
		require.Equal(t, arrival{s.ID(), true}, await(t, ctx, conns, "the client's connection"))
		require.NoError(t, s.Network().ClosePeer(n.PeerID()))
		require.Equal(t, arrival{s.ID(), false}, await(t, ctx, conns, "its end"))
	})

	// The wall isn't merely shut: a member comes in by both doors.
	for _, transport := range []string{"tcp", "quic-v1"} {
		t.Run("member "+transport, func(t *testing.T) {
			s := intrude(t, w, bound(t, member, "test", now, 0))
			require.Positive(t, knock(ctx, s, at(t, n, transport)))
			require.Equal(t, arrival{s.ID(), true}, await(t, ctx, conns, "the member's connection"))
			require.NoError(t, s.Network().ClosePeer(n.PeerID()))
			require.Equal(t, arrival{s.ID(), false}, await(t, ctx, conns, "its end"))
		})
	}
	require.Empty(t, conns)
	require.Empty(t, refusals)
}

func dialQUIC(t testing.TB, ctx context.Context, a ma.Multiaddr) *quic.Conn {
	t.Helper()
	_, addr, err := manet.DialArgs(a)
	require.NoError(t, err)
	c, err := quic.DialAddr(ctx, addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"libp2p"}}, nil)
	require.NoError(t, err, "a TLS 1.3 client is done before the server refuses it")
	return c
}

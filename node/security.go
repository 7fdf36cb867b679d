package node

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"

	"grapevine/msp"
	"grapevine/wire"
)

// early is how far before now a TLS certificate begins, for clocks that lag.
const early = 5 * time.Minute

// credentials are the node's own: its host key, and the binding of it to the
// MSP identity that is in force.
type credentials struct {
	host      crypto.PrivKey
	signer    *msp.Renewable
	networkID string
	life      time.Duration

	tls   atomic.Pointer[libp2ptls.Identity] // swapped by renew
	until atomic.Int64                       // when the binding in force ends, Unix seconds; set by renew
}

// renew makes a new binding and returns the template of the TLS certificate
// that carries it. Handshakes on TCP show it from now on.
func (c *credentials) renew(now time.Time) (*x509.Certificate, error) {
	ext, until, err := c.extension(now)
	if err != nil {
		return nil, err
	}
	template := func() (*x509.Certificate, error) {
		serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
		return &x509.Certificate{
			SerialNumber:    serial.Add(serial, big.NewInt(1)),
			NotBefore:       now.Add(-early),
			NotAfter:        until,
			ExtraExtensions: []pkix.Extension{ext},
		}, err
	}
	t, err := template()
	if err != nil {
		return nil, err
	}
	id, err := libp2ptls.NewIdentity(c.host, libp2ptls.WithCertTemplate(t))
	if err != nil {
		return nil, fmt.Errorf("making the TLS certificate: %w", err)
	}
	c.tls.Store(id)
	c.until.Store(until.Unix())
	return template() // NewIdentity appends to what it is given: a fresh one for QUIC
}

func (c *credentials) extension(now time.Time) (pkix.Extension, time.Time, error) {
	signer, chain := c.signer.Shown()
	b, err := msp.NewBinding(signer, chain, c.networkID, c.host.GetPublic(), now, c.life)
	if err != nil {
		return pkix.Extension{}, time.Time{}, fmt.Errorf("binding the host key to the MSP identity: %w", err)
	}
	ext, err := b.Extension()
	return ext, time.Unix(b.NotAfter, 0), err
}

// A handshake is one TLS handshake of ours, on either side.
type handshake struct {
	conf  *tls.Config
	keys  <-chan crypto.PubKey
	guard *guard
	guest *guest // who the certificate speaks of; set while the handshake runs
}

// handshake prepares one handshake. With p empty any host key is accepted, as
// listeners and probes do.
func (c *credentials) handshake(g *guard, transport string, p peer.ID, alpn ...string) *handshake {
	h := &handshake{guard: g}
	h.conf, h.keys = c.tls.Load().ConfigForPeer(p)
	h.conf.NextProtos = alpn
	inner := h.conf.VerifyPeerCertificate
	h.conf.VerifyPeerCertificate = func(raw [][]byte, chains [][]*x509.Certificate) error {
		err := inner(raw, chains)
		if other := (sec.ErrPeerIDMismatch{}); errors.As(err, &other) {
			return err // we dialled somebody else: no refusal of whom we met
		}
		if err != nil {
			g.refused(noBinding, transport)
			return fmt.Errorf("%w: %w", noBinding, err)
		}
		cert, err := x509.ParseCertificate(raw[0])
		if err != nil {
			return err
		}
		h.guest, err = g.admit(cert, transport)
		return err
	}
	return h
}

// done returns the host key that a completed handshake has proven, and has the
// guard remember whose it is. Not sooner: a server judges the certificate
// before the client has shown that it has the key, and a member's certificate
// is known to whoever has ever dialled it.
func (h *handshake) done() (crypto.PubKey, error) {
	select {
	case key := <-h.keys:
		if h.guest != nil {
			h.guard.remember(h.guest)
			return key, nil
		}
	default:
	}
	return nil, errors.New("the handshake ended without the remote's key")
}

// security is the libp2p security transport for TCP: TLS 1.3 with the MSP
// binding verified inside the handshake.
type security struct {
	own    *credentials
	guard  *guard
	local  peer.ID
	muxers []string
}

func newSecurity(own *credentials, g *guard) func(protocol.ID, crypto.PrivKey, []upgrader.StreamMuxer) (*security, error) {
	return func(_ protocol.ID, key crypto.PrivKey, muxers []upgrader.StreamMuxer) (*security, error) {
		local, err := peer.IDFromPrivateKey(key)
		s := &security{own: own, guard: g, local: local}
		for _, m := range muxers {
			s.muxers = append(s.muxers, string(m.ID))
		}
		return s, err
	}
}

// ID returns the name under which the handshake is negotiated.
func (s *security) ID() protocol.ID { return wire.SecurityID }

// SecureInbound runs the handshake as a server. The client's preferred muxer
// is taken.
func (s *security) SecureInbound(ctx context.Context, c net.Conn, p peer.ID) (sec.SecureConn, error) {
	h := s.own.handshake(s.guard, "tcp", p, s.muxers...)
	h.conf.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		for _, proto := range hello.SupportedProtos {
			if slices.Contains(s.muxers, proto) {
				h.conf.NextProtos = []string{proto}
				break
			}
		}
		return h.conf, nil
	}
	out, err := s.run(ctx, tls.Server(c, h.conf), h)
	if err != nil && wire.ReasonOf(err) == nil {
		s.guard.refused(broken, "tcp") // such as one without a certificate
	}
	return out, err
}

// SecureOutbound runs the handshake as a client. A TLS 1.3 client finishes
// first: it may return without error although the server is about to refuse.
func (s *security) SecureOutbound(ctx context.Context, c net.Conn, p peer.ID) (sec.SecureConn, error) {
	h := s.own.handshake(s.guard, "tcp", p, s.muxers...)
	return s.run(ctx, tls.Client(c, h.conf), h)
}

func (s *security) run(ctx context.Context, c *tls.Conn, h *handshake) (sec.SecureConn, error) {
	key, err := shake(ctx, c, h)
	if err != nil {
		return nil, errors.Join(err, c.NetConn().Close())
	}
	p, err := peer.IDFromPublicKey(key)
	if err != nil {
		return nil, errors.Join(err, c.NetConn().Close())
	}
	proto := c.ConnectionState().NegotiatedProtocol
	return &secureConn{Conn: c, local: s.local, remote: p, key: key, state: network.ConnectionState{
		StreamMultiplexer:         protocol.ID(proto),
		UsedEarlyMuxerNegotiation: proto != "",
	}}, nil
}

// shake completes a handshake and returns the remote's host key.
func shake(ctx context.Context, c *tls.Conn, h *handshake) (crypto.PubKey, error) {
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return h.done()
}

type secureConn struct {
	*tls.Conn
	local, remote peer.ID
	key           crypto.PubKey
	state         network.ConnectionState
}

func (c *secureConn) LocalPeer() peer.ID                 { return c.local }
func (c *secureConn) RemotePeer() peer.ID                { return c.remote }
func (c *secureConn) RemotePublicKey() crypto.PubKey     { return c.key }
func (c *secureConn) ConnState() network.ConnectionState { return c.state }

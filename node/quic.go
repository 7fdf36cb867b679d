package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/pnet"
	"github.com/libp2p/go-libp2p/core/transport"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/quic-go/quic-go"
)

// quicTransport is libp2p's QUIC, made anew for each binding: libp2p fixes the
// certificate at construction. Connections of the former one live on.
type quicTransport struct {
	now  atomic.Pointer[transport.Transport]
	make func(*x509.Certificate) (transport.Transport, error)
	hold func(ma.Multiaddr) error
	cm   *quicreuse.ConnManager // has the host's sockets
	mu   sync.Mutex
	old  []transport.Transport // to be closed with the host, owned by mu
}

// newQUIC returns the constructor for libp2p.Transport. out is usable once the
// host is built.
func newQUIC(first *x509.Certificate, out *quicTransport) any {
	return func(k crypto.PrivKey, cm *quicreuse.ConnManager, psk pnet.PSK, g connmgr.ConnectionGater, rm network.ResourceManager) (*quicTransport, error) {
		out.cm = cm
		out.make = func(t *x509.Certificate) (transport.Transport, error) {
			return libp2pquic.NewTransport(k, cm, psk, g, rm, libp2pquic.WithTLSIdentityOption(libp2ptls.WithCertTemplate(t)))
		}
		// A second protocol on the socket keeps it open while the listener
		// changes hands at a renewal.
		out.hold = func(a ma.Multiaddr) error {
			_, err := cm.ListenQUIC(a, &tls.Config{NextProtos: []string{"grapevine-hold"}}, func(*quic.Conn, uint64) bool { return false })
			return err
		}
		return out, out.renew(first)
	}
}

// renew shows the template's binding in every new handshake. The caller then
// re-opens the listeners.
func (q *quicTransport) renew(template *x509.Certificate) error {
	t, err := q.make(template)
	if err != nil {
		return fmt.Errorf("making the QUIC transport: %w", err)
	}
	if old := q.now.Swap(&t); old != nil {
		q.mu.Lock()
		q.old = append(q.old, *old)
		q.mu.Unlock()
	}
	return nil
}

func (q *quicTransport) current() transport.Transport { return *q.now.Load() }

func (q *quicTransport) Dial(ctx context.Context, a ma.Multiaddr, p peer.ID) (transport.CapableConn, error) {
	return q.current().Dial(ctx, a, p)
}
func (q *quicTransport) CanDial(a ma.Multiaddr) bool { return q.current().CanDial(a) }
func (q *quicTransport) Protocols() []int            { return q.current().Protocols() }
func (q *quicTransport) Proxy() bool                 { return q.current().Proxy() }

func (q *quicTransport) Listen(a ma.Multiaddr) (transport.Listener, error) {
	l, err := q.current().Listen(a)
	if err != nil {
		return nil, err
	}
	// Held already after the first time: that error says what we want.
	_ = q.hold(l.Multiaddr())
	return l, nil
}

// shake shakes hands with whoever is at an address, from the host's own socket,
// and hangs up.
func (q *quicTransport) shake(ctx context.Context, a ma.Multiaddr, conf *tls.Config) error {
	addr, _, err := quicreuse.FromQuicMultiaddr(a)
	if err != nil {
		return err
	}
	family, _, err := manet.DialArgs(a)
	if err != nil {
		return err
	}
	socket, err := q.cm.TransportForDial(family, addr)
	if err != nil {
		return err
	}
	defer socket.DecreaseCount()
	c, err := socket.Dial(ctx, addr, conf, q.cm.ClientConfig())
	if err != nil {
		return err
	}
	return c.CloseWithError(0, "")
}

// Close closes what libp2p wants closed of each transport made.
func (q *quicTransport) Close() error {
	q.mu.Lock()
	all := append(q.old, q.current())
	q.old = nil
	q.mu.Unlock()
	var errs []error
	for _, t := range all {
		if c, ok := t.(interface{ Close() error }); ok {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}

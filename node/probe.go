package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	ma "github.com/multiformats/go-multiaddr"
	madns "github.com/multiformats/go-multiaddr-dns"
	manet "github.com/multiformats/go-multiaddr/net"
	mss "github.com/multiformats/go-multistream"

	"grapevine/wire"
)

// probeTime bounds a probe: resolving, dialling and the handshake.
const probeTime = 5 * time.Second

// probe shakes hands with whoever listens at an endpoint, verifies that it is a
// member of a known organisation, and hangs up: so nobody has to write peer IDs
// into a configuration.
func (s *stack) probe(ctx context.Context, endpoint string) (peer.AddrInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	addrs, err := wire.ParseEndpoint(endpoint)
	if err != nil {
		return peer.AddrInfo{}, err
	}
	if info, err := peer.AddrInfosFromP2pAddrs(addrs...); err == nil && len(info) == 1 {
		return info[0], nil // it names its peer
	}
	var errs []error
	for _, a := range addrs {
		for _, r := range s.resolve(ctx, a) {
			p, err := s.probeAddr(ctx, r)
			if err == nil {
				return peer.AddrInfo{ID: p, Addrs: addrs}, nil
			}
			errs = append(errs, fmt.Errorf("%s: %w", r, err))
		}
	}
	return peer.AddrInfo{}, fmt.Errorf("probing %s: %w", endpoint, errors.Join(errs...))
}

func (s *stack) resolve(ctx context.Context, a ma.Multiaddr) []ma.Multiaddr {
	out, err := madns.DefaultResolver.Resolve(ctx, a)
	if err != nil || len(out) == 0 {
		return []ma.Multiaddr{a}
	}
	return out
}

func (s *stack) probeAddr(ctx context.Context, a ma.Multiaddr) (peer.ID, error) {
	if d, ok := s.host.Network().(interface {
		TransportForDialing(ma.Multiaddr) transport.Transport
	}); ok && d.TransportForDialing(a) == nil {
		return "", errors.New("this host doesn't listen on that transport, so it doesn't dial it")
	}
	if _, err := a.ValueForProtocol(ma.P_QUIC_V1); err == nil {
		return s.probeQUIC(ctx, a)
	}
	network, addr, err := manet.DialArgs(a)
	if err != nil {
		return "", err
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }() // nothing more is to be said
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	if _, err := mss.SelectOneOf([]string{wire.SecurityID}, c); err != nil {
		return "", fmt.Errorf("it does not speak %s: %w", wire.SecurityID, err)
	}
	h := s.own.handshake(s.guard, "tcp", "", yamux.ID)
	key, err := shake(ctx, tls.Client(c, h.conf), h)
	if err != nil {
		return "", err
	}
	return peer.IDFromPublicKey(key)
}

func (s *stack) probeQUIC(ctx context.Context, a ma.Multiaddr) (peer.ID, error) {
	h := s.own.handshake(s.guard, "quic", "", "libp2p")
	if err := s.quic.shake(ctx, a, h.conf); err != nil {
		return "", err
	}
	key, err := h.done()
	if err != nil {
		return "", err
	}
	return peer.IDFromPublicKey(key)
}

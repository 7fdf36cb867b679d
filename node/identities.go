package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"golang.org/x/sync/errgroup"

	"grapevine/membership"
	"grapevine/msp"
)

const (
	// renewPause is the shortest time between two renewals of the own binding.
	renewPause = time.Minute
	// sweepFirst and sweepLast bound the time between two looks whether a
	// connection's binding or certificate has ended; it is when the first of them
	// ends. The clock may be set meanwhile.
	sweepFirst, sweepLast = time.Second, 30 * time.Second
)

// watchIdentities closes connections whose binding or certificate has ended,
// and renews the node's own binding at half of what is left of it.
func (s *stack) watchIdentities(ctx context.Context) error {
	sweep := time.NewTimer(sweepFirst)
	defer sweep.Stop()
	renew := time.NewTimer(s.untilRenewal())
	defer renew.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.guard.came:
			sweep.Reset(s.guard.untilEnd())
		case <-sweep.C:
			s.closeAll(s.guard.rejudge(false), "its binding or certificate has ended")
			sweep.Reset(s.guard.untilEnd())
		case <-renew.C:
			if err := s.renew(); err != nil {
				s.log.Error("the binding could not be renewed; trying again in a minute", "err", err)
				renew.Reset(renewPause)
				continue
			}
			renew.Reset(s.untilRenewal())
			select {
			case s.renewed <- struct{}{}:
			default: // the round under way began with a binding that lasts long enough
			}
		}
	}
}

// showBindings shakes hands anew with every connected peer when the own binding
// was renewed: who sees the new one needn't cut when the former one ends. Whom
// this node can't dial cuts then, and dials itself.
func (s *stack) showBindings(ctx context.Context) error {
	for {
		select {
		case <-s.renewed:
		case <-ctx.Done():
			return ctx.Err()
		}
		var g errgroup.Group
		g.SetLimit(dials)
		for _, p := range s.host.Network().Peers() {
			g.Go(func() error {
				s.showBinding(ctx, p)
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
	}
}

func (s *stack) showBinding(ctx context.Context, p peer.ID) {
	addrs := s.host.Peerstore().Addrs(p)
	if s.told != nil {
		addrs = append(addrs, s.told(p)...)
	}
	for _, c := range s.host.Network().ConnsToPeer(p) {
		if c.Stat().Direction == network.DirOutbound {
			addrs = append(addrs, c.RemoteMultiaddr())
		}
	}
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	for _, a := range addrs {
		for _, r := range s.resolve(ctx, a) {
			met, err := s.probeAddr(ctx, r)
			if err == nil && met == p {
				return
			}
			s.log.Debug("showing the renewed binding", "peer", p, "address", r, "met", met, "err", err)
		}
	}
}

// untilRenewal is half of what is left of the own binding, which begins before
// it is made and ends with the certificate at the latest.
func (s *stack) untilRenewal() time.Duration {
	return max(time.Unix(s.own.until.Load(), 0).Sub(s.guard.now())/2, renewPause)
}

// rejudge closes the connections of whoever no judge accepts any more.
func (s *stack) rejudge() {
	s.closeAll(s.guard.rejudge(true), "no configuration of this node accepts its identity")
}

func (s *stack) closeAll(ps []peer.ID, why string) {
	for _, p := range ps {
		s.log.Warn("closing a peer's connections", "peer", p, "why", why)
		if err := s.host.Network().ClosePeer(p); err != nil {
			s.log.Warn("closing a peer's connections", "peer", p, "err", err)
		}
	}
}

// supplant closes the connections of a host whose identity another host now
// shows.
func (s *stack) supplant(old, now peer.ID, id *msp.Identity) {
	s.warnOfTwins(old, now, id)
	s.closeDisplaced(s.host.Network().ConnsToPeer(old)...)
}

func (s *stack) warnOfTwins(old, now peer.ID, id *msp.Identity) {
	s.log.Warn("two hosts show one identity; the newer one stays", "msp", id.MSPID(), "subject", id.Name(), "closed", old, "stays", now, "code", membership.Clone.Code())
}

// wasSupplanted says whether a closed connection was ended by the other side
// because another host shows this node's identity: what a closed one answers
// to an attempt to use it tells why it was closed.
func wasSupplanted(c network.Conn) bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	t, err := c.NewStream(ctx)
	if err == nil {
		err = t.Reset()
	}
	var why *network.ConnError
	return errors.As(err, &why) && why.Remote && why.ErrorCode == network.ConnSupplanted
}

// renew shows a new binding in every handshake from now on, on both
// transports; open connections live on.
func (s *stack) renew() error {
	s.binding.Lock()
	defer s.binding.Unlock()
	template, err := s.own.renew(s.guard.now())
	if err != nil {
		return err
	}
	if err := s.quic.renew(template); err != nil {
		return err
	}
	var listen []ma.Multiaddr
	for _, a := range s.host.Network().ListenAddresses() {
		if _, err := a.ValueForProtocol(ma.P_QUIC_V1); err == nil {
			listen = append(listen, a)
		}
	}
	if len(listen) == 0 {
		return nil
	}
	l, ok := s.host.Network().(interface{ ListenClose(...ma.Multiaddr) })
	if !ok {
		return errors.New("the host's network can't re-open its listeners")
	}
	l.ListenClose(listen...)
	if err := s.host.Network().Listen(listen...); err != nil {
		return fmt.Errorf("listening again on %v: %w", listen, err)
	}
	return nil
}

// watchDisk ends Run when the ledger's disk has failed.
func (n *Node) watchDisk(ctx context.Context) error {
	select {
	case err := <-n.broken:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

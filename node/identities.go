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

	"grapevine/msp"
)

// renewPause is the shortest time between two renewals of the own binding.
const renewPause = time.Minute

// watchIdentities closes connections whose binding or certificate has ended,
// and renews the node's own binding at half of what is left of it.
func (n *Node) watchIdentities(ctx context.Context) error {
	sweep := time.NewTicker(time.Second)
	defer sweep.Stop()
	renew := time.NewTimer(n.untilRenewal())
	defer renew.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-sweep.C:
			n.closeAll(n.guard.rejudge(false), "its binding or certificate has ended")
		case <-renew.C:
			if err := n.renew(); err != nil {
				n.log.Error("the binding could not be renewed; trying again in a minute", "err", err)
				renew.Reset(renewPause)
				continue
			}
			renew.Reset(n.untilRenewal())
			select {
			case n.renewed <- struct{}{}:
			default: // the round under way began with a binding that lasts long enough
			}
		}
	}
}

// showBindings shakes hands anew with every connected peer when the own binding
// was renewed: who sees the new one needn't cut when the former one ends. Whom
// this node can't dial cuts then, and dials itself.
func (n *Node) showBindings(ctx context.Context) error {
	for {
		select {
		case <-n.renewed:
		case <-ctx.Done():
			return ctx.Err()
		}
		var g errgroup.Group
		g.SetLimit(dials)
		for _, p := range n.host.Network().Peers() {
			g.Go(func() error {
				n.showBinding(ctx, p)
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
	}
}

func (n *Node) showBinding(ctx context.Context, p peer.ID) {
	addrs := n.host.Peerstore().Addrs(p)
	for _, c := range n.host.Network().ConnsToPeer(p) {
		if c.Stat().Direction == network.DirOutbound {
			addrs = append(addrs, c.RemoteMultiaddr())
		}
	}
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	for _, a := range addrs {
		for _, r := range n.resolve(ctx, a) {
			met, err := n.probeAddr(ctx, r)
			if err == nil && met == p {
				return
			}
			n.log.Debug("showing the renewed binding", "peer", p, "address", r, "met", met, "err", err)
		}
	}
}

// untilRenewal is half of what is left of the own binding, which begins before
// it is made and ends with the certificate at the latest.
func (n *Node) untilRenewal() time.Duration {
	return max(time.Unix(n.own.until.Load(), 0).Sub(n.guard.now())/2, renewPause)
}

// rejudge closes the connections of whoever no judge accepts any more.
func (n *Node) rejudge() {
	n.closeAll(n.guard.rejudge(true), "no configuration of this node accepts its identity")
}

func (n *Node) closeAll(ps []peer.ID, why string) {
	for _, p := range ps {
		n.log.Warn("closing a peer's connections", "peer", p, "why", why)
		if err := n.host.Network().ClosePeer(p); err != nil {
			n.log.Warn("closing a peer's connections", "peer", p, "err", err)
		}
	}
}

// supplant closes the connections of a host whose identity another host now
// shows. The code tells it not to come back at once.
func (n *Node) supplant(old, now peer.ID, id *msp.Identity) {
	n.log.Warn("two hosts show one identity; the newer one stays", "msp", id.MSPID(), "subject", id.Name(), "closed", old, "stays", now)
	for _, c := range n.host.Network().ConnsToPeer(old) {
		if err := c.CloseWithError(network.ConnSupplanted); err != nil {
			n.log.Debug("closing a supplanted connection", "peer", old, "err", err)
		}
	}
}

// supplanted says whether a closed connection was ended by the other side
// because another host shows this node's identity: what a closed one answers
// to an attempt to use it tells why it was closed.
func supplanted(c network.Conn) bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	s, err := c.NewStream(ctx)
	if err == nil {
		err = s.Reset()
	}
	var why *network.ConnError
	return errors.As(err, &why) && why.Remote && why.ErrorCode == network.ConnSupplanted
}

// renew shows a new binding in every handshake from now on, on both
// transports; open connections live on.
func (n *Node) renew() error {
	template, err := n.own.renew(n.guard.now())
	if err != nil {
		return err
	}
	if err := n.quic.renew(template); err != nil {
		return err
	}
	var listen []ma.Multiaddr
	for _, a := range n.host.Network().ListenAddresses() {
		if _, err := a.ValueForProtocol(ma.P_QUIC_V1); err == nil {
			listen = append(listen, a)
		}
	}
	if len(listen) == 0 {
		return nil
	}
	s, ok := n.host.Network().(interface{ ListenClose(...ma.Multiaddr) })
	if !ok {
		return errors.New("the host's network can't re-open its listeners")
	}
	s.ListenClose(listen...)
	if err := n.host.Network().Listen(listen...); err != nil {
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

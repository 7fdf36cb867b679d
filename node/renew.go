package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"grapevine/msp"
	"grapevine/wire"
)

// farewellTime is how long members are told that an identity goes.
const farewellTime = time.Second

// Renew puts another certificate of the node's identity in force while it runs,
// with its intermediates and, unless m is nil, another definition of its
// organisation. New handshakes show it at once, and connected peers are shown it.
//
// With the key that it had, the node stays the member that it is, and its
// connections live on. With another it is another member, by its PKI-ID: it says
// good-bye as the one, closes its connections, and its channels' rooms are opened
// anew as the other; ledgers stay, and [Channel] values from before are used up.
// On an error what was in force before still is.
func (n *Node) Renew(s msp.Signer, chain [][]byte, m *msp.MSP) error {
	n.renewal.Lock()
	defer n.renewal.Unlock()
	s = msp.Present(s)
	if s.Identity().PKIID() == n.Identity().PKIID() {
		if err := n.change(n.signer, s, chain, m); err != nil {
			return err
		}
		for _, c := range n.Channels() {
			c.members.Renewed()
		}
		return nil
	}
	if err := n.signer.Fits(s); err != nil { // before anybody is told good-bye
		return fmt.Errorf("renewing the node's identity: %w", err)
	}
	names := n.quit()
	err := n.change(n.signer, s, chain, m)
	n.closeAll(n.host.Network().Peers(), "this node has another identity now")
	for _, name := range names {
		err = errors.Join(err, n.comeBack(name))
	}
	return err
}

// quit ends the work of all channels, after telling their members, and returns
// their names. Until comeBack they count as being left.
func (n *Node) quit() (names []string) {
	n.mu.Lock()
	all := n.channels
	n.channels = map[string]*Channel{}
	for name := range all {
		n.leaving[name] = true
	}
	n.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), farewellTime)
	defer cancel()
	for name, c := range all {
		names = append(names, name)
		if c.stop != nil {
			if err := c.members.Leave(ctx); err != nil {
				c.log.Warn("not all others were told that this identity goes; they will find out", "err", err)
			}
			c.stop()
			<-c.done
		}
		if err := c.close(); err != nil {
			c.log.Warn("closing the channel's rooms", "err", err)
		}
	}
	return names
}

// comeBack opens a channel's rooms again.
func (n *Node) comeBack(name string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.leaving, name)
	if n.closed {
		return nil
	}
	if err := n.reopen(name); err != nil {
		return fmt.Errorf("opening channel %s again: %w", name, err)
	}
	return nil
}

// toldOf is where a member says that it can be reached.
func (n *Node) toldOf(p peer.ID) (addrs []ma.Multiaddr) {
	for _, c := range n.Channels() {
		for _, m := range c.members.List() {
			if m.Peer != p {
				continue
			}
			for _, text := range []string{m.Internal, m.Endpoint} {
				if a, err := wire.ParseEndpoint(text); err == nil { // else it was told by nobody
					addrs = append(addrs, a...)
				}
			}
			return addrs
		}
	}
	return nil
}

// Renew puts another certificate of the orderer's identity in force while it
// runs, as [Node.Renew] does: blocks are signed by it from now on. With another
// key the connections to other orderers are made anew.
func (o *Orderer) Renew(s msp.Signer, chain [][]byte, m *msp.MSP) error {
	o.renewal.Lock()
	defer o.renewal.Unlock()
	s = msp.Present(s)
	same := s.Identity().PKIID() == o.Identity().PKIID()
	if err := o.change(o.signer, s, chain, m); err != nil {
		return err
	}
	if !same {
		o.closeAll(o.host.Network().Peers(), "this node has another identity now")
	}
	return nil
}

// change swaps the signer and the own organisation's definition, binds the host
// to what is in force now, and has it shown to all who are connected.
func (s *stack) change(own *msp.Renewable, to msp.Signer, chain [][]byte, m *msp.MSP) error {
	was, shown := own.Shown()
	if err := own.Renew(to, chain); err != nil {
		return fmt.Errorf("renewing the node's identity: %w", err)
	}
	if err := s.renew(); err != nil {
		return errors.Join(fmt.Errorf("binding the host to the renewed identity: %w", err), own.Renew(was, shown))
	}
	if m != nil {
		s.define(m)
		s.rejudge()
	}
	select {
	case s.renewed <- struct{}{}:
	default: // the round under way shows it, or the one after
	}
	c := to.Identity().Certificate()
	s.log.Info("another certificate of this node is in force", "subject", c.Subject.String(), "notAfter", c.NotAfter)
	return nil
}

package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"

	"grapevine/channel"
	"grapevine/orderer"
	"grapevine/wire"
)

const (
	// greetTime bounds the claims that open a stream between orderers.
	greetTime = 5 * time.Second
	// quicTime bounds the search for a consenter by QUIC.
	quicTime = 500 * time.Millisecond
	// notConsenter is the code that a stream is reset with to whom the
	// configuration doesn't name, or no more. Only an orderer's identity gets so
	// far.
	notConsenter network.StreamErrorCode = 0x6776
)

// links are the streams of one channel between this ordering node and the other
// consenters. An orderer's host is met at the host and port that the
// configuration names; both sides then claim, each in the name of its TLS
// certificate, to be the consenter that the other takes it for.
type links struct {
	node  *Orderer
	chain func() *orderer.Chain
	view  *channel.View
	tag   [32]byte

	mu   sync.Mutex
	self uint64             // this node among the consenters; guarded by mu
	take func(net.Conn)     // takes streams; nil: nobody does; guarded by mu
	met  map[uint64]peer.ID // hosts of consenters; guarded by mu
}

var _ orderer.Links = (*links)(nil)

// Accept hands streams to take.
func (l *links) Accept(self uint64, take func(net.Conn)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.self, l.take = self, take
}

// Dial opens a stream to a consenter.
func (l *links) Dial(ctx context.Context, to orderer.Consenter) (net.Conn, error) {
	p, err := l.meet(ctx, to)
	if err != nil {
		return nil, fmt.Errorf("consenter %d at %s: %w", to.ID, to.Address(), err)
	}
	s, err := l.view.Stream(ctx, p, wire.KindRaft)
	if err == nil {
		if err = l.greet(ctx, s, to); err == nil {
			return &raftConn{s}, nil
		}
	}
	l.mu.Lock()
	delete(l.met, to.ID) // another host may stand there now
	l.mu.Unlock()
	return nil, fmt.Errorf("consenter %d at %s: %w", to.ID, to.Address(), err)
}

// meet returns the host of a consenter, connected.
func (l *links) meet(ctx context.Context, to orderer.Consenter) (peer.ID, error) {
	l.mu.Lock()
	p, ok := l.met[to.ID]
	l.mu.Unlock()
	if ok && l.node.host.Network().Connectedness(p) == network.Connected {
		return p, nil
	}
	info, err := l.locate(ctx, to.Address())
	if err != nil {
		return "", err
	}
	if s, ok := l.node.host.Network().(*swarm.Swarm); ok {
		s.Backoff().Clear(info.ID) // Raft makes its own pauses
	}
	l.node.host.Peerstore().AddAddrs(info.ID, info.Addrs, peerstore.TempAddrTTL)
	if err := l.node.host.Connect(ctx, info); err != nil {
		return "", err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.met[to.ID] = info.ID
	return info.ID, nil
}

// locate finds out which host listens at an endpoint. A node that is down refuses
// TCP at once and says nothing on QUIC, which so gets little time: Raft asks
// again soon.
func (l *links) locate(ctx context.Context, endpoint string) (peer.AddrInfo, error) {
	addrs, err := wire.ParseEndpoint(endpoint)
	if err != nil {
		return peer.AddrInfo{}, err
	}
	var errs []error
	for i, within := range []time.Duration{probeTime, quicTime} {
		ctx, cancel := context.WithTimeout(ctx, within)
		for _, a := range l.node.resolve(ctx, addrs[i]) {
			p, err := l.node.probeAddr(ctx, a)
			if err == nil {
				cancel()
				return peer.AddrInfo{ID: p, Addrs: addrs}, nil
			}
			errs = append(errs, err)
		}
		cancel()
	}
	return peer.AddrInfo{}, errors.Join(errs...)
}

// greet shows this node's claim and judges the other's.
func (l *links) greet(ctx context.Context, s network.Stream, to orderer.Consenter) (err error) {
	defer func() {
		if err != nil {
			_ = s.Reset() // it is of no more use
		}
	}()
	defer context.AfterFunc(ctx, func() { _ = s.Reset() })()
	if err := s.SetDeadline(time.Now().Add(greetTime)); err != nil {
		return err
	}
	l.mu.Lock()
	self := l.self
	l.mu.Unlock()
	if err := l.claim(s, to.ID); err != nil {
		return err
	}
	_, err = l.read(s, []orderer.Consenter{to}, self)
	var reset *network.StreamError
	if errors.As(err, &reset) && reset.Remote && reset.ErrorCode == notConsenter {
		return fmt.Errorf("it doesn't count this node among the consenters: %w", orderer.Stranger)
	}
	if err != nil {
		return err
	}
	return s.SetDeadline(time.Time{})
}

// serve takes a stream that another host opened.
func (l *links) serve(s network.Stream) {
	if err := l.welcome(s); err != nil {
		code := network.StreamErrorCode(0)
		if errors.Is(err, orderer.Stranger) {
			code = notConsenter
		}
		_ = s.ResetWithError(code) // it is of no more use
		if r := wire.ReasonOf(err); r != nil {
			l.node.metrics.refused(l.chain().Name(), r)
		}
		l.node.log.Info("a stream from another orderer is refused", "peer", s.Conn().RemotePeer(), "err", err)
	}
}

func (l *links) welcome(s network.Stream) error {
	l.mu.Lock()
	self, take := l.self, l.take
	l.mu.Unlock()
	if take == nil {
		return errors.New("this node takes no part in Raft")
	}
	if err := s.SetDeadline(time.Now().Add(greetTime)); err != nil {
		return err
	}
	from, err := l.read(s, l.chain().Voting(), self)
	if err != nil {
		return err
	}
	if err := l.claim(s, from.ID); err != nil {
		return err
	}
	if err := s.SetDeadline(time.Time{}); err != nil {
		return err
	}
	take(&raftConn{s})
	return nil
}

// claim writes that this host is the consenter that the TLS certificate names.
func (l *links) claim(s network.Stream, to uint64) error {
	c, err := orderer.Claim(l.node.pairOf(l.chain().Voting()), l.tag, l.node.host.ID(), to, l.node.guard.now())
	if err != nil {
		return err
	}
	b, err := wire.Marshal(c)
	if err != nil {
		return err
	}
	return wire.WriteFrame(s, b)
}

func (l *links) read(s network.Stream, among []orderer.Consenter, self uint64) (orderer.Consenter, error) {
	b, err := wire.ReadFrame(s, wire.MaxRequest)
	if err != nil {
		return orderer.Consenter{}, fmt.Errorf("reading a consenter's claim: %w", err)
	}
	var c wire.ConsenterClaim
	if err := wire.Unmarshal(b, &c); err != nil {
		return orderer.Consenter{}, fmt.Errorf("reading a consenter's claim: %w", err)
	}
	return orderer.CheckClaim(&c, among, self, l.tag, s.Conn().RemotePeer(), l.node.guard.now())
}

// raftConn is a stream as Raft's transport takes it.
type raftConn struct{ network.Stream }

func (c *raftConn) LocalAddr() net.Addr  { return hostAddr(c.Conn().LocalPeer()) }
func (c *raftConn) RemoteAddr() net.Addr { return hostAddr(c.Conn().RemotePeer()) }

// Close ends both directions at once.
func (c *raftConn) Close() error { return c.Reset() }

// hostAddr is a host's peer ID as an address.
type hostAddr peer.ID

func (hostAddr) Network() string  { return "libp2p" }
func (a hostAddr) String() string { return peer.ID(a).String() }

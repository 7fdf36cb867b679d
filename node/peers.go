package node

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"grapevine/membership"
	"grapevine/msp"
	"grapevine/wire"
)

// A Peer is another node, or this one, as this node sees it: over all channels
// that both have joined, and by its connections.
type Peer struct {
	PKIID       msp.PKIID
	Name, MSPID string
	ID          peer.ID
	Self        bool
	State       membership.State // on the channel where it seems most alive
	Since       time.Time        // of that state
	LastSeen    time.Time
	Incarnation uint64 // the highest
	Endpoint    string // within the organisation, if it is ours and tells
	External    string // for all
	Role        string
	Version     string
	RTT         time.Duration // 0: unknown
	Anchor      bool          // of a channel that both have joined
	Channels    []Membership  // that both have joined, by name
	Conns       []Conn
	Certificate *x509.Certificate // nil: not seen
	Banned      time.Time         // until then; zero: it isn't
}

// A Membership is what is believed of a peer on one channel.
type Membership struct {
	Channel string
	State   membership.State
	Height  uint64
	TipHash [32]byte
	Score   float64        // GossipSub's
	Streams map[string]int // open ones, by kind
}

// A Conn is one connection.
type Conn struct {
	Addr      ma.Multiaddr
	Transport string // "tcp" or "quic"
	Inbound   bool
	Since     time.Time
	Streams   int // of all channels, and of libp2p's own
}

// ErrNoPeer means that this node knows no such peer.
var ErrNoPeer = errors.New("no such peer")

// Peers returns this node and all that it knows, sorted by MSP ID and name.
func (n *Node) Peers() []Peer {
	all := map[msp.PKIID]*Peer{}
	at := func(id msp.PKIID) *Peer {
		if all[id] == nil {
			all[id] = &Peer{PKIID: id, State: membership.Left}
		}
		return all[id]
	}
	for _, c := range n.Channels() {
		scores := c.mesh.Scores()
		for _, m := range c.Members() {
			at(m.PKIID).join(c, m, scores[m.Peer])
		}
	}
	self := at(n.Identity().PKIID())
	id := n.Identity()
	self.Self, self.Name, self.MSPID, self.ID, self.Certificate = true, id.Name(), id.MSPID(), n.PeerID(), id.Certificate()
	self.State, self.LastSeen, self.Endpoint, self.External = membership.Alive, time.Now(), n.internal, n.cfg.ExternalEndpoint
	self.Version = n.cfg.Version
	if self.Since.IsZero() {
		self.Since = n.started
	}
	for _, c := range n.host.Network().Conns() {
		id, _, ok := n.guard.identity(c.RemotePeer())
		if !ok {
			continue
		}
		p := at(id.PKIID())
		p.Conns = append(p.Conns, connOf(c))
		if p.Certificate = id.Certificate(); p.Name == "" { // it shares no channel with us, or says nothing to us
			p.Name, p.MSPID, p.ID, p.State, p.LastSeen, p.Since = id.Name(), id.MSPID(), c.RemotePeer(), membership.Alive, time.Now(), c.Stat().Opened
		}
	}
	bans := n.guard.banned()
	out := make([]Peer, 0, len(all))
	for id, p := range all {
		p.Banned = bans[id]
		out = append(out, *p)
	}
	slices.SortFunc(out, func(a, b Peer) int {
		return cmp.Or(strings.Compare(a.MSPID, b.MSPID), strings.Compare(a.Name, b.Name), slices.Compare(a.PKIID[:], b.PKIID[:]))
	})
	return out
}

// join adds what one channel says.
func (p *Peer) join(c *Channel, m membership.Member, score float64) {
	if m.State < p.State || p.Name == "" {
		p.State, p.Since = m.State, m.Since
	}
	p.Name, p.MSPID = m.Name, m.MSPID
	if m.Incarnation >= p.Incarnation {
		p.Incarnation, p.ID = m.Incarnation, m.Peer
		p.Endpoint, p.External, p.Role, p.Version = m.Internal, m.Endpoint, m.Role, m.Version
	}
	if m.LastSeen.After(p.LastSeen) {
		p.LastSeen = m.LastSeen
	}
	if m.RTT > 0 && (p.RTT == 0 || m.RTT < p.RTT) {
		p.RTT = m.RTT
	}
	if id, ok := c.members.Identity(m.PKIID); ok {
		p.Certificate = id.Certificate()
	}
	p.Anchor = p.Anchor || c.IsAnchor(m)
	p.Channels = append(p.Channels, Membership{
		Channel: c.name, State: m.State, Height: m.Height, TipHash: m.TipHash, Score: score, Streams: c.streams(m.Peer),
	})
}

// streams counts the channel's open streams with a peer, by kind.
func (c *Channel) streams(p peer.ID) map[string]int {
	out := map[string]int{}
	for _, conn := range c.view.Network().ConnsToPeer(p) {
		for _, s := range conn.GetStreams() {
			id := string(s.Protocol())
			out[id[strings.LastIndexByte(id, '/')+1:]]++
		}
	}
	return out
}

func connOf(c network.Conn) Conn {
	out := Conn{
		Addr: c.RemoteMultiaddr(), Transport: "tcp", Inbound: c.Stat().Direction == network.DirInbound,
		Since: c.Stat().Opened, Streams: len(c.GetStreams()),
	}
	if _, err := out.Addr.ValueForProtocol(ma.P_QUIC_V1); err == nil {
		out.Transport = "quic"
	}
	return out
}

// places are an endpoint's hosts and ports, by which endpoints are compared.
func places(endpoint string) map[string]bool {
	out := map[string]bool{}
	addrs, err := wire.ParseEndpoint(endpoint)
	if err != nil {
		return out // a configuration may name what nobody can dial
	}
	for _, a := range addrs {
		out[a[0].Value()+" "+a[1].Value()] = true
	}
	return out
}

// Connect dials an endpoint, host:port or multiaddr, and returns who is there: a
// valid member of the network.
func (n *Node) Connect(ctx context.Context, endpoint string) (peer.ID, error) {
	info, err := n.probe(ctx, endpoint)
	if err != nil {
		return "", err
	}
	if info.ID == n.PeerID() {
		return "", fmt.Errorf("%s: %w", endpoint, errSelf)
	}
	return info.ID, n.meet.connect(ctx, info, dialTime)
}

// Disconnect closes all connections to a host. What keeps this node connected
// to its members will dial it again.
func (n *Node) Disconnect(p peer.ID) error { return n.host.Network().ClosePeer(p) }

// Ping asks a peer for an echo on one of the channels that both have joined: the
// one named, or, if none is, the first where it seems most alive.
func (n *Node) Ping(ctx context.Context, id msp.PKIID, ch string) (on string, e membership.Echo, err error) {
	var best *Channel
	state := membership.Left + 1
	for _, c := range n.Channels() {
		for _, m := range c.Members() {
			if m.PKIID == id && !m.Self && m.State < state && (ch == "" || ch == c.name) {
				best, state = c, m.State
			}
		}
	}
	if best == nil {
		return "", e, fmt.Errorf("pinging %s: %w", id, ErrNoPeer)
	}
	e, err = best.members.Ping(ctx, id)
	return best.name, e, err
}

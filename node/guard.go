package node

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/quic-go/quic-go"

	"grapevine/msp"
	"grapevine/wire"
)

// Reasons for which a handshake is refused, beside those of package msp.
var (
	noBinding = wire.NewReason("node.no_binding", wire.Close)
	stranger  = wire.NewReason("node.unknown_msp", wire.Close)
	broken    = wire.NewReason("node.handshake", wire.Close) // it ended before anybody was named
	banned    = wire.NewReason("node.banned", wire.Close)    // by this node's operator
)

// pending is how long an identity is remembered between its handshake and its
// connection: one certificate shown with many host keys must fill nothing.
const pending = 30 * time.Second

// maxDisplaced bounds the hosts that are remembered to be displaced.
const maxDisplaced = 1024

// A judge says whether an identity is valid now, under one definition of an
// organisation or the configuration of one channel. It returns an error that
// is errNotMine if the identity's MSP is none that it knows.
type judge func(id *msp.Identity, intermediates [][]byte, now time.Time) error

var errNotMine = errors.New("another organisation's")

// A guest is a host whose handshake was accepted.
type guest struct {
	peer          peer.ID
	id            *msp.Identity
	intermediates [][]byte
	notAfter      time.Time // of binding and leaf, whichever is first
	seen          time.Time
	conns         int
}

// guard decides who gets through the handshake, and remembers which MSP
// identity stands behind each host. It is the connection gater of the host.
//
// An identity is valid if any judge says so: the node's own MSP folder, or a
// channel that it has joined. Each channel's wall asks its own configuration
// again.
type guard struct {
	networkID string
	now       func() time.Time
	refused   func(r *wire.Reason, transport string)
	supplant  func(old peer.ID, now peer.ID, id *msp.Identity) // closes old's connections

	mu        sync.Mutex
	judges    map[string]judge        // owned by mu
	guests    map[peer.ID]*guest      // owned by mu
	live      map[msp.PKIID]peer.ID   // host with a connection, owned by mu
	bans      map[msp.PKIID]time.Time // until when; owned by mu
	displaced map[peer.ID]peer.ID     // hosts that were proven older than another of their identity; owned by mu
	looks     time.Time               // when guests are rejudged; owned by mu
	came      chan struct{}           // holds one: a guest came whose time is over before that
}

func newGuard(networkID string, refused func(*wire.Reason, string)) *guard {
	return &guard{
		networkID: networkID,
		now:       time.Now,
		refused:   refused,
		supplant:  func(peer.ID, peer.ID, *msp.Identity) {},
		judges:    map[string]judge{},
		guests:    map[peer.ID]*guest{},
		live:      map[msp.PKIID]peer.ID{},
		bans:      map[msp.PKIID]time.Time{},
		displaced: map[peer.ID]peer.ID{},
		came:      make(chan struct{}, 1),
	}
}

// setJudge adds or replaces the judge called name; nil removes it.
func (g *guard) setJudge(name string, j judge) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if j == nil {
		delete(g.judges, name)
		return
	}
	g.judges[name] = j
}

// admit judges the libp2p TLS certificate of a handshake, and counts a refusal.
// It runs inside the handshake: that the host has the key is proven only when
// the handshake is complete, and then its guest is to be remembered.
func (g *guard) admit(cert *x509.Certificate, transport string) (*guest, error) {
	v, err := g.check(cert)
	if err != nil {
		r := wire.ReasonOf(err)
		if r == nil {
			r = noBinding
		}
		g.refused(r, transport)
	}
	return v, err
}

func (g *guard) check(cert *x509.Certificate) (*guest, error) {
	host, err := libp2ptls.PubKeyFromCertChain([]*x509.Certificate{cert})
	if err != nil {
		return nil, fmt.Errorf("host key: %w", errors.Join(noBinding, err))
	}
	p, err := peer.IDFromPublicKey(host)
	if err != nil {
		return nil, fmt.Errorf("host key: %w", errors.Join(noBinding, err))
	}
	b, err := msp.BindingFrom(cert)
	if err != nil {
		return nil, fmt.Errorf("binding of %s: %w", p, err)
	}
	now := g.now()
	id, err := b.Verify(g.networkID, host, now, g.judge)
	if err != nil {
		return nil, fmt.Errorf("binding of %s: %w", p, err)
	}
	if g.isBanned(id.PKIID()) {
		return nil, fmt.Errorf("%s of %s: %w", id.Name(), id.MSPID(), banned)
	}
	until := time.Unix(b.NotAfter, 0)
	if t := id.Certificate().NotAfter; t.Before(until) {
		until = t
	}
	return &guest{peer: p, id: id, intermediates: b.Chain[1:], notAfter: until, seen: now}, nil
}

// remember takes in the host behind a handshake that is complete.
func (g *guard) remember(v *guest) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sweepPending(v.seen)
	if q := g.pendingOf(v.id.PKIID()); q != "" && q != v.peer {
		delete(g.guests, q) // one live and one pending host for each identity
	}
	if old := g.guests[v.peer]; old != nil {
		v.conns = old.conns
	}
	g.guests[v.peer] = v
	if v.notAfter.Before(g.looks) {
		select {
		case g.came <- struct{}{}:
		default:
		}
	}
}

// untilEnd is how long to wait before guests are rejudged: until the first one's
// time is over, within limits.
func (g *guard) untilEnd() time.Duration {
	now := g.now()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.looks = now.Add(sweepLast)
	for _, v := range g.guests {
		if v.notAfter.Before(g.looks) {
			g.looks = v.notAfter
		}
	}
	return max(g.looks.Sub(now), sweepFirst)
}

// judge asks the judges in a fixed order; the first that accepts decides. Of
// several refusals the one of the judge that knows the organisation is told.
func (g *guard) judge(id *msp.Identity, intermediates [][]byte, now time.Time) error {
	g.mu.Lock()
	names := make([]string, 0, len(g.judges))
	for n := range g.judges {
		names = append(names, n)
	}
	slices.Sort(names)
	slices.Reverse(names) // channels first, whose configurations remember whom they accept
	judges := make([]judge, len(names))
	for i, n := range names {
		judges[i] = g.judges[n]
	}
	g.mu.Unlock()
	err := fmt.Errorf("organisation %q is in no channel of this node: %w", id.MSPID(), stranger)
	for _, j := range judges {
		e := j(id, intermediates, now)
		if e == nil {
			return nil
		}
		if !errors.Is(e, errNotMine) {
			err = e
		}
	}
	return err
}

// identity returns who stands behind a host that passed the handshake.
func (g *guard) identity(p peer.ID) (*msp.Identity, [][]byte, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	v := g.guests[p]
	if v == nil {
		return nil, nil, false
	}
	return v.id, v.intermediates, true
}

// find returns the connected host that stands behind an identity.
func (g *guard) find(id msp.PKIID) (peer.ID, *msp.Identity, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := g.live[id]
	v := g.guests[p]
	if v == nil {
		return "", nil, false
	}
	return p, v.id, true
}

// rejudge returns the hosts that are valid no more: those whose binding or
// certificate has ended, and, when all is set, those that no judge accepts
// since a configuration or a CRL changed.
func (g *guard) rejudge(all bool) []peer.ID {
	now := g.now()
	g.mu.Lock()
	g.sweepPending(now)
	guests := make(map[peer.ID]*guest, len(g.guests))
	for p, v := range g.guests {
		guests[p] = v
	}
	g.mu.Unlock()
	var out []peer.ID
	for p, v := range guests {
		if now.After(v.notAfter) || all && g.judge(v.id, v.intermediates, now) != nil {
			out = append(out, p)
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, p := range out {
		if v := g.guests[p]; v == guests[p] && v.conns == 0 {
			delete(g.guests, p)
		}
	}
	return out
}

// sweepPending forgets hosts that shook hands and never connected. mu is held.
func (g *guard) sweepPending(now time.Time) {
	for p, v := range g.guests {
		if v.conns == 0 && now.Sub(v.seen) > pending {
			delete(g.guests, p)
		}
	}
}

// pendingOf returns the host without a connection that showed id. mu is held.
func (g *guard) pendingOf(id msp.PKIID) peer.ID {
	for p, v := range g.guests {
		if v.conns == 0 && v.id.PKIID() == id {
			return p
		}
	}
	return ""
}

// InterceptPeerDial allows every dial: whom to dial is decided above.
func (g *guard) InterceptPeerDial(peer.ID) bool { return true }

// InterceptAddrDial allows every address.
func (g *guard) InterceptAddrDial(peer.ID, ma.Multiaddr) bool { return true }

// InterceptAccept allows every socket: the resource manager bounds them, the
// handshake judges them.
func (g *guard) InterceptAccept(network.ConnMultiaddrs) bool { return true }

// InterceptSecured is where a QUIC handshake is judged, for QUIC hides its
// tls.Config; libp2p calls it before Dial and Accept return. A TCP handshake
// was judged inside and is known by now.
func (g *guard) InterceptSecured(_ network.Direction, p peer.ID, c network.ConnMultiaddrs) bool {
	var q *quic.Conn
	if as, ok := c.(interface{ As(any) bool }); ok && as.As(&q) {
		certs := q.ConnectionState().TLS.PeerCertificates
		if len(certs) != 1 {
			return false
		}
		v, err := g.admit(certs[0], "quic")
		if err != nil {
			return false
		}
		g.remember(v)
		return true
	}
	_, _, ok := g.identity(p)
	return ok
}

// InterceptUpgraded replaces the host that stood behind the same identity
// until now: the newer one counts, and that is the one that comes, unless it was
// proven otherwise. Two connections of one host are normal.
func (g *guard) InterceptUpgraded(c network.Conn) (bool, control.DisconnectReason) {
	p := c.RemotePeer()
	g.mu.Lock()
	v := g.guests[p]
	if v == nil {
		g.mu.Unlock()
		return false, 0
	}
	old := g.live[v.id.PKIID()]
	if by, ok := g.displaced[p]; ok {
		if by == old {
			g.mu.Unlock()
			return true, 0 // so that connected can say why it is closed
		}
		delete(g.displaced, p)
	}
	g.live[v.id.PKIID()] = p
	id := v.id
	g.mu.Unlock()
	if old != "" && old != p {
		g.supplant(old, p, id)
	}
	return true, 0
}

// connected and disconnected keep count of a guest's connections. connected is
// false for a host that was forgotten since its handshake: nobody would judge
// that connection again; and for one that is displaced.
func (g *guard) connected(p peer.ID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	v := g.guests[p]
	if v == nil || g.displaced[p] != "" {
		return false
	}
	v.conns++
	return true
}

func (g *guard) isDisplaced(p peer.ID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.displaced[p] != ""
}

// outlived says whether a host is still to be closed in favour of another.
func (g *guard) outlived(older, newer peer.ID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	v := g.guests[older]
	return v != nil && (g.displaced[older] == newer || g.live[v.id.PKIID()] == newer)
}

// displace notes that of two hosts of one identity one is older. It is kept out
// as long as the other is connected.
func (g *guard) displace(older, newer peer.ID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.displaced, newer)
	g.displaced[older] = newer
	if len(g.displaced) > maxDisplaced {
		for p := range g.displaced { // any: a guest that is wrongly let in is soon proven again
			delete(g.displaced, p)
			return
		}
	}
}

func (g *guard) disconnected(p peer.ID) (last bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	v := g.guests[p]
	if v == nil {
		return true
	}
	if v.conns--; v.conns > 0 {
		return false
	}
	v.conns = 0
	if g.now().Sub(v.seen) > pending {
		delete(g.guests, p) // else a new connection of this host may be on its way: its handshake is over
	}
	if g.live[v.id.PKIID()] == p {
		delete(g.live, v.id.PKIID())
	}
	return true
}

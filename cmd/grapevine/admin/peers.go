package admin

import (
	"context"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"grapevine/cmd/grapevine/fault"
	"grapevine/membership"
	"grapevine/node"
	"grapevine/wire"
)

// pingWait is how long an echo is waited for.
const pingWait = 2 * time.Second

// PeerInfo is `peers show`: one peer, and what this node has to do with it.
type PeerInfo struct {
	Meta
	Peer
	Role        string           `json:"role"`
	Version     string           `json:"version"`
	Since       Time             `json:"since"` // of its state
	BannedUntil Time             `json:"bannedUntil"`
	Memberships []PeerMembership `json:"memberships"`
	Connections []PeerConnection `json:"connections"`
	Certificate Certificate      `json:"certificate"`
}

// PeerMembership is what is believed of a peer on one channel that both share.
type PeerMembership struct {
	Channel string       `json:"channel"`
	State   string       `json:"state"`
	Height  uint64       `json:"height"`
	TipHash string       `json:"tipHash"`
	Score   float64      `json:"score"`
	Streams []PeerStream `json:"streams"`
}

// PeerStream counts the open streams of a kind.
type PeerStream struct {
	Kind  string `json:"kind"`
	Count int    `json:"count"`
}

// PeerConnection is one connection: Direction is "in" or "out".
type PeerConnection struct {
	Addr      string `json:"addr"`
	Transport string `json:"transport"`
	Direction string `json:"direction"`
	Since     Time   `json:"since"`
	Streams   int    `json:"streams"`
}

// PeerPing is `peers ping`: one echo. Path is "direct", or "relayed" with the
// name of who passed it on in Via.
type PeerPing struct {
	Meta
	NodeRef
	Channel   string  `json:"channel"`
	Path      string  `json:"path"`
	Via       string  `json:"via"`
	Transport string  `json:"transport"`
	Addr      string  `json:"addr"`
	RTTMs     float64 `json:"rttMs"`
}

// PeerAction is what `peers connect`, `disconnect`, `ban` and `unban` did.
type PeerAction struct {
	Meta
	NodeRef
	Action string `json:"action"`
	Until  Time   `json:"until"` // of a ban that ends
}

// AnchorList is `peers anchors`.
type AnchorList struct {
	Meta
	Channel string   `json:"channel"`
	Items   []Anchor `json:"items"`
}

// Anchor is an anchor peer of the configuration, and who answers there.
type Anchor struct {
	Org       string  `json:"org"`
	MSPID     string  `json:"mspId"`
	Endpoint  string  `json:"endpoint"`
	OK        bool    `json:"ok"`
	Self      bool    `json:"self"`
	Name      string  `json:"name"`
	PeerID    string  `json:"peerId"`
	TookMs    float64 `json:"tookMs"`
	Code      string  `json:"code"`
	Connected bool    `json:"connected"`
	Message   string  `json:"message"`
}

// PeerRTT is `peers rtt`: round trips as each node measures them.
type PeerRTT struct {
	Meta
	Nodes []string  `json:"nodes"`
	Items []PeerLeg `json:"items"`
}

// PeerLeg is one pair's: 0 is unknown.
type PeerLeg struct {
	From  string  `json:"from"`
	To    string  `json:"to"`
	RTTMs float64 `json:"rttMs"`
}

// peerOf is a node's peer as its object.
func (s *Server) peerOf(p node.Peer) Peer {
	out := Peer{
		NodeRef:  NodeRef{Name: p.Name, Org: s.org(p.MSPID), MSPID: p.MSPID, PeerID: p.ID.String(), PKIID: p.PKIID.String()},
		Endpoint: p.Endpoint, ExternalEndpoint: p.External, State: p.State.String(), Self: p.Self, Anchor: p.Anchor,
		Connected: len(p.Conns) > 0, RTTMs: ms(p.RTT), LastSeen: Time{p.LastSeen}, Incarnation: p.Incarnation,
	}
	if p.Self {
		out.Addrs = s.Peer.Listen()
	}
	for _, c := range p.Conns {
		if out.Transport == "" || c.Transport == "tcp" {
			out.Transport = c.Transport
		}
		out.Addrs = append(out.Addrs, c.Addr.String())
	}
	for _, e := range []string{p.Endpoint, p.External} {
		addrs, err := wire.ParseEndpoint(e)
		if err != nil {
			continue // it isn't ours to judge
		}
		for _, a := range addrs {
			out.Addrs = append(out.Addrs, a.String())
		}
	}
	slices.Sort(out.Addrs)
	out.Addrs = slices.Compact(out.Addrs)
	for _, c := range p.Channels {
		out.Channels = append(out.Channels, c.Channel)
	}
	return out
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// peers lists the peers that the node knows, with ?channel=CH those of one
// channel, with ?state=S those of one state. Who has left is named only when
// asked for.
func (s *Server) peers(r *http.Request) (any, error) {
	if err := s.peersHere(); err != nil {
		return nil, err
	}
	channel, state := r.URL.Query().Get("channel"), r.URL.Query().Get("state")
	if channel != "" {
		if _, err := s.Peer.Channel(channel); err != nil {
			return nil, noChannel(channel, err)
		}
	}
	out := &PeerList{}
	for _, p := range s.Peer.Peers() {
		if channel != "" {
			i := slices.IndexFunc(p.Channels, func(m node.Membership) bool { return m.Channel == channel })
			if i < 0 {
				continue
			}
			p.State = p.Channels[i].State
		}
		if v := s.peerOf(p); v.State == state || state == "" && p.State != membership.Left {
			out.Items = append(out.Items, v)
		}
	}
	slices.SortStableFunc(out.Items, func(a, b Peer) int { return byOrg(a.NodeRef, b.NodeRef) })
	return out, nil
}

func byOrg(a, b NodeRef) int {
	if c := strings.Compare(a.Org, b.Org); c != 0 {
		return c
	}
	return strings.Compare(a.Name, b.Name)
}

func (s *Server) peersHere() error {
	if s.Peer == nil {
		return fault.New(fault.NotHere, "an ordering node keeps no list of peers in this build").Do("ask a peer: --target NAME")
	}
	return nil
}

// find finds a peer by its name, peer ID, or PKI-ID, of which the first eight
// digits suffice.
func (s *Server) find(name string) (node.Peer, error) {
	if err := s.peersHere(); err != nil {
		return node.Peer{}, err
	}
	var found []node.Peer
	for _, p := range s.Peer.Peers() {
		if p.Name == name || p.ID.String() == name || len(name) >= 8 && strings.HasPrefix(p.PKIID.String(), strings.ToLower(name)) ||
			p.Self && s.Name == name {
			found = append(found, p)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return node.Peer{}, noPeer(name, nil)
	}
	e := fault.Newf(fault.NotFound, "%d peers are called %s", len(found), name).Do("name it by its PKI-ID")
	for _, p := range found {
		e.Because(p.PKIID.String() + " of " + p.MSPID)
	}
	return node.Peer{}, e
}

func noPeer(name string, err error) error {
	return fault.Newf(fault.NotFound, "this node knows no peer %s", name).From(err).Do("see whom it knows: grapevine peers ls")
}

func (s *Server) showPeer(r *http.Request) (any, error) {
	p, err := s.find(r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	out := &PeerInfo{Peer: s.peerOf(p), Role: p.Role, Version: p.Version, Since: Time{p.Since}, BannedUntil: until(p.Banned)}
	if out.Role == "" && p.Self {
		out.Role = "peer"
	}
	for _, m := range p.Channels {
		v := PeerMembership{Channel: m.Channel, State: m.State.String(), Height: m.Height, TipHash: hex.EncodeToString(m.TipHash[:]), Score: m.Score}
		for kind, n := range m.Streams {
			v.Streams = append(v.Streams, PeerStream{kind, n})
		}
		slices.SortFunc(v.Streams, func(a, b PeerStream) int { return strings.Compare(a.Kind, b.Kind) })
		out.Memberships = append(out.Memberships, v)
	}
	for _, c := range p.Conns {
		v := PeerConnection{Addr: c.Addr.String(), Transport: c.Transport, Direction: "out", Since: Time{c.Since}, Streams: c.Streams}
		if c.Inbound {
			v.Direction = "in"
		}
		out.Connections = append(out.Connections, v)
	}
	if c := p.Certificate; c != nil {
		out.Certificate = certificateOf("sign", c)
	}
	return out, nil
}

// until is the end of a ban; one that has none ends at "".
func until(t time.Time) Time {
	if t.Year() >= 9999 {
		return Time{}
	}
	return Time{t}
}

func (s *Server) ping(r *http.Request) (any, error) {
	p, err := s.find(r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), pingWait)
	defer cancel()
	channel, echo, err := s.Peer.Ping(ctx, p.PKIID, r.URL.Query().Get("channel"))
	if err != nil {
		return nil, explainPing(p.Name, err)
	}
	v := s.peerOf(p)
	out := &PeerPing{NodeRef: v.NodeRef, Channel: channel, Path: "direct", RTTMs: ms(echo.RTT)}
	if echo.Via != "" {
		out.Path, out.Via = "relayed", s.nameOf(echo.Via)
	} else if out.Transport = v.Transport; len(p.Conns) > 0 {
		out.Addr = p.Conns[0].Addr.String()
	}
	return out, nil
}

// nameOf names a connected peer.
func (s *Server) nameOf(p peer.ID) string {
	if id, ok := s.Peer.Identify(p); ok {
		return id.Name()
	}
	return p.String()
}

func (s *Server) anchors(r *http.Request) (any, error) {
	c, err := s.room(r)
	if err != nil {
		return nil, err
	}
	if c.peer == nil {
		return nil, s.peersHere()
	}
	out := &AnchorList{Channel: c.peer.Name()}
	connected := map[peer.ID]bool{}
	for _, p := range c.peer.Connected() {
		connected[p] = true
	}
	for _, a := range c.peer.Anchors(r.Context()) {
		v := Anchor{
			Org: a.Org, MSPID: a.MSPID, Endpoint: a.Endpoint, OK: a.Err == nil, Self: a.Self, Name: a.Name,
			TookMs: ms(a.Took), Connected: connected[a.Peer],
		}
		if a.Peer != "" {
			v.PeerID = a.Peer.String()
		}
		if a.Err != nil {
			e := explainDial(a.Endpoint, a.Err)
			v.Code, v.Message = e.Code, e.Message
		}
		out.Items = append(out.Items, v)
	}
	slices.SortStableFunc(out.Items, func(a, b Anchor) int {
		return byOrg(NodeRef{Org: a.Org, Name: a.Endpoint}, NodeRef{Org: b.Org, Name: b.Endpoint})
	})
	return out, nil
}

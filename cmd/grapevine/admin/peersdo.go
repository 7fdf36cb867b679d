package admin

import (
	"context"
	"errors"
	"net/http"
	"time"

	"grapevine/cmd/grapevine/fault"
	"grapevine/membership"
	"grapevine/node"
	"grapevine/wire"
)

// dialWait bounds a dial that was asked for.
const dialWait = 10 * time.Second

// What is done to peers, at the request of who may change the node.
func (s *Server) changing(mux *http.ServeMux) {
	mux.HandleFunc("POST /api/v1/peers", s.handle(s.connect))
	mux.HandleFunc("POST /api/v1/peers/{name}/disconnect", s.handle(s.act("disconnect", func(p node.Peer, _ *http.Request) (Time, error) {
		return Time{}, s.Peer.Disconnect(p.ID)
	})))
	mux.HandleFunc("POST /api/v1/peers/{name}/ban", s.handle(s.act("ban", s.ban)))
	mux.HandleFunc("POST /api/v1/peers/{name}/unban", s.handle(s.act("unban", func(p node.Peer, _ *http.Request) (Time, error) {
		return Time{}, s.Peer.Unban(p.PKIID)
	})))
}

// connect dials ?endpoint=E.
func (s *Server) connect(r *http.Request) (any, error) {
	if err := s.peersHere(); err != nil {
		return nil, err
	}
	endpoint := r.URL.Query().Get("endpoint")
	if addrs, err := wire.ParseEndpoint(endpoint); err != nil || len(addrs) == 0 {
		return nil, fault.Newf(fault.Usage, "%q is neither host:port nor a multiaddr", endpoint).From(err)
	}
	ctx, cancel := context.WithTimeout(r.Context(), dialWait)
	defer cancel()
	p, err := s.Peer.Connect(ctx, endpoint)
	if err != nil {
		return nil, explainDial(endpoint, err)
	}
	id, ok := s.Peer.Identify(p)
	if !ok {
		return nil, fault.Newf(fault.Unreachable, "the peer at %s hung up", endpoint)
	}
	return &PeerAction{
		NodeRef: NodeRef{Name: id.Name(), Org: s.org(id.MSPID()), MSPID: id.MSPID(), PeerID: p.String(), PKIID: id.PKIID().String()},
		Action:  "connect",
	}, nil
}

// act does something to the peer that the path names.
func (s *Server) act(action string, do func(node.Peer, *http.Request) (Time, error)) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		p, err := s.target(r.PathValue("name"))
		if err != nil {
			return nil, err
		}
		if p.Self {
			return nil, fault.Newf(fault.Usage, "%s is the node itself", p.Name)
		}
		end, err := do(p, r)
		if err != nil {
			return nil, err
		}
		return &PeerAction{NodeRef: s.peerOf(p).NodeRef, Action: action, Until: end}, nil
	}
}

// target finds a peer, or a banned identity that isn't known any more.
func (s *Server) target(name string) (node.Peer, error) {
	p, err := s.find(name)
	if err == nil || s.Peer == nil {
		return p, err
	}
	for _, id := range s.Peer.Banned() {
		if id.String() == name {
			return node.Peer{PKIID: id}, nil
		}
	}
	return p, err
}

// ban bans for ?for=DURATION, or until unban.
func (s *Server) ban(p node.Peer, r *http.Request) (Time, error) {
	var d time.Duration
	if text := r.URL.Query().Get("for"); text != "" {
		var err error
		if d, err = time.ParseDuration(text); err != nil || d < 0 {
			return Time{}, fault.Newf(fault.Usage, "%q is no duration", text)
		}
	}
	if err := s.Peer.Ban(p.PKIID, d); err != nil || d == 0 {
		return Time{}, err
	}
	return Time{time.Now().Add(d)}, nil
}

// explainPing says why there was no echo.
func explainPing(name string, err error) error {
	switch {
	case errors.Is(err, node.ErrNoPeer), errors.Is(err, membership.ErrUnknown):
		return fault.Newf(fault.NotFound, "%s is no member of a channel of this node", name).From(err).Do("see whom it knows: grapevine peers ls")
	case errors.Is(err, membership.ErrNobody):
		return fault.Newf(fault.Unreachable, "%s isn't connected, nor is anybody who could ask it", name).From(err)
	case errors.Is(err, membership.ErrNoAnswer):
		return fault.Newf(fault.Unreachable, "%s doesn't answer", name).From(err).Because("it took nothing, or is too slow, or the way to it is broken")
	}
	return err
}

// explainDial says why nobody could be met at an endpoint. A refused identity
// keeps its own code.
func explainDial(endpoint string, err error) *fault.Error {
	switch {
	case errors.Is(err, node.ErrHidden):
		return fault.New(fault.NoExternal, "not asked: this peer has no external endpoint, so it calls on no other organisation").From(err)
	case wire.ReasonOf(err) != nil:
		return fault.Of(err)
	}
	return fault.Newf(fault.Unreachable, "nobody can be met at %s", endpoint).Because(err.Error()).From(err).
		Do("see whether a peer listens there, and that no firewall is between")
}

package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"grapevine/cmd/grapevine/fault"
	"grapevine/election"
	"grapevine/msp"
	"grapevine/node"
)

// heirWait is how long a leader that yielded looks for who comes after it.
const heirWait = 3 * time.Second

// LeaderState is `leader show`: one peer's part in the election of its
// organisation's leader, and what it knows.
type LeaderState struct {
	Meta
	Channel        string `json:"channel"`
	Mode           string `json:"mode"`    // "dynamic", "static" or "standby"
	Role           string `json:"role"`    // "starting", "following", "candidate", "leader" or "stopped"
	Leading        bool   `json:"leading"` // by election, or always
	Pulling        bool   `json:"pulling"` // it leads, or relieves a leader that brings nothing
	Leader         string `json:"leader"`
	PeerID         string `json:"peerId"`
	Since          Time   `json:"since"`
	Term           uint64 `json:"term"` // the highest known that somebody led in
	HeartbeatAgeMs int64  `json:"heartbeatAgeMs"`
	Orderer        string `json:"orderer"`    // that the leader pulls from
	Neighbours     int    `json:"neighbours"` // connected peers of the organisation
	Reaches        bool   `json:"reaches"`    // an orderer answers this peer
	Unreachable    string `json:"unreachable"`
	BarredUntil    Time   `json:"barredUntil"` // it leads only if nobody else can
	Changes        uint64 `json:"changes"`     // leaders that came
	LeaderlessMs   int64  `json:"leaderlessMs"`
}

// LeaderHistory is `leader history`: the oldest change first.
type LeaderHistory struct {
	Meta
	Channel string         `json:"channel"`
	Items   []LeaderChange `json:"items"`
}

// LeaderChange is one change of the leader as the asked peer saw it: Leader is
// "" where there is none any more.
type LeaderChange struct {
	At     Time   `json:"at"`
	Leader string `json:"leader"`
	PKIID  string `json:"pkiId"`
	Self   bool   `json:"self"`
	Term   uint64 `json:"term"`
	Why    string `json:"why"`
}

// LeaderYield is `leader yield`: Leader is who came after, "" while nobody has.
type LeaderYield struct {
	Meta
	Channel  string `json:"channel"`
	Yielded  string `json:"yielded"`
	Leader   string `json:"leader"`
	Term     uint64 `json:"term"`
	TookMs   int64  `json:"tookMs"`
	WaitedMs int64  `json:"waitedMs"`
}

// leading serves what concerns leaders, but what changes them.
func (s *Server) leading(mux *http.ServeMux) {
	const at = "GET /api/v1/channels/{ch}/leader"
	mux.HandleFunc(at+"s", s.handle(s.onPeer(s.leaders)))
	mux.HandleFunc(at, s.handle(s.onPeer(s.leaderState)))
	mux.HandleFunc(at+"/history", s.handle(s.onPeer(s.leaderHistory)))
}

// onPeer answers on a peer's channel; an ordering node has no such thing.
func (s *Server) onPeer(f func(*http.Request, *node.Channel) (any, error)) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		c, err := s.room(r)
		if err != nil {
			return nil, err
		}
		if c.peer == nil {
			return nil, s.peersHere()
		}
		return f(r, c.peer)
	}
}

// leaders lists each organisation's, by its name.
func (s *Server) leaders(_ *http.Request, c *node.Channel) (any, error) {
	out := &ChannelLeaderList{Channel: c.Name()}
	for _, o := range c.Leads() {
		v := ChannelLeader{Org: o.Org, MSPID: o.MSPID, Mode: o.Mode}
		for _, l := range o.Leaders {
			v.Leaders = append(v.Leaders, s.leaderName(l))
		}
		if len(o.Leaders) > 0 {
			first := o.Leaders[0]
			v.Leader, v.Since, v.Term, v.Orderer = v.Leaders[0], Time{first.Since}, first.Term, first.Orderer
			if first.Peer != "" {
				v.PeerID = first.Peer.String()
			}
			if first.Mode == election.Dynamic {
				v.HeartbeatAgeMs = max(0, time.Since(first.Heard).Milliseconds())
			}
		} else if o.Mode != "unknown" {
			v.Problems = append(v.Problems, nobodyPulls(o.MSPID, c.Name()))
		}
		v.Problems = append(v.Problems, manyStatic(o)...)
		out.Items = append(out.Items, v)
	}
	slices.SortStableFunc(out.Items, func(a, b ChannelLeader) int { return byOrg(NodeRef{Org: a.Org}, NodeRef{Org: b.Org}) })
	return out, nil
}

func (s *Server) leaderName(l node.Leader) string {
	if l.Self && s.Name != "" {
		return s.Name
	}
	return l.Name
}

func nobodyPulls(mspID, channel string) Problem {
	return Problem{Code: "GOS021", Severity: "warning", Message: fmt.Sprintf("no peer of %s pulls blocks of %s", mspID, channel)}
}

// manyStatic tells that several static leaders of an organisation are seen, if
// so.
func manyStatic(o node.OrgLead) []Problem {
	n := 0
	for _, l := range o.Leaders {
		if l.Mode == election.Static {
			n++
		}
	}
	if n < 2 {
		return nil
	}
	e, _ := fault.Lookup("GOS022")
	return []Problem{{
		Code: e.Code, Severity: "warning", Fix: e.Fix[0],
		Message: fmt.Sprintf("%d static leaders of %s pull blocks: each is a stream more at the ordering service", n, o.MSPID),
	}}
}

func (s *Server) leaderState(_ *http.Request, c *node.Channel) (any, error) {
	e := c.Election()
	out := &LeaderState{
		Channel: c.Name(), Mode: e.Mode.String(), Role: e.Role, Leading: e.Leading, Pulling: e.Pulling, Term: e.Term, Neighbours: e.Neighbours,
		Reaches: e.Reaches, BarredUntil: Time{e.BarredUntil}, Changes: e.Changes, LeaderlessMs: e.Leaderless.Milliseconds(),
	}
	if e.Unreachable != nil {
		out.Unreachable = e.Unreachable.Error()
	}
	if o := c.OwnLead(); len(o.Leaders) > 0 {
		l := o.Leaders[0]
		out.Leader, out.Since, out.Orderer = s.leaderName(l), Time{l.Since}, l.Orderer
		out.HeartbeatAgeMs = max(0, time.Since(l.Heard).Milliseconds())
		if l.Peer != "" {
			out.PeerID = l.Peer.String()
		}
	}
	return out, nil
}

func (s *Server) leaderHistory(_ *http.Request, c *node.Channel) (any, error) {
	out := &LeaderHistory{Channel: c.Name()}
	for _, x := range c.LeaderHistory() {
		v := LeaderChange{At: Time{x.At}, Self: x.Self, Term: x.Term, Why: x.Why}
		if x.Leader != (msp.PKIID{}) {
			v.Leader, v.PKIID = s.leaderName(node.Leader{Self: x.Self, Name: c.MemberName(x.Leader)}), x.Leader.String()
		}
		out.Items = append(out.Items, v)
	}
	return out, nil
}

// yieldLeader hands leadership over, and looks for a while who takes it.
func (s *Server) yieldLeader(r *http.Request, c *node.Channel) (any, error) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(r.Context(), heirWait)
	defer cancel()
	changes := c.LeaderEvents(ctx)
	if err := c.YieldLeadership(ctx); err != nil {
		if !errors.Is(err, election.ErrNotLeading) {
			return nil, err
		}
		e := fault.New("GOS023", "").From(err)
		if l := c.OwnLead(); len(l.Leaders) > 0 {
			e = e.Because("its organisation's leader is " + s.leaderName(l.Leaders[0]))
		}
		return nil, e
	}
	out := &LeaderYield{Channel: c.Name(), Yielded: s.ref(s.Peer.Identity(), s.Peer.PeerID()).Name}
	for x := range changes {
		if x.Leader != (msp.PKIID{}) {
			out.Leader, out.Term = s.leaderName(node.Leader{Self: x.Self, Name: c.MemberName(x.Leader)}), x.Term
			out.TookMs = x.At.Sub(began).Milliseconds()
			break
		}
	}
	out.WaitedMs = time.Since(began).Milliseconds()
	return out, nil
}

// Leaders asks who leads each organisation of the channel.
func (r Remote) Leaders(ctx context.Context) (*ChannelLeaderList, error) {
	return get[ChannelLeaderList](ctx, r.Client, channelPath(r.Name)+"/leaders", nil)
}

// Leader asks for the node's part in the election.
func (r Remote) Leader(ctx context.Context) (*LeaderState, error) {
	return get[LeaderState](ctx, r.Client, channelPath(r.Name)+"/leader", nil)
}

// LeaderHistory asks for the changes of leader that the node has seen.
func (r Remote) LeaderHistory(ctx context.Context) (*LeaderHistory, error) {
	return get[LeaderHistory](ctx, r.Client, channelPath(r.Name)+"/leader/history", nil)
}

// Yield has the node hand leadership over.
func (r Remote) Yield(ctx context.Context) (*LeaderYield, error) {
	return send[LeaderYield](ctx, r.Client, http.MethodPost, channelPath(r.Name)+"/leader/yield", nil, nil)
}

package admin

import (
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"grapevine/channel"
	"grapevine/cmd/grapevine/fault"
	"grapevine/msp"
	"grapevine/node"
)

// soon is how long before its end a certificate is warned of.
const soon = 7 * 24 * time.Hour

// lacking is how long nobody may pull until it is a problem.
const lacking = 5 * time.Second

// Joined is `channel join`.
type Joined struct {
	Meta
	Channel string `json:"channel"`
	Already bool   `json:"already"` // it was joined before; nothing changed
}

// Left is `channel leave`.
type Left struct {
	Meta
	Channel string `json:"channel"`
	Purged  bool   `json:"purged"`
}

// Status is this node's, as it is now.
func (s *Server) Status() *Status {
	out := &Status{PID: os.Getpid(), Version: s.Build.Version, Operations: s.Operations, Role: "peer", Healthy: true}
	var id *msp.Identity
	var certificates map[string]*x509.Certificate
	if s.Peer != nil {
		id, out.Role, certificates = s.Peer.Identity(), s.Peer.Role(), s.Peer.Certificates()
		out.NodeRef = s.ref(id, s.Peer.PeerID())
		out.Listen, out.StartedAt = s.Peer.Listen(), Time{s.Peer.Started()}
		for _, c := range s.Peer.Channels() {
			out.Channels = append(out.Channels, s.peerChannel(out, c))
		}
		for _, c := range s.Peer.Clashes() {
			out.clash(c, s.Peer.PeerID())
		}
	} else {
		out.Role = "orderer"
		id, certificates = s.Orderer.Identity(), s.Orderer.Certificates()
		out.NodeRef = s.ref(id, s.Orderer.PeerID())
		out.Listen, out.StartedAt = []string{s.Orderer.Address()}, Time{s.Orderer.Started()}
		for _, c := range s.Orderer.Channels() {
			v := StatusChannel{
				Name: c.Name, Height: c.Tip.Height, TipHash: hex.EncodeToString(c.Tip.Hash[:]), IsLeader: c.Leader,
				Source: BlockSource{Kind: "none"}, Validity: ValidityNone,
			}
			if c.Leader {
				v.Leader = out.Name
			}
			out.halted(c.Name, c.Halted)
			out.Channels = append(out.Channels, v)
		}
	}
	out.UptimeSec = int64(time.Since(out.StartedAt.Time).Seconds())
	for _, use := range slices.Sorted(maps.Keys(certificates)) {
		out.certificate(use, id.Name(), certificates[use])
	}
	return out
}

func (s *Server) ref(id *msp.Identity, p peer.ID) NodeRef {
	name := s.Name
	if name == "" {
		name = id.Name()
	}
	return NodeRef{Name: name, Org: s.org(id.MSPID()), MSPID: id.MSPID(), PeerID: p.String(), PKIID: id.PKIID().String()}
}

// org is an organisation's name for people: its group's name in a channel.
func (s *Server) org(mspID string) string {
	if s.Peer != nil {
		for _, c := range s.Peer.Channels() {
			if o, ok := orgOf(c.Config(), mspID); ok {
				return o
			}
		}
	}
	return strings.ToLower(strings.TrimSuffix(mspID, "MSP"))
}

func orgOf(c *channel.Config, mspID string) (string, bool) {
	for _, o := range c.Orgs() {
		if o.MSPID == mspID {
			return o.Name, true
		}
	}
	return "", false
}

func (s *Server) peerChannel(out *Status, c *node.Channel) StatusChannel {
	v := c.Status()
	sc := StatusChannel{
		Name: v.Name, Height: v.Tip.Height, Lag: v.Lag, TipHash: hex.EncodeToString(v.Tip.Hash[:]),
		IsLeader: v.Leading, Source: BlockSource{Kind: v.SourceKind, Name: v.SourceName}, Alive: v.Alive, Suspect: v.Suspect, Dead: v.Dead,
		Progress: ProgressOf(v.Progress, v.From),
	}
	sc.Validity, sc.StateHash = (&Chain{Node: c}).validity(v.State)
	if u := v.State.Unjudged; u != nil && s.Peer.Judges() {
		out.problem("STA003", "warning", fmt.Sprintf("the transactions of %s are judged no more: %v", v.Name, u), "")
	}
	if sc.Leader = v.Leader; v.Leading {
		sc.Leader = out.Name
	}
	if v.Lacking >= lacking {
		out.problem("ORD003", "error", fmt.Sprintf("this node pulls blocks of %s, and no orderer answers it for %d s", v.Name, int(v.Lacking.Seconds())),
			"check the addresses and their TLS roots, or override them: peer.deliveryclient.addressOverrides")
	}
	if v.Leader == "" && v.Leaderless >= lacking {
		out.Problems = append(out.Problems, nobodyPulls(out.MSPID, v.Name))
	}
	out.Problems = append(out.Problems, manyStatic(c.OwnLead())...)
	out.halted(v.Name, v.Halted)
	out.damaged(c)
	out.diverged(c)
	for _, o := range c.Config().Orgs() {
		if len(o.Anchors) == 0 {
			out.problem("GOS014", "info", fmt.Sprintf("no anchor peer for %s on %s", o.MSPID, v.Name), "")
		}
	}
	return sc
}

func (s *Status) problem(code, severity, message, fix string) {
	s.Problems = append(s.Problems, Problem{Code: code, Severity: severity, Message: message, Fix: fix})
	if severity == "error" {
		s.Healthy = false
	}
}

func (s *Status) halted(name string, err error) {
	if err == nil {
		return
	}
	f := fault.Of(err)
	s.problem(f.Code, "error", "channel "+name+" has stopped: "+f.Message, strings.Join(f.Fix, "; "))
}

// clash tells of two hosts with one identity. A node that is the one which
// doesn't count is of no use.
func (s *Status) clash(c node.Clash, self peer.ID) {
	e, _ := fault.Lookup("GOS003")
	severity, what := "warning", fmt.Sprintf("two hosts show the identity of %s (%s): %s counts, %s is older", c.Name, c.MSPID, c.Newer, c.Older)
	switch {
	case c.Older == self && c.Newer == "":
		what = "a peer says that a newer host shows this node's identity"
	case c.Older == self:
		severity, what = "error", fmt.Sprintf("host %s shows this node's identity and started later: others keep to that one", c.Newer)
	case c.Newer == self:
		what = fmt.Sprintf("host %s shows this node's identity too; it is older, and others don't keep to it", c.Older)
	}
	s.problem("GOS003", severity, what, e.Fix[0])
}

func (s *Status) certificate(use, name string, c *x509.Certificate) {
	left := time.Until(c.NotAfter)
	s.Certificates = append(s.Certificates, certificateOf(use, c))
	fix := "grapevine ca issue " + name
	if use == "tls" {
		fix += " --tls"
	}
	switch {
	case left <= 0:
		s.problem("CERT004", "error", "this node's "+use+" certificate has expired", fix)
	case left < soon:
		s.problem("CERT007", "warning", fmt.Sprintf("this node's %s certificate expires in %d days", use, int(left.Hours()/24)), fix)
	}
}

func certificateOf(use string, c *x509.Certificate) Certificate {
	return Certificate{
		Use: use, Subject: c.Subject.String(), Issuer: c.Issuer.String(), NotAfter: Time{c.NotAfter}, ExpiresInSec: int64(time.Until(c.NotAfter).Seconds()),
	}
}

func (s *Server) channels(*http.Request) (any, error) {
	out := &ChannelList{}
	if s.Peer != nil {
		for _, c := range s.Peer.Channels() {
			out.Items = append(out.Items, *(&Chain{Ledger: c.Ledger()}).Item())
		}
		return out, nil
	}
	for _, c := range s.Orderer.Channels() {
		l, _, err := s.Orderer.Channel(c.Name)
		if err != nil {
			return nil, err
		}
		out.Items = append(out.Items, *(&Chain{Ledger: l}).Item())
	}
	return out, nil
}

func (s *Server) info(r *http.Request) (any, error) {
	c, err := s.room(r)
	if err != nil {
		return nil, err
	}
	out, err := c.Info(r.Context())
	if err != nil || c.peer == nil {
		return out, err
	}
	v := c.peer.Status()
	out.Lag = v.Lag
	if v.Halted != nil {
		out.Halted, out.HaltCode = true, haltCode(v.Halted)
	}
	alive := map[string]int{s.Peer.Identity().MSPID(): 1}
	for _, p := range c.peer.Connected() {
		if id, ok := s.Peer.Identify(p); ok {
			alive[id.MSPID()]++
		}
	}
	for i := range out.Orgs {
		out.Orgs[i].Alive = alive[out.Orgs[i].MSPID]
	}
	return out, nil
}

// Health answers as Fabric's /healthz does.
func (s *Server) Health(w http.ResponseWriter, _ *http.Request) {
	type check struct {
		Component string `json:"component"`
		Reason    string `json:"reason"`
	}
	var failed []check
	for _, p := range s.Status().Problems {
		if p.Severity == "error" {
			failed = append(failed, check{p.Code, p.Message})
		}
	}
	now := time.Now().UTC().Format(time.RFC3339Nano)
	if len(failed) == 0 {
		s.json(w, http.StatusOK, map[string]any{"status": "OK", "time": now})
		return
	}
	s.json(w, http.StatusServiceUnavailable, map[string]any{"status": "Service Unavailable", "time": now, "failed_checks": failed})
}

// Version answers as Fabric's /version does.
func (s *Server) Version(w http.ResponseWriter, _ *http.Request) {
	s.json(w, http.StatusOK, map[string]string{"CommitSHA": s.Build.Commit, "Version": s.Build.Version})
}

// LogLine is a line of `dev logs`.
type LogLine struct {
	Meta
	Node string `json:"node"`
	Line string `json:"line"`
}

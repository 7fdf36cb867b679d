package channel

import (
	"fmt"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/peer"

	"grapevine/wire"
)

// What a peer may send in 700 ms, the shorter heartbeat, and in one RPC.
// Each is several times what an honest peer sends at the highest load that a
// channel is meant for, a thousand small blocks a second: what is above is a
// flood, and is dropped before anything is done for it.
const (
	maxRPCs          = 8192
	maxIHaves        = maxIHaveMessages // RPCs with IHAVE: one a heartbeat, more if split by the control limit
	maxIHaveIDs      = maxIHaveLength
	maxIWants        = 32 // RPCs with IWANT: one for each IHAVE of ours
	maxIWantIDs      = maxIHaveLength
	maxIDontWants    = 1000 // RPCs with IDONTWANT: one for each large message
	maxGrafts        = 64
	maxSubscriptionN = 64 // changes of subscription
	// maxBackoff is the longest that a PRUNE may ask to be left alone for; ours
	// ask for 15 s.
	maxBackoff = 3600
	// maxMeters bounds the memory for peers without an outbound stream, whose
	// end nobody tells; then all counts start anew.
	maxMeters = 4096
)

// Reasons for which an RPC is dropped by its control part.
var (
	SubscriptionLimit = wire.NewReason("channel.subscription_limit", wire.Close)
	RateLimit         = wire.NewReason("channel.rate_limit", wire.Close)
	IHaveLimit        = wire.NewReason("channel.ihave_limit", wire.Reject)
	IWantLimit        = wire.NewReason("channel.iwant_limit", wire.Reject)
	IDontWantLimit    = wire.NewReason("channel.idontwant_limit", wire.Reject)
	UnknownTopic      = wire.NewReason("channel.unknown_topic", wire.Reject)
	GraftBackoff      = wire.NewReason("channel.graft_backoff", wire.Reject)
	BadBackoff        = wire.NewReason("channel.bad_backoff", wire.Reject)
	PXForbidden       = wire.NewReason("channel.px_forbidden", wire.Reject)
)

// limits counts what each peer sends. It belongs to GossipSub's event loop,
// which calls the inspector and the tracer; nothing else touches it.
type limits struct {
	meters map[peer.ID]*meter
}

// A meter counts one peer's sendings since start.
type meter struct {
	start                                               time.Time
	rpcs, ihaves, ihaveIDs, iwants, iwantIDs, dontWants int
	grafts, subscriptions                               int
	pruned                                              map[string]time.Time // topic (one of two) → until when a GRAFT is too early
}

func (l *limits) meter(p peer.ID, now time.Time) *meter {
	m := l.meters[p]
	if m == nil {
		if l.meters == nil || len(l.meters) >= maxMeters {
			l.meters = make(map[peer.ID]*meter)
		}
		m = &meter{start: now}
		l.meters[p] = m
	}
	if now.Sub(m.start) >= heartbeat {
		*m = meter{start: now, pruned: m.pruned}
	}
	return m
}

// check says whether an RPC may be handled. It costs a few counts for each
// element, of which GossipSub's control limit leaves at most some thousands.
// GraftBackoff alone is told of an RPC that GossipSub should handle
// nevertheless: it answers with a PRUNE and a penalty of its own.
func (l *limits) check(p peer.ID, rpc *pb.RPC, now time.Time) error {
	m := l.meter(p, now)
	if m.rpcs++; m.rpcs > maxRPCs {
		return fmt.Errorf("%d RPCs: %w", m.rpcs, RateLimit)
	}
	if n := len(rpc.GetSubscriptions()); n > 0 {
		if n > maxSubscriptions {
			return fmt.Errorf("%d subscriptions: %w", n, SubscriptionLimit)
		}
		if m.subscriptions += n; m.subscriptions > maxSubscriptionN {
			return fmt.Errorf("%d changes of subscription: %w", m.subscriptions, RateLimit)
		}
	}
	c := rpc.GetControl()
	if c == nil {
		return nil
	}
	for _, check := range []func(*pb.ControlMessage, time.Time) error{
		m.checkIHave, m.checkIWant, m.checkIDontWant, m.checkPrune, m.checkGraft,
	} {
		if err := check(c, now); err != nil {
			return err
		}
	}
	return nil
}

func (m *meter) checkIHave(c *pb.ControlMessage, _ time.Time) error {
	if len(c.GetIhave()) == 0 {
		return nil
	}
	m.ihaves++
	for _, h := range c.GetIhave() {
		if !isTopic(h.GetTopicID()) {
			return fmt.Errorf("IHAVE: %w", UnknownTopic)
		}
		m.ihaveIDs += len(h.GetMessageIDs())
	}
	if m.ihaves > maxIHaves || m.ihaveIDs > maxIHaveIDs {
		return fmt.Errorf("%d IHAVEs of %d ids: %w", m.ihaves, m.ihaveIDs, IHaveLimit)
	}
	return nil
}

func (m *meter) checkIWant(c *pb.ControlMessage, _ time.Time) error {
	if len(c.GetIwant()) == 0 {
		return nil
	}
	m.iwants++
	for _, w := range c.GetIwant() {
		m.iwantIDs += len(w.GetMessageIDs())
	}
	if m.iwants > maxIWants || m.iwantIDs > maxIWantIDs {
		return fmt.Errorf("%d IWANTs of %d ids: %w", m.iwants, m.iwantIDs, IWantLimit)
	}
	return nil
}

func (m *meter) checkIDontWant(c *pb.ControlMessage, _ time.Time) error {
	if len(c.GetIdontwant()) == 0 {
		return nil
	}
	m.dontWants++
	ids := 0
	for _, w := range c.GetIdontwant() {
		ids += len(w.GetMessageIDs())
	}
	if m.dontWants > maxIDontWants || ids > maxIDontWantLength {
		return fmt.Errorf("%d IDONTWANTs, %d ids in the last: %w", m.dontWants, ids, IDontWantLimit)
	}
	return nil
}

func (m *meter) checkPrune(c *pb.ControlMessage, now time.Time) error {
	for _, p := range c.GetPrune() {
		switch {
		case !isTopic(p.GetTopicID()):
			return fmt.Errorf("PRUNE: %w", UnknownTopic)
		case len(p.GetPeers()) > 0:
			return fmt.Errorf("PRUNE with %d peers: %w", len(p.GetPeers()), PXForbidden)
		case p.GetBackoff() > maxBackoff:
			return fmt.Errorf("PRUNE for %d s: %w", p.GetBackoff(), BadBackoff)
		}
		m.prune(p.GetTopicID(), now.Add(time.Duration(p.GetBackoff())*time.Second))
	}
	return nil
}

func (m *meter) checkGraft(c *pb.ControlMessage, now time.Time) error {
	if len(c.GetGraft()) == 0 {
		return nil
	}
	early := false
	for _, g := range c.GetGraft() {
		if !isTopic(g.GetTopicID()) {
			return fmt.Errorf("GRAFT: %w", UnknownTopic)
		}
		early = early || now.Before(m.pruned[g.GetTopicID()])
	}
	if m.grafts += len(c.GetGraft()); m.grafts > maxGrafts {
		return fmt.Errorf("%d GRAFTs: %w", m.grafts, RateLimit)
	}
	if early {
		return fmt.Errorf("GRAFT: %w", GraftBackoff)
	}
	return nil
}

// prune notes until when a GRAFT is too early.
func (m *meter) prune(topic string, until time.Time) {
	if m.pruned == nil {
		m.pruned = make(map[string]time.Time, 2)
	}
	if m.pruned[topic].Before(until) {
		m.pruned[topic] = until
	}
}

// inspect is GossipSub's inspector: it runs first, on the event loop. That it
// refuses drops the RPC.
func (m *Mesh) inspect(p peer.ID, rpc *pubsub.RPC) error {
	err := m.limits.check(p, &rpc.RPC, time.Now())
	if err == nil {
		return nil
	}
	m.refuse(p, err)
	if wire.ReasonOf(err) == GraftBackoff {
		return nil
	}
	return err
}

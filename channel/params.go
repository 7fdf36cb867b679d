package channel

import (
	"crypto/sha256"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p-pubsub/timecache"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"grapevine/wire"
)

const (
	heartbeat = 700 * time.Millisecond
	// thinBeat is the heartbeat in a group of at most thinGroup, where the mesh is
	// the second way: each computes every member's score, messages or not.
	thinBeat     = 3 * time.Second
	pruneBackoff = 15 * time.Second
	// seenTime is how long a message's id is remembered. It keeps copies from
	// being judged again; it is no protection from replays: the window is.
	seenTime = 2 * time.Minute
	// maxSubscriptions bounds those of one RPC; there are two topics.
	maxSubscriptions = 8
	// Validators: a signature takes some 0.2 ms, so 64 at once are far more
	// than the cores; 500 ms is for one that waits its turn.
	validatorTimeout     = 500 * time.Millisecond
	validatorConcurrency = 64
	// A channel of at most thinGroup members is fully connected. There a
	// publisher sends to all, and the mesh, D=3, Dlo=2, Dhi=4, serves those whom
	// that doesn't reach. It can't be thinner: with Dhi=3 now and then a member
	// finds every other's mesh full and stays out, with Dlo=3 grafts cross prunes
	// and nothing settles, with D=2 there are islands.
	thinGroup = 64
	// holdTime is how long a receiver in such a group waits before it forwards,
	// so that its mesh's IDONTWANTs come first: twice 25 ms of link.
	holdTime = 50 * time.Millisecond
	// maxHeld bounds how many messages wait so at once; below
	// validatorConcurrency, for each holds a validator.
	maxHeld = validatorConcurrency / 2
	// iDontWant is from which size a receiver tells its mesh that it has a
	// message; MaxIDontWantLength bounds such ids in one RPC.
	iDontWant          = 1 << 10
	maxIDontWantLength = 64
	maxIHaveLength     = 5000
	maxIHaveMessages   = 10
)

// Scores below which a peer loses gossip, our flood publishes, and our ear.
const (
	gossipThreshold   = -100
	publishThreshold  = -200
	graylistThreshold = -400
	expelledScore     = -1e4 // no member (any more)
	offenderScore     = -1e3 // two offences within offenceTime: on the graylist
	ownOrgScore       = 10
	standingTime      = 10 * time.Second
	outsideTime       = 2 * time.Second  // of who is no member: he may become one
	decayEvery        = 10 * time.Second // the shortest decay takes minutes
	decayToZero       = 0.01
)

// meshParams returns GossipSub's parameters for a channel of n members. They
// are the same on all its members as long as n is about right.
func meshParams(n int) pubsub.GossipSubParams {
	p := pubsub.DefaultGossipSubParams()
	switch {
	case n <= thinGroup:
		p.D, p.Dlo, p.Dhi, p.Dscore, p.Dout = 3, 2, 4, 2, 0
		p.HeartbeatInterval = thinBeat
		p.HistoryLength, p.HistoryGossip = 4, 2 // heartbeats
		p.MaxIDontWantMessages, p.IDontWantMessageTTL = 2*maxIDontWants, 2
	default:
		p.D, p.Dlo, p.Dhi, p.Dscore, p.Dout = 8, 6, 12, 5, 3
		p.HeartbeatInterval = heartbeat
		p.HistoryLength, p.HistoryGossip = 10, 5
	}
	p.Dlazy = p.D
	p.GossipFactor = 0.25
	p.PruneBackoff = pruneBackoff
	p.UnsubscribeBackoff = 3 * time.Second
	p.GraftFloodThreshold = 5 * time.Second
	p.IWantFollowupTime = 3 * time.Second
	p.DirectConnectTicks = 15
	p.MaxIHaveLength, p.MaxIHaveMessages = maxIHaveLength, maxIHaveMessages
	p.IDontWantMessageThreshold = iDontWant
	p.MaxIDontWantLength = maxIDontWantLength
	return p
}

// floodPublish says whether a publisher sends to all members at once instead of
// to its mesh: one hop, and with [Mesh.hold] about one copy. In large groups a
// publisher's link can't bear it.
func floodPublish(n int) bool { return n <= thinGroup }

// topicScore returns a topic's score parameters. P3 and P3b, which punish who
// delivers little, are off: an idle channel would punish the honest. The price
// is that a mesh peer that never forwards keeps a good score (CVE-2022-47547),
// so delivery must not depend on the mesh alone.
func topicScore() *pubsub.TopicScoreParams {
	return &pubsub.TopicScoreParams{
		SkipAtomicValidation:           true,
		TopicWeight:                    1,
		TimeInMeshWeight:               0.01,
		TimeInMeshQuantum:              time.Second,
		TimeInMeshCap:                  300,
		FirstMessageDeliveriesWeight:   1,
		FirstMessageDeliveriesDecay:    decay(10 * time.Minute),
		FirstMessageDeliveriesCap:      50,
		InvalidMessageDeliveriesWeight: -100,
		InvalidMessageDeliveriesDecay:  decay(time.Hour),
	}
}

// decay is the factor by which a counter that is to be nothing after d shrinks
// in each decayEvery.
func decay(d time.Duration) float64 {
	return pubsub.ScoreParameterDecayWithBase(d, decayEvery, decayToZero)
}

// peerScore returns the score parameters. P6 is off: one organisation is often
// one address. own gives what only we know of a peer.
func peerScore(own func(peer.ID) float64) (*pubsub.PeerScoreParams, *pubsub.PeerScoreThresholds) {
	score := &pubsub.PeerScoreParams{
		SkipAtomicValidation: true,
		Topics: map[string]*pubsub.TopicScoreParams{
			wire.TopicBlocks: topicScore(),
			wire.TopicAlive:  topicScore(),
		},
		TopicScoreCap:             100,
		AppSpecificScore:          own,
		AppSpecificWeight:         1,
		BehaviourPenaltyWeight:    -10,
		BehaviourPenaltyThreshold: 6,
		BehaviourPenaltyDecay:     decay(10 * time.Minute),
		DecayInterval:             decayEvery,
		DecayToZero:               decayToZero,
		RetainScore:               time.Hour,
		SeenMsgTTL:                seenTime,
	}
	return score, &pubsub.PeerScoreThresholds{
		GossipThreshold:             gossipThreshold,
		PublishThreshold:            publishThreshold,
		GraylistThreshold:           graylistThreshold,
		AcceptPXThreshold:           1e9,
		OpportunisticGraftThreshold: 2,
	}
}

// messageID is SHA-256 of a message's data. An id is marked as seen, and told
// to others, before the message is judged: were it made of a part, a forgery
// with that part would keep the true message out.
func messageID(m *pb.Message) string {
	sum := sha256.Sum256(m.GetData())
	return string(sum[:])
}

// options returns what GossipSub is built with.
func (m *Mesh) options() []pubsub.Option {
	score, thresholds := peerScore(m.ownScore)
	mesh := []protocol.ID{m.view.meshID()}
	opts := []pubsub.Option{
		// One protocol, and every feature on it: floodsub and the older
		// gossipsubs aren't offered and can't be talked down to.
		pubsub.WithGossipSubProtocols(mesh, func(pubsub.GossipSubFeature, protocol.ID) bool { return true }),
		pubsub.WithGossipSubParams(meshParams(m.conf.Members)),
		pubsub.WithPeerScore(score, thresholds),
		pubsub.WithPeerScoreInspect(func(all map[peer.ID]float64) { m.scores.Store(&all) }, scoresEvery),
		pubsub.WithMessageSignaturePolicy(pubsub.StrictNoSign),
		pubsub.WithNoAuthor(),
		pubsub.WithMessageIdFn(messageID),
		pubsub.WithValidateQueueSize(1024),
		pubsub.WithValidateThrottle(1024),
		pubsub.WithPeerOutboundQueueSize(256),
		pubsub.WithMaxMessageSize(wire.MaxGossip),
		pubsub.WithMaxControlMessageSize(wire.MaxControl),
		pubsub.WithFloodPublish(floodPublish(m.conf.Members)),
		pubsub.WithPeerExchange(false),
		pubsub.WithSeenMessagesTTL(seenTime),
		pubsub.WithSeenMessagesStrategy(timecache.Strategy_FirstSeen),
		// Fences behind the wall.
		pubsub.WithPeerFilter(func(p peer.ID, topic string) bool { return isTopic(topic) && m.view.admits(p) }),
		pubsub.WithSubscriptionFilter(pubsub.WrapLimitSubscriptionFilter(subscriptions{m.view}, maxSubscriptions)),
		pubsub.WithAppSpecificRpcInspector(m.inspect),
		pubsub.WithRawTracer(m.trace),
		pubsub.WithLogger(m.log),
		pubsub.WithRPCLogger(m.log),
	}
	if m.conf.Tracer != nil {
		opts = append(opts, pubsub.WithRawTracer(m.conf.Tracer))
	}
	return opts
}

// ownScore is P5: what this channel knows of p.
func (m *Mesh) ownScore(p peer.ID) float64 {
	now := time.Now()
	score := m.standing(p, now)
	if score > expelledScore && m.offences.many(p, now) {
		score += offenderScore
	}
	return score
}

// standing is what p is to this channel. It is asked for several times a second
// for each member, so it is remembered for a while; the fences ask anew.
func (m *Mesh) standing(p peer.ID, now time.Time) float64 {
	m.standings.Lock()
	defer m.standings.Unlock()
	s, ok := m.standings.of[p]
	if age := now.Sub(s.at); ok && (age < outsideTime || age < standingTime && s.score > expelledScore) {
		return s.score
	}
	s = standing{at: now}
	if !m.view.admits(p) {
		s.score = expelledScore
	} else if m.conf.Identify != nil {
		if id, ok := m.conf.Identify(p); ok && id.MSPID() == m.conf.Self.Identity().MSPID() {
			s.score = ownOrgScore
		}
	}
	if m.standings.of == nil || len(m.standings.of) >= maxVerdicts {
		m.standings.of = make(map[peer.ID]standing)
	}
	m.standings.of[p] = s
	return s.score
}

type standing struct {
	score float64
	at    time.Time
}

// isTopic says whether a channel has this topic.
func isTopic(t string) bool { return t == wire.TopicBlocks || t == wire.TopicAlive }

// subscriptions takes those of members, to the two topics.
type subscriptions struct{ view *View }

func (s subscriptions) CanSubscribe(topic string) bool { return isTopic(topic) }

func (s subscriptions) FilterIncomingSubscriptions(p peer.ID, subs []*pb.RPC_SubOpts) ([]*pb.RPC_SubOpts, error) {
	if !s.view.admits(p) {
		return nil, NotMember
	}
	return pubsub.FilterSubscriptions(subs, isTopic), nil
}

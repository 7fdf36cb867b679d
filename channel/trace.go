package channel

import (
	"maps"
	"sync"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"grapevine/wire"
)

// Reasons for which GossipSub itself drops a message.
var (
	AuthorFields = wire.NewReason("channel.author_fields", wire.Reject)
	Duplicate    = wire.NewReason("channel.duplicate", wire.Ignore)
	Overload     = wire.NewReason("channel.overload", wire.Ignore)
)

// Stats counts what a mesh did since it was made.
type Stats struct {
	Published  uint64 // own messages
	Delivered  uint64 // messages accepted, own ones too
	Duplicates uint64 // copies of messages that had come before
	Received   uint64 // bytes of messages from peers, copies included
	Heard      uint64 // messages about blocks from peers, copies included
	Dropped    uint64 // RPCs that found a peer's queue full
	// Refused counts what was refused, by reason code; copies are not in it.
	Refused map[string]uint64
	// Mesh are the peers in the mesh of the blocks' topic.
	Mesh []peer.ID
}

// trace is the mesh's RawTracer. GossipSub calls it from its event loop and its
// validators; it must not block.
type trace struct {
	mesh *Mesh

	mu    sync.Mutex
	stats Stats                           // guarded by mu, but for Mesh
	peers map[string]map[peer.ID]struct{} // topic → mesh; guarded by mu
}

var _ pubsub.RawTracer = (*trace)(nil)

// read returns the counts.
func (t *trace) read() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.stats
	s.Refused = maps.Clone(s.Refused)
	for p := range t.peers[wire.TopicBlocks] {
		s.Mesh = append(s.Mesh, p)
	}
	return s
}

// refused counts one refusal.
func (t *trace) refused(code string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stats.Refused == nil {
		t.stats.Refused = make(map[string]uint64)
	}
	t.stats.Refused[code]++
}

func (t *trace) count(f func(*Stats)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f(&t.stats)
}

func (t *trace) Graft(p peer.ID, topic string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.peers == nil {
		t.peers = make(map[string]map[peer.ID]struct{}, 2)
	}
	if t.peers[topic] == nil {
		t.peers[topic] = make(map[peer.ID]struct{})
	}
	t.peers[topic][p] = struct{}{}
}

func (t *trace) Prune(p peer.ID, topic string) {
	now := time.Now()
	if m := t.mesh.limits.meter(p, now); !now.Before(m.pruned[topic]) {
		m.prune(topic, now.Add(pruneBackoff)) // ours: a PRUNE of his was noted when it came
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.peers[topic], p)
}

func (t *trace) OnClosedOutboundStream(p peer.ID) {
	delete(t.mesh.limits.meters, p)
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, ps := range t.peers {
		delete(ps, p)
	}
}

func (t *trace) DeliverMessage(*pubsub.Message) { t.count(func(s *Stats) { s.Delivered++ }) }

func (t *trace) ValidateMessage(m *pubsub.Message) {
	t.count(func(s *Stats) {
		if m.ReceivedFrom == t.mesh.view.ID() {
			s.Published++
		} else {
			s.take(m)
		}
	})
}

// take counts a peer's message, a copy or not.
func (s *Stats) take(m *pubsub.Message) {
	s.Received += uint64(len(m.GetData()))
	if m.GetTopic() == wire.TopicBlocks {
		s.Heard++
	}
}

func (t *trace) DuplicateMessage(m *pubsub.Message) {
	if m.ReceivedFrom == t.mesh.view.ID() {
		return // published again: no peer's doing
	}
	t.count(func(s *Stats) {
		s.Duplicates++
		s.take(m)
	})
	if f := t.mesh.conf.Refused; f != nil {
		f(Duplicate)
	}
}

// RejectMessage counts what GossipSub dropped before our validators saw it; the
// rest they have counted.
func (t *trace) RejectMessage(m *pubsub.Message, reason string) {
	switch reason {
	case pubsub.RejectUnexpectedAuthInfo, pubsub.RejectUnexpectedSignature, pubsub.RejectMissingSignature,
		pubsub.RejectInvalidSignature, pubsub.RejectSelfOrigin:
		t.mesh.refuse(m.ReceivedFrom, AuthorFields)
	case pubsub.RejectValidationQueueFull, pubsub.RejectValidationThrottled:
		t.mesh.refuse(m.ReceivedFrom, Overload)
	case pubsub.RejectBlacklstedPeer, pubsub.RejectBlacklistedSource:
		t.mesh.refuse(m.ReceivedFrom, NotMember)
	}
}

func (t *trace) DropRPC(*pubsub.RPC, peer.ID) { t.count(func(s *Stats) { s.Dropped++ }) }

func (t *trace) OnNewOutboundStream(peer.ID, protocol.ID) {}
func (t *trace) Join(string)                              {}
func (t *trace) Leave(string)                             {}
func (t *trace) ThrottlePeer(peer.ID)                     {}
func (t *trace) RecvRPC(*pubsub.RPC)                      {}
func (t *trace) SendRPC(*pubsub.RPC, peer.ID)             {}
func (t *trace) UndeliverableMessage(*pubsub.Message)     {}

package channel

import (
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/peer"

	"grapevine/wire"
)

const (
	// offenceTime is for how long an offence counts. Two within it put a peer
	// on the graylist: an honest one commits none, for it judges before it
	// forwards.
	offenceTime = time.Hour
	// maxOffenders bounds the memory of offences; the longest unheard of is
	// forgotten first.
	maxOffenders = 1024
)

// verdict maps what was found out about a message to what GossipSub does with
// it. Accept delivers and forwards; Ignore drops; Reject drops and counts
// against the sender.
func verdict(err error) pubsub.ValidationResult {
	switch wire.VerdictOf(err) {
	case wire.Accept:
		return pubsub.ValidationAccept
	case wire.Reject, wire.Close, wire.Ban:
		return pubsub.ValidationReject
	}
	// Ignore; Refuse, which is for requests; and Halt: what carries the
	// orderers' signatures an honest relay may send.
	return pubsub.ValidationIgnore
}

// offends says whether the sender of what err is about misbehaved.
func offends(err error) bool { return verdict(err) == pubsub.ValidationReject }

// offences remembers who misbehaved lately. GossipSub's own counter (P4) needs
// a third invalid message to graylist a peer, and knows nothing of floods.
type offences struct {
	mu   sync.Mutex
	last *lru.Cache[peer.ID, [2]time.Time] // the last two of a peer, newest first; guarded by mu
}

func newOffences() *offences {
	c, err := lru.New[peer.ID, [2]time.Time](maxOffenders)
	if err != nil {
		panic(err) // maxOffenders is positive
	}
	return &offences{last: c}
}

func (o *offences) add(p peer.ID, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	t, _ := o.last.Peek(p)
	o.last.Add(p, [2]time.Time{now, t[0]})
}

// many says whether p committed two within offenceTime.
func (o *offences) many(p peer.ID, now time.Time) bool {
	if o.last.Len() == 0 {
		return false // it is asked often
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	t, ok := o.last.Peek(p)
	return ok && !t[1].IsZero() && now.Sub(t[1]) < offenceTime
}

package membership

import (
	"cmp"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"grapevine/msp"
)

// The view is a pure state machine: step takes what was proven or the time, and
// returns what changed. It holds for each identity a mark, the highest
// (incarnation, sequence) ever accepted of it, and what that message said.
//
// The rule of acceptance (PROMISES S7): a message counts only if its
// (incarnation, sequence) is above the mark, its incarnation and its time are
// at most skew ahead of our clock, and its time is at most expiry + skew behind
// it. So a replay, any number of times and in any order, changes nothing.
//
// A mark is kept until the identity's certificate ends. There is room for
// maxMarks; when it is full, one that is dead and so old that every message up
// to it would be stale anyway gives way, of the organisation that has most. If
// there is none, the newcomer isn't taken.
//
// Death is a time-out for now: no message accepted for expiry.
const (
	skew      = 30 * time.Second
	farFuture = 24 * time.Hour // no honest relay's clock is that wrong
	maxMarks  = 8192
)

// A State is what this peer believes of another.
type State int

// States.
const (
	Alive State = iota
	Dead
)

// String returns the state's name in lower case.
func (s State) String() string {
	if s == Dead {
		return "dead"
	}
	return "alive"
}

// Member is one identity of the channel as this peer sees it.
type Member struct {
	PKIID       msp.PKIID
	MSPID       string
	Name        string // the certificate's common name
	Peer        peer.ID
	State       State
	Self        bool
	Height      uint64   // as it claims: a hint
	TipHash     [32]byte // of block Height-1, as it claims
	Endpoint    string   // host:port that every organisation may dial; empty: none is told
	Incarnation uint64
	Sequence    uint64
	Since       time.Time // of this state
	LastSeen    time.Time // when the last message was accepted
}

// mark is what is remembered of one identity. The member part is empty for one
// that was loaded and hasn't been heard since.
type mark struct {
	incarnation, sequence uint64
	sentAt                time.Time
	notAfter              time.Time
	digest                [32]byte // of the accepted message
	heard                 bool     // since our start
	member                Member
}

// message is an alive message whose signature and identity hold.
type message struct {
	member   Member
	sentAt   time.Time
	notAfter time.Time // of the certificate
	digest   [32]byte
}

// effect is what changed.
type effect struct {
	arrived bool // a member was heard for the first time, or came back
	died    bool
	height  bool // to be passed on as a hint
	member  Member
}

// view is not safe for concurrent use.
type view struct {
	expiry time.Duration
	marks  map[msp.PKIID]*mark
	born   bool // an incarnation was accepted that isn't stored
	moved  bool // a sequence was
}

func newView(expiry time.Duration) *view {
	return &view{expiry: expiry, marks: make(map[msp.PKIID]*mark)}
}

// judge applies the rule to a message before anything costly is done with it:
// what it refuses would be refused with a valid signature too. A message that
// equals the mark in number but not in content is for accept to name.
func (v *view) judge(id msp.PKIID, incarnation, sequence uint64, sentAt time.Time, digest [32]byte, now time.Time) error {
	start := time.UnixMilli(int64(min(incarnation, 1<<53)))
	for _, t := range []time.Time{start, sentAt} {
		if t.After(now.Add(farFuture)) {
			return FarFuture
		}
		if t.After(now.Add(skew)) {
			return FromFuture
		}
	}
	if sequence == 0 { // they count from 1
		return NotNewer
	}
	if m := v.marks[id]; m != nil {
		switch c := cmp.Or(cmp.Compare(incarnation, m.incarnation), cmp.Compare(sequence, m.sequence)); {
		case c < 0, c == 0 && (digest == m.digest || !m.heard):
			return NotNewer
		}
	}
	if now.Sub(sentAt) > v.expiry+skew {
		return Stale
	}
	return nil
}

// accept takes a proven message in.
func (v *view) accept(p message, now time.Time) (effect, error) {
	id := p.member.PKIID
	if err := v.judge(id, p.member.Incarnation, p.member.Sequence, p.sentAt, p.digest, now); err != nil {
		return effect{}, err
	}
	m := v.marks[id]
	if m != nil && m.incarnation == p.member.Incarnation && m.sequence == p.member.Sequence {
		return effect{}, ClashingAlive
	}
	if m == nil {
		if len(v.marks) >= maxMarks && !v.evict(now) {
			return effect{}, Full
		}
		m = new(mark)
		v.marks[id] = m
	}
	e := effect{height: true, arrived: !m.heard || m.member.State == Dead || m.incarnation != p.member.Incarnation}
	p.member.State, p.member.LastSeen, p.member.Since = Alive, now, now
	if !e.arrived {
		p.member.Since = m.member.Since
	}
	v.born = v.born || m.incarnation != p.member.Incarnation
	v.moved = true
	*m = mark{
		incarnation: p.member.Incarnation, sequence: p.member.Sequence, sentAt: p.sentAt,
		notAfter: p.notAfter, digest: p.digest, heard: true, member: p.member,
	}
	e.member = m.member
	return e, nil
}

// tick lets time pass: the silent die, and who can never come back is forgotten.
func (v *view) tick(now time.Time) (effects []effect) {
	for id, m := range v.marks {
		if now.After(m.notAfter) {
			if m.heard && m.member.State == Alive {
				m.member.State, m.member.Since = Dead, now
				effects = append(effects, effect{died: true, member: m.member})
			}
			delete(v.marks, id)
			v.moved = true
			continue
		}
		if m.heard && m.member.State == Alive && now.Sub(m.member.LastSeen) > v.expiry {
			m.member.State, m.member.Since = Dead, now
			effects = append(effects, effect{died: true, member: m.member})
		}
	}
	slices.SortFunc(effects, func(a, b effect) int { return slices.Compare(a.member.PKIID[:], b.member.PKIID[:]) })
	return effects
}

// expel forgets that an identity is a member, but not its mark.
func (v *view) expel(id msp.PKIID) (effect, bool) {
	m := v.marks[id]
	if m == nil || !m.heard {
		return effect{}, false
	}
	was := m.member
	m.heard, m.member = false, Member{}
	was.State = Dead
	return effect{died: true, member: was}, true
}

// members returns all that were heard, by PKI-ID.
func (v *view) members() []Member {
	all := make([]Member, 0, len(v.marks))
	for _, m := range v.marks {
		if m.heard {
			all = append(all, m.member)
		}
	}
	slices.SortFunc(all, func(a, b Member) int { return slices.Compare(a.PKIID[:], b.PKIID[:]) })
	return all
}

// evict makes room for one mark.
func (v *view) evict(now time.Time) bool {
	count := make(map[string]int)
	for _, m := range v.marks {
		count[m.member.MSPID]++
	}
	var victim msp.PKIID
	var least *mark
	for id, m := range v.marks {
		if m.heard && m.member.State == Alive || now.Sub(m.sentAt) <= v.expiry+2*skew {
			continue
		}
		if least == nil || count[m.member.MSPID] > count[least.member.MSPID] ||
			count[m.member.MSPID] == count[least.member.MSPID] && m.sentAt.Before(least.sentAt) {
			victim, least = id, m
		}
	}
	if least != nil {
		delete(v.marks, victim)
	}
	return least != nil
}

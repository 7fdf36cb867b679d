package membership

import (
	"cmp"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"grapevine/msp"
	"grapevine/wire"
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
// Who of them lives is the detector's to say; a leave, signed, is taken here.
const (
	skew      = 30 * time.Second
	farFuture = 24 * time.Hour // no honest relay's clock is that wrong
	maxMarks  = 8192
)

// A State is what this peer believes of another.
type State int

// States.
const (
	Alive   State = iota
	Suspect       // it doesn't answer, and may still
	Dead
	Left // it said that it goes
)

// String returns the state's name in lower case.
func (s State) String() string {
	return [...]string{"alive", "suspect", "dead", "left"}[s]
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
	Endpoint    string   // where every organisation may dial it, see [wire.ParseEndpoint]; empty: none is told
	Internal    string   // where our own organisation may; empty: none is told, or not to us
	Role        string
	Version     string
	Lead        *wire.Lead // its part in pulling blocks; nil: it says nothing of it. Read only
	Incarnation uint64
	Sequence    uint64
	Since       time.Time     // of this state
	LastSeen    time.Time     // when the last message was accepted
	RTT         time.Duration // of its answers; 0: unknown
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
	wide, own             *said // as they came, to be passed on; nil: none of this incarnation
}

// said is a signed message for one audience, without the certificate.
type said struct {
	sequence uint64
	at       time.Time
	signed   *wire.SignedAlive
}

// message is an alive message whose signature and identity hold.
type message struct {
	member   Member
	sentAt   time.Time
	notAfter time.Time // of the certificate
	digest   [32]byte
	own      bool // for its organisation alone
	left     bool
	signed   *wire.SignedAlive
}

// effect is what changed.
type effect struct {
	arrived bool // a member was heard for the first time, or came back
	died    bool // or was expelled
	left    bool
	height  bool // to be passed on as a hint
	member  Member
}

// view is not safe for concurrent use.
type view struct {
	expiry time.Duration
	marks  map[msp.PKIID]*mark
	turns  uint64 // counts what changed in who lives and where
	born   bool   // an incarnation was accepted that isn't stored
	moved  bool   // a sequence was
}

func newView(expiry time.Duration) *view {
	return &view{expiry: expiry, marks: make(map[msp.PKIID]*mark)}
}

// judge applies the rule to a message before anything costly is done with it:
// what it refuses would be refused with a valid signature too. A message that
// equals the mark in number but not in content is for accept to name.
func (v *view) judge(id msp.PKIID, incarnation, sequence uint64, sentAt time.Time, digest [32]byte, now time.Time) error {
	if err := ahead(incarnation, sentAt, now); err != nil {
		return err
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
	if v.stale(sentAt, now) {
		return Stale
	}
	return nil
}

func (v *view) stale(sentAt, now time.Time) bool { return now.Sub(sentAt) > v.expiry+skew }

// ahead refuses what is of the future.
func ahead(incarnation uint64, sentAt, now time.Time) error {
	for _, t := range []time.Time{started(incarnation), sentAt} {
		if t.After(now.Add(farFuture)) {
			return FarFuture
		}
		if t.After(now.Add(skew)) {
			return FromFuture
		}
	}
	return nil
}

// started is when a member started that has this incarnation.
func started(incarnation uint64) time.Time { return time.UnixMilli(int64(min(incarnation, 1<<53))) }

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
	same := m.heard && m.incarnation == p.member.Incarnation
	e := effect{height: true, arrived: !p.left && (!same || m.member.State == Dead || m.member.State == Left), left: p.left}
	p.member.State, p.member.LastSeen, p.member.Since = Alive, now, now
	if p.left {
		p.member.State = Left
	} else if same && m.member.State < Dead {
		p.member.State, p.member.Since = m.member.State, m.member.Since
	}
	var wide, own *said
	if same {
		wide, own, p.member.RTT = m.wide, m.own, m.member.RTT
		if !p.own {
			p.member.Internal = m.member.Internal
		}
	}
	if s := (&said{p.member.Sequence, p.sentAt, p.signed}); p.own {
		own = s
	} else {
		wide = s
	}
	if !same || (p.member.State < Dead) != (m.member.State < Dead) || p.member.Endpoint != m.member.Endpoint {
		v.turns++
	}
	v.born = v.born || m.incarnation != p.member.Incarnation
	v.moved = true
	*m = mark{
		incarnation: p.member.Incarnation, sequence: p.member.Sequence, sentAt: p.sentAt,
		notAfter: p.notAfter, digest: p.digest, heard: true, member: p.member,
		wide: wide, own: own,
	}
	e.member = m.member
	return e, nil
}

// turn sets a member's state, as the detector found it.
func (v *view) turn(id msp.PKIID, to State, now time.Time) (Member, bool) {
	m := v.marks[id]
	if m == nil || !m.heard || m.member.State == Left {
		return Member{}, false
	}
	m.member.State, m.member.Since = to, now
	v.turns++
	return m.member, true
}

// tick lets time pass: who can never come back is forgotten.
func (v *view) tick(now time.Time) (effects []effect) {
	for id, m := range v.marks {
		if now.After(m.notAfter) {
			if m.heard {
				m.member.State, m.member.Since = Dead, now
				effects = append(effects, effect{died: true, member: m.member})
			}
			delete(v.marks, id)
			v.moved = true
			v.turns++
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
	m.heard, m.member, m.wide, m.own = false, Member{}, nil, nil
	was.State = Dead
	v.turns++
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

// told returns the messages of a mark that an organisation may have.
func (k *mark) told(mspID string) []*said {
	var out []*said
	if k.wide != nil {
		out = append(out, k.wide)
	}
	if k.own != nil && k.member.MSPID == mspID {
		out = append(out, k.own)
	}
	slices.SortFunc(out, func(a, b *said) int { return int(a.sequence) - int(b.sequence) })
	return out
}

// newest returns what was said last.
func (k *mark) newest() *said {
	if k.wide == nil || k.own != nil && k.own.sequence > k.wide.sequence {
		return k.own
	}
	return k.wide
}

// open says whether members of an organisation may know of this one.
func (k *mark) open(mspID string) bool { return k.member.Endpoint != "" || k.member.MSPID == mspID }

// evict makes room for one mark.
func (v *view) evict(now time.Time) bool {
	count := make(map[string]int)
	for _, m := range v.marks {
		count[m.member.MSPID]++
	}
	var victim msp.PKIID
	var least *mark
	for id, m := range v.marks {
		if m.heard && m.member.State < Dead || now.Sub(m.sentAt) <= v.expiry+2*skew {
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

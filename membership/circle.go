package membership

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"grapevine/msp"
)

// A Circle says whom a node dials, of the members that it isn't connected to.
// It is a pure state machine: Due takes who they are and the time. The view
// needs few connections, for members tell each other of all others; so the rest
// is made at leisure, and a network that starts as a whole first knows itself
// and then computes handshakes:
//
//   - The first few are dialled at once; then one in each pause, at random. The
//     pause is several times as long as the last handshake took: where many start
//     on too few processors, handshakes don't take what the view needs. A
//     channel of up to mostPeers is fully connected in the end, so that a body
//     is one hop from whoever needs it.
//   - Members of the own organisation come first, and some more of them than
//     mostPeers: they elect a leader, and hand on to each other what comes to one
//     of them.
//   - Of two that know of each other the one with the lower peer ID dials. The
//     other does so only when it has waited in vain, so that there is one
//     connection rather than two.
//   - Who is dead, or was known before this start and hasn't been heard since, is
//     tried for ever with growing pauses, by both sides; a few at a time also when
//     there are mostPeers, for else the halves of a large network, each with all
//     the connections it wants, would never find each other again.
//
// A Circle is not safe for concurrent use.
type Circle struct {
	self  peer.ID
	home  string // the own organisation; empty: all are alike
	seed  uint64
	again time.Duration
	next  time.Time // of a dial at leisure
	known map[peer.ID]*stranger
	alive int           // dials under way of the living
	lost  int           // and of the others
	took  time.Duration // the last handshake with one of the living
}

const (
	fewPeers   = 8  // connections that are made at once
	mostPeers  = 64 // connections up to which we dial
	homeRoom   = 32 // and those beyond, to the own organisation
	aliveDials = 3  // at once
	lostDials  = 16 // at once: many that are cut off must not keep one waiting that is back
	fullDials  = 2  // of the lost, at once, when there are mostPeers
	leisure    = 250 * time.Millisecond
	shakes     = 4 // handshakes that a pause is as long as, if that is longer
	lastPause  = 5 * time.Second
	courtesy   = 1 * time.Second  // to who has the lower peer ID, while we have few
	reserve    = 15 * time.Second // then
	shortTry   = 100 * time.Millisecond
	leastWait  = 25 * time.Millisecond
)

// A stranger is a member that isn't connected.
type stranger struct {
	since time.Time
	begun time.Time // the dial under way
	next  time.Time // it may be dialled again
	pause time.Duration
	under *int // the count of dials under way that has it; nil: none
}

// NewCircle returns the circle of a host, of the organisation home, that has met
// nobody. again is how far the pauses grow between two tries of who can't be
// reached, as long as there are few such.
func NewCircle(self peer.ID, home string, seed uint64, again time.Duration) *Circle {
	return &Circle{self: self, home: home, seed: seed, again: again, known: make(map[peer.ID]*stranger)}
}

// Due returns whom to dial now, of all members that aren't connected and can be
// dialled; connected is how many hosts are. Each that is returned MUST be
// followed by a Done. If nothing happens, Due is worth asking again after wait;
// 0: never.
func (c *Circle) Due(strangers []Member, connected int, now time.Time) (dial []Member, wait time.Duration) {
	c.forget(strangers)
	room := mostPeers - connected - c.alive - c.lost
	wanted := room > 0 || connected < mostPeers+homeRoom // of the own organisation
	lost, missed, lostMost := 0, 0, lostDials
	for _, m := range strangers {
		if !lives(m) {
			lost++
		} else if wanted && c.near(m) {
			missed++
		}
	}
	if room <= 0 {
		if lostMost = fullDials; lost+missed == 0 {
			return nil, 0 // what frees a place is worth asking again
		}
	}
	soonest := now.Add(reserve)
	// ripe says whether at has come.
	ripe := func(at time.Time) bool {
		if now.Before(at) && at.Before(soonest) {
			soonest = at
		}
		return !now.Before(at)
	}
	longest := c.again * time.Duration(1+lost/lostDials)
	few := connected+c.alive < fewPeers
	leisurely := ripe(c.next)
	var near, ours, theirs []Member
	for _, m := range strangers {
		s := c.known[m.Peer]
		if s == nil {
			s = &stranger{since: now}
			c.known[m.Peer] = s
		}
		patience := courtesy
		if lives(m) && !few && !c.near(m) {
			patience = reserve
		}
		switch {
		case s.under != nil || room <= 0 && lives(m) && (!wanted || !c.near(m)) || !ripe(s.next):
		case c.self > m.Peer && !ripe(s.since.Add(patience)):
		case !lives(m):
			if c.lost < lostMost {
				dial = append(dial, c.begin(m, &c.lost, longest, now))
				room--
			}
		case c.near(m):
			near = append(near, m)
		case c.self < m.Peer:
			ours = append(ours, m)
		default:
			theirs = append(theirs, m)
		}
	}
	for c.alive < aliveDials && (len(near) > 0 || room > 0 && len(ours)+len(theirs) > 0) {
		if connected+c.alive >= fewPeers {
			if !leisurely {
				break
			}
			leisurely = false
			pause := max(leisure, min(shakes*c.took, lastPause))
			c.next = now.Add(pause/2 + c.upTo(pause))
			ripe(c.next)
		}
		from := &near
		if len(near) == 0 {
			from = &ours
		}
		if len(*from) == 0 {
			from = &theirs
		}
		dial = append(dial, c.begin(c.take(from), &c.alive, c.again, now))
		room--
	}
	if len(strangers) > 0 {
		wait = max(soonest.Sub(now), leastWait)
	}
	return dial, wait
}

// near says whether a member is of the own organisation.
func (c *Circle) near(m Member) bool { return c.home != "" && m.MSPID == c.home }

// lives says whether a member was heard since our start, and isn't dead.
func lives(m Member) bool { return m.State != Dead && m.PKIID != msp.PKIID{} }

// Done tells that a dial has ended, well or not.
func (c *Circle) Done(p peer.ID, now time.Time) {
	if s := c.known[p]; s != nil && s.under != nil {
		if s.under == &c.alive {
			c.took = now.Sub(s.begun)
		}
		*s.under--
		s.under = nil
	}
}

func (c *Circle) begin(m Member, under *int, longest time.Duration, now time.Time) Member {
	s := c.known[m.Peer]
	s.under, s.begun = under, now
	*under++
	s.pause = min(max(2*s.pause, shortTry), longest)
	s.next = now.Add(s.pause/2 + c.upTo(s.pause))
	return m
}

// take takes one of them out, at random.
func (c *Circle) take(from *[]Member) Member {
	all := *from
	i, last := splitmix(&c.seed)%uint64(len(all)), len(all)-1
	m := all[i]
	all[i] = all[last]
	*from = all[:last]
	return m
}

func (c *Circle) upTo(d time.Duration) time.Duration {
	return time.Duration(splitmix(&c.seed) % uint64(d))
}

// forget drops who isn't a stranger any more.
func (c *Circle) forget(strangers []Member) {
	if len(c.known) == 0 {
		return
	}
	still := make(map[peer.ID]bool, len(strangers))
	for _, m := range strangers {
		still[m.Peer] = true
	}
	for p, s := range c.known {
		if !still[p] && s.under == nil {
			delete(c.known, p)
		}
	}
}

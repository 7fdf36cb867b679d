package membership

import (
	"bytes"
	"math"
	"slices"
	"time"
)

// Whom the detector pings, and when; see detector.go.

// A round is an order in which members come up for pings, by turns that go by the
// clock: members that know of the same others and whose clocks agree to a
// fraction of a period have different ones to ping at a time, so that each is
// looked at by somebody in every period, rather than now by several and now by
// none. All members with one view have one round, each without itself.
type round struct {
	ring  []*subject // by ID
	own   int64      // our place
	pairs bool       // see pair
	turns int64      // in a period
	left  int64      // the first of them that are left out
	extra bool       // while we hurry
	again int64      // places from a turn to that of the next period
	next  int64      // and to the next turn
	only  bool       // pings are for those that are hidden, and by them
	mine  bool       // we are hidden
	shift int64      // by so much before the clock
}

// A turn is one member's, at a time of the clock. If it is the other's to ping
// us it comes when that should have happened.
type turn struct {
	of  *subject // nil: nobody that we could ping
	at  int64
	his bool
}

// turn returns a turn of a period.
func (r round) turn(number, i, period int64) (t turn) {
	if r.pairs {
		return r.pair(number, i, period)
	}
	all := int64(len(r.ring))
	s := r.ring[(r.own+number%all*r.again+i*r.next)%all]
	t.at = number*period + i*(period/r.turns) - r.shift
	return r.counts(t, s)
}

// pair is a turn where all can be connected. In each period the members are paired,
// as in a tournament's schedule (the circle method), so that one ping and its
// answer show two that the other lives: who isn't pinged by the one whose turn it
// is takes that for a ping without an answer. Who pings changes each time
// that the round has gone through. Of an odd number one is left over: it pings the
// one after it.
func (r round) pair(number, i, period int64) (t turn) {
	n := int64(len(r.ring)) + 1
	odd := number % n * ((n + 1) / 2) % n // whose pair it would be itself; n even: two, or none
	other, his, left := ((number-r.own)%n+n)%n, false, false
	switch {
	case i == 0 && other != r.own:
	case i == 0 && n%2 == 0:
		other = (r.own + n/2) % n
	case i == 0:
		other, left = (r.own+1)%n, true
	case n%2 == 1 && (odd+1)%n == r.own:
		other, his, left = odd, true, true
	default:
		return t
	}
	low, high := min(r.own, other), max(r.own, other)
	if !left {
		his = (low == r.own) == ((high-low+number/n)%2 == 0)
	}
	t = turn{at: number*period + (7*low+13*high+number)%16*(period/4/16), his: his}
	if his {
		t.at += period / 4
	}
	if other > r.own {
		other-- // the ring is without us
	}
	return r.counts(t, r.ring[other])
}

// counts makes s the one whose turn it is, if it comes up.
func (r round) counts(t turn, s *subject) turn {
	if s.connected && (!r.only || s.hidden || r.mine) {
		t.of = s
	}
	return t
}

// ping looks at the connected members whose turn it is.
func (d *detector) ping(now time.Time) {
	if len(d.here) == 0 {
		return
	}
	period, clock := int64(d.period), now.UnixNano()
	from, next := min(max(d.turned, clock-period), clock), clock+period // a tick may come late for some
	d.turned = clock
	if d.rounds == nil {
		d.rounds = d.plan()
	}
	d.hasten(now)
	for _, r := range d.rounds {
		if r.extra && !now.Before(d.hurried) {
			continue
		}
		for number := from/period - 1; number*period <= next+r.shift; number++ {
			for i := r.left; i < r.turns; i++ {
				t := r.turn(number, i, period)
				switch {
				case t.of == nil || t.at <= from || t.at >= next:
				case t.at > clock:
					next = t.at
				case !t.his:
					d.look(t.of, now)
				case t.at > d.stood:
					d.expect(t.of, time.Duration(clock-t.at+period/2), now)
				}
			}
		}
	}
	d.leisure = now.Add(time.Duration(next - clock))
}

// expect looks at a member that should have pinged us and hasn't been heard for so
// long. Two such in a row say that clocks or views differ, or that much is lost; one
// that was heard says that we are well.
func (d *detector) expect(s *subject, within time.Duration, now time.Time) {
	if gap := now.Sub(s.heard); gap >= 0 && gap <= within {
		d.missed, d.health = 0, max(d.health-1, 0)
		return
	}
	if s.probe != nil || s.state != Alive {
		return // it is looked at, or was
	}
	steps := 1
	if now.Before(d.hurried) {
		steps = 0 // it is as likely our clock's fault, or the network's
	}
	if d.missed++; d.missed == missedTurns {
		d.missed, d.hurried = 0, now.Add(hurry)
	}
	d.lookAfter(s, steps, now)
}

// hasten makes us ping more if nobody has pinged us for long, for the same reasons:
// where all are connected, two turns are missed before. Our own turns go on, or
// those whose turn it is would miss their pings, and do the same.
func (d *detector) hasten(now time.Time) {
	switch slow := now.Sub(d.pinged) > slowPings*d.period/4; {
	case d.paired:
		d.pinged = now
	case slow:
		d.pinged, d.hurried = now, now.Add(hurry)
	}
}

// plan makes the rounds: one of all that every member knows of; one of our
// organisation, if others don't know all its members, in which those come up; and
// one for us alone, as if we chose at random, of what is missing to morePings in
// a period while we hurry. Another organisation's members that we don't know are
// its own to ping.
func (d *detector) plan() []round {
	rounds := make([]round, 0, 5)
	common := d.round(func(s *subject) bool { return !s.hidden }, !d.hidden) // others' rounds are without who is hidden
	ours := d.round(func(s *subject) bool { return s.org == d.org }, true)
	d.paired = common.pairs || d.hidden && ours.pairs
	least := int64(fewPings)
	if all := int64(len(common.ring)); all > 0 {
		least = max(least, (common.turns*connected(common.ring)+all/2)/all)
		rounds = common.split(rounds)
	}
	if len(ours.ring) > 0 && (d.hidden || slices.ContainsFunc(ours.ring, func(s *subject) bool { return s.hidden })) {
		ours.only, ours.mine = true, d.hidden
		rounds = ours.split(rounds)
	}
	return append(rounds, round{ring: d.here, own: int64(rank(d.here, d.self)), turns: morePings, left: least, extra: true, again: morePings, next: 1, shift: int64(d.phase)})
}

// split adds a round to rounds, as two if it is one of pairs: the pairs, and the
// turns that are more.
func (r round) split(rounds []round) []round {
	if !r.pairs {
		return append(rounds, r)
	}
	more := r
	more.pairs, more.left = false, fewPings
	r.turns = 1 + (int64(len(r.ring))+1)%2 // of an odd number one more is pinged
	if rounds = append(rounds, r); more.turns > more.left {
		rounds = append(rounds, more)
	}
	return rounds
}

// takesTurns says whether a member is there, or may be.
func (s *subject) takesTurns() bool {
	return s.connected || s.state == Alive || s.state == Suspect
}

func connected(all []*subject) (n int64) {
	for _, s := range all {
		if s.connected {
			n++
		}
	}
	return n
}

// round is one of those that live or are connected, of a kind. Where living
// members aren't connected there are as many turns more in a period as it takes
// to miss nobody more often than morePings at random would: two where nearly all
// are connected, which are two pings at most; many where few are, of which nearly
// morePings meet one that is connected.
//
// In small channels, where all are to be connected, the first turn is of pairs, if
// that is asked for: also for those who aren't connected to all now, for the
// others count on them.
func (d *detector) round(kind func(*subject) bool, pairs bool) round {
	r := round{turns: fewPings, again: 1, shift: int64(d.phase)}
	for _, s := range d.all {
		if s.takesTurns() && kind(s) {
			r.ring = append(r.ring, s)
		}
	}
	slices.SortFunc(r.ring, func(a, b *subject) int { return bytes.Compare(a.id[:], b.id[:]) })
	all := int64(len(r.ring))
	if all == 0 {
		return r
	}
	r.own, r.pairs = int64(rank(r.ring, d.self)), pairs && all < mostPeers
	if share := float64(connected(r.ring)) / float64(all); share > 0 && share < 1 {
		r.turns = max(r.turns, min(all, int64(math.Ceil(-morePings/math.Log1p(-share)))))
	}
	r.next = int64(float64(all) / math.Phi) // the turns of a period lie far apart
	for r.next < all && gcd(int(r.next), int(all)) != 1 {
		r.next++
	}
	return r
}

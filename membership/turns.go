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
// pinged by somebody in every period, rather than now by several and now by
// none. All members with one view have one round, each without itself.
type round struct {
	ring  []*subject // by ID
	own   int64      // our place
	turns int64      // in a period
	left  int64      // the first of them that are left out
	again int64      // places from a turn to that of the next period
	next  int64      // and to the next turn
	only  bool       // of the ring only those that are hidden come up
}

// of returns whose turn it is; nil: nobody's that we could ping.
func (r round) of(period, turn int64) *subject {
	all := int64(len(r.ring))
	s := r.ring[(r.own+period%all*r.again+turn*r.next)%all]
	if !s.connected || r.only && !s.hidden {
		return nil
	}
	return s
}

// ping looks at the connected members whose turn it is.
func (d *detector) ping(now time.Time) {
	if len(d.here) == 0 {
		return
	}
	d.hasten(now)
	period, clock := int64(d.period), now.Add(d.phase).UnixNano()
	from, next := min(max(d.turned, clock-period), clock), clock+period // a tick may come late for some
	d.turned = clock
	if d.rounds == nil {
		d.rounds = d.plan()
	}
	for _, r := range d.rounds {
		if r.left > 0 && !now.Before(d.hurried) {
			continue
		}
		for p := from / period; p*period <= next; p++ {
			for turn := r.left; turn < r.turns; turn++ {
				at := p*period + turn*(period/r.turns)
				if at <= from || at >= next {
					continue
				}
				s := r.of(p, turn)
				switch {
				case s == nil:
				case at > clock:
					next = at
				case s.probe == nil:
					d.look(s, now)
				}
			}
		}
	}
	d.leisure = now.Add(time.Duration(next - clock))
}

// hasten makes us ping more if nobody has pinged us for long, which says that
// clocks or views differ, or that much is lost. Our own turns go on, or those
// whose turn it is would miss their pings, and do the same.
func (d *detector) hasten(now time.Time) {
	slow := slowPings * d.period / 4
	if d.apart > 0 {
		slow *= 2
	}
	if now.Sub(d.pinged) > slow {
		d.pinged, d.hurried = now, now.Add(hurry)
	}
}

// plan makes the rounds: one of all that every member knows of; one of our
// organisation, if others don't know all its members, in which those come up; and
// one for us alone, as if we chose at random, of what is missing to morePings in
// a period while we hurry. Another organisation's members that we don't know are
// its own to ping.
func (d *detector) plan() []round {
	common := d.round(func(s *subject) bool { return !s.hidden })
	rounds := make([]round, 0, 3)
	if len(common.ring) > 0 {
		rounds = append(rounds, common)
	}
	ours := d.round(func(s *subject) bool { return s.org == d.org })
	if slices.ContainsFunc(ours.ring, func(s *subject) bool { return s.hidden }) {
		ours.only = true
		rounds = append(rounds, ours)
	}
	least := int64(fewPings)
	if all := len(common.ring); all > 0 {
		least = max(least, (common.turns*int64(connected(common.ring))+int64(all)/2)/int64(all))
	}
	return append(rounds, round{ring: d.here, own: int64(rank(d.here, d.self)), turns: morePings, left: least, again: morePings, next: 1})
}

// takesTurns says whether a member is there, or may be.
func (s *subject) takesTurns() bool {
	return s.connected || s.state == Alive || s.state == Suspect
}

func connected(all []*subject) (n int) {
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
func (d *detector) round(kind func(*subject) bool) round {
	r := round{turns: fewPings, again: 1}
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
	r.own = int64(rank(r.ring, d.self))
	if share := float64(connected(r.ring)) / float64(all); share > 0 && share < 1 {
		r.turns = max(r.turns, min(all, int64(math.Ceil(-morePings/math.Log1p(-share)))))
	}
	r.next = int64(float64(all) / math.Phi) // the turns of a period lie far apart
	for r.next < all && gcd(int(r.next), int(all)) != 1 {
		r.next++
	}
	return r
}

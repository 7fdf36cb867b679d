package membership

import (
	"bytes"
	"math"
	"slices"
	"time"

	"grapevine/msp"
)

// How the detector looks at one member, and concludes; see detector.go.

// ping looks at the connected members whose turn it is. The turns go by the
// clock: members that know of the same others and whose clocks agree to a
// fraction of a period have different ones to ping at a time, so that each is
// pinged by somebody in every period, rather than now by several and now by
// none. Where living members aren't connected there are as many turns more in a
// period as it takes to miss nobody more often than morePings at random would:
// two where nearly all are connected, which are two pings at most; many where few
// are, of which nearly morePings meet one that is connected.
//
// Others come out as if they chose at random, and need morePings: where one is
// connected that only its organisation knows, and where nobody has pinged us for
// long, which says that clocks or views differ, or that much is lost.
func (d *detector) ping(now time.Time) {
	if len(d.here) == 0 {
		return
	}
	ring := d.round()
	slow := slowPings * d.period / 4
	if d.apart > 0 {
		slow *= 2
	}
	if now.Sub(d.pinged) > slow {
		d.pinged, d.hurried = now, now.Add(hurry)
	}
	period, turns := int64(d.period), int64(fewPings)
	all, again, next := int64(len(ring)), int64(1), d.stride
	switch {
	case now.Before(d.hurried) || slices.ContainsFunc(d.here, func(s *subject) bool { return s.hidden }):
		turns, ring = morePings, d.here
		all, again, next = int64(len(ring)), morePings, 1
	case d.apart > 0:
		turns = max(turns, min(all, int64(math.Ceil(-morePings/math.Log1p(-float64(len(d.here))/float64(all))))))
	}
	each, own := period/turns, int64(rank(ring, d.self))
	begin := func(turn int64) int64 { return turn/turns*period + turn%turns*each }
	whose := func(turn int64) *subject { return ring[(own+turn/turns%all*again+turn%turns*next)%all] }
	clock := now.Add(d.phase).UnixNano()
	turn := clock/period*turns + min(clock%period/each, turns-1)
	if d.turned == 0 {
		d.turned = begin(turn) - 1
	}
	for t := turn - turns + 1; t <= turn; t++ { // a tick may come late for some
		if s := whose(t); begin(t) > d.turned && s.connected && s.probe == nil {
			d.look(s, now)
		}
	}
	d.turned = begin(turn)
	d.leisure = now.Add(d.period)
	for t := turn + 1; t <= turn+turns; t++ {
		if whose(t).connected {
			d.leisure = now.Add(time.Duration(min(period, begin(t)-clock)))
			break
		}
	}
}

// round returns who takes turns: all others that live or are connected, by ID,
// but those that other organisations don't know. Members with one view have one
// round, each without itself.
func (d *detector) round() []*subject {
	if d.ring != nil {
		return d.ring
	}
	d.ring = make([]*subject, 0, len(d.here)+d.apart)
	for _, s := range d.all {
		if !s.hidden && (s.connected || s.state == Alive || s.state == Suspect) {
			d.ring = append(d.ring, s)
		}
	}
	slices.SortFunc(d.ring, func(a, b *subject) int { return bytes.Compare(a.id[:], b.id[:]) })
	all := len(d.ring)
	d.stride = int64(float64(all) / math.Phi) // the turns of a period lie far apart
	for d.stride < int64(all) && gcd(int(d.stride), all) != 1 {
		d.stride++
	}
	return d.ring
}

// look begins a probe of s.
func (d *detector) look(s *subject, now time.Time) { d.lookAfter(s, 0, now) }

// lookAfter does so as if some steps had passed without an answer.
func (d *detector) lookAfter(s *subject, steps int, now time.Time) {
	if s.probe != nil {
		return
	}
	d.nonce++
	s.probe = &probe{nonce: d.nonce, steps: steps}
	s.asked, s.askedAt = d.nonce, now
	d.looking = append(d.looking, s)
	d.probes[d.nonce] = s
	d.advance(s, now)
}

// rest ends a probe.
func (d *detector) rest(s *subject) {
	if p := s.probe; p != nil {
		if p.steps == 1 {
			d.health = max(d.health-1, 0)
		}
		s.probe = nil
		delete(d.probes, p.nonce)
		i := slices.Index(d.looking, s)
		d.looking = slices.Delete(d.looking, i, i+1)
		d.wind() // what it would have waited for isn't due any more
	}
}

// advance takes a probe's next step.
func (d *detector) advance(s *subject, now time.Time) {
	p := s.probe
	if len(p.asked) > 0 && p.echoes == 0 && !p.blamed && d.living > 2 {
		p.blamed = true
		d.health = min(d.health+1, maxHealth)
	}
	due := d.timeout(len(s.accusers))
	if !s.connected {
		due += due / 8 // a refutation takes longer than an answer
	}
	if s.state == Suspect && now.Sub(s.suspected) >= due {
		d.rest(s)
		d.become(s, Dead)
		d.tell(s, lastTellings)
		return
	}
	if p.steps >= patience+d.lossy() && s.state == Alive {
		d.suspect(s, now)
	}
	if s.state == Dead && p.steps >= 3 { // it connected, and says nothing
		d.rest(s)
		return
	}
	p.steps++
	p.next = now.Add(d.wait(s))
	d.wake(p.next)
	if s.connected {
		w := say{ping: p.nonce}
		if s.state == Suspect {
			w.accused = []accusation{{s.id, s.number}}
		}
		d.send(s.id, w)
		if p.steps == 1 {
			return
		}
	}
	for _, h := range d.pick(d.crowd(), s) {
		if p.asked == nil {
			p.asked = make(map[msp.PKIID]bool)
		}
		p.asked[h.id] = true
		d.send(h.id, say{ping: p.nonce, target: &s.id})
	}
}

// crowd is how many helpers a step asks: so many that a few are connected to the
// subject, as can be expected, and fewer where there is much to look at.
func (d *detector) crowd() int {
	n := min(mostHelpers, helpers*max(1, d.living/(len(d.here)+1)))
	return max(helpers, n*mostLooks/max(mostLooks, len(d.looking)))
}

// knowers counts the living others that may know of s, s included.
func (d *detector) knowers(s *subject) int {
	if !s.hidden {
		return d.living
	}
	n := 0
	for _, o := range d.all {
		if o.org == s.org && (o.state == Alive || o.state == Suspect) {
			n++
		}
	}
	return n
}

// suspect makes s suspect and tells others.
func (d *detector) suspect(s *subject, now time.Time) {
	d.become(s, Suspect)
	s.suspected = now
	n := tellings
	if s.connected && d.apart > 0 {
		n = len(d.here)
	} else if len(s.accusers) == 0 {
		n = firstTellings
	}
	d.tell(s, n)
}

// tell accuses s to n others.
func (d *detector) tell(s *subject, n int) {
	for _, h := range d.pick(n, s) {
		d.send(h.id, say{accused: []accusation{{s.id, s.number}}})
	}
}

// timeout is how long s stays suspect: Lifeguard's formula.
func (d *detector) timeout(accusers int) time.Duration {
	least := float64(d.suspicion) / 3 * (0.8 + 0.04*math.Log2(float64(d.living+1)))
	k := min(confirmations, d.living-2)
	t := least
	if k > 0 {
		most := 3 * least
		t = max(least, most-(most-least)*math.Log(float64(accusers+1))/math.Log(float64(k+1)))
	}
	return time.Duration(t) * time.Duration(1+d.health)
}

// wait is how long one step waits for an answer.
func (d *detector) wait(s *subject) time.Duration {
	return (max(d.shortest, 3*max(s.rtt, d.rtt)) + d.period/20) * time.Duration(1+d.health)
}

// lossy is 1 if answers take so long that words must often be lost, 2 if very
// often.
func (d *detector) lossy() int {
	switch {
	case d.rtt > d.period/4:
		return 2
	case d.rtt > d.period/6:
		return 1
	}
	return 0
}

func (d *detector) measure(s *subject, rtt time.Duration) {
	counts := min(rtt, d.period/2)
	if s.rtt == 0 {
		s.rtt = counts
	}
	s.rtt += (counts - s.rtt) / 8
	d.rtt += (counts - d.rtt) / 16
	d.out = append(d.out, action{id: s.id, rtt: rtt})
}

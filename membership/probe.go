package membership

import (
	"math"
	"slices"
	"time"

	"grapevine/msp"
)

// How the detector looks at one member, and concludes; see detector.go.

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
	weight := time.Duration(16)
	if d.paired {
		weight = 8 // of two only one measures
	}
	d.rtt += (counts - d.rtt) / weight
	d.out = append(d.out, action{id: s.id, rtt: rtt})
}

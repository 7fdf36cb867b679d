package membership

import (
	"time"

	"grapevine/msp"
)

// What the detector makes of a word, and what a member may make it do.

func (d *detector) hear(from msp.PKIID, s *subject, w say, now time.Time) {
	if s != nil && s.connected {
		if w.ack != 0 && w.ack == s.asked { // from its first ping, so that losses lengthen the wait; the probe may have ended with another word
			s.asked = 0
			d.measure(s, now.Sub(s.askedAt))
		}
		d.sign(s, now)
	}
	if w.ping != 0 && w.target == nil {
		d.pinged = now
		d.send(from, say{ack: w.ping})
	} else if w.ping != 0 {
		d.send(from, say{nack: w.ping})
		d.errand(from, w, now)
	}
	if w.ack != 0 {
		if e, ok := d.errands[w.ack]; ok {
			delete(d.errands, w.ack)
			d.send(e.asker, say{ack: e.nonce})
		}
	}
	if x := d.probes[w.nack]; x != nil && x.probe.asked[from] {
		x.probe.echoes++
	}
	if x := d.probes[w.ack]; x != nil && x.probe.asked[from] {
		d.sign(x, now)
	}
	for _, a := range w.accused {
		if a.id == d.self {
			d.defend(from, a, w.ping != 0, now)
		} else {
			d.accused(from, a, now)
		}
	}
}

// defend refutes an accusation of ourselves, unless our answer to the accuser's
// ping will do: that is, when others talk of it, or two accuse.
func (d *detector) defend(from msp.PKIID, a accusation, pinged bool, now time.Time) {
	if a.number.less(d.number) {
		return
	}
	if now.Sub(d.firstAccused) > together {
		d.firstAccused, d.accuser = now, from
	}
	q := d.quota(from, now)
	if pinged && d.accuser == from || q.refuted || now.Sub(d.refuted) < refutePause {
		return
	}
	q.refuted = true
	d.refuted = now
	d.out = append(d.out, action{refute: true})
}

// errand pings somebody for another, who may know of him.
func (d *detector) errand(from msp.PKIID, w say, now time.Time) {
	t, asker := d.all[*w.target], d.all[from]
	if t == nil || !t.connected || len(d.errands) >= maxErrands || t.hidden && (asker == nil || asker.org != t.org) {
		return
	}
	d.nonce++
	d.errands[d.nonce] = errand{from, w.ping, now.Add(errandTime)}
	d.send(t.id, say{ping: d.nonce})
}

func (d *detector) accused(from msp.PKIID, a accusation, now time.Time) {
	s := d.all[a.id]
	if s == nil || s.state == Dead || s.state == Left || from == a.id || a.number.less(s.number) {
		return
	}
	if s.accusers == nil || s.probe == nil && now.Sub(s.accused) > fade {
		s.accusers = make(map[msp.PKIID]bool)
		s.accused = now
	}
	if len(s.accusers) < confirmations {
		s.accusers[from] = true
	}
	q := d.quota(from, now)
	if s.state == Suspect || s.probe != nil || q.looks > maxLooks+d.living/4 {
		return
	}
	q.looks++
	if s.connected {
		d.lookAfter(s, 1, now)
	} else if len(s.accusers) >= min(enough+d.lossy(), d.knowers(s)-2) {
		d.look(s, now)
		d.suspect(s, now)
	}
}

// quota is what a member may still make us do.
func (d *detector) quota(of msp.PKIID, now time.Time) *quota {
	q := d.quotas[of]
	if q == nil {
		q = new(quota)
		d.quotas[of] = q
	}
	if now.Sub(q.since) > quotaTime {
		*q = quota{since: now}
	}
	return q
}

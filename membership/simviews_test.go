package membership

import (
	"slices"
	"time"
)

// The exchange of views, as exchange.go does it: beside pings and answers goes a
// digest of who lives. Where two differ, one sends what it has heard and whom it
// believes dead, and the other what is newer, and whom of those it believes dead.

// A simTalk is what a peer keeps of another for it; see talk.
type simTalk struct {
	at, pause int // of the last comparison, and until the next; milliseconds
	digest    uint64
}

// A simView is what a peer has heard of each, when it asks another for what it
// lacks.
type simView struct{ told []number }

const simMillis = int(time.Millisecond)

// bury notes whether p believes a member dead.
func (p *simPeer) bury(i int, dead bool) {
	if p.dead[i] != dead {
		p.dead[i] = dead
		seed := uint64(i)
		p.digest ^= splitmix(&seed) << 1
	}
}

// digested takes in the digest of another's view.
func (s *simulator) digested(p *simPeer, from int, digest uint64) {
	t := p.talks[from]
	if t == nil {
		t = &simTalk{at: p.asked}
		p.talks[from] = t
	}
	if digest != t.digest {
		t.pause, t.digest = int(compareFirst)/simMillis, digest
	}
	if digest != p.digest && s.clock-t.at >= t.pause && s.clock-p.asked >= int(comparePause)/simMillis {
		p.asked = s.clock
		s.compare(p, from, t)
	}
}

// compare asks another for what p lacks.
func (s *simulator) compare(p *simPeer, to int, t *simTalk) {
	t.at, t.pause = s.clock, min(2*t.pause, int(compareLast)/simMillis)
	s.words++
	s.send(simEvent{from: p.i, to: to, about: to, say: say{accused: p.buried(nil)}, view: &simView{slices.Clone(p.told)}})
}

// buried lists whom p believes dead; with a view, only those of whom that says
// nothing newer.
func (p *simPeer) buried(v *simView) (out []accusation) {
	for i, dead := range p.dead {
		n := p.told[i]
		if v != nil {
			if n.less(v.told[i]) {
				continue
			}
			n = v.told[i]
		}
		if dead && len(out) < maxAccused {
			out = append(out, accusation{simID(i), n})
		}
	}
	return out
}

// answer tells another what its view lacks.
func (s *simulator) answer(p *simPeer, to int, v *simView) {
	p.told[p.i], v.told[to] = p.d.number, number{1 << 62, 0} // itself it knows best
	lacks := false
	for i, n := range v.told {
		switch {
		case !p.dead[i] && n.less(p.told[i]):
			s.send(simEvent{from: p.i, to: to, about: i, alive: p.told[i]})
		case i != to && p.told[i].less(n):
			lacks = true
		}
	}
	if dead := p.buried(v); len(dead) > 0 {
		s.words++
		s.send(simEvent{from: p.i, to: to, about: to, say: say{accused: dead}})
	}
	if t := p.talks[to]; lacks && (t == nil || s.clock-t.at >= t.pause) {
		if t == nil {
			t = new(simTalk)
			p.talks[to] = t
		}
		s.compare(p, to, t)
	}
}

package membership

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"grapevine/msp"
)

// A simulator runs many detectors in virtual time, in steps of a millisecond.
//
// Its links behave as TCP and QUIC do when packets are lost, acknowledgements
// too: a lost packet comes after a retransmission time-out of 200 ms, or 400,
// 800 and so on if its copies are lost as well; or, where something said later
// arrives and is acknowledged, a round trip after that. It holds up what was
// said after it. With datagrams set a lost word is lost for good, which no link
// of ours does: a harder reading of loss.
//
// Connections are there from the start, and hang when a peer crashes as if its
// power had failed. Signed alive messages flood a mesh of some of the
// connections. Those of the slow beat are left out, for they could only help:
// each is one more sign of life. So is the search for who is silent for long.
// Views are exchanged as exchange.go does it, see simviews_test.go.
type simulator struct {
	rng       *rand.Rand
	loss      float64
	datagrams bool
	cut       func(from, to int) bool // may be nil

	clock int // milliseconds since the start
	began time.Time
	now   time.Time
	soon  [][]simEvent // by clock, modulo
	late  map[int][]simEvent
	peers []*simPeer

	falseDeaths int // turns to dead of a peer that runs and isn't cut off
	suspicions  int
	refutations int
	words       int
	checks      int // signatures
	watched     *simPeer
	died        map[int]time.Duration      // from the watched one's crash to when each other believed it, at last
	seen        func(p *simPeer, a action) // may be nil
}

type simPeer struct {
	i     int
	d     *detector
	gone  bool
	end   int // when it went
	here  []int
	mesh  []int
	told  []number      // by member: the newest that was heard, as the detector knows
	out   []*simLink    // by receiver
	skew  time.Duration // of its clock
	tick  int           // when its detector ticks next
	heard int           // when anybody heard it, last

	dead   []bool // by member: it believes so
	digest uint64 // of who lives
	asked  int    // when it compared views last
	talks  map[int]*simTalk

	circle *Circle // nil: connections are for ever
	look   int     // when it is asked next
}

// A simLink carries words one way, in order.
type simLink struct{ queue []simEvent }

type simEvent struct {
	at       int // when its packet arrives
	to, from int
	tick     bool   // to's detector ticks, and nothing else
	then     func() // if set, this alone
	say      say
	digest   uint64   // of from's view, beside a ping or an answer
	view     *simView // beside say, when views are compared
	alive    number   // of about, if about isn't to
	about    int
}

const (
	simSoon  = 1 << 12
	simMesh  = 4 // connections of the mesh that each chooses, and as many choose it
	simLeast = 5 // milliseconds that a word takes
	simMost  = 45
	simRetry = 200
	simSkew  = 100 * time.Millisecond
)

func simID(i int) (id msp.PKIID) {
	binary.BigEndian.PutUint64(id[:], uint64(i+1))
	return id
}

func simIndex(id msp.PKIID) int { return int(binary.BigEndian.Uint64(id[:])) - 1 }

// newSimulator makes n peers that know each other, each connected to all, or to
// degree others at least, as nodes are that dial until they have so many.
func newSimulator(seed uint64, n, degree int) *simulator {
	s := &simulator{
		rng: rand.New(rand.NewPCG(seed, 1)), began: bubbleEpoch, now: bubbleEpoch,
		soon: make([][]simEvent, simSoon), late: make(map[int][]simEvent),
	}
	for i := range n {
		p := &simPeer{
			i: i, d: newDetector(simID(i), "", time.Second, 3*time.Second, seed*1_000_003+uint64(i)),
			out:  make([]*simLink, n),
			told: make([]number, n),
			dead: make([]bool, n), digest: 1, talks: make(map[int]*simTalk), asked: math.MinInt32,
			skew: time.Duration(s.rng.Int64N(int64(simSkew))),
		}
		s.peers = append(s.peers, p)
		p.d.listened = s.now.Add(math.MaxInt64)
		s.push(simEvent{to: i, at: s.rng.IntN(100), tick: true})
		p.d.step(event{kind: themselves, number: number{1, 1}}, s.now)
		for j := range n {
			if j != i {
				p.told[j] = number{1, 1}
				p.d.step(event{kind: learn, id: simID(j), number: p.told[j]}, s.now)
			}
		}
	}
	for i, p := range s.peers {
		if n-1 <= degree {
			for j := range i {
				s.connect(i, j)
			}
			continue
		}
		for len(p.here) < degree {
			if j := s.rng.IntN(n); j != i && !slices.Contains(p.here, j) {
				s.connect(i, j)
			}
		}
	}
	for i, p := range s.peers {
		for range simMesh {
			j := p.here[s.rng.IntN(len(p.here))]
			if q := s.peers[j]; !slices.Contains(p.mesh, j) {
				p.mesh, q.mesh = append(p.mesh, j), append(q.mesh, i)
			}
		}
	}
	return s
}

func (s *simulator) connect(i, j int) {
	for _, e := range [][2]int{{i, j}, {j, i}} {
		p := s.peers[e[0]]
		p.here = append(p.here, e[1])
		s.step(p, event{kind: meet, id: simID(e[1])})
	}
}

// push lets something happen at e.at, at the earliest in the next step.
func (s *simulator) push(e simEvent) {
	if e.at = max(e.at, s.clock+1); e.at < s.clock+simSoon {
		s.soon[e.at%simSoon] = append(s.soon[e.at%simSoon], e)
	} else {
		s.late[e.at] = append(s.late[e.at], e)
	}
}

// run lets time pass.
func (s *simulator) run(d time.Duration) {
	for end := s.clock + int(d.Milliseconds()); s.clock < end; {
		s.clock++
		s.now = s.now.Add(time.Millisecond)
		due := s.soon[s.clock%simSoon]
		for _, e := range due {
			s.happen(e)
		}
		clear(due)
		s.soon[s.clock%simSoon] = due[:0]
		if len(s.late) > 0 {
			for _, e := range s.late[s.clock] {
				s.happen(e)
			}
			delete(s.late, s.clock)
		}
	}
}

// happen lets a packet arrive, and with it what waited for it.
func (s *simulator) happen(e simEvent) {
	if e.then != nil {
		e.then()
		return
	}
	if e.tick {
		p := s.peers[e.to]
		if p.tick > s.clock {
			return // another came before it
		}
		if p.tick = math.MaxInt; p.gone {
			return
		}
		s.step(p, event{kind: tick})
		if p.circle != nil {
			s.dial(p)
		}
		return
	}
	if s.datagrams {
		s.arrive(e)
		return
	}
	l := s.peers[e.from].out[e.to]
	n := 0
	for n < len(l.queue) && l.queue[n].at <= s.clock {
		s.arrive(l.queue[n])
		n++
	}
	if n > 0 {
		l.queue = slices.Delete(l.queue, 0, n)
	}
}

func (s *simulator) arrive(e simEvent) {
	p, from := s.peers[e.to], s.peers[e.from]
	if p.gone || from.gone && e.at > from.end+simMost {
		return // the dead retransmit nothing
	}
	from.heard = s.clock
	if e.about != e.to {
		s.hear(p, e.about, e.alive, e.from)
		return
	}
	s.step(p, event{kind: spoken, id: simID(e.from), say: e.say})
	if e.view != nil {
		s.answer(p, e.from, e.view)
	}
	if e.digest != 0 {
		s.digested(p, e.from, e.digest)
	}
}

// refute tells p's next round, directly to all, and each passes it on.
func (s *simulator) refute(p *simPeer) {
	n := number{p.d.number.incarnation, p.d.number.round + 1}
	p.d.step(event{kind: themselves, number: n}, s.now)
	for _, j := range p.here {
		s.send(simEvent{from: p.i, to: j, about: p.i, alive: n})
	}
}

// hear takes in an alive message, and passes it on if it's news.
func (s *simulator) hear(p *simPeer, about int, n number, from int) {
	if about == p.i || !p.told[about].less(n) {
		return
	}
	p.told[about] = n
	s.checks++
	s.step(p, event{kind: learn, id: simID(about), number: n})
	for _, j := range p.mesh {
		if j != from {
			s.send(simEvent{from: p.i, to: j, about: about, alive: n})
		}
	}
}

// step hands a detector an event, by its own clock.
func (s *simulator) step(p *simPeer, e event) {
	s.act(p, p.d.step(e, s.now.Add(p.skew)))
	if p.d.alarm.IsZero() {
		return
	}
	if due := int((p.d.alarm.Sub(s.began) - p.skew + time.Millisecond - 1) / time.Millisecond); due < p.tick {
		p.tick = max(due, s.clock+1)
		s.push(simEvent{to: p.i, at: p.tick, tick: true})
	}
}

func (s *simulator) act(p *simPeer, actions []action) {
	for _, a := range actions {
		switch {
		case a.send:
			s.words++
			to := simIndex(a.to)
			s.send(simEvent{from: p.i, to: to, about: to, say: a.say})
		case a.refute:
			s.refutations++
			s.refute(p)
		case a.turned && a.state == Suspect:
			s.suspicions++
		case a.turned && a.state == Alive:
			p.bury(simIndex(a.id), false)
			if s.peers[simIndex(a.id)] == s.watched {
				delete(s.died, p.i) // a word of it was still on its way
			}
		case a.turned && a.state == Dead:
			q := s.peers[simIndex(a.id)]
			p.bury(q.i, true)
			if !q.gone && (s.cut == nil || !s.cut(q.i, p.i)) {
				s.falseDeaths++
			}
			if q == s.watched {
				s.died[p.i] = time.Duration(s.clock-q.end) * time.Millisecond
			}
		}
		if s.seen != nil {
			s.seen(p, a)
		}
	}
}

// send puts something on a link.
func (s *simulator) send(e simEvent) {
	if s.cut != nil && s.cut(e.from, e.to) {
		return
	}
	if e.say.ping != 0 || e.say.ack != 0 {
		e.digest = s.peers[e.from].digest
	}
	took := s.travel()
	e.at = s.clock + took + s.retries()
	if s.datagrams {
		if e.at == s.clock+took {
			s.push(e)
		}
		return
	}
	p := s.peers[e.from]
	l := p.out[e.to]
	if l == nil {
		l = new(simLink)
		p.out[e.to] = l
	}
	if e.at == s.clock+took && s.rng.Float64() >= s.loss { // it arrives and is acknowledged
		for i := range l.queue {
			if again := e.at + s.travel() + s.travel() + s.retries(); again < l.queue[i].at {
				l.queue[i].at = again
				s.push(l.queue[i])
			}
		}
	}
	l.queue = append(l.queue, e)
	s.push(e)
}

// travel is how long a packet takes that isn't lost.
func (s *simulator) travel() int { return simLeast + s.rng.IntN(simMost-simLeast) }

// retries is how long it takes until a copy isn't lost.
func (s *simulator) retries() (ms int) {
	for again := simRetry; s.loss > 0 && s.rng.Float64() < s.loss; again *= 2 {
		ms += again
	}
	return ms
}

// crash ends a peer without a word, and watches who notices.
func (s *simulator) crash(i int) {
	s.watched = s.peers[i]
	s.watched.gone, s.watched.end = true, s.clock
	s.died = make(map[int]time.Duration)
}

// part breaks the connections of a peer that crashed.
func (s *simulator) part(i int) {
	for _, j := range s.peers[i].here {
		p := s.peers[j]
		s.step(p, event{kind: lose, id: simID(i)})
	}
}

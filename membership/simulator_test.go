package membership

import (
	"container/heap"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"grapevine/msp"
)

// A simulator runs many detectors in virtual time, over links that behave as
// TCP and QUIC do when packets are lost: a lost packet comes a retransmission
// later, and holds up those behind it. With datagrams set it is lost for good,
// which no link of ours does. A signed alive message, which the mesh carries,
// reaches everybody who is connected to somebody.
type simulator struct {
	rng       *rand.Rand
	loss      float64
	datagrams bool
	cut       func(from, to int) bool // may be nil

	now   time.Time
	queue simQueue
	peers []*simPeer
	busy  map[[2]int]time.Time // when a link's last word arrives

	deaths      int // turns to dead
	falseDeaths int // turns to dead of a peer that runs
	suspicions  int
	refutations int
	words       int
	checks      int         // signatures
	died        []time.Time // of the crash watched: when each peer believed it
	watched     int         // whose crash; -1: none
}

type simPeer struct {
	i       int
	d       *detector
	crashed bool
	end     time.Time
	here    []int
}

type simEvent struct {
	at   time.Time
	to   int
	from int
	kind eventKind
	say  say
	id   msp.PKIID
	num  number
	seq  uint64
}

type simQueue []simEvent

func (q simQueue) Len() int { return len(q) }
func (q simQueue) Less(i, j int) bool {
	return q[i].at.Before(q[j].at) || q[i].at.Equal(q[j].at) && q[i].seq < q[j].seq
}
func (q simQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *simQueue) Push(x any)   { *q = append(*q, x.(simEvent)) }
func (q *simQueue) Pop() any {
	x := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return x
}

const simTick = 100 * time.Millisecond

func simID(i int) (id msp.PKIID) {
	binary.BigEndian.PutUint64(id[:], uint64(i+1))
	return id
}

func simIndex(id msp.PKIID) int { return int(binary.BigEndian.Uint64(id[:])) - 1 }

// newSimulator makes n peers that know each other, each connected to degree
// others at least, or to all.
func newSimulator(seed uint64, n, degree int) *simulator {
	s := &simulator{rng: rand.New(rand.NewPCG(seed, 1)), now: bubbleEpoch, busy: make(map[[2]int]time.Time), watched: -1}
	for i := range n {
		p := &simPeer{i: i, d: newDetector(simID(i), time.Second, seed*1_000_003+uint64(i))}
		s.peers = append(s.peers, p)
		p.d.step(event{kind: themselves, number: number{1, 1}}, s.now)
		for j := range n {
			if j != i {
				p.d.step(event{kind: learn, id: simID(j), number: number{1, 1}}, s.now)
			}
		}
	}
	for i := range n {
		if n-1 <= degree {
			for j := range i {
				s.connect(i, j)
			}
			continue
		}
		for len(s.peers[i].here) < degree/2 || i == n-1 && len(s.peers[i].here) < degree {
			if j := s.rng.IntN(n); j != i && !slices.Contains(s.peers[i].here, j) {
				s.connect(i, j)
			}
		}
	}
	for i := range n {
		s.push(simEvent{at: s.now.Add(time.Duration(s.rng.Int64N(int64(simTick)))), to: i, kind: tick})
	}
	return s
}

func (s *simulator) connect(i, j int) {
	for _, e := range [][2]int{{i, j}, {j, i}} {
		p := s.peers[e[0]]
		p.here = append(p.here, e[1])
		s.act(p, p.d.step(event{kind: meet, id: simID(e[1])}, s.now))
	}
}

func (s *simulator) push(e simEvent) {
	e.seq = uint64(s.words)<<20 | uint64(len(s.queue))
	heap.Push(&s.queue, e)
}

// run lets time pass.
func (s *simulator) run(d time.Duration) {
	end := s.now.Add(d)
	for len(s.queue) > 0 && !s.queue[0].at.After(end) {
		e := heap.Pop(&s.queue).(simEvent)
		s.now = e.at
		p := s.peers[e.to]
		if p.crashed {
			continue
		}
		switch e.kind {
		case tick:
			s.act(p, p.d.step(event{kind: tick}, s.now))
			s.push(simEvent{at: s.now.Add(simTick), to: e.to, kind: tick})
		case spoken:
			if from := s.peers[e.from]; from.crashed && s.now.Sub(from.end) > 45*time.Millisecond {
				continue // the dead retransmit nothing
			}
			s.act(p, p.d.step(event{kind: spoken, id: simID(e.from), say: e.say}, s.now))
		case learn:
			s.checks++
			s.act(p, p.d.step(event{kind: learn, id: e.id, number: e.num}, s.now))
		}
	}
	s.now = end
}

func (s *simulator) act(p *simPeer, actions []action) {
	for _, a := range actions {
		switch {
		case a.send:
			s.word(p.i, simIndex(a.to), a.say)
		case a.refute:
			s.refutations++
			n := number{p.d.number.incarnation, p.d.number.round + 1}
			p.d.step(event{kind: themselves, number: n}, s.now)
			for j := range s.peers {
				if j != p.i && (s.cut == nil || !s.cut(p.i, j)) {
					s.push(simEvent{at: s.now.Add(s.delay() + s.delay() + s.delay()), to: j, kind: learn, id: p.d.self, num: n})
				}
			}
		case a.turned && a.state == Suspect:
			s.suspicions++
		case a.turned && a.state == Dead:
			i := simIndex(a.id)
			s.deaths++
			if !s.peers[i].crashed && (s.cut == nil || !s.cut(i, p.i)) {
				s.falseDeaths++
			}
			if i == s.watched {
				s.died = append(s.died, s.now)
			}
		}
	}
}

// delay is how long a word takes: 5 to 45 ms, and what losses add.
func (s *simulator) delay() time.Duration {
	d := 5*time.Millisecond + time.Duration(s.rng.Int64N(int64(40*time.Millisecond)))
	for again := 200 * time.Millisecond; s.loss > 0 && s.rng.Float64() < s.loss; again *= 2 {
		d += again
	}
	return d
}

func (s *simulator) word(from, to int, w say) {
	s.words++
	if s.cut != nil && s.cut(from, to) {
		return
	}
	if s.datagrams {
		if s.rng.Float64() < s.loss {
			return
		}
		at := s.now.Add(5*time.Millisecond + time.Duration(s.rng.Int64N(int64(40*time.Millisecond))))
		s.push(simEvent{at: at, to: to, from: from, kind: spoken, say: w})
		return
	}
	at := s.now.Add(s.delay())
	link := [2]int{from, to}
	if b := s.busy[link]; at.Before(b) {
		at = b
	}
	s.busy[link] = at
	s.push(simEvent{at: at, to: to, from: from, kind: spoken, say: w})
}

// crash ends a peer without a word, and lets its connections hang.
func (s *simulator) crash(i int) (at time.Time) {
	s.peers[i].crashed, s.peers[i].end = true, s.now
	s.watched, s.died = i, nil
	return s.now
}

func quantile(d []time.Duration, q float64) time.Duration {
	slices.Sort(d)
	return d[min(len(d)-1, int(math.Ceil(q*float64(len(d))))-1)]
}

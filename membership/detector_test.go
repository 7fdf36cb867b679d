package membership

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"grapevine/itest/figures"
	"grapevine/msp"
)

// TestDetectorSteps holds a detector against its invariants through random
// steps: pings, answers, errands, accusations, arrivals and leaves by members
// of which some always answer, some never do, and some lie.
func TestDetectorSteps(t *testing.T) {
	steps := 1_000_000
	if testing.Short() {
		steps = 50_000
	}
	const each = 20_000
	for seed := range uint64(steps / each) {
		newBystander(t, seed).live(each)
	}
}

// A bystander drives one detector and watches what it does.
type bystander struct {
	t     *testing.T
	rng   *rand.Rand
	d     *detector
	now   time.Time
	n     int
	about map[msp.PKIID]*watched
	todo  []event // answers on their way
}

type watched struct {
	answers   bool // to every ping, at once
	state     State
	suspected time.Time
	spoke     time.Time // on its connection
	number    number
	connected bool
	known     bool
}

func newBystander(t *testing.T, seed uint64) *bystander {
	b := &bystander{
		t: t, rng: rand.New(rand.NewPCG(seed, 7)), now: bubbleEpoch,
		d: newDetector(simID(0), "", time.Second, 3*time.Second, seed), about: map[msp.PKIID]*watched{},
	}
	b.n = 3 + b.rng.IntN(12)
	for i := 1; i <= b.n; i++ {
		b.about[simID(i)] = &watched{answers: i%2 == 0}
	}
	b.d.step(event{kind: themselves, number: number{1, 1}}, b.now)
	return b
}

func (b *bystander) live(steps int) {
	for range steps {
		e := b.next()
		before := b.d.number
		actions := b.d.step(e, b.now)
		b.check(e, before, actions)
	}
}

func (b *bystander) next() event {
	if len(b.todo) > 0 && b.rng.IntN(10) > 0 {
		e := b.todo[0]
		b.todo = b.todo[1:]
		return b.noted(e)
	}
	id := simID(1 + b.rng.IntN(b.n))
	w := b.about[id]
	switch b.rng.IntN(24) {
	default:
		for range len(b.todo) { // who answers does so before time passes
			e := b.todo[0]
			b.todo = b.todo[1:]
			return b.noted(e)
		}
		b.now = b.now.Add(time.Duration(50+b.rng.IntN(100)) * time.Millisecond)
		return event{kind: tick}
	case 0, 1:
		n := number{1 + b.rng.Uint64N(3), b.rng.Uint64N(20)}
		if w.known && b.rng.IntN(3) > 0 {
			n = number{w.number.incarnation, w.number.round + 1}
		}
		return b.noted(event{kind: learn, id: id, number: n})
	case 2, 3:
		return b.noted(event{kind: meet, id: id})
	case 4:
		if w.answers {
			return event{kind: themselves, number: b.d.number}
		}
		return b.noted(event{kind: lose, id: id})
	case 5:
		if b.rng.IntN(20) > 0 {
			return event{kind: tick}
		}
		return b.noted(event{kind: leave, id: id, number: number{w.number.incarnation, w.number.round + 1}})
	case 6:
		if b.rng.IntN(20) > 0 {
			return event{kind: tick}
		}
		return b.noted(event{kind: forget, id: id})
	case 7: // a liar accuses somebody, of anything
		about := simID(b.rng.IntN(b.n + 1))
		n := number{1 + b.rng.Uint64N(3), b.rng.Uint64N(20)}
		if v := b.about[about]; v != nil {
			n = v.number
		}
		return b.spoken(id, say{accused: []accusation{{about, n}}})
	case 8:
		target := simID(b.rng.IntN(b.n + 1))
		return b.spoken(id, say{ping: 1 + b.rng.Uint64N(9), target: &target})
	case 9:
		return b.spoken(id, say{ack: b.rng.Uint64N(b.d.nonce + 2)})
	case 10:
		return b.spoken(id, say{nack: b.rng.Uint64N(b.d.nonce + 2)})
	case 11:
		return b.spoken(id, say{ping: 1 + b.rng.Uint64()>>1})
	}
}

// spoken is a word of id; only the connected can say one.
func (b *bystander) spoken(id msp.PKIID, w say) event {
	if !b.about[id].connected {
		return event{kind: tick}
	}
	return b.noted(event{kind: spoken, id: id, say: w})
}

func (b *bystander) noted(e event) event {
	w := b.about[e.id]
	switch e.kind {
	case learn:
		if !w.known {
			*w = watched{answers: w.answers, known: true, number: e.number}
		} else if w.number.less(e.number) {
			w.number = e.number
		}
	case meet:
		if !w.known {
			*w = watched{answers: w.answers, known: true} // it hasn't told of itself
		}
		w.connected = w.state != Left
	case lose:
		if w.connected = false; w.number == (number{}) {
			*w = watched{answers: w.answers}
		}
	case leave:
		if w.known {
			w.number, w.connected = e.number, false
		}
	case forget:
		*w = watched{answers: w.answers}
	case spoken:
		w.spoke = b.now
	}
	return e
}

func (b *bystander) check(e event, was number, actions []action) {
	d, require := b.d, require.New(b.t)
	for _, a := range actions {
		if a.send {
			w := b.about[a.to]
			require.NotNil(w, "a word to nobody")
			if a.say.ping != 0 && a.say.target == nil && w.answers && w.connected {
				b.todo = append(b.todo, event{kind: spoken, id: a.to, say: say{ack: a.say.ping}})
			}
			for _, x := range a.say.accused {
				require.NotEqual(d.self, x.id, "it accuses itself")
				require.NotContains([]State{Left}, b.about[x.id].state, "it accuses who left")
			}
		}
		if a.refute {
			require.Equal(spoken, e.kind)
			require.False(e.say.accused[0].number.less(was), "it refutes what is old")
		}
		if !a.turned {
			continue
		}
		w := b.about[a.id]
		switch a.state {
		case Suspect:
			w.suspected = b.now
			require.False(w.answers && w.connected, "suspects who answers every ping")
		case Dead:
			require.Equal(Suspect, w.state, "dead without suspicion")
			require.GreaterOrEqual(b.now.Sub(w.suspected), d.period*8/10, "no time to refute")
			require.False(w.connected && b.now.Sub(w.spoke) < d.shortest, "buries who has just spoken")
		case Alive:
			if w.state == Left {
				require.Equal(learn, e.kind, "who left is back without a word of its own")
			}
		}
		w.state = a.state
	}
	living, here, apart, looking := 0, 0, 0, 0
	for id, s := range d.all {
		w := b.about[id]
		if w.state != s.state || w.number != s.number {
			require.Fail("a turn or a number that wasn't told")
		}
		if s.state < Dead {
			living++
			if !s.connected {
				apart++
			}
		}
		if s.connected {
			here++
		}
		if s.probe != nil {
			looking++
		} else if s.state == Suspect {
			require.Fail("a suspect that nobody looks at")
		}
	}
	for _, s := range d.here {
		if !s.connected || d.all[s.id] != s {
			require.Fail("it keeps who isn't here")
		}
	}
	for _, s := range d.looking {
		if s.probe == nil || d.all[s.id] != s {
			require.Fail("it looks at nobody")
		}
	}
	if living != d.living || apart != d.apart || here != len(d.here) || looking != len(d.looking) {
		require.Fail("it has lost count")
	}
	if len(d.errands) > maxErrands || len(d.quotas) > b.n || d.health > maxHealth {
		require.Fail("it grows")
	}
}

// A process that stood still buries nobody for it.
func TestStandstill(t *testing.T) {
	for i, gap := range slices.Repeat([]time.Duration{time.Second, 10 * time.Second, time.Minute, time.Hour}, 5) {
		s := newSimulator(uint64(i/4), 10, 64)
		s.run(time.Minute)
		p := s.peers[4]
		s.cut = func(from, to int) bool { return to == 4 || from == 4 } // it is stopped in the middle of its pings
		s.run(1900 * time.Millisecond)
		suspects := 0
		for _, x := range p.d.all {
			if x.state == Suspect {
				suspects++
			}
		}
		require.Positive(t, suspects)
		p.gone, p.end = true, s.clock // no tick
		buried := 0                   // by it; the others can't know that it only stands still
		s.seen = func(q *simPeer, a action) {
			if q == p && a.turned && a.state == Dead {
				buried++
			}
		}
		s.run(gap)
		dead := 0
		for _, x := range p.d.all {
			if x.state == Dead {
				dead++
			}
		}
		require.Zero(t, dead)
		s.cut, p.gone = nil, false
		s.step(p, event{kind: tick})
		s.run(5 * time.Second)
		for _, x := range p.d.all {
			require.Equal(t, Alive, x.state, "after %v", gap)
		}
		require.Zero(t, buried, "after %v", gap)
		for _, q := range s.peers {
			if q != p {
				require.Equal(t, Alive, q.d.all[p.d.self].state, "after %v", gap)
			}
		}
	}
}

// Clocks that are far apart spoil the turns of pings: it is noticed, and more
// are pinged.
func TestClocksApart(t *testing.T) {
	s := newSimulator(11, 50, 64)
	for _, p := range s.peers {
		p.skew = time.Duration(s.rng.Int64N(int64(skew)))
	}
	s.run(2 * time.Minute)
	hurried := 0
	for _, p := range s.peers {
		if s.now.Add(p.skew).Before(p.d.hurried) {
			hurried++
		}
	}
	require.Greater(t, hurried, 10)
	require.LessOrEqual(t, s.idle(time.Minute).words, 8.5)
	var all []time.Duration
	for i := range 10 {
		s.crash(5 * i)
		s.run(15 * time.Second)
		all = slices.AppendSeq(all, maps.Values(s.died))
		s.part(5 * i)
	}
	require.Len(t, all, 10*49-45)
	require.LessOrEqual(t, figures.At(figures.Sorted(all), .99), 5*time.Second)
	require.Zero(t, s.falseDeaths)
}

// A member that accuses everybody, all the time, changes nobody's view, and
// makes them work no more than the quotas allow.
func TestAccuserOfAll(t *testing.T) {
	for _, n := range []int{10, 100, 300} {
		s := newSimulator(5, n, 64)
		s.run(10 * time.Second)
		suspicions, refutations, words := s.suspicions, s.refutations, s.words
		for range 600 {
			for j := 1; j < n; j++ {
				about := s.peers[1+s.rng.IntN(n-1)].d
				s.send(simEvent{from: 0, to: j, about: j, say: say{accused: []accusation{{about.self, about.number}}}})
			}
			s.run(100 * time.Millisecond)
		}
		require.Zero(t, s.falseDeaths)
		require.Equal(t, suspicions, s.suspicions, "one liar alone makes nobody suspect")
		perPeer := float64(s.refutations-refutations) / 60 / float64(n)
		t.Logf("%d peers: %.3f refutations and %.1f words a second and peer", n, perPeer, float64(s.words-words)/60/float64(n))
		require.LessOrEqual(t, perPeer, .11, "one in ten seconds for each liar")
	}
}

// Who is accused by two is to refute as long as somebody may add the two up: an
// answer to each of them tells those who heard both nothing.
func TestTwoAccusersApart(t *testing.T) {
	for after, refutes := range map[time.Duration]bool{0: true, fade - time.Millisecond: true, together + time.Millisecond: false} {
		now := bubbleEpoch
		d := newDetector(simID(0), "", time.Second, 3*time.Second, 1)
		d.step(event{kind: themselves, number: number{1, 1}}, now)
		for i := 1; i < 5; i++ {
			d.step(event{kind: learn, id: simID(i), number: number{1, 1}}, now)
			d.step(event{kind: meet, id: simID(i)}, now)
		}
		accused := func(by int) bool {
			all := d.step(event{kind: spoken, id: simID(by), say: say{ping: 7, accused: []accusation{{simID(0), number{1, 1}}}}}, now)
			return slices.ContainsFunc(all, func(a action) bool { return a.refute })
		}
		require.False(t, accused(1), "the answer to its ping will do")
		now = now.Add(after)
		require.Equal(t, refutes, accused(2), "%v later", after)
	}
}

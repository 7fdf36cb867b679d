package membership

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"grapevine/msp"
)

// turning is what peers do while nothing happens: words a second and peer, and
// the share of the time that peers waited for a ping much longer than a period, or,
// where they are paired, weren't heard by anybody; and that they hurried.
type turning struct{ words, waited, hurried float64 }

func (r turning) String() string {
	return fmt.Sprintf("%.2f words a second and peer, %.2f %% waited, %.2f %% hurried", r.words, 100*r.waited, 100*r.hurried)
}

// require bounds the words, and what is rare.
func (r turning) require(t *testing.T, words float64) {
	t.Helper()
	require.LessOrEqual(t, r.words, words)
	require.LessOrEqual(t, r.waited, .03)
	require.LessOrEqual(t, r.hurried, .01)
}

// idle runs a network in which nothing happens.
func (s *simulator) idle(d time.Duration) (r turning) {
	const look = 100 * time.Millisecond
	words, n := s.words, float64(len(s.peers))
	for range d / look {
		s.run(look)
		for _, p := range s.peers {
			now := s.now.Add(p.skew)
			if now.Before(p.d.hurried) {
				r.hurried++
			}
			if sparse := len(s.peers) > mostPeers; sparse && now.Sub(p.d.pinged) > p.d.period*11/10 || !sparse && s.clock-p.heard > 1300 {
				r.waited++
			}
		}
	}
	looks := n * float64(d/look)
	return turning{float64(s.words-words) / n / d.Seconds(), r.waited / looks, r.hurried / looks}
}

// TestTurns: nobody waits for a ping much longer than where each member pings four
// at random in a period, and where more are connected it takes fewer pings.
func TestTurns(t *testing.T) {
	for n, most := range map[int]float64{2: 1.1, 3: 1.4, 9: 1.3, 10: 1.1, 49: 1.1, 50: 1.1, 64: 1.1, 70: 3.3, 100: 5.2, 150: 6.5, 300: 7.4} {
		s := newSimulator(uint64(n), n, mostPeers)
		s.run(20 * time.Second)
		r := s.idle(time.Minute)
		t.Logf("%d peers: %v", n, r)
		r.require(t, most)
	}
}

// TestTurnsOfTheHidden: members that only their organisation knows are pinged by
// it in every period, and nobody else misses a ping for that.
func TestTurnsOfTheHidden(t *testing.T) {
	for every, most := range map[int]float64{1: 1.1, 2: 3.1, 3: 2.8, 4: 2.6} { // of 20 peers all, one organisation, a third of both, and half of one are hidden
		s := newSimulator(uint64(every), 20, mostPeers)
		org := func(i int) string { return []string{"Org1", "Org2"}[i%2] }
		for _, p := range s.peers {
			for id, o := range p.d.all { // others are connected to the hidden, too
				o.org, o.hidden = org(simIndex(id)), simIndex(id)%every == 0
			}
			p.d.org, p.d.hidden, p.d.rounds = org(p.i), p.i%every == 0, nil
		}
		s.run(20 * time.Second)
		r := s.idle(time.Minute)
		t.Logf("each %dth hidden: %v", every, r)
		r.require(t, most)
	}
}

// TestTurnsAcrossGaps: where some in a small channel can't reach each other nobody
// hurries for that.
func TestTurnsAcrossGaps(t *testing.T) {
	for name, apart := range map[string]func(i, j int) bool{
		"link":   func(i, j int) bool { return i == 3 && j == 5 },
		"bridge": func(i, j int) bool { return i%3 == 0 && j%3 == 1 },
		"one":    func(i, j int) bool { return i == 7 && j%3 == 0 },
	} {
		s := newSimulator(7, 30, mostPeers)
		for i, p := range s.peers {
			for j, q := range s.peers {
				if apart(i, j) {
					s.cut = func(from, to int) bool { return apart(from, to) || apart(to, from) }
					s.step(p, event{kind: lose, id: q.d.self})
					s.step(q, event{kind: lose, id: p.d.self})
				}
			}
		}
		s.run(time.Minute + 20*time.Second)
		r := s.idle(time.Minute)
		t.Logf("%s: %v", name, r)
		r.require(t, 3.5)
		require.Zero(t, s.falseDeaths)
	}
}

// TestHurryIsntCaught: who pings more, because nobody pinged it for a while, goes
// on to ping those whose turn it is: else they would hurry for that, and others
// for them, and so on for ever.
func TestHurryIsntCaught(t *testing.T) {
	for _, n := range []int{10, 50, 100} {
		s := newSimulator(uint64(n), n, mostPeers)
		s.run(20 * time.Second)
		p := s.peers[0]
		p.d.hurried = s.now.Add(p.skew).Add(hurry)
		require.LessOrEqual(t, s.idle(hurry).hurried, 1.1/float64(n), "of %d peers it alone", n)
		require.Zero(t, s.idle(hurry).hurried)
	}
}

// TestMissedTurns: who doesn't ping when it is its turn is pinged.
func TestMissedTurns(t *testing.T) {
	for n := 1; n <= 6; n++ {
		d := newDetector(simID(0), "", time.Second, 3*time.Second, 1)
		now := bubbleEpoch
		for i := 1; i <= n; i++ {
			d.step(event{kind: learn, id: simID(i), number: number{1, 1}}, now)
			d.step(event{kind: meet, id: simID(i)}, now)
		}
		pinged := make(map[msp.PKIID]int)
		for range 600 {
			now = now.Add(100 * time.Millisecond)
			for _, a := range d.step(event{kind: tick}, now) {
				if a.send && a.say.ping != 0 && a.say.target == nil {
					pinged[a.to]++
					d.step(event{kind: spoken, id: a.to, say: say{ack: a.say.ping}}, now)
				}
			}
			d.hurried = now // whatever it makes of that
		}
		all := 0
		for _, times := range pinged {
			all += times
		}
		require.Len(t, pinged, n)
		require.GreaterOrEqual(t, all, 59, "in 60 turns with %d others", n)
	}
}

// TestPingsGoOnWhenTheClockIsSetBack: turns go by the clock, which may go back.
func TestPingsGoOnWhenTheClockIsSetBack(t *testing.T) {
	d := newDetector(simID(0), "", time.Second, 3*time.Second, 1)
	now := bubbleEpoch
	for i := 1; i <= 3; i++ {
		d.step(event{kind: learn, id: simID(i), number: number{1, 1}}, now)
		d.step(event{kind: meet, id: simID(i)}, now)
	}
	for _, back := range []time.Duration{0, time.Hour, 24 * time.Hour} {
		at, pings := now.Add(-back), 0
		for range 30 {
			at = at.Add(100 * time.Millisecond)
			for _, a := range d.step(event{kind: tick}, at) {
				if a.send && a.say.ping != 0 {
					pings++
					d.step(event{kind: spoken, id: a.to, say: say{ack: a.say.ping}}, at)
				}
			}
		}
		require.GreaterOrEqual(t, pings, 3, "set back by %v", back)
	}
}

// TestEveryRoundTripIsMeasured: each is pinged in turn, however many there are.
func TestEveryRoundTripIsMeasured(t *testing.T) {
	for n := 2; n <= 10; n++ {
		s := newSimulator(uint64(n), n, n)
		s.run(time.Duration(2*n) * time.Second)
		for _, p := range s.peers {
			for _, o := range p.d.here {
				require.Positive(t, o.rtt, "of %d peers, %d of %d", n, p.i, simIndex(o.id))
			}
		}
	}
}

package membership

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"grapevine/itest/figures"
)

// TestSimStart: many peers start at once that know one of them. Each sees all
// the others within 15 s; then what each costs while nothing happens, counted. No
// processor time is measured here: go run ./itest/runbench -only membership does.
func TestSimStart(t *testing.T) {
	sizes := []int{50}
	if figures.Long() {
		sizes = []int{100, 50, 10}
	}
	m := newMeasured(t, "start")
	for _, n := range sizes {
		start(t, m, n, func(s *city) {
			calm := 30 * time.Second // connections are still being made
			if n > mostPeers {
				calm = 5 * time.Minute // at leisure, and each tells both what it knows
			}
			s.run(calm, func() bool { return false })
			idle(t, m, s)
		})
	}
}

// TestSoakStart is TestSimStart for the largest networks. What they cost when
// nothing happens, TestSoakIdle counts.
func TestSoakStart(t *testing.T) {
	soak(t)
	m := newMeasured(t, "start.soak")
	for _, n := range largest {
		start(t, m, n, nil)
	}
}

// start lets n peers start, and then happen what comes; nil: nothing.
func start(t *testing.T, m *measured, n int, then func(s *city)) {
	t.Run(fmt.Sprintf("%d peers", n), func(t *testing.T) {
		signers, hosts := cityFolk(n)
		synctest.Test(t, func(t *testing.T) {
			s := newCity(signers, hosts)
			began := time.Now()
			for _, p := range s.people {
				s.after(time.Duration(s.rng.IntN(1000))*time.Millisecond, func() { s.settle(p) })
			}
			whole := s.run(time.Minute, func() bool { return s.full == n })
			took := time.Since(began)
			require.Empty(t, s.problems)
			require.True(t, whole, "%d of %d see all", s.full, n)
			t.Logf("full view after %v: %d connections, %d words, %d bytes", took, s.made, s.words, s.bytes)
			m.note(func(r *figures.Records) {
				p := map[string]any{"peers": n}
				r.Add("membership.start.full_view", p, "ms", figures.Millis(took))
				r.Add("membership.start.connections", p, "in all", float64(s.made))
			})
			require.LessOrEqual(t, took, 15*time.Second)
			if then != nil {
				then(s)
			}
		})
	})
}

// TestSoakIdle counts what each of the largest networks' peers costs while nothing
// happens, once all know each other and have the connections they want.
func TestSoakIdle(t *testing.T) {
	soak(t)
	m := newMeasured(t, "idle.soak")
	for _, n := range largest {
		t.Run(fmt.Sprintf("%d peers", n), func(t *testing.T) {
			signers, hosts := cityFolk(n)
			synctest.Test(t, func(t *testing.T) {
				s := newCity(signers, hosts)
				s.acquaint(mostPeers)
				s.run(2*time.Minute, func() bool { return false })
				idle(t, m, s)
			})
		})
	}
}

// idle counts what peers cost for all of a beat.
func idle(t *testing.T, m *measured, s *city) {
	n := len(s.people)
	counts := func() (c Stats) {
		for _, p := range s.people {
			x := p.Stats()
			c.Checks, c.Suspicions = c.Checks+x.Checks, c.Suspicions+x.Suspicions
		}
		return c
	}
	idle := calmBeat * 11 / 10
	if n > mostPeers {
		idle = calm * beat * 11 / 10 * time.Duration(n) / mostPeers
	}
	before, words, bytes, flooded := counts(), s.words, s.bytes, s.flooded
	s.run(idle, func() bool { return false })
	require.Empty(t, s.problems)
	after := counts()
	per := float64(n) * idle.Seconds()
	checks := float64(after.Checks-before.Checks) / per
	t.Logf("%d idle, each second and peer: %.2f words, %.2f flooded messages, %.0f bytes, %.2f signatures; %.1f connections",
		n, float64(s.words-words)/per, float64(s.flooded-flooded)/per, float64(s.bytes-bytes)/per, checks, 2*float64(s.made)/float64(n))
	m.note(func(r *figures.Records) {
		p := map[string]any{"peers": n}
		r.Add("membership.idle.words", p, "sent per second and peer, counted", float64(s.words-words)/per)
		r.Add("membership.idle.flooded", p, "signed messages received by GossipSub per second and peer, copies included, counted", float64(s.flooded-flooded)/per)
		r.Add("membership.idle.bytes", p, "received per second and peer, counted", float64(s.bytes-bytes)/per)
		r.Add("membership.idle.checks", p, "signatures per second and peer, counted", checks)
		r.Add("membership.idle.connections", p, "held per peer", 2*float64(s.made)/float64(n))
	})
	require.LessOrEqual(t, checks, float64(n)/30)
	require.Equal(t, before.Suspicions, after.Suspicions)
}

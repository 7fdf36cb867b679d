package itest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"grapevine/itest/figures"
)

// A cut of the network: which side each node is on, and how many seconds it
// lasts. Connections live on through 30 s of silence. Node i is of organisation
// i mod orgs; node 0 leads.
type cut struct {
	name    string
	seconds int
	side    func(i, orgs, n int) int
}

var cuts = []cut{
	{"halves", 40, func(i, _, _ int) int { return i % 2 }},
	{"thirds", 10, func(i, _, _ int) int { return i % 3 }},
	{"one alone", 10, func(i, _, n int) int { return i / (n - 1) }},
	{"organisation islands", 40, func(i, orgs, _ int) int { return i % orgs }},
}

// TestSim lets nodes meet, cuts the network apart, makes links silent, and
// holds that after healing all reach the tip with equal hashes. In the
// long run 50 nodes play it all, and what was measured is saved; else 10 nodes
// play one cut.
func TestSim(t *testing.T) {
	orgs, peers, play := 2, 5, cuts[:1]
	if figures.Long() {
		orgs, peers, play = 10, 5, cuts
	}
	var r figures.Records
	n := orgs * peers
	spread := func(name string, p map[string]any, ds []time.Duration) {
		r.Spread(name, p, ds)
		for _, v := range r[len(r)-4:] {
			t.Logf("%-28s %10.3f ms  %v", v.Name, v.Value, v.Params)
		}
	}
	params := func(more ...any) map[string]any {
		m := map[string]any{"nodes": n, "organisations": orgs, "mbits": simBits / 1e6, "latency_ms": figures.Millis(simLatency)}
		for kv := range slices.Chunk(more, 2) {
			m[kv[0].(string)] = kv[1]
		}
		return m
	}
	simulate(t, orgs, peers, func(s *sim) {
		for _, kib := range []int{4, 8} {
			before := s.Heard()
			const blocks = 20
			first := s.order(blocks, kib<<10, 200*time.Millisecond)
			s.settle()
			p := params("block_kib", kib)
			spread("dissemination.disk", p, s.delays(first))
			copies := float64(s.Heard()-before) / float64(s.World.Height()-first) / float64(n-1)
			r.Add("dissemination.copies", p, "copies per receiver", copies)
			t.Logf("%.2f copies per receiver", copies)
			require.Less(t, copies, 1.6)
		}
		for _, c := range play {
			s.partition(func(i int) int { return c.side(i, orgs, n) })
			s.order(c.seconds/2, 4<<10, 2*time.Second)
			require.NotZero(t, s.behind(), "%s: the cut cuts nobody off", c.name)
			s.heal()
			spread("heal.time_to_tip", params("cut", c.name, "seconds", c.seconds), s.settle())
			s.ready()
		}
		if !figures.Long() {
			return
		}
		s.silence(.2, 20)
		first := s.order(40, 8<<10, time.Second)
		s.heal()
		spread("heal.time_to_tip", params("cut", "20 % of links silent", "seconds", 40), s.settle())
		spread("silent.disk", params("block_kib", 8, "silent", .2), s.delays(first))
		s.ready()
	})
	figures.Save(t, "dissemination", r)
}

// TestSoak cuts and heals 20 nodes at random, round after round: up to four
// sides, or up to two fifths of the links silent, for 5 s to a minute.
func TestSoak(t *testing.T) {
	if os.Getenv("GRAPEVINE_SOAK") == "" {
		t.Skip("make soak runs it")
	}
	const rounds = 40
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	simulate(t, 4, 5, func(s *sim) {
		for round := range rounds {
			var what string
			if sides := 1 + rng.IntN(4); sides > 1 {
				of := make([]int, len(s.Peers))
				for i := range of {
					of[i] = rng.IntN(sides)
				}
				what = fmt.Sprintf("sides %v", of)
				s.partition(func(i int) int { return of[i] })
			} else {
				share := rng.Float64() * .4
				what = fmt.Sprintf("%.0f %% of the links silent", 100*share)
				s.silence(share, rng.Uint64())
			}
			blocks := 5 + rng.IntN(55)
			s.order(blocks, 4<<10<<rng.IntN(6), time.Second)
			s.heal()
			took := figures.Sorted(s.settle())
			t.Logf("round %d, %d s: %s: at the tip after %v", round+1, blocks, what, took[len(took)-1])
			s.ready()
		}
	})
}

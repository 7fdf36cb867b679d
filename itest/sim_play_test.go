package itest

import (
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A cut of the network: which side each node is on. Node i is of organisation
// i mod orgs; node 0 leads.
type cut struct {
	name string
	side func(i, orgs, n int) int
}

var cuts = []cut{
	{"halves", func(i, _, _ int) int { return i % 2 }},
	{"thirds", func(i, _, _ int) int { return i % 3 }},
	{"one alone", func(i, _, n int) int { return i / (n - 1) }},
	{"organisation islands", func(i, orgs, _ int) int { return i % orgs }},
}

// TestSim lets nodes meet, cuts the network apart, makes links silent, and
// holds that after healing all reach the tip with equal hashes. With
// GRAPEVINE_SIM naming a file, 50 nodes play it all, and what was measured is
// written there; without, 10 nodes play one cut.
func TestSim(t *testing.T) {
	path := os.Getenv("GRAPEVINE_SIM")
	orgs, peers, play := 2, 5, cuts[:1]
	if path != "" {
		orgs, peers, play = 5, 10, cuts
	}
	var r Records
	n := orgs * peers
	params := func(more ...any) map[string]any {
		m := map[string]any{"nodes": n, "organisations": orgs, "mbits": simBits / 1e6, "latency_ms": Millis(simLatency)}
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
			r.Spread("dissemination.disk", p, s.delays(first))
			r.Add("dissemination.copies", p, "copies per receiver", float64(s.Heard()-before)/float64(s.World.Height()-first)/float64(n-1))
		}
		for _, c := range play {
			s.partition(func(i int) int { return c.side(i, orgs, n) })
			s.order(20, 4<<10, 2*time.Second) // longer than connections live
			require.NotZero(t, s.behind(), "%s: the cut cuts nobody off", c.name)
			s.heal()
			r.Spread("heal.time_to_tip", params("cut", c.name), s.settle())
			s.ready()
		}
		if path == "" {
			return
		}
		s.silence(.2)
		first := s.order(60, 8<<10, time.Second)
		s.heal()
		r.Spread("heal.time_to_tip", params("cut", "20 % of links silent"), s.settle())
		r.Spread("silent.disk", params("block_kib", 8, "silent", .2), s.delays(first))
		s.ready()
	})
	for _, v := range r {
		t.Logf("%-28s %10.3f %-20s %v", v.Name, v.Value, v.Unit, v.Params)
	}
	if path != "" {
		require.NoError(t, r.Write(path))
	}
}

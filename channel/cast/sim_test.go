package cast

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"grapevine/itest/figures"
	"grapevine/wire"
)

// soak is the environment variable that asks for the longest simulations.
const soak = "GRAPEVINE_SOAK"

// An outcome is what a play made of blocks of a size: one leader, n-1 members.
type outcome struct {
	delays []time.Duration // of each block at each member
	copies float64         // bytes that came to a member, done-signals and all, for each byte of body
	peak   int64           // most bytes that a member's sessions held
	pulls  int
}

func (f outcome) at(q float64) time.Duration { return figures.At(figures.Sorted(f.delays), q) }

func (f outcome) String() string {
	return fmt.Sprintf("p50 %.1f p99 %.1f max %.1f ms, %.3f copies, %d KiB held, %d pulls", figures.Millis(f.at(.5)),
		figures.Millis(f.at(.99)), figures.Millis(f.at(1)), f.copies, f.peak>>10, f.pulls)
}

// take takes in what the members but the first have of blocks 1 to blocks.
func (f *outcome) take(p *play, size, blocks int) {
	p.t.Helper()
	alive := 0
	for i, a := range p.nodes[1:] {
		if a.dead {
			continue
		}
		alive++
		for b := range uint64(blocks) {
			d, ok := a.got[b+1]
			require.True(p.t, ok, "member %d never got block %d", i+1, b+1)
			f.delays = append(f.delays, d)
			f.pulls += a.pulls[b+1]
		}
		f.copies += float64(a.received)
		f.peak = max(f.peak, a.peak)
	}
	f.copies /= float64(blocks * size * alive)
}

// casts has the first of n members of orgs organisations cast blocks of a size,
// one after the other. Stage prepares the play; may be nil.
func casts(t testing.TB, n, orgs, size, blocks int, stage func(p *play)) (f outcome) {
	p := newPlay(t, uint64(n), n, orgs)
	if stage != nil {
		stage(p)
	}
	for b := range uint64(blocks) {
		h, code := p.head(b+1, size, p.nodes[0])
		p.begin = p.now
		p.nodes[0].cast(h, code)
		p.run(time.Minute)
	}
	f.take(p, size, blocks)
	return f
}

// gossips is casts by whole-block GossipSub, in a mesh of a degree.
func gossips(t testing.TB, n, size, blocks, degree int) (f outcome) {
	p := newPlay(t, uint64(n), n, 1)
	p.gossip = newGossip(p, degree)
	p.gossip.size = size
	for b := range uint64(blocks) {
		p.begin = p.now
		p.gossip.publish(p.nodes[0], b+1, "")
		p.run(10 * time.Minute)
	}
	f.take(p, size, blocks)
	return f
}

// orgsOf is how many organisations n members are of, in the table.
func orgsOf(n int) int { return max(2, n/10) }

// TestSimTable casts blocks of all sizes in groups of all sizes, beside
// whole-block GossipSub on the same links (its formula, where that would take
// too much) and the fluid bound: this package's core in virtual time, without
// processors, losses, TCP or TLS. It never takes longer than GossipSub nor more
// than 1.6 copies.
func TestSimTable(t *testing.T) {
	most := 10 << 20 // bytes of all members together
	if figures.Long() {
		most = 400 << 20
	}
	tabulate(t, "cast.table", 0, most)
}

// TestSoakTable is the table's larger points. The largest takes 8 GiB.
func TestSoakTable(t *testing.T) {
	if os.Getenv(soak) == "" {
		t.Skip("make soak runs it")
	}
	tabulate(t, "cast.table.large", 400<<20, 8<<30)
}

// tabulate plays the points whose members hold more than least bytes together, and
// no more than most.
func tabulate(t *testing.T, name string, least, most int) {
	var r figures.Records
	for _, kib := range []int{16, 128, 1 << 10, 8 << 10, 32 << 10} {
		for _, n := range []int{10, 50, 100, 200, 1000} {
			size := kib << 10
			if n*size > most || n*size <= least || n == 1000 && kib != 128 {
				continue
			}
			t.Run(fmt.Sprintf("%d KiB to %d", kib, n), func(t *testing.T) {
				p := map[string]any{"nodes": n, "organisations": orgsOf(n), "block_kib": kib, "mbits": simRate * 8 / 1e6, "latency_ms": figures.Millis(simLatency)}
				f := casts(t, n, orgsOf(n), size, 2, nil)
				f.record(&r, "cast.core", p)
				gossip := gossipFormula(n, size)
				if n*size <= 400<<20 {
					g := gossips(t, n, size, 2, gossipDegree)
					g.record(&r, "cast.gossip", p)
					t.Logf("gossip: %v", g)
					require.Less(t, f.copies, g.copies)
					gossip = g.at(.99)
				} else {
					r.Add("cast.gossip.formula", p, "ms", figures.Millis(gossip))
				}
				r.Add("cast.fluid", p, "ms", figures.Millis(fluid(n, size)))
				t.Logf("cast: %v; gossip %v, fluid bound %v", f, gossip, fluid(n, size))
				require.Less(t, f.copies, 1.6)
				require.Less(t, f.at(.99), gossip)
				require.Zero(t, f.pulls)
				if kib == 128 && n == 50 {
					require.LessOrEqual(t, f.at(.99), 100*time.Millisecond)
				}
			})
		}
	}
	if least == 0 {
		t.Run("8 KiB to 1000, inline", func(t *testing.T) { inline(t, &r) })
	}
	figures.Save(t, name, r)
}

// inline plays the largest block that travels whole in its announcement: in
// large channels by GossipSub, in a mesh of 8. What IDONTWANT spares isn't played.
func inline(t *testing.T, r *figures.Records) {
	const n, degree = 1000, 8
	f := gossips(t, n, wire.InlineLimit, 2, degree)
	t.Log(f)
	p := map[string]any{"nodes": n, "block_kib": wire.InlineLimit >> 10, "mbits": simRate * 8 / 1e6, "latency_ms": figures.Millis(simLatency), "path": "inline"}
	f.record(r, "cast.inline", p)
	require.LessOrEqual(t, f.at(.99), 150*time.Millisecond)
}

func (f outcome) record(r *figures.Records, name string, p map[string]any) {
	r.Spread(name, p, f.delays)
	r.Add(name+".copies", p, "copies per receiver", f.copies)
	r.Add(name+".memory", p, "KiB held at most by a member", float64(f.peak>>10))
	r.Add(name+".pulls", p, "blocks", float64(f.pulls))
}

// TestSimTrouble casts among links and members that aren't as they should be:
// everybody gets everything.
func TestSimTrouble(t *testing.T) {
	n, blocks, sizes := 20, 4, []int{128}
	if figures.Long() {
		n, blocks, sizes = 50, 12, []int{16, 128, 1024}
	}
	some := func(p *play, share float64, f func(*actor)) {
		for _, i := range p.rng.Perm(n - 1)[:int(share*float64(n-1)+.5)] {
			f(p.nodes[i+1])
		}
	}
	var r figures.Records
	for _, c := range []struct {
		name  string
		stage func(p *play)
	}{
		{"nothing", nil},
		{"a tenth at 20 Mbit/s and 150 ms", func(p *play) {
			some(p, .1, func(a *actor) { a.up, a.latency = simRate/5, 150*time.Millisecond })
			p.measureLatencies()
		}},
		{"20 % silent relays", func(p *play) { some(p, .2, func(a *actor) { a.mute = true }) }},
		{"10 % of chunks lost", func(p *play) {
			p.mess = func(_, _ *actor, fx effect) bool {
				_, ok := fx.(fxChunk)
				return ok && p.rng.Float64() < .1
			}
		}},
		{"all of these", func(p *play) {
			some(p, .1, func(a *actor) { a.up, a.latency = simRate/5, 150*time.Millisecond })
			p.measureLatencies()
			some(p, .2, func(a *actor) { a.mute = true })
			p.mess = func(_, _ *actor, fx effect) bool {
				_, ok := fx.(fxChunk)
				return ok && p.rng.Float64() < .1
			}
		}},
	} {
		for _, kib := range sizes {
			t.Run(fmt.Sprintf("%s, %d KiB", c.name, kib), func(t *testing.T) {
				f := casts(t, n, orgsOf(n), kib<<10, blocks, c.stage)
				t.Log(f)
				f.record(&r, "cast.trouble", map[string]any{"nodes": n, "block_kib": kib, "trouble": c.name})
				require.Less(t, f.at(1), 5*time.Second)
			})
		}
	}
	for _, kib := range sizes {
		t.Run(fmt.Sprintf("the leader dies after half of its chunks, %d KiB", kib), func(t *testing.T) {
			f := dyingLeader(t, n, kib<<10)
			t.Log(f)
			f.record(&r, "cast.trouble", map[string]any{"nodes": n, "block_kib": kib, "trouble": "the leader dies after half of its chunks; a second one comes 300 ms later"})
			require.Less(t, f.at(1), 5*time.Second)
		})
	}
	figures.Save(t, "cast.trouble", r)
}

// dyingLeader has a leader die when half of its chunks went out. The leader of
// another organisation has the block from the orderers a little later.
func dyingLeader(t testing.TB, n, size int) (f outcome) {
	p := newPlay(t, uint64(n), n, orgsOf(n))
	leader, second := p.nodes[0], p.nodes[1]
	h, code := p.head(1, size, leader)
	sent := 0
	p.mess = func(from, _ *actor, fx effect) bool {
		if _, ok := fx.(fxChunk); ok && from == leader {
			if sent++; sent > code.Shape.N()*code.Shape.Segments/2 {
				leader.dead = true
			}
		}
		return from.dead
	}
	p.begin = p.now
	leader.cast(h, code)
	p.after(time.Second, func() { // its connections end
		for _, a := range p.nodes[1:] {
			a.step(evLeft{leader.id})
		}
	})
	twin := p.announce(h.Block, code, second)
	p.after(300*time.Millisecond, func() { second.cast(twin, code) })
	p.run(time.Minute)
	f.take(p, size, 1)
	return f
}

// measureLatencies has each core know how far the others are, as pings tell.
func (p *play) measureLatencies() {
	for _, a := range p.nodes {
		for _, b := range p.nodes {
			if a != b {
				a.step(evLink{b.id, max(a.latency, b.latency)})
			}
		}
	}
}

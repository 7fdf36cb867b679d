package election

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"grapevine/itest/figures"
)

// A nemesis is one kind of trouble, for a town that has settled.
type nemesis struct {
	name   string
	do     func(t *town)
	idle   time.Duration // the longest time without a pull, if it isn't that without a leader
	starve time.Duration // the longest time that a block may be lacking; 0: not judged
}

// times repeats trouble, and lets the town settle between.
func times(n int, f func(t *town, i int)) func(t *town) {
	return func(t *town) {
		for i := range n {
			f(t, i)
			t.run(t.between(4*time.Second, 15*time.Second))
		}
	}
}

func lead(t *town) int {
	for t.leader() < 0 {
		t.run(townStep)
	}
	return t.leader()
}

var nemeses = []nemesis{
	{name: "leader crash", do: times(6, func(t *town, _ int) {
		i := lead(t)
		t.kill(i)
		t.run(t.between(0, 8*time.Second))
		t.boot(i)
	})},
	{name: "leader pause", do: times(6, func(t *town, _ int) {
		i := lead(t)
		t.pause(i)
		t.run(t.between(100*time.Millisecond, 12*time.Second))
		t.resume(i)
	})},
	{name: "slow leader", do: times(4, func(t *town, _ int) {
		i := lead(t)
		t.peers[i].slow = t.between(100*time.Millisecond, 1500*time.Millisecond)
		t.run(t.between(5*time.Second, 30*time.Second))
		t.peers[i].slow = 0
	})},
	{name: "leader cut from orderers", idle: 9 * time.Second, do: times(4, func(t *town, _ int) {
		i := lead(t)
		t.orderers(i, false, t.rng.IntN(2) == 0)
		t.run(t.between(1*time.Second, 40*time.Second))
		t.orderers(i, true, false)
	})},
	{name: "all cut from orderers", idle: 9 * time.Second, do: func(t *town) {
		hole := t.rng.IntN(2) == 0
		for i := range t.peers {
			t.orderers(i, false, hole)
		}
		t.run(10 * time.Minute)
		if t.leader() >= 0 {
			t.oracle.fail("%d leads, and nobody reaches an orderer", t.leader())
		}
		for i := range t.peers {
			t.orderers(i, true, false)
		}
		t.run(10 * time.Second)
	}},
	{name: "some cut from orderers", idle: 9 * time.Second, do: times(6, func(t *town, _ int) {
		for i := range t.peers {
			t.orderers(i, t.rng.IntN(2) == 0, t.rng.IntN(2) == 0)
		}
		t.run(t.between(3*time.Second, 20*time.Second))
	})},
	{name: "halves", do: times(5, func(t *town, _ int) {
		side := make([]bool, len(t.peers))
		for i := range side {
			side[i] = t.rng.IntN(2) == 0
		}
		t.cut(func(a, b int) bool { return side[a] != side[b] })
		t.run(t.between(time.Second, 20*time.Second))
		t.heal()
	})},
	{name: "one alone", do: times(5, func(t *town, _ int) {
		x := t.rng.IntN(len(t.peers))
		if t.rng.IntN(2) == 0 {
			x = lead(t)
		}
		t.cut(func(a, b int) bool { return a == x || b == x })
		t.run(t.between(time.Second, 20*time.Second))
		t.heal()
	})},
	{name: "ring and bridge", do: times(4, func(t *town, k int) {
		n := len(t.peers)
		off := t.rng.IntN(n)
		t.cut(func(a, b int) bool {
			a, b = (a+off)%n, (b+off)%n
			d := (a - b + n) % n
			line := d == 1 || d == n-1
			if k%2 == 0 && (a == 0 && b == n-1 || b == 0 && a == n-1) {
				line = n == 2
			}
			return !line
		})
		t.run(t.between(5*time.Second, 30*time.Second))
		t.heal()
	})},
	{name: "one way", do: times(5, func(t *town, k int) {
		x := t.rng.IntN(len(t.peers))
		if k%2 == 0 {
			x = lead(t)
		}
		in := t.rng.IntN(2) == 0
		t.cut(func(a, b int) bool { return in && b == x || !in && a == x })
		t.run(t.between(time.Second, 20*time.Second))
		t.heal()
	})},
	{name: "random links", do: times(6, func(t *town, _ int) {
		down := map[[2]int]bool{}
		for a := range t.peers {
			for b := range t.peers {
				down[[2]int{a, b}] = t.rng.Float64() < 0.3
			}
		}
		t.cut(func(a, b int) bool { return down[[2]int{a, b}] })
		t.run(t.between(3*time.Second, 15*time.Second))
		t.heal()
	})},
	{name: "flapping", do: func(t *town) {
		for range 20 {
			x := lead(t)
			t.cut(func(a, b int) bool { return (a == x) != (b == x) })
			t.run(500 * time.Millisecond)
			t.heal()
			t.run(500 * time.Millisecond)
		}
		t.run(5 * time.Second)
	}},
	{name: "restart storm", do: times(4, func(t *town, k int) {
		for i := range t.peers {
			switch k % 2 {
			case 0:
				t.kill(i)
			default: // rolling
				t.kill(i)
				t.run(time.Second)
				t.boot(i)
			}
		}
		if k%2 == 0 {
			t.run(t.between(100*time.Millisecond, 2*time.Second))
			for i := range t.peers {
				t.after(t.between(0, 500*time.Millisecond), func() { t.boot(i) })
			}
		}
		t.run(time.Second)
	})},
	{name: "stale orderer", idle: 9 * time.Second, do: times(3, func(t *town, _ int) {
		i := lead(t)
		t.others = t.rng.IntN(2) == 0
		t.peers[i].stale = true
		t.log("%v stale %d others %v", t.now.Sub(townEpoch), i, t.others)
		t.run(15 * time.Second)
		t.peers[i].stale = false
		t.others = false
	}), starve: 8 * time.Second},
	{name: "drip and withhold", do: times(2, func(t *town, k int) {
		p := t.peers[lead(t)]
		if k%2 == 0 {
			p.drip = t.between(2500*time.Millisecond, 5900*time.Millisecond)
		} else {
			p.withholds = true
		}
		t.run(25 * time.Second)
		p.drip, p.withholds = 0, false
	}), starve: 8 * time.Second},
	{name: "steady", do: func(t *town) {
		for range 10 {
			was := t.oracle.changes
			t.run(time.Minute)
			if n := t.oracle.changes - was; n > 1 {
				t.oracle.fail("%d changes in a minute without trouble", n)
			}
		}
	}},
	{name: "anything", do: times(12, func(t *town, _ int) {
		x := t.rng.IntN(len(t.peers))
		switch t.rng.IntN(6) {
		case 0:
			t.kill(x)
			t.after(t.between(0, 5*time.Second), func() { t.boot(x) })
		case 1:
			t.pause(x)
			t.after(t.between(0, 5*time.Second), func() { t.resume(x) })
		case 2:
			t.cut(func(a, b int) bool { return a == x || b == x })
			t.run(t.between(0, 8*time.Second))
			t.heal()
		case 3:
			t.orderers(x, false, true)
			t.after(t.between(0, 20*time.Second), func() { t.orderers(x, true, false) })
		case 4:
			t.peers[x].slow = t.between(0, time.Second)
			t.after(5*time.Second, func() { t.peers[x].slow = 0 })
		case 5:
			t.cut(func(a, b int) bool { return a == x })
			t.run(t.between(0, 6*time.Second))
			t.heal()
		}
	}), idle: 12 * time.Second},
}

// outcome sums up many seeds of one nemesis.
type outcome struct {
	none, idle, two []time.Duration
	starve          time.Duration
	changes, words  int
	claims          int
	seconds         float64
	errs            []string
}

// try plays one seed.
func try(k nemesis, seed uint64, log func(string, ...any)) (o outcome) {
	t := newTown(seed, 2+int(seed/uint64(len(nemeses)))%6)
	if log != nil {
		t.log = log
	}
	t.loss = []float64{0, 0.01, 0.1, 0.2, 0.3}[seed%5]
	t.datagrams = seed%2 == 0
	t.blockGap = t.between(100*time.Millisecond, time.Second)
	t.run(12 * time.Second)
	if seed%3 == 0 {
		t.run(restless) // a leader is calm by then
	}
	k.do(t)
	for i := range t.peers {
		t.orderers(i, true, false)
		t.resume(i)
		if !t.peers[i].up {
			t.boot(i)
		}
	}
	t.heal()
	t.run(10 * time.Second)
	if err := t.level(30); err != nil {
		t.oracle.fail("%v", err)
	}
	if k.starve > 0 && t.oracle.starve > k.starve {
		t.oracle.fail("a block was lacking for %v", t.oracle.starve)
	}
	r := &t.oracle
	for _, d := range r.none {
		if d > mostNone {
			r.fail("no leader for %v", d)
		}
	}
	for _, d := range r.two {
		if d > mostTwo {
			r.fail("two leaders for %v", d)
		}
	}
	if most := max(k.idle, mostNone+time.Second); quantile(r.idle, 1) > most {
		r.fail("nobody pulled for %v", quantile(r.idle, 1))
	}
	o.none, o.idle, o.two, o.errs, o.starve = r.none, r.idle, r.two, r.errs, r.starve
	o.changes, o.words, o.claims, o.seconds = r.changes, t.words, t.claims, t.now.Sub(townEpoch).Seconds()
	return o
}

func (o *outcome) add(p outcome) {
	o.none, o.idle, o.two = append(o.none, p.none...), append(o.idle, p.idle...), append(o.two, p.two...)
	o.changes, o.words, o.claims, o.seconds = o.changes+p.changes, o.words+p.words, o.claims+p.claims, o.seconds+p.seconds
	o.starve = max(o.starve, p.starve)
}

// plays runs seeds of a nemesis on all cores.
func plays(t *testing.T, k nemesis, first, seeds uint64) outcome {
	const workers = 2
	var all outcome
	var mu sync.Mutex
	var g sync.WaitGroup
	for w := range uint64(workers) {
		g.Go(func() {
			for s := first + w; s < first+seeds; s += workers {
				o := try(k, s, nil)
				mu.Lock()
				all.add(o)
				if len(o.errs) > 0 && len(all.errs) < 10 {
					all.errs = append(all.errs, fmt.Sprintf("seed %d: %v", s, o.errs))
				}
				mu.Unlock()
			}
		})
	}
	g.Wait()
	return all
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// TestElection plays a few seeds of each nemesis; TestSimElection plays many.
func TestElection(t *testing.T) {
	for _, k := range nemeses {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			o := plays(t, k, 0, 12)
			require.Empty(t, o.errs)
			require.LessOrEqual(t, quantile(o.none, 0.99), mostNone)
		})
	}
}

// TestSimElection is the promise: 1000 seeds of each nemesis.
func TestSimElection(t *testing.T) {
	if !figures.Long() {
		t.Skip("make sim")
	}
	const seeds = 1000
	var r figures.Records
	for _, k := range nemeses {
		t.Run(k.name, func(t *testing.T) {
			o := plays(t, k, 1, seeds)
			p := map[string]any{"nemesis": k.name, "seeds": seeds}
			changes, words := float64(o.changes-seeds)/o.seconds*60, float64(o.words)/o.seconds
			r.Spread("election.no_leader", p, o.none)
			r.Spread("election.no_pull", p, o.idle)
			r.Spread("election.two_leaders", p, o.two)
			r.Add("election.block_lacking.max", p, "ms", figures.Millis(o.starve))
			r.Add("election.changes", p, "per minute", changes)
			r.Add("election.words", p, "per second", words)
			r.Add("election.claims", p, "per second", float64(o.claims)/o.seconds)
			t.Logf("%-26s no leader p50 %5.0f p99 %5.0f max %5.0f ms (%d) | no pull p99 %5.0f max %5.0f | two p99 %5.0f max %5.0f (%d) | block lacking max %.0f | %.2f changes/min, %.1f words/s",
				k.name, ms(quantile(o.none, .5)), ms(quantile(o.none, .99)), ms(quantile(o.none, 1)), len(o.none), ms(quantile(o.idle, .99)), ms(quantile(o.idle, 1)),
				ms(quantile(o.two, .99)), ms(quantile(o.two, 1)), len(o.two), ms(o.starve), changes, words)
			require.Empty(t, o.errs)
			require.LessOrEqual(t, quantile(o.none, 0.99), 3*time.Second)
		})
	}
	figures.Save(t, "election", r)
}

package cast

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"grapevine/itest/figures"
	"grapevine/wire"
)

// settled holds what must be true when all is over: no session is open, nobody
// honest is barred or was found to lie.
func (p *play) settled() {
	p.t.Helper()
	for i, a := range p.nodes {
		if a.dead {
			continue
		}
		require.Empty(p.t, a.core.sessions, "node %d", i)
		require.Empty(p.t, a.core.barred, "node %d", i)
		require.Zero(p.t, a.lies, "node %d", i)
		require.Equal(p.t, a.opened, a.closed, "node %d", i)
		for code := range a.refused {
			require.Contains(p.t, []string{Duplicate.Code(), OverShare.Code(), Unknown.Code(), NotOrigin.Code(), NoPath.Code()}, code, "node %d", i)
		}
	}
}

// TestRandomPlays lets leaders cast blocks among nodes of which some are silent,
// slow or die, over links that lose frames and break, and holds that all who
// live get all that anyone has.
func TestRandomPlays(t *testing.T) {
	plays := 60
	if figures.Long() {
		plays = 2000
	}
	for seed := range uint64(plays) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { randomPlay(t, seed) })
	}
}

func randomPlay(t *testing.T, seed uint64) {
	p := newPlay(t, seed, 3+int(seed%14), 1+int(seed/3%4))
	rng := p.rng
	for _, a := range p.nodes {
		a.core.wide = seed%5 == 4
		a.mute = rng.IntN(5) == 0
		a.topic = rng.IntN(8) > 0
		if rng.IntN(6) == 0 {
			a.up, a.latency = simRate/5, 150*time.Millisecond
		}
	}
	leader, second := p.nodes[0], p.nodes[len(p.nodes)-1]
	lost := rng.Float64() * .3
	p.mess = func(from, to *actor, fx effect) bool { return rng.Float64() < lost }
	var last uint64
	for n := range uint64(1 + rng.IntN(4)) {
		last = n + 1
		h, code := p.head(last, wire.InlineLimit+1+rng.IntN(150<<10), leader)
		p.after(time.Duration(rng.IntN(200))*time.Millisecond, func() { leader.cast(h, code) })
		if rng.IntN(2) == 0 { // its copy from another orderer
			twin := p.announce(h.Block, code, second)
			p.after(time.Duration(rng.IntN(300))*time.Millisecond, func() { second.cast(twin, code) })
		}
	}
	if rng.IntN(3) == 0 {
		p.after(time.Duration(rng.IntN(200))*time.Millisecond, func() { leader.dead = true })
	}
	if rng.IntN(3) == 0 && len(p.nodes) > 3 { // one is cut off for a while
		a := p.nodes[1]
		p.after(time.Duration(rng.IntN(100))*time.Millisecond, func() {
			for _, b := range p.nodes {
				b.step(evLeft{a.id})
				a.step(evLeft{b.id})
			}
		})
		p.after(400*time.Millisecond, func() {
			for _, b := range p.nodes {
				if b != a {
					b.step(evArrived{a.id, a.core.org})
					a.step(evArrived{b.id, b.core.org})
				}
			}
		})
	}
	p.run(2 * time.Minute)
	for n := uint64(1); n <= last; n++ {
		somebody := false
		for _, a := range p.nodes {
			_, ok := a.got[n]
			somebody = somebody || ok && !a.dead
		}
		for i, a := range p.nodes {
			if _, ok := a.got[n]; somebody && !ok && !a.dead && a.told[n] {
				t.Fatalf("node %d was told of block %d, which others have, and never got it", i, n)
			}
		}
	}
	p.settled()
}

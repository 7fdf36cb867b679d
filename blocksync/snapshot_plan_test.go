package blocksync

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"
)

// port is a haul and its peers in virtual time.
type port struct {
	t     *testing.T
	h     *haul
	now   time.Time
	queue []portEvent
	ships map[peer.ID]ship
	gone  map[uint64]bool // requests that were cancelled
	got   map[int]int     // how often a chunk came
}

type portEvent struct {
	at  time.Time
	run func()
}

// ship is a peer: honest with a rate, or with a manner of its own.
type ship struct {
	rate   float64 // bytes a second
	manner string  // "", "lies", "silent", "slow", "lacks"
}

func newPort(t *testing.T, chunks int, size int64) *port {
	sizes := slices.Repeat([]int64{size}, chunks)
	return &port{
		t: t, h: newHaul(sizes, make([]bool, chunks), 3*time.Second), now: time.Unix(1e9, 0),
		ships: map[peer.ID]ship{}, gone: map[uint64]bool{}, got: map[int]int{},
	}
}

func (p *port) after(d time.Duration, run func()) {
	at := p.now.Add(d)
	i, _ := slices.BinarySearchFunc(p.queue, at, func(e portEvent, at time.Time) int {
		return cmp.Or(e.at.Compare(at), -1) // behind its equals
	})
	p.queue = slices.Insert(p.queue, i, portEvent{at, run})
}

func (p *port) step(e haulEvent) {
	for _, x := range slices.Clone(p.h.step(e, p.now)) {
		switch x := x.(type) {
		case hxAsk:
			require.Positive(p.t, x.count)
			for i := x.first; i < x.first+x.count; i++ {
				require.False(p.t, p.h.here[i], "asked for what is here")
				require.LessOrEqual(p.t, p.h.copies[i], haulCopies+len(p.ships))
			}
			require.LessOrEqual(p.t, p.h.peers[x.peer].flying, haulFlights)
			p.serve(x)
		case hxCancel:
			p.gone[x.id] = true
		}
	}
}

// serve plays a peer's answer.
func (p *port) serve(x hxAsk) {
	s := p.ships[x.peer]
	end := func(f fault) {
		if !p.gone[x.id] {
			p.gone[x.id] = true
			p.step(hvEnded{x.id, f})
		}
	}
	switch s.manner {
	case "lies":
		p.after(100*time.Millisecond, func() { end(wrong) })
		return
	case "silent":
		return
	case "lacks":
		p.after(10*time.Millisecond, func() { end(lacking) })
		return
	}
	var drip func() // never silent
	drip = func() {
		if !p.gone[x.id] {
			p.step(hvMoved{x.id})
			p.after(time.Second, drip)
		}
	}
	drip()
	at := 10 * time.Millisecond
	for i := x.first; i < x.first+x.count; i++ {
		// Two requests share the line.
		at += time.Duration(2 * float64(p.h.sizes[i]) / s.rate * float64(time.Second))
		p.after(at, func() {
			if !p.gone[x.id] {
				p.got[i]++
				p.step(hvCame{x.id, i})
			}
		})
	}
	p.after(at, func() { end(ours) })
}

// run plays until all is here, and returns how long it took.
func (p *port) run() time.Duration {
	began := p.now
	for id := range p.ships {
		p.after(0, func() { p.step(hvPeer{id}) })
	}
	var tick func()
	tick = func() { p.step(hvTick{}); p.after(haulTick, tick) }
	p.after(haulTick, tick)
	for p.h.left > 0 {
		e := p.queue[0]
		p.queue = p.queue[1:]
		p.now = e.at
		require.Less(p.t, p.now.Sub(began), time.Hour, "it doesn't end: %v", p.ships)
		e.run()
	}
	return p.now.Sub(began)
}

// TestHaulBadPeersCostLittle is 30 % of lying, silent and slow peers: at most 1.2
// times as long as the honest ones alone need.
func TestHaulBadPeersCostLittle(t *testing.T) {
	const chunks, size = 400, 1 << 20
	course := func(bad ...string) (time.Duration, *port) {
		p := newPort(t, chunks, size)
		for i := range 7 {
			p.ships[peer.ID(fmt.Sprintf("honest%d", i))] = ship{rate: 10e6}
		}
		for i, m := range bad {
			p.ships[peer.ID(fmt.Sprintf("bad%d", i))] = ship{rate: cmp.Or(map[string]float64{"slow": 1e3}[m], 10e6), manner: m}
		}
		return p.run(), p
	}
	honest, _ := course()
	for _, m := range []string{"lies", "silent", "slow", "lacks"} {
		took, p := course(m, m, m)
		t.Logf("%s: %v, honest alone %v", m, took, honest)
		require.LessOrEqual(t, took.Seconds(), 1.2*honest.Seconds(), m)
		twice := 0
		for _, n := range p.got {
			twice += n - 1
		}
		require.LessOrEqual(t, twice, chunks/10, "chunks brought twice")
	}
}

// TestHaulEnds plays random peers that come, go and come back.
func TestHaulEnds(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 3))
		p := newPort(t, 1+rng.IntN(100), 1+rng.Int64N(3<<20))
		p.ships["honest"] = ship{rate: 1e6 + 1e7*rng.Float64()}
		for i := range rng.IntN(8) {
			id := peer.ID(fmt.Sprint(i))
			p.ships[id] = ship{rate: 1e4 + 1e7*rng.Float64(), manner: []string{"", "", "lies", "silent", "slow", "lacks"}[rng.IntN(6)]}
			for range rng.IntN(4) {
				at := time.Duration(rng.Int64N(int64(20 * time.Second)))
				p.after(at, func() { p.step(hvGone{id}) })
				p.after(at+time.Duration(rng.Int64N(int64(time.Second))), func() { p.step(hvPeer{id}) })
			}
		}
		p.run()
		require.Zero(t, p.h.left)
	}
}

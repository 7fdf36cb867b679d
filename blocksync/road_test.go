package blocksync

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	"grapevine/itest/figures"
)

// More manners, of peers that mean harm, on simulated roads.
const (
	cheater   manner = manners + iota // wrong bytes after half a slice, having been honest until the middle of the chain
	staller                           // half a slice, then nothing
	tortoise                          // just above the floor
	boaster                           // says that a block is huge, and sends a little of it
	parker                            // blocks that wait for a configuration that never comes
	turncoat                          // honest at first, silent from the middle of the chain
	pretender                         // claims the height, and says busy at each question but the first
)

// road is a world of bandwidth: each peer's way up, the asker's way down, and
// its cores, each shared in the order in which they are asked for.
type road struct {
	delay time.Duration // one way
	down  float64       // bytes a second
	check float64       // bytes a second that can be checked and committed
	tip   uint64

	downFree, checkFree time.Time
}

func take(free *time.Time, from time.Time, bytes int64, rate float64) time.Time {
	*free = latest(*free, from).Add(time.Duration(float64(bytes) / rate * float64(time.Second)))
	return *free
}

// answer plays a peer's part in one slice.
func (r *road) answer(m *sim, fx fxFetch, p *simPeer, report func(time.Duration, func()), fail func(fault) func()) {
	asked := m.now.Add(r.delay)
	at := func(t time.Time, run func()) { report(t.Sub(m.now), run) }
	late := fx.from >= r.tip/2
	switch {
	case p.manner == silent, p.manner == turncoat && late:
		return
	case p.manner == refuser, p.manner == pretender && fx.from > 64:
		at(asked.Add(r.delay), fail(busy))
		return
	case fx.from >= p.height, p.manner == liar:
		at(asked.Add(fx.wait+r.delay), fail(lacking))
		return
	}
	count, up, end := min(fx.to, p.height)-fx.from, p.up, (func())(nil)
	switch p.manner {
	case crawler:
		up = floorRate / 4
	case tortoise:
		up = floorRate * 2
	case breaker:
		count, end = count/2, fail(broken)
	case staller:
		count, end = count/2, func() {}
	case forger:
		count, end = count/2, fail(wrong)
	case cheater:
		if late {
			count, end = count/2, fail(wrong)
		}
	case boaster:
		at(asked.Add(r.delay), func() {
			m.step(evSized{fx.from, ahead})
			m.step(evMoved{fx.id, 1000})
		})
		return
	}
	free := latest(p.free, asked)
	for i := range count {
		n := fx.from + i
		sent := take(&free, asked, m.size(n), up)
		if p.manner != crawler && p.manner != tortoise {
			p.free = free // its other slices wait; a slow one is slow by itself
		}
		at(sent.Add(r.delay), func() {
			came := take(&r.downFree, m.now, m.size(n), r.down)
			at(came, func() {
				m.step(evSized{n, m.size(n)})
				m.step(evMoved{fx.id, m.size(n)})
				if p.manner == parker {
					m.step(evParked{fx.id, true})
					r.judge(m, fx, n)
					return
				}
				at(take(&r.checkFree, m.now, m.size(n), r.check), func() {
					m.bring(fx, n)
					r.end(m, fx, n == fx.from+count-1, end)
				})
			})
		})
	}
	if count == 0 && end != nil {
		at(asked.Add(r.delay), end)
	}
}

// end ends a slice behind its last block.
func (r *road) end(m *sim, fx fxFetch, last bool, end func()) {
	if _, ok := m.live[fx.id]; !ok || !last {
		return
	}
	if end != nil {
		end()
		return
	}
	m.step(evRead{fx.id})
	if _, ok := m.live[fx.id]; ok {
		delete(m.live, fx.id)
		m.step(evDone{fx.id})
	}
}

// judge finds a block that waits for a configuration wrong once all before it is
// committed, as the shell does.
func (r *road) judge(m *sim, fx fxFetch, n uint64) {
	m.after(10*time.Millisecond, func() {
		switch _, ok := m.live[fx.id]; {
		case !ok:
		case m.w.base >= n:
			delete(m.live, fx.id)
			m.step(evFailed{id: fx.id, fault: wrong})
		default:
			r.judge(m, fx, n)
		}
	})
}

// course is how long a straggler takes, and what it cost.
func course(t *testing.T, r road, size int64, peers int, bad ...manner) time.Duration {
	m := newSim(t, 0, DefaultReach, 64<<20)
	m.size = func(uint64) int64 { return size }
	m.every = 997
	m.road = &r
	for i := range peers {
		p := &simPeer{id: peer.ID(fmt.Sprintf("p%d", i)), height: r.tip, up: 12.5e6}
		claims := p.height
		if i < len(bad) {
			p.manner = bad[i]
		}
		if p.manner == liar {
			claims = 1e18
		}
		m.add(p, claims)
	}
	require.True(t, m.run(r.tip, time.Hour))
	return m.now.Sub(epoch)
}

// T14: 30 % of the peers lie, are slow or silent, and the straggler is there
// within 1.2 times the time that it takes
//
//   - among as many honest ones, where its own road or cores are the limit;
//   - among the honest ones alone, where their roads are.
//
// Here three manners at once are played, in TestSimBadPeers every one.
func TestBadPeersCostLittle(t *testing.T) { badPeers(t, false) }

func TestSimBadPeers(t *testing.T) {
	if !figures.Long() {
		t.Skip("it plays every manner: make sim")
	}
	badPeers(t, true)
}

func badPeers(t *testing.T, sim bool) {
	var r figures.Records
	wide := road{delay: 25 * time.Millisecond, down: 1e9, check: 1e9}
	narrow := road{delay: 25 * time.Millisecond, down: 40e6, check: 40e6}
	for _, load := range []struct {
		name   string
		size   int64
		blocks uint64
	}{{"10 KiB", 10 << 10, 40_000}, {"1 MiB", 1 << 20, 600}} {
		if !sim {
			load.blocks /= 2
		}
		wide.tip, narrow.tip = load.blocks, load.blocks
		alone, among := course(t, wide, load.size, 7), course(t, narrow, load.size, 10)
		t.Logf("%s: 7 honest peers at 12.5 MB/s each %v; 10 of them and 40 MB/s down %v", load.name, alone, among)
		plays := map[string][3]manner{
			"lying, slow and silent": {cheater, tortoise, silent}, "liar, crawler, turncoat": {liar, crawler, turncoat},
			"parker, boaster, pretender": {parker, boaster, pretender},
		}
		if sim {
			maps.Copy(plays, map[string][3]manner{
				"silent": {silent, silent, silent}, "liar": {liar, liar, liar}, "crawler": {crawler, crawler, crawler},
				"breaker": {breaker, breaker, breaker}, "forger": {forger, forger, forger}, "cheater": {cheater, cheater, cheater},
				"staller": {staller, staller, staller}, "tortoise": {tortoise, tortoise, tortoise}, "boaster": {boaster, boaster, boaster},
				"parker": {parker, parker, parker}, "turncoat": {turncoat, turncoat, turncoat}, "pretender": {pretender, pretender, pretender},
			})
		}
		for name, bad := range plays {
			t.Run(load.name+"/"+name, func(t *testing.T) {
				a, b := course(t, wide, load.size, 10, bad[:]...), course(t, narrow, load.size, 10, bad[:]...)
				beside, of := a.Seconds()/alone.Seconds(), b.Seconds()/among.Seconds()
				t.Logf("beside the honest ones alone %.2f, among as many %.2f", beside, of)
				p := map[string]any{"blocks": load.name, "peers": 10, "bad": name}
				r.Add("catchup.bad_peers.beside_honest_alone", p, "ratio of times", beside)
				r.Add("catchup.bad_peers.among_as_many", p, "ratio of times", of)
				require.LessOrEqual(t, a, alone*12/10)
				require.LessOrEqual(t, b, among*12/10)
			})
		}
	}
	figures.Save(t, "blocksync", r)
}

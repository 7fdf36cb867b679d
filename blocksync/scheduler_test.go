package blocksync

import (
	"fmt"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// Whatever the others do: with one honest peer every gap is closed.
func TestSchedulerClosesEveryGap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		start := rapid.Uint64Range(0, 100).Draw(t, "start")
		tip := start + rapid.Uint64Range(1, 400).Draw(t, "blocks")
		reach := rapid.Uint64Range(1, 256).Draw(t, "reach")
		budget := rapid.Int64Range(1, 300_000).Draw(t, "budget")
		m := newSim(t, start, reach, budget)
		sizes := rapid.SliceOfN(rapid.Int64Range(1, 40_000), 7, 7).Draw(t, "sizes")
		m.size = func(n uint64) int64 { return sizes[n%7] }
		m.step(evTick{})
		n := rapid.IntRange(0, 8).Draw(t, "others")
		for i := range n {
			p := &simPeer{
				id: peer.ID(fmt.Sprintf("p%d", i)), manner: manner(rapid.IntRange(0, int(manners)-1).Draw(t, "manner")),
				height: rapid.Uint64Range(0, tip).Draw(t, "height"), pace: time.Duration(rapid.IntRange(1, 50).Draw(t, "pace")) * time.Millisecond,
			}
			claims := p.height
			if p.manner == liar {
				claims = rapid.SampledFrom([]uint64{tip, 1e18, 1<<64 - 1}).Draw(t, "claim")
			}
			m.add(p, claims)
		}
		// Random pushes, announcements, departures and returns meanwhile.
		for range rapid.IntRange(0, 40).Draw(t, "noise") {
			at := time.Duration(rapid.IntRange(0, 5000).Draw(t, "at")) * time.Millisecond
			k := rapid.Uint64Range(start, tip-1).Draw(t, "number")
			who := peer.ID(fmt.Sprintf("p%d", rapid.IntRange(0, 8).Draw(t, "who")))
			switch rapid.IntRange(0, 4).Draw(t, "what") {
			case 0:
				m.after(at, func() { m.put(k, who, 0) })
			case 1:
				if m.peers[who] != nil {
					m.after(at, func() { m.step(evAnnounced{k, m.size(k), []peer.ID{who}}) })
				}
			case 2:
				m.after(at, func() { m.leave(who) })
			case 3:
				if p := m.peers[who]; p != nil {
					m.after(at, func() { m.step(evHeight{who, p.height / 2}); m.step(evHeight{who, p.height}) })
				}
			case 4:
				m.after(at, func() {
					if m.w.drop(k) {
						m.step(evDropped{k})
					}
				})
			}
		}
		late := time.Duration(rapid.IntRange(0, 3000).Draw(t, "late")) * time.Millisecond
		good := &simPeer{id: "good", height: tip, pace: 2 * time.Millisecond}
		m.peers["good"] = good
		m.after(late, func() { m.step(evHeight{"good", tip}) })
		// Whoever sent a block that was pushed is asked as one that has it.
		for i := range 9 {
			if id := peer.ID(fmt.Sprintf("p%d", i)); m.peers[id] == nil {
				m.peers[id] = &simPeer{id: id, manner: refuser, pace: time.Millisecond}
			}
		}
		require.True(t, m.run(tip, 30*time.Minute), "stuck at %d of %d after %d steps", m.w.base, tip, m.steps)
		require.LessOrEqual(t, m.steps, 200_000)
	})
}

// A block that the push path brings within the grace isn't pulled.
func TestRepairIsSilentWhilePushWorks(t *testing.T) {
	m := newSim(t, 10, 128, 1<<20)
	m.add(&simPeer{id: "a", height: 1000, pace: time.Millisecond}, 10)
	for n := uint64(10); n < 500; n++ {
		// Out of order by one, and heights told before the push came.
		at := time.Duration(n-10) * 20 * time.Millisecond
		m.after(at+time.Duration(n%2)*30*time.Millisecond, func() { m.put(n, "a", 0) })
		m.after(at, func() { m.step(evHeight{"a", n + 1}) })
	}
	require.True(t, m.run(500, time.Minute))
	require.Zero(t, m.pulled, "pulled what was on its way")
}

// What is expected by push isn't pulled to fill a gap, until the wait is over.
func TestExpectedBlockIsntPulled(t *testing.T) {
	m := newSim(t, 5, 128, 64<<20)
	m.add(&simPeer{id: "a", height: 8, pace: time.Millisecond}, 5)
	m.step(evExpected{5, m.now.Add(3 * time.Second)})
	m.step(evExpected{6, m.now.Add(time.Hour)})
	m.put(7, "a", 0)
	m.step(evHeight{"a", 8})
	began := m.now
	require.True(t, m.run(6, 4*time.Second))
	require.GreaterOrEqual(t, m.now.Sub(began), 3*time.Second, "pulled what is on its way")
	require.Equal(t, uint64(6), m.s.height, "the other's isn't")
	m.step(evExpected{6, time.Time{}})
	require.True(t, m.run(8, time.Second))
	require.Equal(t, 2, m.pulled)
}

func TestAnnouncedBodyIsPulledAtOnceFromItsAnnouncer(t *testing.T) {
	m := newSim(t, 5, 128, 64<<20)
	for _, id := range []peer.ID{"a", "b", "c"} {
		m.add(&simPeer{id: id, height: 6, pace: time.Millisecond}, 5)
	}
	m.step(evAnnounced{5, 1 << 20, []peer.ID{"b"}})
	require.Len(t, m.live, 1)
	for _, f := range m.live {
		require.Equal(t, peer.ID("b"), f.peer)
		require.Equal(t, uint64(6), f.to)
	}
	require.True(t, m.run(6, time.Second))
}

// The peers remembered are bounded whatever comes.
func TestSourcesAreBounded(t *testing.T) {
	m := newSim(t, 0, 16, 1<<20)
	m.peers["good"] = &simPeer{id: "good", height: 50, pace: time.Millisecond}
	for i := range 3 * maxSources {
		id := peer.ID(fmt.Sprintf("x%06d", i))
		m.peers[id] = &simPeer{id: id, manner: refuser, pace: time.Millisecond}
		m.s.step(evHeight{id, uint64(i % 3)}, m.now)
	}
	m.check()
	require.LessOrEqual(t, len(m.s.sources), maxSources)
	m.step(evHeight{"good", 50})
	require.Contains(t, m.s.sources, peer.ID("good"))
}

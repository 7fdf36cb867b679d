package blocksync

import (
	"container/heap"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// manner is how a simulated peer answers.
type manner int

const (
	honest  manner = iota
	silent         // never answers
	liar           // claims what it doesn't have
	crawler        // a byte now and then
	breaker        // resets in the middle
	refuser        // always busy
	forger         // sends wrong bytes after some right ones
	manners
)

type simPeer struct {
	id     peer.ID
	manner manner
	height uint64        // really held
	pace   time.Duration // per block
}

// sim runs a scheduler and a window against simulated peers, in virtual time,
// and checks the invariants at every step.
type sim struct {
	t      require.TestingT
	s      *scheduler
	w      *window
	now    time.Time
	peers  map[peer.ID]*simPeer
	size   func(n uint64) int64
	queue  simQueue
	live   map[uint64]fxFetch
	barred map[peer.ID]time.Time
	wake   time.Time
	seq    int
	steps  int
	every  int // steps between checks
	pulled int // blocks fetched, doubles included
}

type simEvent struct {
	at  time.Time
	seq int
	run func()
}

// simQueue is a heap of events, the next first.
type simQueue []simEvent

func (q simQueue) Len() int      { return len(q) }
func (q simQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q simQueue) Less(i, j int) bool {
	if c := q[i].at.Compare(q[j].at); c != 0 {
		return c < 0
	}
	return q[i].seq < q[j].seq
}
func (q *simQueue) Push(e any) { *q = append(*q, e.(simEvent)) }
func (q *simQueue) Pop() any {
	e := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return e
}

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func testTerms(reach uint64, budget int64) terms {
	return terms{
		self: "self", reach: reach, budget: budget, grace: DefaultGrace, quiet: DefaultQuiet, look: time.Hour,
		most: sliceBlocks, retries: DefaultTries, repair: true,
	}
}

func newSim(t require.TestingT, height, reach uint64, budget int64) *sim {
	return &sim{
		t: t, now: epoch, wake: epoch.Add(time.Hour), every: 1,
		s:      newScheduler(testTerms(reach, budget), height),
		w:      newWindow(height, reach, budget),
		peers:  make(map[peer.ID]*simPeer),
		size:   func(uint64) int64 { return 1000 },
		live:   make(map[uint64]fxFetch),
		barred: make(map[peer.ID]time.Time),
	}
}

func (m *sim) after(d time.Duration, run func()) {
	m.seq++
	heap.Push(&m.queue, simEvent{m.now.Add(d), m.seq, run})
}

func (m *sim) step(e event) {
	m.steps++
	head := m.s.lead
	for _, fx := range slices.Clone(m.s.step(e, m.now)) {
		switch fx := fx.(type) {
		case fxFetch:
			m.checkFetch(fx, head)
			m.live[fx.id] = fx
			m.answer(fx)
		case fxCancel:
			delete(m.live, fx.id)
		case fxBan:
			m.barred[fx.peer] = m.now.Add(fx.d)
		case fxWake:
			m.wake = fx.at
		}
	}
	m.check()
}

func (m *sim) checkFetch(fx fxFetch, head uint64) {
	require.Less(m.t, fx.from, fx.to)
	require.LessOrEqual(m.t, fx.to-fx.from, uint64(sliceBlocks))
	require.GreaterOrEqual(m.t, fx.from, m.s.height)
	require.LessOrEqual(m.t, fx.to, m.s.height+m.s.reach)
	require.False(m.t, m.barred[fx.peer].After(m.now), "asks a banned peer")
	require.NotEqual(m.t, peer.ID("self"), fx.peer)
	for n := fx.from; n < fx.to; n++ {
		if m.s.at(n).copies == 2 {
			require.Equal(m.t, m.s.lead, fx.from, "a second copy of what isn't the head")
		}
	}
	flying := 0
	for _, f := range m.s.slices {
		if f.peer == fx.peer && !f.read {
			flying++
		}
	}
	require.LessOrEqual(m.t, flying, maxCredit+1)
}

// check compares the scheduler's counts with a recount.
func (m *sim) check() {
	if m.steps%m.every != 0 {
		return
	}
	copies, flying := make(map[uint64]int), make(map[peer.ID]int)
	for _, f := range m.s.slices {
		if !f.read {
			flying[f.peer]++
		}
		m.s.each(f, func(n uint64) { copies[n]++ })
	}
	var bytes, known, unknown int64
	lead, missing := m.s.height+m.s.reach, m.s.height+m.s.reach
	for n := m.s.height; n < m.s.height+m.s.reach; n++ {
		v := m.s.at(n)
		if copies[n] != v.copies || v.copies > 2 {
			require.Fail(m.t, "copies", "block %d: %d counted, %d in flight", n, v.copies, copies[n])
		}
		if _, ok := m.w.get(n); ok != v.held {
			require.Fail(m.t, "window and scheduler differ", "block %d held: %v, %v", n, ok, v.held)
		}
		switch {
		case v.held:
			bytes += v.size
		case v.copies == 0:
			missing = min(missing, n)
		case v.size > 0:
			known += v.size
		default:
			unknown++
		}
		if !v.held {
			lead = min(lead, n)
		}
	}
	require.Equal(m.t, [3]uint64{uint64(known), uint64(unknown), lead}, [3]uint64{uint64(m.s.known), uint64(m.s.unknown), m.s.lead})
	require.LessOrEqual(m.t, m.s.first, missing, "a missing number is passed over")
	require.Equal(m.t, bytes, m.s.bytes)
	require.Equal(m.t, m.w.bytes, m.s.bytes)
	require.LessOrEqual(m.t, len(m.s.sources), maxSources)
	for id, p := range m.s.sources {
		if flying[id] != p.flying {
			require.Fail(m.t, "flying", "%s: %d counted, %d in flight", id, p.flying, flying[id])
		}
	}
	for id := range m.live {
		if m.s.slices[id] == nil {
			require.Fail(m.t, "a slice was forgotten, not cancelled", "%d", id)
		}
	}
}

// answer plays a peer's part in one slice.
func (m *sim) answer(fx fxFetch) {
	p := m.peers[fx.peer]
	report := func(d time.Duration, run func()) {
		m.after(d, func() {
			if _, ok := m.live[fx.id]; ok {
				run()
			}
		})
	}
	fail := func(f fault) func() {
		return func() {
			delete(m.live, fx.id)
			m.step(evFailed{id: fx.id, fault: f, height: p.height})
		}
	}
	count := fx.to - fx.from
	switch p.manner {
	case silent:
		return
	case crawler:
		for i := range 100 {
			report(time.Duration(i)*time.Second, func() { m.step(evMoved{fx.id, 1}) })
		}
		return
	case refuser:
		report(p.pace, fail(busy))
		return
	}
	if fx.from >= p.height || p.manner == liar {
		report(p.pace+fx.wait, fail(lacking))
		return
	}
	count = min(count, p.height-fx.from)
	if p.manner != honest {
		count /= 2
	}
	for i := range count {
		report(time.Duration(i+1)*p.pace, func() { m.bring(fx, fx.from+i) })
	}
	end := time.Duration(count+1) * p.pace
	switch p.manner {
	case breaker:
		report(end, fail(broken))
	case forger:
		report(end, fail(wrong))
	default:
		report(end, func() {
			m.step(evRead{fx.id})
			delete(m.live, fx.id)
			m.step(evDone{fx.id})
		})
	}
}

// bring is a block of a slice as the shell takes it.
func (m *sim) bring(fx fxFetch, n uint64) {
	m.pulled++
	m.step(evMoved{fx.id, m.size(n)})
	m.s.step(evArrived{fx.id, n}, m.now) // with the put one step, as under the shell's lock
	if o := m.put(n, fx.peer, fx.id); o == full {
		m.s.step(evSized{n, m.size(n)}, m.now)
		if _, ok := m.live[fx.id]; ok {
			delete(m.live, fx.id)
			m.step(evFailed{id: fx.id, fault: ours})
		}
	}
}

func (m *sim) put(n uint64, from peer.ID, slice uint64) outcome {
	o, left := m.w.put(held{number: n, size: m.size(n)})
	for _, k := range left {
		m.s.step(evDropped{k}, m.now)
	}
	if o == kept {
		m.step(evHeld{n, m.size(n), from, slice})
		m.after(time.Millisecond, m.commit)
	}
	return o
}

func (m *sim) commit() {
	if run := m.w.next(batchBlocks, batchBytes); len(run) > 0 {
		m.w.advance(run[len(run)-1].number + 1)
		m.step(evCommitted{m.w.base})
		m.after(time.Millisecond, m.commit)
	}
}

// run plays until the ledger has a height, at most for a time.
func (m *sim) run(height uint64, most time.Duration) bool {
	for end := m.now.Add(most); m.w.base < height; {
		if len(m.queue) == 0 || m.wake.Before(m.queue[0].at) {
			if m.wake.After(end) {
				return false
			}
			m.now = m.wake
			m.step(evTick{})
			continue
		}
		e := heap.Pop(&m.queue).(simEvent)
		if e.at.After(end) {
			return false
		}
		m.now = e.at
		e.run()
	}
	return true
}

func (m *sim) add(p *simPeer, claims uint64) {
	m.peers[p.id] = p
	m.step(evHeight{p.id, claims})
}

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

func (m *sim) leave(id peer.ID) {
	m.step(evGone{id})
	for k, f := range m.live {
		require.NotEqual(m.t, id, f.peer, "slice %d of a peer that is gone", k)
	}
}

// A third of the peers lying, slow or silent costs little.
func TestBadPeersCostLittle(t *testing.T) {
	sync := func(bad ...manner) time.Duration {
		m := newSim(t, 0, 1024, 64<<20)
		m.size = func(uint64) int64 { return 10 << 10 }
		m.every = 1000
		const tip = 20_000
		for i := range 9 {
			p := &simPeer{id: peer.ID(fmt.Sprintf("p%d", i)), height: tip, pace: 5 * time.Millisecond}
			if i < len(bad) {
				p.manner = bad[i]
			}
			m.add(p, tip)
		}
		require.True(t, m.run(tip, time.Hour))
		t.Logf("%v: %v, %d blocks pulled", bad, m.now.Sub(epoch), m.pulled)
		return m.now.Sub(epoch)
	}
	six := sync(refuser, refuser, refuser) // six peers do the work in any case
	for _, bad := range []manner{silent, liar, crawler, breaker, forger} {
		require.LessOrEqual(t, sync(bad, bad, bad), six*12/10, "manner %d", bad)
	}
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

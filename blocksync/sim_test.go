package blocksync

import (
	"container/heap"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"
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
	pace   time.Duration // per block, if no roads are simulated
	up     float64       // bytes a second, if they are
	free   time.Time     // when its road is
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
	every  int   // steps between checks
	pulled int   // blocks fetched, doubles included
	road   *road // how blocks come; nil: each slice at its peer's pace
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
	effects := slices.Clone(m.s.step(e, m.now))
	head := m.s.lead
	m.checkBudget(effects, head)
	for _, fx := range effects {
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

// checkBudget holds that what is held and in flight stays within the budget, but
// for what the head needs.
func (m *sim) checkBudget(effects []effect, head uint64) {
	for _, fx := range effects {
		if f, ok := fx.(fxFetch); ok && f.from != head {
			require.LessOrEqual(m.t, m.s.bytes+m.s.flying(), m.s.budget, "asks for more than there is room for")
		}
	}
}

func (m *sim) checkFetch(fx fxFetch, head uint64) {
	if p := m.s.sources[fx.peer]; fx.from != head {
		require.True(m.t, p.there(m.now), "asks one who is left alone")
		require.LessOrEqual(m.t, p.flying, p.credit+1)
	}
	if p := m.s.sources[fx.peer]; !has(m.s.at(fx.from).named, fx.peer) {
		require.Less(m.t, fx.from, max(p.height, p.shown), "asks for what the peer doesn't claim")
	}
	require.Less(m.t, fx.from, fx.to)
	require.LessOrEqual(m.t, fx.to-fx.from, uint64(sliceBlocks))
	require.GreaterOrEqual(m.t, fx.from, m.s.height)
	require.LessOrEqual(m.t, fx.to, m.s.height+m.s.reach)
	require.False(m.t, m.barred[fx.peer].After(m.now), "asks a banned peer")
	require.NotEqual(m.t, peer.ID("self"), fx.peer)
	for n := fx.from; n < fx.to; n++ {
		if m.s.at(n).copies > 1 {
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
		if copies[n] != v.copies || v.copies > maxCopies {
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
	if m.road != nil {
		m.road.answer(m, fx, p, report, fail)
		return
	}
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
	if m.road == nil {
		m.step(evMoved{fx.id, m.size(n)})
	}
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

func (m *sim) leave(id peer.ID) {
	m.step(evGone{id})
	for k, f := range m.live {
		require.NotEqual(m.t, id, f.peer, "slice %d of a peer that is gone", k)
	}
}

package election

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"grapevine/msp"
	"grapevine/wire"
)

var townEpoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

const (
	townTick = clock
	townStep = 50 * time.Millisecond // of blocks, and of the oracle
)

// A town is an organisation's peers in virtual time, an ordering service, and
// the links between them. Links behave as QUIC's streams do: words come in
// order, and what was lost goes again with the next word, or after a time-out
// that doubles. With datagrams set, what is lost is lost.
type town struct {
	rng       *rand.Rand
	now       time.Time
	queue     townQueue
	count     uint64
	peers     []*townPeer
	links     map[[2]int]*townLink
	loss      float64
	datagrams bool

	tip       uint64 // of the ordering service
	blockGap  time.Duration
	nextBlock time.Time
	others    bool // other organisations bring the blocks too

	oracle oracle
	words  int
	claims int // made, so signed
	log    func(string, ...any)
}

type townPeer struct {
	i      int
	m      *machine
	birth  int // restarts
	up     bool
	struck time.Time // its clock
	due    time.Time // its next tick
	paused bool
	waits  []townEvent // while it is paused

	height    uint64
	pulling   bool
	pulls     string // the orderer
	pullAt    time.Time
	ordered   uint64
	reaches   bool          // the ordering service
	hole      bool          // what doesn't reach it isn't refused: it is silence
	lostAt    time.Time     // since when reaches is false
	slow      time.Duration // of its words
	drip      time.Duration // as a leader it brings a block so often
	withholds bool          // as a leader it keeps blocks for itself
	stale     bool          // its orderer brings nothing
	dripAt    time.Time
	refused   map[string]int
	begins    int
	leaderIs  msp.PKIID
}

type townLink struct {
	down    bool // words are lost
	met     bool // connected
	pending []ballot
	retry   time.Duration
	armed   bool
	busy    time.Time
	bucket  bucket
}

type townEvent struct {
	at   time.Time
	seq  uint64
	to   int
	from int
	born int
	what string
	e    event
	f    func()
}

// A townQueue is a heap of events; the first is the next.
type townQueue []*townEvent

func (e *townEvent) before(f *townEvent) bool {
	return e.at.Before(f.at) || e.at.Equal(f.at) && e.seq < f.seq
}

func (q *townQueue) add(e *townEvent) {
	all := append(*q, e)
	i := len(all) - 1
	for up := (i - 1) / 2; i > 0 && e.before(all[up]); up = (i - 1) / 2 {
		all[i] = all[up]
		i = up
	}
	all[i] = e
	*q = all
}

func (q *townQueue) next() *townEvent {
	all := *q
	first, e := all[0], all[len(all)-1]
	all[len(all)-1] = nil
	all = all[:len(all)-1]
	for i := 0; len(all) > 0; {
		c := 2*i + 1
		if c+1 < len(all) && all[c+1].before(all[c]) {
			c++
		}
		if c >= len(all) || !all[c].before(e) {
			all[i] = e
			break
		}
		all[i] = all[c]
		i = c
	}
	*q = all
	return first
}

func townID(i int) (id msp.PKIID) {
	binary.BigEndian.PutUint64(id[:], uint64(i+1)*0x0101)
	return id
}

func townIndex(id msp.PKIID) int { return int(binary.BigEndian.Uint64(id[:])/0x0101) - 1 }

func townSettings(i int, seed uint64) settings {
	return settings{
		self: townID(i), candidate: true, expects: true, grace: 2 * time.Second, sample: 200 * time.Millisecond,
		alive: 2 * time.Second, elect: 500 * time.Millisecond, yield: 3 * time.Second, seed: seed,
	}
}

// newTown makes n peers that start at about the same time, all connected.
func newTown(seed uint64, n int) *town {
	t := &town{
		rng: rand.New(rand.NewPCG(seed, 4)), now: townEpoch, links: map[[2]int]*townLink{},
		tip: 1, blockGap: 300 * time.Millisecond, log: func(string, ...any) {},
	}
	t.oracle.town = t
	for i := range n {
		t.peers = append(t.peers, &townPeer{i: i, height: 1, reaches: true, refused: map[string]int{}})
		for j := range n {
			if i != j {
				t.links[[2]int{i, j}] = &townLink{}
			}
		}
	}
	for i := range n {
		t.after(t.between(0, 300*time.Millisecond), func() { t.boot(i) })
	}
	t.after(townStep, t.world)
	return t
}

func (t *town) between(a, b time.Duration) time.Duration {
	return a + time.Duration(t.rng.Int64N(int64(b-a)+1))
}

func (t *town) push(e townEvent) {
	t.count++
	e.seq = t.count
	t.queue.add(&e)
}

func (t *town) after(d time.Duration, f func()) { t.push(townEvent{at: t.now.Add(d), f: f}) }

// run lets time pass.
func (t *town) run(d time.Duration) {
	end := t.now.Add(d)
	for len(t.queue) > 0 && !t.queue[0].at.After(end) {
		e := t.queue.next()
		t.now = e.at
		if e.f != nil {
			e.f()
			continue
		}
		p := t.peers[e.to]
		switch {
		case !p.up || e.born != p.birth:
		case p.paused && e.what != "tick":
			p.waits = append(p.waits, *e)
		default:
			t.deliver(p, *e)
		}
	}
	t.now = end
}

func (t *town) deliver(p *townPeer, e townEvent) {
	if e.what == "tick" {
		if !e.at.Equal(p.due) {
			return // another is due
		}
		if p.paused {
			t.tick(p, t.now.Add(townTick))
			return
		}
		e.e = event{kind: tick, facts: t.facts(p)}
		p.struck = t.now
	}
	t.act(p, p.m.step(e.e, t.now))
	if e.e.kind == said && t.now.Sub(p.struck) >= calmClock {
		t.tick(p, t.now)
		return
	}
	t.tick(p, later(t.now, p.m.due(p.struck)))
}

// tick lets a peer's clock strike at a time, and not when it would have.
func (t *town) tick(p *townPeer, at time.Time) {
	if !at.Equal(p.due) {
		p.due = at
		t.push(townEvent{at: at, to: p.i, born: p.birth, what: "tick"})
	}
}

// boot starts a peer, or starts it anew on the same ledger.
func (t *town) boot(i int) {
	p := t.peers[i]
	for j := range t.peers {
		if j != i {
			t.part(i, j)
		}
	}
	p.birth++
	p.up, p.paused, p.pulling, p.pulls, p.waits = true, false, false, "", nil
	p.leaderIs = msp.PKIID{}
	p.m = newMachine(townSettings(i, t.rng.Uint64()), t.now)
	p.struck, p.due = t.now, time.Time{}
	t.tick(p, t.now.Add(t.between(0, townTick)))
	t.after(t.between(50*time.Millisecond, 400*time.Millisecond), func() { t.connect(i) })
	t.log("%v boot %d", t.now.Sub(townEpoch), i)
}

// connect makes the connections of a peer that can be.
func (t *town) connect(i int) {
	for j := range t.peers {
		if i != j && t.reachable(i, j) {
			t.meet(i, j)
		}
	}
}

// reachable says whether a connection can be made: both ways.
func (t *town) reachable(i, j int) bool {
	a, b := t.peers[i], t.peers[j]
	return a.up && b.up && !a.paused && !b.paused && !t.links[[2]int{i, j}].down && !t.links[[2]int{j, i}].down
}

func (t *town) meet(i, j int) {
	for _, e := range [][2]int{{i, j}, {j, i}} {
		l := t.links[e]
		if l.met {
			continue
		}
		*l = townLink{met: true, bucket: l.bucket}
		p := t.peers[e[0]]
		t.log("%v meet %v", t.now.Sub(townEpoch), e)
		t.deliver(p, townEvent{e: event{kind: meet, id: townID(e[1])}})
	}
}

// part breaks the connection of two peers.
func (t *town) part(i, j int) {
	for _, e := range [][2]int{{i, j}, {j, i}} {
		l := t.links[e]
		if !l.met {
			continue
		}
		t.log("%v part %v", t.now.Sub(townEpoch), e)
		l.met, l.pending, l.armed = false, nil, false
		if p := t.peers[e[0]]; p.up {
			t.push(townEvent{at: t.now, to: e[0], born: p.birth, e: event{kind: lose, id: townID(e[1])}})
		}
	}
}

// act does what a machine wants.
func (t *town) act(p *townPeer, effects []effect) {
	for _, e := range effects {
		switch e.kind {
		case tell:
			if c := e.ballot.claim; c != nil && c.id == p.m.self && c.raw == nil {
				c.raw = []byte{1}
				t.claims++
			}
			for j := range t.peers {
				if j != p.i && (e.id == msp.PKIID{} || townIndex(e.id) == j) {
					t.word(p.i, j, e.ballot)
				}
			}
		case begin:
			p.begins++
			p.pulling, p.pulls = true, ""
			p.ordered = p.height
			p.pullAt = t.now.Add(t.between(20*time.Millisecond, 150*time.Millisecond))
			t.oracle.began(p)
			t.log("%v begin %d term %d", t.now.Sub(townEpoch), p.i, p.m.mine.term)
		case end:
			p.pulling, p.pulls = false, ""
			t.log("%v end %d", t.now.Sub(townEpoch), p.i)
		case probe:
			t.log("%v probe %d h %d tip %d samples %v", t.now.Sub(townEpoch), p.i, p.height, t.tip, p.m.watch.samples)
			t.probe(p)
		case refuse:
			t.log("%v refuse %d of %d: %s", t.now.Sub(townEpoch), p.i, townIndex(e.id), e.reason)
			p.refused[e.reason.Code()]++
			if e.reason.Verdict() == wire.Reject || e.reason.Verdict() == wire.Close {
				t.oracle.fail("%d refuses %d: %s", p.i, townIndex(e.id), e.reason.Code())
			}
		case turned:
			p.leaderIs = msp.PKIID{}
			if e.claim != nil {
				p.leaderIs = e.claim.id
			}
			t.log("%v turn %d: %s leader %d", t.now.Sub(townEpoch), p.i, e.why, townIndex(p.leaderIs))
		}
	}
}

func (t *town) probe(p *townPeer) {
	born := p.birth
	d, ok := t.between(10*time.Millisecond, 80*time.Millisecond), p.reaches
	if !ok && p.hole {
		d = 1500 * time.Millisecond
	}
	t.after(d, func() {
		t.push(townEvent{at: t.now, to: p.i, born: born, e: event{kind: probed, ok: ok && p.reaches, tip: t.tip}})
	})
}

// word puts a ballot on a link.
func (t *town) word(from, to int, b ballot) {
	l := t.links[[2]int{from, to}]
	if !l.met {
		return
	}
	t.words++
	if !l.bucket.spend(t.now) {
		t.oracle.fail("%d says too much to %d", from, to)
	}
	if len(l.pending) < 32 {
		l.pending = append(l.pending, b)
	}
	t.send(from, to, l)
}

func (t *town) send(from, to int, l *townLink) {
	p, q := t.peers[from], t.peers[to]
	if l.down || t.loss > 0 && t.rng.Float64() < t.loss {
		if t.datagrams {
			l.pending = nil
			return
		}
		if !l.armed {
			l.armed = true
			l.retry = max(2*l.retry, 200*time.Millisecond)
			born := p.birth
			t.after(min(l.retry, 10*time.Second), func() {
				if l.armed && p.birth == born && p.up {
					l.armed = false
					t.send(from, to, l)
				}
			})
		}
		return
	}
	l.armed, l.retry = false, 0
	at := t.now.Add(t.between(5*time.Millisecond, 45*time.Millisecond) + p.slow)
	if at.Before(l.busy) {
		at = l.busy
	}
	l.busy = at
	for _, b := range l.pending {
		t.push(townEvent{at: at, to: to, from: from, born: q.birth, e: event{kind: said, id: townID(from), ballot: b}})
	}
	l.pending = nil
}

// facts are what a peer's machine sees.
func (t *town) facts(p *townPeer) facts {
	f := facts{height: p.height, orderer: p.pulls, ordered: p.ordered}
	for j, q := range t.peers {
		if j == p.i || !q.up || t.links[[2]int{j, p.i}].down {
			continue
		}
		o := otherHeight{townID(j), q.height}
		if o.height > f.tallest[0].height {
			f.tallest[0], f.tallest[1] = o, f.tallest[0]
		} else if o.height > f.tallest[1].height {
			f.tallest[1] = o
		}
	}
	return f
}

// world lets blocks be ordered, pulled and spread, and asks the oracle.
func (t *town) world() {
	t.after(townStep, t.world)
	for !t.now.Before(t.nextBlock) {
		t.tip++
		t.nextBlock = later(t.nextBlock, t.now).Add(t.blockGap)
	}
	for _, p := range t.peers {
		t.pull(p)
	}
	next := make([]uint64, len(t.peers))
	for i, p := range t.peers {
		next[i] = p.height
		if p.up && !p.paused {
			for j, q := range t.peers {
				if i == j || !t.reachable(i, j) || q.pulling && q.withholds || t.loss > 0 && t.rng.Float64() < t.loss {
					continue
				}
				next[i] = max(next[i], q.height)
			}
			if t.others {
				next[i] = max(next[i], t.tip)
			}
		}
	}
	for i, p := range t.peers {
		p.height = next[i]
	}
	t.oracle.look()
}

// pull is a leader's work.
func (t *town) pull(p *townPeer) {
	if !p.up || p.paused || !p.pulling {
		return
	}
	if !p.reaches {
		late := time.Duration(0)
		if p.hole {
			late = 2 * time.Second // until the client gives the silent stream up
		}
		if p.pulls != "" && t.now.Sub(p.lostAt) >= late {
			p.pulls = ""
		}
		p.pullAt = t.now.Add(400 * time.Millisecond)
		return
	}
	if p.pulls == "" && !t.now.Before(p.pullAt) {
		p.pulls = fmt.Sprintf("orderer%d", t.rng.IntN(3))
	}
	if p.pulls != "" && t.now.Sub(p.dripAt) >= 1500*time.Millisecond && p.drip == 0 { // its client watches the other orderers
		p.dripAt = t.now
		t.push(townEvent{at: t.now, to: p.i, born: p.birth, e: event{kind: probed, ok: true, tip: t.tip}})
	}
	if p.pulls == "" || p.stale {
		return
	}
	if p.drip > 0 {
		if p.ordered < t.tip && t.now.Sub(p.dripAt) >= p.drip {
			p.dripAt = t.now
			p.ordered++
		}
	} else {
		p.ordered = min(p.ordered+50, t.tip)
	}
	p.height = max(p.height, p.ordered)
}

// leader is the peer that leads, or -1.
func (t *town) leader() int {
	return slices.IndexFunc(t.peers, func(p *townPeer) bool { return p.up && p.leads() })
}

func (p *townPeer) leads() bool { return p.m.role == leader }

package election

import (
	"time"

	"grapevine/msp"
	"grapevine/wire"
)

// The machine decides who leads. It is pure: step takes an event and the time,
// and returns what is to be done. There is one for each channel; it speaks with
// the machines of the own organisation's peers and knows no others.
//
// Leadership is not a lock: two leaders cost the ordering service a second
// stream and hurt nobody, for a block that comes twice is committed once. So no
// majority is asked for, and each connected part of an organisation has a leader
// of its own; the machine's work is that there is always one, soon one only, and
// not one that brings nothing.
//
//   - A leader claims its term in each beat, half of leaderAliveThreshold; twice
//     as often while it is new, or something happens. A follower asks it for a
//     beat that is late, again and again, and soon its neighbours too, who from
//     then on pass on what they hear: claims are signed, so they cross parts that
//     aren't fully connected.
//   - Who has heard nothing for leaderAliveThreshold and reaches an orderer
//     stands, in a term above all it knows, better ranked ones a little earlier.
//     A peer votes for the best candidate it hears of; who hears a leader, or
//     knows a better candidate, answers with that claim, and the candidate
//     withdraws: a lone peer with bad links can't depose a leader. With the votes
//     of all neighbours that live, or after leaderElectionDuration, it leads.
//   - Of two claims to lead the higher term wins, and in one term the rank:
//     reach, height when it stood, PKI-ID. Who hears the worse one answers with
//     the better, so the worse leader steps down. A new leader is told to all, a
//     few times.
//   - A leader without an orderer yields, and so does one whose orderer brings
//     nothing while blocks come from elsewhere. It stands again when an orderer
//     answers it.
//   - Followers watch. In turns they ask an orderer for its newest header. If
//     what it has signed doesn't come, and the others don't have it either, the
//     follower stands against the leader, and leads without its consent. Who
//     was deposed so is barred for a while that doubles: it leads if nobody else
//     can. If it claims to lead all the same, the follower goes on to pull beside
//     it for that while, as relief.
//   - A process that stood still for leaderAliveThreshold doesn't trust what it
//     believes: as a leader it steps down, as a follower it listens anew.
//
// Invariants, held by the simulation: among peers that hear each other at most
// one leads, two seconds after they began to; one leads whenever one could; a
// leader that nobody has cause to depose stays.
const (
	beats       = 2                // claims of a leader in leaderAliveThreshold
	words       = 8                // in it of who asks or says something again
	restless    = 20 * time.Second // for which a leader claims more often
	orderly     = 4                // of leaderElectionDuration: how long the next in rank waits
	unfitAfter  = 2 * time.Second  // a leader without an orderer is stood against, by one that reaches one
	patience    = 2 * time.Second  // a follower waits for a block that the orderers have
	stallAfter  = 3 * time.Second  // a leader's orderer brings nothing, though there is something
	watchEvery  = 2 * time.Second  // one of the followers asks an orderer
	hurry       = time.Second      // between questions to orderers while there is cause
	fresh       = 5 * time.Second  // an orderer's answer proves that it is reached
	hintTime    = time.Second      // another member's height is above ours for so long: ask
	listenTime  = time.Second      // after a standstill
	barTime     = 30 * time.Second // doubles with each
	lastBar     = 16 * time.Minute
	barForgot   = 30 * time.Minute
	passTime    = 10 * time.Second // a candidate that never led isn't voted for
	deposeTime  = time.Minute      // in it one may depose leaders so often:
	depositions = 10
	resignTime  = time.Minute      // who was asked to yield isn't candidate
	heedTime    = 2 * time.Second  // who asks is told what comes new
	heralds     = 3                // that are asked for the beats of a leader that isn't connected
	lastAsk     = 30 * time.Second // between two questions of who never leads
	maxJump     = 1 << 20          // of terms; one a minute for two years
	maxFirst    = 1 << 40          // a term, to a peer that knows none
	maxSamples  = 16
	maxRecords  = 1024
	maxNeighbrs = 1024
)

type settings struct {
	self      msp.PKIID
	candidate bool // else it never leads, but listens and votes
	expects   bool // others of the organisation are to be met
	blind     bool // orderers can't be asked: they are taken to be reached
	grace     time.Duration
	sample    time.Duration
	alive     time.Duration
	elect     time.Duration
	yield     time.Duration // without an orderer a leader yields
	seed      uint64
}

type role int

const (
	starting role = iota // waits until the neighbours are known
	following
	candidate
	leader
	stopped
)

var roleNames = [...]string{"starting", "following", "candidate", "leader", "stopped"}

type eventKind int

const (
	tick   eventKind = iota // time passes; facts are as they are
	meet                    // id is a neighbour
	lose                    // id isn't any more
	said                    // id says ballot
	probed                  // an orderer was asked: ok, and its newest block is tip-1
	resign                  // the operator wants another leader
	halt                    // the end
)

// facts are what a machine looks at, at each tick.
type facts struct {
	height  uint64         // blocks held
	orderer string         // while leading: the orderer that blocks come from; empty: none
	ordered uint64         // while leading: number of the block that the orderer brings next
	tallest [2]otherHeight // highest that others told, of two members
}

type otherHeight struct {
	id     msp.PKIID
	height uint64
}

type event struct {
	kind   eventKind
	id     msp.PKIID
	ballot ballot
	facts  facts
	ok     bool
	tip    uint64
}

type effectKind int

const (
	tell   effectKind = iota // send ballot to id; the zero id: to all neighbours
	begin                    // pull from the ordering service
	end                      // pull no longer
	probe                    // ask an orderer for its newest block
	refuse                   // what id said is refused with reason
	turned                   // the leader known is another: claim, nil if none; why
)

type effect struct {
	kind   effectKind
	id     msp.PKIID
	ballot ballot
	reason *wire.Reason
	claim  *claim
	why    string
}

// A fellow is another peer of the organisation.
type fellow struct {
	here   bool // a neighbour
	heard  time.Time
	asked  time.Time // it wants to be told until heedTime later
	reach  reach
	height uint64
}

// A record is what is remembered of a claimant.
type record struct {
	last    *claim
	dead    bool      // its term has ended
	passed  time.Time // not voted for until then
	barred  time.Time // until then
	bars    int
	barAt   time.Time
	deposed []time.Time // when it deposed leaders, in deposeTime
}

type machine struct {
	settings
	role  role
	began time.Time
	last  time.Time // tick
	facts facts
	seed  uint64
	out   []effect

	seen uint64 // the highest term heard of
	era  uint64 // the highest term that somebody led in
	seq  uint64 // of our last claim
	mine *claim // we stand, or lead
	top  *claim // of another: the leader we follow, or the candidate we vote for

	heard    time.Time // top, last
	direct   time.Time // top, from itself
	lacks    time.Time // the leader has no orderer since then; zero: it has one
	vacant   time.Time // no leader since then
	standAt  time.Time // and not before
	retellAt time.Time // of a new leader, to those who may not have heard
	retellTo time.Time // no longer
	askAt    time.Time // again, no earlier
	beatAt   time.Time // again
	calmAt   time.Time // until then we claim more often
	until    time.Time // the end of our candidacy
	votes    map[msp.PKIID]bool
	relief   bool   // we pull, and don't lead
	told     string // the orderer in our last claim
	linked   time.Time
	movedAt  time.Time // facts.ordered grew
	resigned time.Time // until then

	stable   int // equal samples of the neighbours
	sampled  time.Time
	count    int
	barUntil time.Time // ourselves
	bars     int
	barAt    time.Time

	watch   watch
	near    int       // of them are here
	asked   time.Time // by any of them, last
	fellows map[msp.PKIID]*fellow
	records map[msp.PKIID]*record
}

func newMachine(s settings, now time.Time) *machine {
	return &machine{
		settings: s, seed: s.seed, began: now, vacant: now, standAt: now, seq: millis(now),
		fellows: make(map[msp.PKIID]*fellow), records: make(map[msp.PKIID]*record),
	}
}

// step takes one event in.
func (m *machine) step(e event, now time.Time) []effect {
	m.out = nil
	if m.role == stopped {
		return nil
	}
	switch e.kind {
	case tick:
		m.tick(e.facts, now)
	case meet:
		f := m.fellow(e.id, now)
		if f != nil && !f.here {
			f.here = true
			m.near++
			m.calmAt = now.Add(restless)
			m.tell(e.id, true)
		}
	case lose:
		if f := m.fellows[e.id]; f != nil && f.here {
			f.here = false
			m.near--
			f.heard = time.Time{}
		}
	case said:
		m.said(e.id, e.ballot, now)
	case probed:
		m.probed(e.ok, e.tip, now)
	case resign:
		if m.role == leader {
			m.resigned = now.Add(resignTime)
			m.abdicate("asked to yield", now)
		}
	case halt:
		if m.role == leader {
			m.abdicate("stopped", now)
		}
		m.role = stopped
	}
	return m.out
}

func (m *machine) tick(f facts, now time.Time) {
	gap := now.Sub(m.last)
	if m.last.IsZero() {
		gap = 0
	}
	m.last = now
	m.observe(f, now)
	if gap >= m.missed() || gap >= m.alive/2 && now.Sub(m.heard) >= m.alive {
		m.stoodStill(gap, now)
	}
	switch m.role {
	case starting:
		m.start(now)
	case following:
		m.follow(now)
	case candidate:
		m.stand(now)
	case leader:
		m.lead(now)
	}
	m.relieve(now)
	m.look(now)
}

// start waits until two samples of the neighbours are equal and all of them have
// spoken, or grace is over. Nobody there counts as a sample only if nobody is
// expected.
func (m *machine) start(now time.Time) {
	if now.Sub(m.sampled) >= m.sample {
		if m.near == m.count && !m.sampled.IsZero() && (m.near > 0 || !m.expects) {
			m.stable++
		}
		m.count, m.sampled = m.near, now
	}
	if m.stable > 0 && m.spoken() || now.Sub(m.began) >= m.grace {
		m.role = following
		m.vacate("", now)
		return
	}
	m.ask(2*m.pace(), now)
}

// stoodStill is told that this process didn't run for a while.
func (m *machine) stoodStill(gap time.Duration, now time.Time) {
	if gap < m.alive {
		m.heard = later(m.heard, now.Add(-m.alive/2))
		return
	}
	if m.role == starting {
		return
	}
	m.cease()
	m.role, m.mine, m.top = following, nil, nil
	m.vacate("stood still", now)
	m.standAt = now.Add(listenTime)
	m.tellAll(true)
}

// beat is how often a leader claims its term.
func (m *machine) beat() time.Duration { return m.alive / beats }

// pace is how often something is asked or said again.
func (m *machine) pace() time.Duration { return m.alive / words }

// late is how old a beat is when the next one is asked for.
func (m *machine) late() time.Duration { return m.beat() + m.pace() }

// missed is how old it is when others are asked too, and the gap between ticks
// from which on this process has stood still.
func (m *machine) missed() time.Duration { return m.beat() + 2*m.pace() }

// leads returns the claim of the leader that we follow or are; nil if none.
func (m *machine) leads() *claim {
	if m.role == leader {
		return m.mine
	}
	if m.top != nil && m.top.act == leading {
		return m.top
	}
	return nil
}

// supports returns the claim that we make or vote for; nil if none.
func (m *machine) supports() *claim {
	if m.mine != nil {
		return m.mine
	}
	return m.top
}

// healthy says whether there is a leader that nobody here has cause to depose.
func (m *machine) healthy(now time.Time) bool {
	l := m.leads()
	if l == nil {
		return false
	}
	if m.role == leader {
		return now.Sub(m.linked) < unfitAfter/2 && !m.watch.overdue(m.watch.ordered, patience, now)
	}
	return now.Sub(m.heard) < m.alive && !m.disconnected(now) && !m.starved(now)
}

// disconnected says whether the leader itself tells that it has no orderer.
func (m *machine) disconnected(now time.Time) bool {
	return !m.lacks.IsZero() && now.Sub(m.lacks) >= unfitAfter/2
}

// spoken says whether all neighbours have said something.
func (m *machine) spoken() bool {
	for _, f := range m.fellows {
		if f.here && f.heard.IsZero() {
			return false
		}
	}
	return true
}

// fellow returns what is known of a peer; nil if there is no room for one more.
func (m *machine) fellow(id msp.PKIID, now time.Time) *fellow {
	f := m.fellows[id]
	if f == nil {
		if len(m.fellows) >= maxNeighbrs {
			m.forget(now)
		}
		if len(m.fellows) >= maxNeighbrs || id == m.self {
			return nil
		}
		f = &fellow{}
		m.fellows[id] = f
	}
	return f
}

// forget drops who isn't a neighbour.
func (m *machine) forget(now time.Time) {
	for id, f := range m.fellows {
		if !f.here && now.Sub(f.heard) > m.alive {
			delete(m.fellows, id)
		}
	}
}

func (m *machine) record(id msp.PKIID, now time.Time) *record {
	r := m.records[id]
	if r == nil {
		if len(m.records) >= maxRecords {
			for id, r := range m.records {
				if now.After(r.barred) && (m.top == nil || m.top.id != id) {
					delete(m.records, id)
				}
			}
		}
		r = &record{}
		m.records[id] = r
	}
	return r
}

// tell sends one peer what we know.
func (m *machine) tell(to msp.PKIID, ask bool) {
	b := m.ballot(ask)
	if b.claim != nil && b.claim.id == to {
		b.claim = nil // it knows
	}
	m.out = append(m.out, effect{kind: tell, id: to, ballot: b})
}

// tellAll tells all neighbours.
func (m *machine) tellAll(ask bool) {
	m.out = append(m.out, effect{kind: tell, ballot: m.ballot(ask)})
}

func (m *machine) ballot(ask bool) ballot {
	b := ballot{claim: m.supports(), term: m.seen, reach: m.reach(), height: m.facts.height, ask: ask}
	if m.mine == nil && m.top != nil && m.top.act == standing {
		b.vote = m.top.name()
	}
	return b
}

// pass tells what came new to those who asked.
func (m *machine) pass(from msp.PKIID, now time.Time) {
	for _, id := range m.heeded(now) {
		if id != from && (m.top == nil || id != m.top.id) {
			m.tell(id, false)
		}
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func sooner(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// random is splitmix64: the same seed gives the same run.
func (m *machine) random(n time.Duration) time.Duration {
	if n <= 0 {
		return 0
	}
	m.seed += 0x9e3779b97f4a7c15
	z := m.seed
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return time.Duration((z ^ z>>31) % uint64(n))
}

package election

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"grapevine/msp"
	"grapevine/wire"
)

// A desk is one machine, peer 1 of an organisation, and what it does.
type desk struct {
	t     *testing.T
	m     *machine
	now   time.Time
	facts facts
	out   []effect
}

// newDesk has neighbours 2 and 3 and reaches an orderer; it is past its start,
// and nobody leads.
func newDesk(t *testing.T) *desk {
	d := &desk{t: t, now: townEpoch, facts: facts{height: 10}}
	d.m = newMachine(townSettings(1, 1), d.now)
	for _, i := range []int{2, 3} {
		d.step(event{kind: meet, id: townID(i)})
		d.says(i, ballot{height: 10})
	}
	for d.m.role == starting {
		d.tick(100 * time.Millisecond)
	}
	d.answer(10)
	d.out = nil
	return d
}

func (d *desk) step(e event) []effect {
	out := d.m.step(e, d.now)
	d.out = append(d.out, out...)
	return out
}

func (d *desk) tick(after time.Duration) []effect {
	d.now = d.now.Add(after)
	return d.step(event{kind: tick, facts: d.facts})
}

// pass lets time go by in ticks.
func (d *desk) pass(t time.Duration) {
	for end := d.now.Add(t); d.now.Before(end); {
		d.tick(townTick)
	}
}

// answer is an orderer's, to a question asked or not.
func (d *desk) answer(tip uint64) { d.step(event{kind: probed, ok: true, tip: tip}) }

func (d *desk) says(i int, b ballot) []effect {
	return d.step(event{kind: said, id: townID(i), ballot: b})
}

// leads is a heartbeat.
func (d *desk) leads(i int, term uint64) *claim {
	return &claim{id: townID(i), act: leading, term: term, seq: millis(d.now), reach: able, height: 10, since: millis(townEpoch), orderer: "o"}
}

func (d *desk) stands(i int, term, height uint64) *claim {
	return &claim{id: townID(i), act: standing, term: term, seq: millis(d.now), reach: able, height: height}
}

// refusals of effects.
func refusals(out []effect) (all []string) {
	for _, e := range out {
		if e.kind == refuse {
			all = append(all, e.reason.Code())
		}
	}
	return all
}

func kinds(out []effect) (all []effectKind) {
	for _, e := range out {
		all = append(all, e.kind)
	}
	return all
}

// elect makes the desk's machine leader.
func (d *desk) elect() {
	for range 20 {
		if d.tick(townTick); d.m.role == candidate {
			break
		}
	}
	require.Equal(d.t, candidate, d.m.role)
	for _, i := range []int{2, 3} {
		d.says(i, ballot{vote: d.m.mine.name(), height: 10})
	}
	require.Equal(d.t, leader, d.m.role)
	d.facts.orderer, d.facts.ordered = "o", 10
	d.tick(townTick)
	d.out = nil
}

func TestAllVotesElectAtOnce(t *testing.T) {
	d := newDesk(t)
	d.elect()
	require.EqualValues(t, 1, d.m.mine.term)
}

func TestSilenceIsNoVeto(t *testing.T) {
	d := newDesk(t)
	for d.m.role != candidate {
		d.tick(townTick)
	}
	d.says(2, ballot{vote: d.m.mine.name()})
	d.pass(400 * time.Millisecond)
	require.Equal(t, candidate, d.m.role)
	d.pass(200 * time.Millisecond)
	require.Equal(t, leader, d.m.role)
	require.Contains(t, kinds(d.out), begin)
}

func TestACandidateWithdrawsForALeader(t *testing.T) {
	d := newDesk(t)
	for d.m.role != candidate {
		d.tick(townTick)
	}
	d.says(2, ballot{claim: d.leads(3, 7), term: 7})
	require.Equal(t, following, d.m.role)
	require.Equal(t, townID(3), d.m.leads().id)
	d.pass(time.Second)
	require.NotContains(t, kinds(d.out), begin)
}

func TestRanks(t *testing.T) {
	for _, c := range []struct {
		name string
		mine func(*desk)
		him  func(*desk) *claim
		wins bool // he
	}{
		{"reach before height", func(d *desk) { d.m.barSelf(d.now) }, func(d *desk) *claim { return d.stands(3, 1, 5) }, true},
		{"height before id", nil, func(d *desk) *claim { return d.stands(3, 1, 11) }, true},
		{"the lower id", nil, func(d *desk) *claim { return d.stands(0, 1, 10) }, true},
		{"not the higher id", nil, func(d *desk) *claim { return d.stands(2, 1, 10) }, false},
		{"not the lower", nil, func(d *desk) *claim { return d.stands(3, 1, 9) }, false},
		{"the higher term before all", nil, func(d *desk) *claim { return d.stands(3, 2, 1) }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDesk(t)
			if c.mine != nil {
				c.mine(d)
			}
			for d.m.role != candidate {
				d.tick(townTick)
			}
			him := c.him(d)
			out := d.says(townIndex(him.id), ballot{claim: him, term: him.term})
			if c.wins {
				require.Equal(t, following, d.m.role)
				require.Equal(t, him.name(), d.m.ballot(false).vote)
				return
			}
			require.Equal(t, candidate, d.m.role)
			require.Equal(t, []string{"election.lost"}, refusals(out))
			require.Equal(t, d.m.mine, out[0].ballot.claim, "he is told who is better")
		})
	}
}

func TestOfTwoLeadersTheHigherTermStays(t *testing.T) {
	d := newDesk(t)
	d.elect()
	out := d.says(2, ballot{claim: d.leads(2, d.m.mine.term+1), term: 9})
	require.Contains(t, kinds(out), end)
	require.Equal(t, townID(2), d.m.leads().id)

	d = newDesk(t)
	d.m.seen = 5
	d.elect()
	out = d.says(2, ballot{claim: d.leads(2, 5), term: 5})
	require.Equal(t, leader, d.m.role)
	require.NotContains(t, kinds(out), end)
	require.Equal(t, d.m.mine, out[0].ballot.claim, "it is told, so that it steps down")
}

func TestALeaderWithoutAnOrdererYields(t *testing.T) {
	d := newDesk(t)
	d.elect()
	d.facts.orderer = ""
	d.pass(2900 * time.Millisecond)
	require.Equal(t, leader, d.m.role)
	d.pass(300 * time.Millisecond)
	require.Equal(t, following, d.m.role)
	last := d.out[len(d.out)-1]
	for _, e := range d.out {
		if e.kind == tell && e.ballot.claim != nil && e.ballot.claim.act == yielding {
			last = e
		}
	}
	require.Equal(t, yielding, last.ballot.claim.act, "it says so")
	d.out = nil
	d.pass(time.Minute)
	require.NotContains(t, kinds(d.out), begin, "not before an orderer answers")
	d.answer(10)
	d.pass(2 * time.Second)
	require.Contains(t, kinds(d.out), begin)
}

func TestALeaderWhoseOrdererIsSilentYields(t *testing.T) {
	d := newDesk(t)
	d.elect()
	d.facts.height = 11 // it came from elsewhere
	d.pass(2900 * time.Millisecond)
	require.Equal(t, leader, d.m.role)
	d.pass(300 * time.Millisecond)
	require.Equal(t, following, d.m.role)
	require.Equal(t, barred, func() reach { d.answer(11); return d.m.reach() }())
}

// A leader that catches up is not one that stalls, though it is far behind.
func TestCatchingUpIsNotStalling(t *testing.T) {
	d := newDesk(t)
	d.elect()
	d.step(event{kind: probed, ok: true, tip: 100000})
	for range 200 {
		d.facts.ordered += 10
		d.facts.height = d.facts.ordered
		d.tick(townTick)
	}
	require.Equal(t, leader, d.m.role)
}

func TestAStandstillEndsLeadership(t *testing.T) {
	d := newDesk(t)
	d.elect()
	d.tick(1900 * time.Millisecond)
	require.Equal(t, leader, d.m.role, "nobody has elected another yet")
	out := d.tick(2 * time.Second)
	require.Contains(t, kinds(out), end)
	require.Equal(t, following, d.m.role)
	d.says(2, ballot{claim: d.leads(2, 2), term: 2})
	require.Equal(t, townID(2), d.m.leads().id)
}

func TestAStarvedFollowerStands(t *testing.T) {
	d := newDesk(t)
	beat := func() {
		d.says(2, ballot{claim: d.leads(2, 3), term: 3})
		d.says(3, ballot{height: 10, reach: able})
	}
	for range 30 {
		beat()
		d.pass(500 * time.Millisecond)
		d.answer(10)
	}
	require.Equal(t, following, d.m.role)
	for range 8 {
		beat()
		d.answer(12)
		d.pass(500 * time.Millisecond)
		if d.m.role == candidate {
			break
		}
	}
	require.Equal(t, candidate, d.m.role)
	require.True(t, d.m.mine.unfit)
	d.says(2, ballot{claim: d.leads(2, 3), term: 3})
	require.Equal(t, candidate, d.m.role, "that it beats changes nothing")
	d.pass(time.Second)
	require.Equal(t, leader, d.m.role)
	require.True(t, d.m.barredNow(townID(2), d.now))

	d.facts.orderer = "o"
	d.tick(townTick)
	d.out = nil
	d.says(2, ballot{claim: d.leads(2, 9), term: 9})
	require.Equal(t, following, d.m.role, "it claims to lead all the same")
	require.NotContains(t, kinds(d.out), end, "and is relieved")
	for range 70 {
		d.says(2, ballot{claim: d.leads(2, 9), term: 9})
		d.pass(500 * time.Millisecond)
		d.answer(10)
	}
	require.Contains(t, kinds(d.out), end, "for a while")
}

// A laggard that is catching up from its peers doesn't depose the leader.
func TestALaggardIsNotStarved(t *testing.T) {
	d := newDesk(t)
	d.facts.tallest[0] = otherHeight{townID(3), 100000}
	for range 40 {
		d.says(2, ballot{claim: d.leads(2, 3), term: 3})
		for range 5 {
			d.facts.height += 5
			d.tick(townTick)
		}
		d.answer(100000)
	}
	require.Equal(t, following, d.m.role)
}

func TestWhoAsksIsToldWhatComes(t *testing.T) {
	d := newDesk(t)
	d.says(2, ballot{claim: d.leads(2, 3), term: 3})
	out := d.says(3, ballot{ask: true})
	require.Equal(t, townID(3), out[0].id)
	require.Equal(t, townID(2), out[0].ballot.claim.id)
	d.tick(townTick)
	out = d.says(2, ballot{claim: d.leads(2, 3), term: 3})
	require.Equal(t, []effectKind{tell}, kinds(out), "passed on")
	d.pass(time.Second)
	d.says(2, ballot{claim: d.leads(2, 3), term: 3})
	d.pass(1500 * time.Millisecond)
	out = d.says(2, ballot{claim: d.leads(2, 3), term: 3})
	require.Empty(t, kinds(out), "for a while")
}

// A lost word is made up for: a beat that is late is asked for, and a leader that
// answers without a claim leads no more.
func TestLostWords(t *testing.T) {
	d := newDesk(t)
	c := d.leads(2, 4)
	d.says(2, ballot{claim: c, term: 4})
	require.Equal(t, c.name(), d.m.leads().name())
	d.pass(1100 * time.Millisecond)
	asked := func() (n int) {
		for _, e := range d.out {
			if e.kind == tell && e.id == townID(2) && e.ballot.ask {
				n++
			}
		}
		return n
	}
	require.Zero(t, asked(), "no beat is late")
	d.pass(400 * time.Millisecond)
	require.Positive(t, asked())
	d.says(2, ballot{term: 3})
	require.NotNil(t, d.m.leads(), "said before it led")
	d.says(3, ballot{term: 4})
	require.NotNil(t, d.m.leads(), "another's word")
	d.out = nil
	d.says(2, ballot{term: 4})
	require.Nil(t, d.m.leads())
	require.Contains(t, kinds(d.out), turned)
}

// A new leader beats each quarter of the threshold, and half as often once nothing
// happens; what is amiss makes it beat faster again.
func TestBeats(t *testing.T) {
	d := newDesk(t)
	d.elect()
	beats := func() (n int) {
		d.out = nil
		d.pass(restless)
		for _, e := range d.out {
			if c := e.ballot.claim; e.kind == tell && e.id == (msp.PKIID{}) && c != nil && c.id == d.m.self {
				n++
			}
		}
		return n
	}
	require.InDelta(t, 40, beats(), 1, "it is new")
	for what, happens := range map[string]func(){
		"a beat was missed":   func() { d.says(2, ballot{term: 1, ask: true}) },
		"another claims":      func() { d.says(2, ballot{claim: d.leads(3, 1), term: 1}) },
		"a neighbour arrives": func() { d.step(event{kind: meet, id: townID(4)}) },
	} {
		require.InDelta(t, 20, beats(), 1, "nothing happens")
		happens()
		require.InDelta(t, 40, beats(), 1, what)
	}
}

func TestStandby(t *testing.T) {
	s := townSettings(1, 1)
	s.candidate = false
	d := &desk{t: t, now: townEpoch, m: newMachine(s, townEpoch)}
	d.step(event{kind: meet, id: townID(2)})
	d.pass(time.Minute)
	require.NotContains(t, kinds(d.out), begin)
	require.NotContains(t, kinds(d.out), probe)
	out := d.says(2, ballot{claim: d.stands(2, 4, 10), term: 4})
	require.NotNil(t, out[0].ballot.vote, "it votes")
	d.tick(townTick)
	d.says(2, ballot{claim: d.leads(2, 4), term: 4})
	require.Equal(t, townID(2), d.m.leads().id)
}

func TestYieldOnRequest(t *testing.T) {
	d := newDesk(t)
	d.elect()
	d.says(3, ballot{reach: able, height: 10})
	out := d.step(event{kind: resign})
	require.Contains(t, kinds(out), end)
	d.out = nil
	for range 6 {
		d.says(3, ballot{reach: able, height: 10})
		d.pass(500 * time.Millisecond)
	}
	require.NotContains(t, kinds(d.out), begin, "another could")
	d.answer(10)
	d.pass(4 * time.Second)
	d.answer(10)
	d.pass(4 * time.Second)
	require.Contains(t, kinds(d.out), begin, "nobody else does")
}

// The election group of PROMISES' catalogue, as far as it needs no signature;
// the rest is in hostile_test.go.
func TestHostileTerms(t *testing.T) {
	follow := func(d *desk) { d.says(2, ballot{claim: d.leads(2, 3), term: 3}) }
	for _, c := range []struct {
		id     string
		before func(*desk)
		say    func(*desk) ballot
		reason *wire.Reason
	}{
		{"E3/dead term", follow, func(d *desk) ballot { return ballot{claim: d.leads(3, 2), term: 2} }, StaleTerm},
		{"E3/after a yield", func(d *desk) {
			follow(d)
			c := d.leads(2, 3)
			c.act, c.seq = yielding, c.seq+1
			d.says(2, ballot{claim: c, term: 3})
		}, func(d *desk) ballot { c := d.leads(2, 3); c.seq += 2; return ballot{claim: c, term: 3} }, StaleTerm},
		{"E4", follow, func(d *desk) ballot { return ballot{claim: d.leads(3, ^uint64(0)), term: 3} }, TermJump},
		{"E4/in the ballot", follow, func(*desk) ballot { return ballot{term: ^uint64(0)} }, TermJump},
		{"E4/to who knows no term", nil, func(d *desk) ballot { return ballot{claim: d.leads(3, ^uint64(0))} }, TermJump},
		{"E5/the worse of two", follow, func(d *desk) ballot {
			c := d.leads(3, 3)
			return ballot{claim: c, term: 3}
		}, Lost},
		{"E5/one peer twice", follow, func(d *desk) ballot {
			c := d.leads(2, 3)
			c.seq, c.height = c.seq+1, 4711
			return ballot{claim: c, term: 3}
		}, Conflict},
	} {
		t.Run(c.id, func(t *testing.T) {
			d := newDesk(t)
			if c.before != nil {
				c.before(d)
			}
			leader := d.m.leads()
			out := d.says(3, c.say(d))
			require.Contains(t, refusals(out), c.reason.Code())
			require.Equal(t, leader, d.m.leads(), "the leader is the same")
			require.NotContains(t, kinds(out), turned)
		})
	}
	t.Run("E5/the better of two", func(t *testing.T) {
		d := newDesk(t)
		d.says(3, ballot{claim: d.leads(3, 3), term: 3})
		out := d.says(2, ballot{claim: d.leads(2, 3), term: 3})
		require.Empty(t, refusals(out))
		require.Equal(t, townID(2), d.m.leads().id)
	})
	t.Run("T22/deposes again and again", func(t *testing.T) {
		d := newDesk(t)
		d.elect()
		lost, term := 0, d.m.era
		for range 40 {
			term += 2
			d.says(2, ballot{claim: d.leads(2, term), term: term})
			d.says(3, ballot{claim: d.leads(3, term+1), term: term + 1})
			d.tick(townTick)
			for _, r := range refusals(d.out) {
				if r == "election.lost" {
					lost++
				}
			}
			d.out = nil
		}
		require.GreaterOrEqual(t, lost, 20)
	})
}

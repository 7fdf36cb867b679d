package membership

import (
	"bytes"
	"slices"
	"time"

	"grapevine/msp"
)

// The detector finds out who is alive. It is a pure state machine: step takes
// an event and the time, and returns what is to be done.
//
// It is SWIM (Das, Gupta, Motivala: SWIM, DSN 2002) with the extensions of
// Lifeguard (Dadgar, Phillips, Currey: Lifeguard, DSN-W 2018), changed where
// connections are authenticated and members may lie:
//
//   - Each period one of the connected members is pinged, or pings, in turns, or
//     a few of them where turns don't reach everybody. Who doesn't answer is pinged
//     again, directly and through helpers, in short steps; any word of his own
//     ends that. A helper confirms at once that it
//     was asked: if none does, it is we who are cut off or slow, and our own
//     time-outs grow (local health).
//   - After two steps he is suspect, and others are told. The time-out grows
//     with log N and shrinks with each further accuser. While it runs he is
//     pinged on; when it ends he is dead, for us.
//   - An accusation is the word of the member whose connection it came on, and
//     only makes the hearer look for himself. Who is connected to the accused
//     believes his own pings alone, and passes on only what he found himself.
//     Who isn't suspects when two members accuse; the accused, told by those who
//     found him well, refutes with a newer signed alive message. So a liar can
//     make others look, never make them bury.
//   - A tick that comes late says that this process stood still: what waited
//     gets the time back.
//
// There is one detector for each channel, on streams behind the channel's door:
// one for the node would tell members of one channel when another is used.
const (
	fewPings      = 1           // a period, where each is pinged once by somebody
	morePings     = 4           // where that is left to chance
	slowPings     = 14          // quarters of a period without a ping: the turns don't fit
	missedTurns   = 2           // of others in a row, likewise
	hurry         = time.Minute // for which then more are pinged
	helpers       = 3           // who are connected to the subject, as it can be expected
	mostHelpers   = 12
	mostLooks     = 16 // at once, with all their helpers
	firstTellings = 24 // accusations sent by who finds out first, if all are connected; else all that are
	tellings      = 6  // by who heard before
	lastTellings  = 6  // by who believes in a death
	confirmations = 3  // accusers that shrink the time-out as far as it goes
	enough        = 2  // accusers that make suspect who isn't connected, and make the accused refute
	patience      = 2  // steps without an answer, and suspicion; each one more where much is lost
	maxHealth     = 3
	maxErrands    = 1024 // pings for others under way
	errandTime    = 2 * time.Second
	standstill    = 300 * time.Millisecond // a tick so late
	refutePause   = 1 * time.Second
	fade          = 3 * time.Second    // accusations of who isn't looked at are forgotten
	together      = fade + time.Second // two who accuse us: whoever heard both may suspect us
	silence       = 100 * time.Second  // without a sign of a member that isn't connected: look
	maxLooks      = 64                 // accusations by one member in quotaTime that make us look, and a quarter of the members
	quotaTime     = 10 * time.Second
)

// number orders what an identity says; a round is one beat, whose messages for
// several audiences have sequences of their own.
type number struct{ incarnation, round uint64 }

func (n number) less(m number) bool {
	return n.incarnation < m.incarnation || n.incarnation == m.incarnation && n.round < m.round
}

// roundOf returns a sequence's round: 1 and 2 are the first.
func roundOf(sequence uint64) uint64 { return sequence/2 + sequence%2 }

type accusation struct {
	id     msp.PKIID
	number number
}

// say is what one detector sends another.
type say struct {
	ping, ack, nack uint64     // nonces; 0: none
	target          *msp.PKIID // of ping, if it isn't the receiver
	accused         []accusation
}

type eventKind int

const (
	tick       eventKind = iota // time passes
	learn                       // id has said number
	meet                        // id is connected
	lose                        // id isn't any more
	leave                       // id has left
	forget                      // id isn't a member any more
	spoken                      // from said
	themselves                  // we have said number
)

type event struct {
	kind   eventKind
	id     msp.PKIID // whom it is about; spoken: who says it, by the connection
	number number
	org    string // learn, meet: the member's organisation
	hidden bool   // learn, themselves: no other organisation knows of it
	say    say
}

// action is what is to be done.
type action struct {
	to     msp.PKIID // send say to him, if send
	say    say
	send   bool
	state  State // id's is this now, if turned
	id     msp.PKIID
	turned bool
	refute bool // publish a newer alive message of ours
	rtt    time.Duration
}

type subject struct {
	id        msp.PKIID
	org       string
	hidden    bool // from other organisations: nobody there is told of it
	number    number
	state     State
	connected bool
	probe     *probe
	suspected time.Time // since when
	accusers  map[msp.PKIID]bool
	accused   time.Time     // since when
	rtt       time.Duration // smoothed; 0: unknown
	asked     uint64        // the nonce of its newest probe; 0: its answer has come
	askedAt   time.Time
	heard     time.Time
}

// probe is one look at a subject, until it answers or is dead.
type probe struct {
	nonce  uint64
	next   time.Time
	steps  int
	asked  map[msp.PKIID]bool
	echoes int // helpers that confirmed
	blamed bool
}

type errand struct {
	asker msp.PKIID
	nonce uint64
	until time.Time
}

type quota struct {
	since   time.Time
	looks   int
	refuted bool
}

// detector is not safe for concurrent use.
type detector struct {
	period    time.Duration
	suspicion time.Duration // of who is accused by one alone, at least; see timeout
	shortest  time.Duration // wait for an answer
	self      msp.PKIID
	org       string // ours
	hidden    bool   // other organisations don't know us
	number    number
	seed      uint64

	all          map[msp.PKIID]*subject
	here         []*subject // connected, by ID
	rounds       []round    // see plan; nil: not made since who is there changed
	paired       bool       // others count on us in pairs
	turned       int64      // the clock's time up to which turns were taken
	stood        int64      // and up to which others' weren't missed: we stood still
	phase        time.Duration
	pinged       time.Time           // we were, by anybody
	missed       int                 // turns of others to ping us, since the last that wasn't
	hurried      time.Time           // until then more are pinged
	alarm        time.Time           // until then a tick changes nothing
	leisure      time.Time           // the same, but for probes
	looking      []*subject          // with a probe
	probes       map[uint64]*subject // the same, by the nonce
	living       int                 // alive or suspect
	apart        int                 // of them, not connected
	nonce        uint64
	health       int           // 0 is well
	rtt          time.Duration // smoothed over all: it says how much the network loses; who is new is patient
	errands      map[uint64]errand
	quotas       map[msp.PKIID]*quota
	refuted      time.Time
	accuser      msp.PKIID // the first since firstAccused
	firstAccused time.Time
	swept        time.Time
	listened     time.Time // for who is silent
	out          []action
}

func newDetector(self msp.PKIID, org string, period, suspicion time.Duration, seed uint64) *detector {
	d := &detector{
		period: period, suspicion: suspicion, shortest: period * 3 / 20, rtt: period / 4, self: self, org: org, seed: seed,
		all: make(map[msp.PKIID]*subject), probes: make(map[uint64]*subject), errands: make(map[uint64]errand), quotas: make(map[msp.PKIID]*quota),
	}
	d.phase = time.Duration(d.random() % uint64(period/morePings))
	return d
}

// step takes one event in. Afterwards alarm says when a tick is due.
func (d *detector) step(e event, now time.Time) []action {
	d.out = nil
	s := d.all[e.id]
	switch e.kind {
	case tick:
		d.tick(now)
	case themselves:
		d.number = e.number
		if d.hidden != e.hidden {
			d.hidden, d.rounds = e.hidden, nil
		}
	case learn:
		d.learn(e, s, now)
	case meet:
		d.meet(e, s, now)
	case lose:
		if s != nil && s.connected {
			d.part(s)
			if s.number == (number{}) {
				d.forget(s)
			} else if s.state == Alive || s.state == Suspect {
				d.look(s, now)
			}
		}
	case leave:
		if s != nil {
			s.number = e.number
			d.rest(s)
			d.become(s, Left)
			d.part(s)
		}
	case forget:
		if s != nil {
			d.forget(s)
		}
	case spoken:
		d.hear(e.id, s, e.say, now)
	}
	if d.rounds == nil && len(d.here) > 0 && len(d.here) < mostPeers {
		d.leisure = now // others have other turns already
		d.wake(now)
	}
	return d.out
}

func (d *detector) learn(e event, s *subject, now time.Time) {
	if s == nil {
		d.add(e, now)
		return
	}
	if s.number.less(e.number) {
		was := s.state
		s.number = e.number
		if s.hidden != e.hidden {
			s.hidden, d.rounds = e.hidden, nil
		}
		s.accusers = nil
		d.sign(s, now)
		d.become(s, Alive)
		if was == Dead && s.connected {
			d.look(s, now) // others may have passed on what it said before
		}
	}
}

// meet notes a connection. Who hasn't told of itself yet may never do so: it is
// looked at all the same, and nobody else is told of it.
func (d *detector) meet(e event, s *subject, now time.Time) {
	unheard := s == nil
	if unheard {
		e.hidden = true
		s = d.add(e, now)
	}
	if s.connected || s.state == Left {
		return
	}
	d.count(s, -1)
	s.connected, s.heard = true, now
	d.count(s, +1)
	if len(d.here) == 0 {
		d.pinged = now
	}
	d.here = slices.Insert(d.here, rank(d.here, s.id), s)
	if unheard || s.state != Alive {
		d.look(s, now)
	}
}

func (d *detector) add(e event, now time.Time) *subject {
	s := &subject{id: e.id, org: e.org, hidden: e.hidden, number: e.number, state: Alive, heard: now}
	d.all[e.id] = s
	d.count(s, +1)
	return s
}

// count counts s if it lives.
func (d *detector) count(s *subject, n int) {
	d.rounds = nil
	if s.state != Alive && s.state != Suspect {
		return
	}
	d.living += n
	if !s.connected {
		d.apart += n
	}
}

func (d *detector) forget(s *subject) {
	d.rest(s)
	d.part(s)
	d.count(s, -1)
	delete(d.all, s.id)
}

// sign notes a sign of life.
func (d *detector) sign(s *subject, now time.Time) {
	s.heard = now
	if s.state == Left {
		return
	}
	if s.connected && len(s.accusers) >= enough && d.apart > 0 {
		d.send(s.id, say{accused: []accusation{{s.id, s.number}}}) // some can't ask him themselves
	}
	s.accusers = nil
	d.become(s, Alive)
	d.rest(s)
}

func (d *detector) tick(now time.Time) {
	if gap := now.Sub(d.alarm); !d.alarm.IsZero() && gap > standstill {
		d.health = min(d.health+1, maxHealth)
		d.stood = now.UnixNano()
		for _, s := range d.looking {
			s.suspected = s.suspected.Add(gap)
			s.probe.next = now.Add(d.wait(s))
			s.probe.blamed = true
		}
	}
	d.leisure = now.Add(d.period) // for all that has time
	for _, s := range slices.Clone(d.looking) {
		if s.probe != nil && !now.Before(s.probe.next) {
			d.advance(s, now)
		}
	}
	d.ping(now)
	if now.Sub(d.swept) > errandTime {
		d.sweep(now)
	}
	d.wind()
}

// wind sets the alarm to what is due next.
func (d *detector) wind() {
	d.alarm = d.leisure
	for _, s := range d.looking {
		d.wake(s.probe.next)
	}
}

// wake makes the next tick come at a time at the latest.
func (d *detector) wake(at time.Time) {
	if at.Before(d.alarm) {
		d.alarm = at
	}
}

func (d *detector) sweep(now time.Time) {
	d.swept = now
	for n, e := range d.errands {
		if now.After(e.until) {
			delete(d.errands, n)
		}
	}
	for id, q := range d.quotas {
		if now.Sub(q.since) > quotaTime {
			delete(d.quotas, id)
		}
	}
	long := d.scaled(silence)
	if now.Sub(d.listened) < long/10 || d.apart == 0 {
		return
	}
	d.listened = now
	var quiet []*subject
	for _, s := range d.all {
		if !s.connected && s.state == Alive && s.probe == nil && now.Sub(s.heard) > long {
			quiet = append(quiet, s)
		}
	}
	slices.SortFunc(quiet, func(a, b *subject) int { return slices.Compare(a.id[:], b.id[:]) })
	for _, s := range quiet {
		d.look(s, now)
	}
}

// scaled is a pause between signed messages that everybody hears, longer in large
// networks, so that there are no more of them in a second, and fewer than in small
// ones: each comes to everybody several times.
func (d *detector) scaled(pause time.Duration) time.Duration {
	if d.living <= mostPeers {
		return pause
	}
	return calm * pause * time.Duration(d.living) / mostPeers
}

// become changes a state.
func (d *detector) become(s *subject, to State) {
	if s.state == to {
		return
	}
	d.count(s, -1)
	s.state = to
	d.count(s, +1)
	if to == Alive {
		s.accusers = nil
	}
	d.out = append(d.out, action{id: s.id, state: to, turned: true})
}

// part takes s off the connected.
func (d *detector) part(s *subject) {
	if !s.connected {
		return
	}
	d.count(s, -1)
	s.connected = false
	d.count(s, +1)
	i := rank(d.here, s.id)
	d.here = slices.Delete(d.here, i, i+1)
}

// pick returns up to n connected living members but one, at random, who may
// know of it.
func (d *detector) pick(n int, but *subject) []*subject {
	all := len(d.here)
	if all == 0 {
		return nil
	}
	i, stride := int(d.random()%uint64(all)), 1+int(d.random()%uint64(all))
	for gcd(stride, all) != 1 {
		stride++ // else it doesn't meet all
	}
	var out []*subject
	for range all {
		s := d.here[i%all]
		i += stride
		if s != but && s.state == Alive && s.probe == nil && (!but.hidden || s.org == but.org) {
			if out = append(out, s); len(out) == n {
				break
			}
		}
	}
	return out
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// rank is how many stand before id.
func rank(all []*subject, id msp.PKIID) int {
	i, _ := slices.BinarySearchFunc(all, id, func(s *subject, id msp.PKIID) int { return bytes.Compare(s.id[:], id[:]) })
	return i
}

func (d *detector) send(to msp.PKIID, w say) {
	d.out = append(d.out, action{to: to, say: w, send: true})
}

// random is repeatable: the same seed gives the same run.
func (d *detector) random() uint64 { return splitmix(&d.seed) }

// splitmix is splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom
// number generators, OOPSLA 2014).
func splitmix(seed *uint64) uint64 {
	*seed += 0x9e3779b97f4a7c15
	z := *seed
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

package membership

import (
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
//   - Each period a few of the connected members are pinged, in turns. Who
//     doesn't answer is pinged again, directly and through helpers, in short
//     steps; any word of his own ends that. A helper confirms at once that it
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
	pingsPerPeriod = 3
	helpers        = 3 // who are connected to the subject, as it can be expected
	mostHelpers    = 12
	firstTellings  = 24 // accusations sent by who finds out first, if all are connected; else all that are
	tellings       = 6  // by who heard before
	lastTellings   = 6  // by who believes in a death
	confirmations  = 3  // accusers that shrink the time-out as far as it goes
	enough         = 2  // accusers that make suspect who isn't connected, and make the accused refute
	patience       = 2  // steps without an answer, and suspicion; each one more where much is lost
	maxHealth      = 3
	maxErrands     = 1024 // pings for others under way
	errandTime     = 2 * time.Second
	standstill     = 1 * time.Second // ticks so far apart
	refutePause    = 1 * time.Second
	silence        = 100 * time.Second // without a sign of a member that isn't connected: look
	maxLooks       = 64                // accusations by one member in quotaTime that make us look, and a quarter of the members
	quotaTime      = 10 * time.Second
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
	org    string // learn: the member's organisation
	hidden bool   // learn: no other organisation knows of it
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
	rtt       time.Duration // smoothed; 0: unknown
	heard     time.Time
}

// probe is one look at a subject, until it answers or is dead.
type probe struct {
	nonce  uint64
	began  time.Time
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
	period   time.Duration
	shortest time.Duration // wait for an answer
	self     msp.PKIID
	number   number
	seed     uint64

	all          map[msp.PKIID]*subject
	here         []*subject // connected
	turn         int        // in here
	looking      []*subject // with a probe
	living       int        // alive or suspect
	next         time.Time  // ping
	last         time.Time  // tick
	nonce        uint64
	health       int           // 0 is well
	rtt          time.Duration // smoothed over all: it says how much the network loses
	errands      map[uint64]errand
	quotas       map[msp.PKIID]*quota
	refuted      time.Time
	accuser      msp.PKIID // the first since firstAccused
	firstAccused time.Time
	swept        time.Time
	out          []action
}

func newDetector(self msp.PKIID, period time.Duration, seed uint64) *detector {
	return &detector{
		period: period, shortest: period / 5, rtt: period / 12, self: self, seed: seed,
		all: make(map[msp.PKIID]*subject), errands: make(map[uint64]errand), quotas: make(map[msp.PKIID]*quota),
	}
}

// step takes one event in.
func (d *detector) step(e event, now time.Time) []action {
	d.out = nil
	s := d.all[e.id]
	switch e.kind {
	case tick:
		d.tick(now)
	case themselves:
		d.number = e.number
	case learn:
		d.learn(e, s, now)
	case meet:
		if s != nil && !s.connected && s.state != Left {
			s.connected = true
			d.here = append(d.here, s)
			d.shuffle(len(d.here) - 1)
			if s.state != Alive {
				d.look(s, now)
			}
		}
	case lose:
		if s != nil && s.connected {
			d.part(s)
			if s.state == Alive || s.state == Suspect {
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
			d.rest(s)
			d.part(s)
			if s.state == Alive || s.state == Suspect {
				d.living--
			}
			delete(d.all, e.id)
		}
	case spoken:
		d.hear(e.id, s, e.say, now)
	}
	return d.out
}

func (d *detector) learn(e event, s *subject, now time.Time) {
	if s == nil {
		s = &subject{id: e.id, org: e.org, hidden: e.hidden, number: e.number, state: Alive, heard: now}
		d.all[e.id] = s
		d.living++
		return
	}
	if s.number.less(e.number) {
		s.number, s.hidden = e.number, e.hidden
		s.accusers = nil
		d.sign(s, now)
		d.become(s, Alive)
	}
}

// sign notes a sign of life.
func (d *detector) sign(s *subject, now time.Time) {
	s.heard = now
	if s.state == Left {
		return
	}
	if s.connected && len(s.accusers) >= enough && len(d.here) < d.living-1 {
		d.send(s.id, say{accused: []accusation{{s.id, s.number}}}) // some can't ask him themselves
	}
	s.accusers = nil
	d.become(s, Alive)
	d.rest(s)
}

func (d *detector) hear(from msp.PKIID, s *subject, w say, now time.Time) {
	if s != nil && s.connected {
		if p := s.probe; p != nil && w.ack == p.nonce { // of its first ping, so that losses lengthen the wait
			d.measure(s, now.Sub(p.began))
		}
		d.sign(s, now)
	}
	if w.ping != 0 && w.target == nil {
		d.send(from, say{ack: w.ping})
	} else if w.ping != 0 {
		d.send(from, say{nack: w.ping})
		d.errand(from, w, now)
	}
	if w.ack != 0 {
		if e, ok := d.errands[w.ack]; ok {
			delete(d.errands, w.ack)
			d.send(e.asker, say{ack: e.nonce})
		}
	}
	for _, x := range d.looking {
		if x.probe.asked[from] && x.probe.nonce == w.nack {
			x.probe.echoes++
		}
		if x.probe.asked[from] && x.probe.nonce == w.ack {
			d.sign(x, now)
			break
		}
	}
	for _, a := range w.accused {
		if a.id == d.self {
			d.defend(from, a, w.ping != 0, now)
		} else {
			d.accused(from, a, now)
		}
	}
}

// defend refutes an accusation of ourselves, unless our answer to the accuser's
// ping will do: that is, when others talk of it, or two accuse.
func (d *detector) defend(from msp.PKIID, a accusation, pinged bool, now time.Time) {
	if a.number.less(d.number) {
		return
	}
	if now.Sub(d.firstAccused) > standstill {
		d.firstAccused, d.accuser = now, from
	}
	q := d.quota(from, now)
	if pinged && d.accuser == from || q.refuted || now.Sub(d.refuted) < refutePause {
		return
	}
	q.refuted = true
	d.refuted = now
	d.out = append(d.out, action{refute: true})
}

// errand pings somebody for another, who may know of him.
func (d *detector) errand(from msp.PKIID, w say, now time.Time) {
	t, asker := d.all[*w.target], d.all[from]
	if t == nil || !t.connected || len(d.errands) >= maxErrands || t.hidden && (asker == nil || asker.org != t.org) {
		return
	}
	d.nonce++
	d.errands[d.nonce] = errand{from, w.ping, now.Add(errandTime)}
	d.send(t.id, say{ping: d.nonce})
}

func (d *detector) accused(from msp.PKIID, a accusation, now time.Time) {
	s := d.all[a.id]
	if s == nil || s.state == Dead || s.state == Left || from == a.id || a.number.less(s.number) {
		return
	}
	if s.accusers == nil {
		s.accusers = make(map[msp.PKIID]bool)
	}
	if len(s.accusers) < confirmations {
		s.accusers[from] = true
	}
	q := d.quota(from, now)
	if s.state == Suspect || s.probe != nil || q.looks > maxLooks+d.living/4 {
		return
	}
	q.looks++
	if s.connected {
		d.look(s, now)
	} else if len(s.accusers) >= min(enough+d.lossy(), d.knowers(s)-2) {
		d.look(s, now)
		d.suspect(s, now)
	}
}

// quota is what a member may still make us do.
func (d *detector) quota(of msp.PKIID, now time.Time) *quota {
	q := d.quotas[of]
	if q == nil {
		q = new(quota)
		d.quotas[of] = q
	}
	if now.Sub(q.since) > quotaTime {
		*q = quota{since: now}
	}
	return q
}

func (d *detector) tick(now time.Time) {
	if gap := now.Sub(d.last); !d.last.IsZero() && gap > standstill {
		d.health = min(d.health+1, maxHealth)
		for _, s := range d.looking {
			s.suspected = s.suspected.Add(gap)
			s.probe.next = now.Add(d.wait(s))
			s.probe.blamed = true
		}
	}
	d.last = now
	for _, s := range slices.Clone(d.looking) {
		if s.probe != nil && !now.Before(s.probe.next) {
			d.advance(s, now)
		}
	}
	if !now.Before(d.next) {
		d.next = now.Add(d.period / pingsPerPeriod)
		d.ping(now)
	}
	if now.Sub(d.swept) > errandTime {
		d.sweep(now)
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
	var quiet []*subject
	for _, s := range d.all {
		if !s.connected && s.state == Alive && s.probe == nil && now.Sub(s.heard) > silence {
			quiet = append(quiet, s)
		}
	}
	slices.SortFunc(quiet, func(a, b *subject) int { return slices.Compare(a.id[:], b.id[:]) })
	for _, s := range quiet {
		d.look(s, now)
	}
}

// become changes a state.
func (d *detector) become(s *subject, to State) {
	if s.state == to {
		return
	}
	was := s.state == Alive || s.state == Suspect
	is := to == Alive || to == Suspect
	switch {
	case was && !is:
		d.living--
	case is && !was:
		d.living++
	}
	s.state = to
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
	s.connected = false
	i := slices.Index(d.here, s)
	d.here = slices.Delete(d.here, i, i+1)
	if i < d.turn {
		d.turn--
	}
}

// pick returns up to n connected living members but one, at random, who may
// know of it.
func (d *detector) pick(n int, but *subject) []*subject {
	var out []*subject
	if len(d.here) == 0 {
		return nil
	}
	start := int(d.random() % uint64(len(d.here)))
	// A random start in a shuffled list; it is shuffled anew at each round.
	for i := range d.here {
		s := d.here[(start+i)%len(d.here)]
		if s != but && s.state == Alive && s.probe == nil && (!but.hidden || s.org == but.org) {
			if out = append(out, s); len(out) == n {
				break
			}
		}
	}
	return out
}

func (d *detector) send(to msp.PKIID, w say) {
	d.out = append(d.out, action{to: to, say: w, send: true})
}

// shuffle swaps the i-th connected member with one at random.
func (d *detector) shuffle(i int) {
	j := int(d.random() % uint64(len(d.here)))
	d.here[i], d.here[j] = d.here[j], d.here[i]
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

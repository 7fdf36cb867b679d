package membership

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"grapevine/msp"
	"grapevine/wire"
)

// Limits of a word's parts, beside [wire.MaxWord].
const (
	entrySize  = 32 + 8 + 8 // of an accusation, and of what is had
	maxAccused = 64
	maxAlives  = 128       // in one word
	aliveBytes = 128 << 10 // in one word
	maxWant    = 64
	maxHave    = 5000 // so that it fits a word: larger channels are compared in part

	comparePause = 300 * time.Millisecond // between two comparisons of views with anybody
	compareFirst = time.Second            // with the same member
	compareLast  = 30 * time.Second       // with one that never has news
)

// talk is what is known of one connected member's stream.
type talk struct {
	peer   peer.ID
	id     msp.PKIID
	mspID  string
	height uint64 // told
	told   uint64 // which of all tellings that was
	state  uint64 // height of the state, told
	heard  uint64 // that it told
	digest uint64 // told
	// When the views were compared last, and for how long not to do it again
	// while its digest stays.
	compared time.Time
	pause    time.Duration
	greeted  time.Time
	// When it was asked to say anew that it lives, and for whom.
	refreshed time.Time
	awaited   []*talk
	refused   []msp.PKIID // whom it told of and Admit refused, at most maxWant
}

// Arrived tells that a host is connected and a member. To say it twice does
// nothing.
func (m *Members) Arrived(p peer.ID) {
	id, _, ok := m.bound(p)
	if !ok {
		return
	}
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.talks[p] != nil || m.left || id.PKIID() == m.id {
		return
	}
	t := &talk{peer: p, id: id.PKIID(), mspID: id.MSPID(), pause: compareFirst}
	m.talks[p] = t
	m.hosts[t.id] = p
	m.links.add(p)
	if m.round > 0 {
		m.welcome(t, now)
	}
	m.step(event{kind: meet, id: t.id, org: t.mspID}, now)
}

// Gone tells that a host isn't connected any more, or not a member.
func (m *Members) Gone(p peer.ID) {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.talks[p]
	if t == nil {
		return
	}
	delete(m.talks, p)
	m.links.remove(p)
	if m.hosts[t.id] != p {
		return
	}
	delete(m.hosts, t.id)
	m.step(event{kind: lose, id: t.id}, now)
}

// Serve reads what a member says on a stream, until the stream ends.
func (m *Members) Serve(s network.Stream, from peer.ID) {
	m.mu.Lock()
	if t := m.talks[from]; t != nil && m.round > 0 && time.Since(t.greeted) > m.c.Period {
		m.links.retry(from) // it may not have had the channel before
		m.welcome(t, time.Now())
	}
	m.mu.Unlock()
	in := wire.Ahead(s)
	for {
		b, err := wire.ReadFrame(in, wire.MaxWord)
		if err == nil {
			w := new(wire.Word)
			if err = wire.Unmarshal(b, w); err == nil {
				err = m.Hear(from, w)
			}
		}
		if err != nil {
			if r := wire.ReasonOf(err); r != nil && m.c.Refused != nil {
				m.c.Refused(from, r)
			}
			_ = s.Reset() // nothing more is read from it
			return
		}
	}
}

// Hear takes one word of a connected member in. An error ends the stream.
func (m *Members) Hear(from peer.ID, w *wire.Word) error {
	said, err := readSay(w)
	if err != nil {
		return fmt.Errorf("word of %s: %w", from, err)
	}
	now := time.Now()
	alives := make([]*wire.SignedAlive, len(w.Alive))
	for i, b := range w.Alive {
		alives[i] = new(wire.SignedAlive)
		if err := wire.Unmarshal(b, alives[i]); err != nil {
			return fmt.Errorf("word of %s: %w", from, err)
		}
	}
	news := false
	for _, a := range alives {
		if err := m.Receive(from, a); err == nil {
			news = true
		} else if r := wire.ReasonOf(err); r != nil {
			if r == NotNewer || r == Stale {
				m.correct(from, a)
				continue // views are compared by lists; what crosses on the way is no offence
			}
			if m.c.Refused != nil {
				m.c.Refused(from, r)
			}
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.talks[from]
	if t == nil || m.left {
		return nil // it went meanwhile
	}
	m.step(event{kind: spoken, id: t.id, say: said}, now)
	m.echoed(from, w.Ack)
	m.tall(t, w)
	m.stated(t.id, t.mspID, w.StateHeight, w.StateHash)
	m.answer(t, w, now)
	if w.Digest == 0 {
		return nil
	}
	if news || w.Digest != t.digest {
		t.pause, t.digest = compareFirst, w.Digest
	}
	if w.Digest != m.digest(t.mspID) && now.Sub(t.compared) >= t.pause && now.Sub(m.asked) >= comparePause {
		m.asked = now
		m.compare(t, now)
	}
	return nil
}

// readSay checks the form of a word, and returns what the detector wants of it.
func readSay(w *wire.Word) (say, error) {
	s := say{ping: w.Ping, ack: w.Ack, nack: w.Nack}
	bad := len(w.Accused) > maxAccused || len(w.Alive) > maxAlives || len(w.Want) > maxWant || len(w.Have)%entrySize != 0 ||
		len(w.Target) != 0 && len(w.Target) != 32 || len(w.TipHash) != 0 && len(w.TipHash) != 32 || badState(w.StateHeight, w.StateHash)
	for _, b := range w.Want {
		bad = bad || len(b) != 32
	}
	for _, b := range w.Accused {
		if bad = bad || len(b) != entrySize; bad {
			break
		}
		id, n := readEntry(b)
		s.accused = append(s.accused, accusation{id, n})
	}
	if bad {
		return say{}, BadWord
	}
	if len(w.Target) == 32 {
		id := msp.PKIID(w.Target)
		s.target = &id
	}
	return s, nil
}

func readEntry(b []byte) (msp.PKIID, number) {
	return msp.PKIID(b), number{binary.BigEndian.Uint64(b[32:]), binary.BigEndian.Uint64(b[40:])}
}

func appendEntry(b []byte, id msp.PKIID, incarnation, second uint64) []byte {
	b = append(b, id[:]...)
	b = binary.BigEndian.AppendUint64(b, incarnation)
	return binary.BigEndian.AppendUint64(b, second)
}

// tall takes a height in. It is the word of the connected member alone.
func (m *Members) tall(t *talk, w *wire.Word) {
	if w.Height == t.heard || w.Height == 0 {
		return
	}
	t.heard = w.Height
	if v := m.view.marks[t.id]; v != nil && v.heard && len(w.TipHash) == 32 {
		v.member.Height, v.member.TipHash = w.Height, [32]byte(w.TipHash)
	}
	if m.c.OnHeight != nil {
		m.c.OnHeight(t.peer, w.Height)
	}
}

// step hands the detector an event, and does what it wants. Called under mu.
func (m *Members) step(e event, now time.Time) {
	for _, a := range m.detector.step(e, now) {
		switch {
		case a.send:
			if t := m.talks[m.hosts[a.to]]; t != nil {
				m.send(t, a.say.word())
			}
		case a.refute:
			m.stats.Refuted++
			m.notify(Event{Kind: Refuted, Member: m.self()})
			m.publishSoon()
		case a.rtt > 0:
			m.stats.RTT += (a.rtt - m.stats.RTT) / 8
			if m.c.Probed != nil {
				m.c.Probed(a.rtt)
			}
			if v := m.view.marks[a.id]; v != nil {
				v.member.RTT = a.rtt
				v.member.LastSeen = now
			}
		case a.turned:
			m.turned(a, now)
		}
	}
	m.wind()
}

func (m *Members) turned(a action, now time.Time) {
	before := Alive
	if v := m.view.marks[a.id]; v != nil {
		before = v.member.State
	}
	v, ok := m.view.turn(a.id, a.state, now)
	if !ok || before == a.state {
		return
	}
	switch a.state {
	case Suspect:
		m.stats.Suspicions++
		m.notify(Event{Kind: Suspected, Member: v})
	case Dead:
		m.notify(Event{Kind: Died, Member: v})
	case Alive:
		if before == Suspect {
			m.stats.Refutations++
		}
		m.notify(Event{Kind: Recovered, Member: v, Was: before})
	}
}

func (s say) word() *wire.Word {
	w := &wire.Word{Ping: s.ping, Ack: s.ack, Nack: s.nack}
	if s.target != nil {
		w.Target = s.target[:]
	}
	for _, a := range s.accused {
		w.Accused = append(w.Accused, appendEntry(nil, a.id, a.number.incarnation, a.number.round))
	}
	return w
}

// send adds to a word what each word may carry, and queues it. Called under mu.
func (m *Members) send(t *talk, w *wire.Word) {
	h, hash := m.c.Tip()
	if h != t.height {
		m.tellings++
		t.height, t.told = h, m.tellings
		w.Height, w.TipHash = h, hash[:]
	}
	m.stateNews(t, w)
	if w.Ping != 0 || w.Ack != 0 || len(w.Alive) > 0 {
		w.Incarnation, w.Sequence = m.incarnation, 2*m.round
		w.Digest = m.digest(t.mspID)
	}
	m.stats.Words++
	m.links.send(t.peer, w)
}

// tell sends an alive message. Called under mu.
func (m *Members) tell(t *talk, s *wire.SignedAlive) {
	if b, err := wire.Marshal(s); err == nil {
		m.send(t, &wire.Word{Alive: [][]byte{b}})
	}
}

// welcome introduces us to a member that has just come: with a message that is
// not old. Called under mu.
func (m *Members) welcome(t *talk, now time.Time) {
	if m.renew(t, now) {
		m.greet(t, now, true)
	}
}

// renew makes a message for a member if there is none that is fresh. Called under
// mu.
func (m *Members) renew(t *talk, now time.Time) bool {
	same := t.mspID == m.c.Self.Identity().MSPID()
	if now.Sub(m.saidAt) <= fresh && (!same || m.own != nil) {
		return true
	}
	if err := m.sign(now, true, false); err != nil {
		log.Warnw("an alive message could not be made", "error", err)
		return false
	}
	return true
}

// greet tells a member our newest message for it. Called under mu.
func (m *Members) greet(t *talk, now time.Time, own bool) {
	t.greeted = now
	s := m.wide
	if t.mspID == m.c.Self.Identity().MSPID() && (own || s == nil) {
		s = m.own
	}
	switch {
	case s == nil: // we are invisible to it
	case own:
		m.tell(t, s)
	default:
		m.tell(t, slim(s))
	}
}

// greetWith does so with the certificate, and tells what is for all members too: it
// may be asked for another's sake.
func (m *Members) greetWith(t *talk, now time.Time) {
	t.greeted = now
	for _, s := range []*wire.SignedAlive{m.wide, m.own} {
		if s != nil && (s == m.wide || t.mspID == m.c.Self.Identity().MSPID()) {
			m.tell(t, m.whole(s))
		}
	}
}

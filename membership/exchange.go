package membership

import (
	"bytes"
	"encoding/binary"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"grapevine/msp"
	"grapevine/wire"
)

// The exchange of views: beside pings and answers goes a digest of who lives.
// Where two differ, one asks the other for what it lacks.

// correct tells a member whose own message is older than one that we accepted
// of it: its clock or its disk went back.
func (m *Members) correct(from peer.ID, s *wire.SignedAlive) {
	c, err := parse(m.c.Tag, m.c.Loopback, s)
	if err != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	t, v := m.talks[from], m.view.marks[c.id]
	if t == nil || t.id != c.id || v == nil || c.peer != from || v.heard && v.member.Peer != from && v.member.State < Dead {
		return // another host may count; see clash
	}
	if (number{c.Incarnation, c.Sequence}).less(number{v.incarnation, v.sequence}) {
		m.send(t, &wire.Word{Have: appendEntry(nil, c.id, v.incarnation, v.sequence)})
	}
}

// answer sends what a word asks for. Called under mu.
func (m *Members) answer(t *talk, w *wire.Word, now time.Time) {
	for _, b := range w.Want {
		id := msp.PKIID(b)
		if id == m.id {
			if m.renew(t, now) {
				m.greetWith(t, now)
			}
		} else if v, k := m.view.marks[id], m.known[id]; v != nil && k != nil && v.heard {
			for _, s := range v.told(t.mspID) {
				if s.signed != nil {
					m.tell(t, k.whole(s.signed))
				}
			}
		}
	}
	if len(w.Have) == 0 {
		return
	}
	has := make(map[msp.PKIID]number, len(w.Have)/entrySize)
	for b := range slices.Chunk(w.Have, entrySize) {
		id, n := readEntry(b)
		has[id] = n
	}
	if n, ok := has[m.id]; ok && (number{m.incarnation, 2 * m.round}).less(n) {
		m.lift(number{n.incarnation, roundOf(n.round)}, now)
	}
	if !w.Ask {
		return
	}
	if n, ok := has[m.id]; !ok || n.less(number{m.incarnation, 2*m.round - 1}) {
		m.welcome(t, now)
	}
	buried := make(map[msp.PKIID]bool, len(w.Accused))
	for _, b := range w.Accused {
		id, _ := readEntry(b)
		buried[id] = true
	}
	out := bundle{m: m, to: t}
	for id, v := range m.view.marks {
		n, ok := has[id]
		if !v.heard || id == t.id || !v.open(t.mspID) {
			continue
		}
		if v.member.State == Dead {
			if ok && !(number{v.incarnation, roundOf(v.sequence)}).less(number{n.incarnation, roundOf(n.round)}) {
				out.accuse(id, n.incarnation, roundOf(n.round))
			}
			continue
		}
		lacks, told := !ok || buried[id], false
		for _, s := range v.told(t.mspID) {
			if s.signed == nil || ok && !n.less(number{v.incarnation, s.sequence}) {
				continue
			}
			if lacks = true; !m.view.stale(s.at, now) {
				out.add(s.signed)
				told = true
			}
		}
		if lacks && !told {
			m.refresh(id, t, now)
		}
	}
	out.send()
	if m.lacks(has) && now.Sub(t.compared) >= t.pause {
		m.compare(t, now)
	}
}

// refresh asks a connected member to say anew that it lives, for one who doesn't
// know it and wouldn't believe what it said long ago. Called under mu.
func (m *Members) refresh(id msp.PKIID, to *talk, now time.Time) {
	t := m.talks[m.hosts[id]]
	if t == nil {
		return // others are connected to it
	}
	if now.Sub(t.refreshed) > m.c.Period {
		t.refreshed, t.awaited = now, t.awaited[:0]
		m.send(t, &wire.Word{Want: [][]byte{id[:]}})
	}
	if !slices.Contains(t.awaited, to) {
		t.awaited = append(t.awaited, to)
	}
}

// refreshed tells those who waited for it what a member has said anew: the last it
// says, where two messages are theirs. Called under mu.
func (m *Members) refreshed(c *claim, s *wire.SignedAlive) {
	t := m.talks[m.hosts[c.id]]
	if t == nil || len(t.awaited) == 0 {
		return
	}
	ours := c.MspId == m.c.Self.Identity().MSPID()
	t.awaited = slices.DeleteFunc(t.awaited, func(to *talk) bool {
		if !c.Own && ours && to.mspID == c.MspId || c.Own && to.mspID != c.MspId {
			return false
		}
		if m.talks[to.peer] == to {
			m.tell(to, s)
		}
		return true
	})
}

// lacks says whether somebody has heard what we haven't. Called under mu.
func (m *Members) lacks(has map[msp.PKIID]number) bool {
	for id, n := range has {
		if v := m.view.marks[id]; id != m.id && (v == nil || !v.heard || (number{v.incarnation, v.sequence}).less(n)) {
			return true
		}
	}
	return false
}

// compare asks a member for what we lack. Called under mu.
func (m *Members) compare(t *talk, now time.Time) {
	t.compared, t.pause = now, min(2*t.pause, compareLast)
	m.send(t, &wire.Word{Have: m.have(t.mspID), Ask: true, Accused: m.buried(t.mspID)})
}

// have lists what we accepted, of those that a member of an organisation may
// know of. Called under mu.
func (m *Members) have(mspID string) []byte {
	ids := make([]msp.PKIID, 0, len(m.view.marks)+1)
	for id, v := range m.view.marks {
		if v.heard && v.open(mspID) {
			ids = append(ids, id)
		}
	}
	if m.c.Endpoint != "" || mspID == m.c.Self.Identity().MSPID() {
		ids = append(ids, m.id)
	}
	slices.SortFunc(ids, func(a, b msp.PKIID) int { return bytes.Compare(a[:], b[:]) })
	var out []byte
	for _, id := range ids[:min(len(ids), maxHave)] {
		if id == m.id {
			out = appendEntry(out, id, m.incarnation, 2*m.round)
		} else {
			v := m.view.marks[id]
			out = appendEntry(out, id, v.incarnation, v.sequence)
		}
	}
	return out
}

// buried lists whom we believe dead: who knows better looks, or lets him know.
// Called under mu.
func (m *Members) buried(mspID string) (out [][]byte) {
	for id, v := range m.view.marks {
		if v.heard && v.open(mspID) && v.member.State == Dead && len(out) < maxAccused {
			out = append(out, appendEntry(nil, id, v.incarnation, roundOf(v.sequence)))
		}
	}
	return out
}

// A summed digest holds as long as the view has seen so many turns, and we are
// the same.
type summed struct{ turns, incarnation, sum uint64 }

// digest sums up who lives, of those that a member of an organisation may know
// of. Called under mu.
func (m *Members) digest(mspID string) uint64 {
	last := m.digests[mspID]
	if last.turns == m.view.turns && last.incarnation == m.incarnation && last.sum != 0 {
		return last.sum
	}
	same := mspID == m.c.Self.Identity().MSPID()
	var sum uint64 = 1
	add := func(id msp.PKIID, incarnation uint64, endpoint, of string) {
		if endpoint != "" || same && of == mspID {
			sum ^= binary.BigEndian.Uint64(id[:]) * (2*incarnation + 1)
		}
	}
	add(m.id, m.incarnation, m.c.Endpoint, m.c.Self.Identity().MSPID())
	for id, v := range m.view.marks {
		if v.heard && v.member.State < Dead {
			add(id, v.incarnation, v.member.Endpoint, v.member.MSPID)
		}
	}
	m.digests[mspID] = summed{m.view.turns, m.incarnation, sum}
	return sum
}

package membership

import (
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"grapevine/wire"
)

// Two live hosts with one identity: somebody runs one MSP folder twice. All that
// either says is well signed; what shows it is a message of the one that was said
// after the other had started. (What was said before is a former self's, whose
// data folder was lost.) Of the two, the one that started later counts, for its
// incarnation is higher. The other is told, says once more that it lives, so that
// all who hear it can report it and drop it, and doesn't raise its number.
const (
	clashPause   = time.Minute      // between two reports of one identity
	shadowTime   = 90 * time.Second // for which a host stands back that has heard a later one
	protestPause = 5 * time.Second  // without hearing it, until that host says anew that it lives
	twinTime     = 10 * time.Minute // for which both beat fast, so that each knows of the other
)

// clash looks whether a message that is refused shows two hosts of one identity,
// and if so tells all whom it concerns.
func (m *Members) clash(from peer.ID, c *claim, k *judged, s *wire.SignedAlive, now time.Time) {
	suspicious := func() bool {
		v := m.view.marks[c.id]
		return k != nil && v != nil && v.heard && v.member.State < Dead && v.member.Peer != c.peer && !c.Left &&
			c.Incarnation < v.incarnation && c.sentAt.After(started(v.incarnation)) && !m.view.stale(c.sentAt, now) &&
			ahead(c.Incarnation, c.sentAt, now) == nil && now.Sub(m.clashed[c.id]) >= clashPause
	}
	m.mu.Lock()
	ok := suspicious()
	m.mu.Unlock()
	if !ok {
		return
	}
	if id, _, ok := m.bound(c.peer); ok && id.PKIID() != c.id {
		return
	}
	k, err := m.identify(from, c, k, s, now)
	if err != nil {
		return // whatever it is, it isn't the member's; the caller refuses it anyway
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !suspicious() {
		return
	}
	v := m.view.marks[c.id]
	m.report(v.member, c.peer, k.whole(s), now)
	if t := m.talks[c.peer]; t != nil {
		for _, newer := range v.told(t.mspID) {
			m.tell(t, m.known[c.id].whole(newer.signed))
		}
	}
	m.pass(news{from, c.id, c.MspId, c.Own, c.Left, k.whole(s)}, now)
}

// succeed sees to a host of an identity that another host had until now. That
// one may live, and has to know; if it spoke since this one's start, it does.
// Called under mu.
func (m *Members) succeed(c *claim, k *judged, newer *wire.SignedAlive, former *said, now time.Time) {
	for p, t := range m.talks {
		if t.id == c.id && p != c.peer {
			m.tell(t, k.whole(newer))
		}
	}
	if former != nil && now.Sub(m.clashed[c.id]) >= clashPause {
		old := new(wire.Alive)
		if err := wire.Unmarshal(former.signed.Alive, old); err == nil { // it did once
			m.report(m.view.marks[c.id].member, peer.ID(old.PeerId), k.whole(former.signed), now)
		}
	}
}

// report tells of two hosts of one identity, and shows the newer what the older
// said. Called under mu.
func (m *Members) report(newer Member, older peer.ID, said *wire.SignedAlive, now time.Time) {
	m.clashed[newer.PKIID] = now
	m.notify(Event{Kind: Cloned, Member: newer, Other: older})
	if t := m.talks[newer.Peer]; t != nil {
		m.tell(t, said)
	}
}

// cloned judges a message of another host in our own name. Called under mu.
func (m *Members) cloned(c *claim, newer bool, now time.Time) error {
	err := ahead(c.Incarnation, c.sentAt, now)
	switch {
	case err != nil:
	case m.view.stale(c.sentAt, now):
		err = Stale
	case !newer && c.sentAt.Before(m.born):
		err = NotNewer // we had another host key then
	}
	if err != nil {
		return fmt.Errorf("alive in our name from host %s: %w", c.peer, err)
	}
	m.twin = now
	if newer {
		if now.Sub(m.shadowed) >= protestPause {
			m.publishSoon()
		}
		m.shadowed = now
	}
	if now.Sub(m.clashed[m.id]) >= clashPause {
		m.clashed[m.id] = now
		e := Event{Kind: Cloned, Member: m.self(), Other: c.peer}
		if newer {
			e.Member.Peer, e.Member.Incarnation, e.Member.Sequence, e.Other = c.peer, c.Incarnation, c.Sequence, m.c.PeerID
		}
		m.notify(e)
	}
	return fmt.Errorf("alive in our name from host %s: %w", c.peer, Clone)
}

// whole is a message with the certificate that it needs.
func (k *judged) whole(s *wire.SignedAlive) *wire.SignedAlive {
	return &wire.SignedAlive{Alive: s.Alive, Signature: s.Signature, Certificate: k.id.Certificate().Raw, Chain: k.chain}
}

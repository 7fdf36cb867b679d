package membership

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"grapevine/msp"
	"grapevine/wire"
)

// maxWanted bounds the certificates that are asked for at a time.
const maxWanted = 1024

// Receive judges an alive message that came from a peer. Nil means that it is
// news, to be passed on; errors carry the reason.
func (m *Members) Receive(from peer.ID, s *wire.SignedAlive) error {
	now := time.Now()
	c, err := parse(m.c.Tag, m.c.Loopback, s)
	if err != nil {
		return err
	}
	if c.Own && c.MspId != m.c.Self.Identity().MSPID() {
		return fmt.Errorf("alive of %s of %s: %w", c.id, c.MspId, WrongAudience)
	}
	if c.id == m.id {
		return m.mirror(c, s, now)
	}
	m.mu.Lock()
	err = m.view.judge(c.id, c.Incarnation, c.Sequence, c.sentAt, c.digest, now)
	k := m.known[c.id]
	m.mu.Unlock()
	if err != nil {
		m.clash(from, c, k, s, now)
		return fmt.Errorf("alive of %s: %w", c.id, err)
	}
	k, err = m.identify(from, c, k, s, now)
	if err != nil {
		m.want(from, c, err, now)
		return err
	}
	if id, _, ok := m.bound(c.peer); ok && id.PKIID() != c.id {
		return fmt.Errorf("alive of %s: host %s is %s: %w", c.id, c.peer, id.PKIID(), WrongPeer)
	}
	if err := m.accept(from, c, k, s, now); err != nil {
		return fmt.Errorf("alive of %s: %w", c.id, err)
	}
	return nil
}

func (m *Members) bound(p peer.ID) (*msp.Identity, [][]byte, bool) {
	if m.c.Bound == nil {
		return nil, nil, false
	}
	return m.c.Bound(p)
}

// mirror judges a message in our own name: an echo of what we said, another
// host's, or what we said before our clock or disk went back. If that counts for
// more than we say now, we say more.
func (m *Members) mirror(c *claim, s *wire.SignedAlive, now time.Time) error {
	if err := c.prove(m.c.Self.Identity(), s.Signature, m.check); err != nil {
		return err
	}
	m.mu.Lock()
	n := number{c.Incarnation, roundOf(c.Sequence)}
	ours := number{m.incarnation, m.round}
	if c.peer == m.c.PeerID && !ours.less(n) {
		echo := n == ours && (m.wide != nil && bytes.Equal(m.wide.Alive, s.Alive) || m.own != nil && bytes.Equal(m.own.Alive, s.Alive))
		m.mu.Unlock()
		if echo {
			return nil // what we publish passes here too
		}
		return fmt.Errorf("our own alive: %w", NotNewer)
	}
	defer m.mu.Unlock()
	if c.peer != m.c.PeerID && !c.Left {
		return m.cloned(c, ours.less(n), now)
	}
	m.lift(n, now)
	if c.Left && !m.left {
		return fmt.Errorf("our own leave: %w", RefutedLeave)
	}
	return fmt.Errorf("alive in our name from host %s: %w", c.peer, Clone)
}

// lift makes Run raise our incarnation above a number that was, or is said to
// have been, accepted in our name, so that we are heard again. How far is
// bounded by what others accept. Called under mu.
func (m *Members) lift(n number, now time.Time) {
	ours := number{m.incarnation, m.round}
	if m.left || n.less(ours) || now.Sub(m.shadowed) < shadowTime || n.incarnation >= uint64(now.Add(skew).UnixMilli()) || now.Sub(m.lifted) < refutePause {
		return
	}
	m.lifted = now
	m.above = max(m.above, n.incarnation)
	m.publishSoon()
}

// raise does what lift wants.
func (m *Members) raise() {
	m.mu.Lock()
	rise := m.above >= m.incarnation
	if rise {
		m.incarnation, m.round = m.above+1, 0
		m.stats.Refuted++
	}
	i := m.incarnation
	m.mu.Unlock()
	if rise && m.c.Bumped != nil {
		if err := m.c.Bumped(i); err != nil {
			log.Errorw("our incarnation could not be stored", "error", err)
		}
	}
}

// identify returns the identity that proves the claim, a member now.
func (m *Members) identify(from peer.ID, c *claim, k *judged, s *wire.SignedAlive, now time.Time) (*judged, error) {
	if len(s.Certificate) > 0 && (k == nil || !bytes.Equal(k.id.Certificate().Raw, s.Certificate)) {
		id, err := m.read(c.MspId, s.Certificate)
		if err != nil {
			return nil, fmt.Errorf("alive of %s: %w", c.id, err)
		}
		k = &judged{id: id, chain: s.Chain}
	}
	if len(s.Certificate) == 0 && (k == nil || sha256.Sum256(k.id.Certificate().Raw) != [32]byte(c.Alive.Certificate)) {
		id, chain, ok := m.bound(c.peer)
		if !ok || id.PKIID() != c.id || sha256.Sum256(id.Certificate().Raw) != [32]byte(c.Alive.Certificate) {
			return nil, fmt.Errorf("alive of %s: %w", c.id, UnknownIdentity)
		}
		k = &judged{id: id, chain: chain}
	}
	m.mu.Lock()
	m.stats.Checks++
	m.mu.Unlock()
	if err := c.prove(k.id, s.Signature, m.check); err != nil {
		return nil, err
	}
	if now.Before(k.until) {
		return k, nil
	}
	if err := m.c.Admit(k.id, k.chain, now); err != nil {
		m.refuse(from, c.id)
		return nil, fmt.Errorf("alive of %s: %w", c.id, err)
	}
	until := now.Add(judgedFor)
	if end := k.id.Certificate().NotAfter; end.Before(until) {
		until = end
	}
	return &judged{id: k.id, chain: k.chain, until: until}, nil
}

// refuse remembers who told of somebody whom Admit refused: the configuration that
// admits it may come later. See Rejudge.
func (m *Members) refuse(from peer.ID, id msp.PKIID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if t := m.talks[from]; t != nil && len(t.refused) < maxWant && !slices.Contains(t.refused, id) {
		t.refused = append(t.refused, id)
	}
}

// want asks, once, for the certificate that a message lacked.
func (m *Members) want(from peer.ID, c *claim, err error, now time.Time) {
	if wire.ReasonOf(err) != UnknownIdentity {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.talks[from]
	if at, ok := m.wanted[c.id]; t == nil || ok && now.Sub(at) < m.c.Period {
		return
	}
	if len(m.wanted) >= maxWanted {
		clear(m.wanted)
	}
	m.wanted[c.id] = now
	m.send(t, &wire.Word{Want: [][]byte{c.id[:]}})
}

// accept takes a proven message in, and passes on what others may not have.
func (m *Members) accept(from peer.ID, c *claim, k *judged, s *wire.SignedAlive, now time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := Alive
	led := false
	var former *said // of another host
	if v := m.view.marks[c.id]; v != nil && v.heard {
		before, led = v.member.State, !proto.Equal(v.member.Lead, c.lead)
		if v.member.Peer != c.peer && v.sentAt.After(started(c.Incarnation)) {
			former = v.newest()
		}
	}
	s = slim(s)
	e, err := m.view.accept(message{
		member: Member{
			PKIID: c.id, MSPID: c.MspId, Name: k.id.Name(), Peer: c.peer,
			Height: c.Height, TipHash: [32]byte(c.Alive.TipHash), Endpoint: wire.FormatEndpoint(c.wide), Internal: wire.FormatEndpoint(c.own),
			Role: c.Role, Version: c.Version, Lead: c.lead, Incarnation: c.Incarnation, Sequence: c.Sequence,
		},
		sentAt: c.sentAt, notAfter: k.id.Certificate().NotAfter, digest: c.digest,
		own: c.Own, left: c.Left, signed: s,
	}, now)
	if err != nil {
		return err
	}
	m.known[c.id] = k
	delete(m.wanted, c.id)
	n := number{c.Incarnation, roundOf(c.Sequence)}
	switch {
	case e.left:
		m.step(event{kind: leave, id: c.id, number: n}, now)
		if before != Left {
			m.notify(Event{Kind: Departed, Member: e.member})
		}
	case e.arrived:
		m.notify(Event{Kind: Joined, Member: e.member})
		fallthrough
	default:
		m.stated(c.id, c.MspId, c.StateHeight, c.StateHash)
		m.step(event{kind: learn, id: c.id, number: n, org: c.MspId, hidden: len(c.wide) == 0}, now)
		if p, ok := m.hosts[c.id]; ok && m.talks[p] != nil {
			m.step(event{kind: meet, id: c.id}, now)
		}
		if m.c.OnHeight != nil {
			m.c.OnHeight(c.peer, c.Height)
		}
	}
	if e.arrived {
		m.succeed(c, k, s, former, now)
	}
	m.refreshed(c, s)
	if e.arrived || e.left || before == Suspect || c.Own && m.sparse() {
		m.pass(news{from, c.id, c.MspId, c.Own, e.left, s}, now)
	} else if led && c.MspId != m.c.Self.Identity().MSPID() {
		m.whisper(from, s)
	}
	return nil
}

// whisper tells who is invisible to other organisations what one of those has
// said: it is connected to us alone. Called under mu.
func (m *Members) whisper(from peer.ID, s *wire.SignedAlive) {
	for p, t := range m.talks {
		v := m.view.marks[t.id]
		if p != from && t.mspID == m.c.Self.Identity().MSPID() && v != nil && v.heard && v.member.Endpoint == "" {
			m.tell(t, s)
		}
	}
}

// sparse says whether living members aren't connected. Called under mu.
func (m *Members) sparse() bool { return m.detector.apart > 0 }

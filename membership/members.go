// Package membership tells who is in a channel and who of them is alive. Each
// member signs an alive message at a slow beat; it counts only if it is newer
// than any ever accepted of that identity (see view), so a replay changes
// nothing. The messages carry heights, which are hints for the sync.
package membership

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	golog "github.com/ipfs/go-log/v2"
	"github.com/libp2p/go-libp2p/core/peer"

	"grapevine/msp"
	"grapevine/wire"
)

// Defaults of [Config], and what isn't configured.
const (
	DefaultInterval = 1 * time.Second
	DefaultExpiry   = 5 * time.Second

	arrivalGap = 200 * time.Millisecond // between beats that greet newcomers
	storeEvery = 10 * time.Second       // sequences; a new incarnation is stored at the next beat
	judgedFor  = 30 * time.Second       // Admit's yes is remembered; see Rejudge
)

var log = golog.Logger("grapevine/membership")

// Config says who we are and whom to tell.
type Config struct {
	Self        msp.Signer
	Chain       [][]byte // our intermediates, DER
	Tag         [32]byte // of the channel
	PeerID      peer.ID
	Endpoint    string        // external endpoint, host:port; empty: told to nobody
	Incarnation uint64        // above that of every earlier start; milliseconds since 1970
	Interval    time.Duration // of the slow beat
	Expiry      time.Duration // silence after which a member is dead

	// Tip returns how many blocks are held, durably, and the header hash of the
	// last. Both at once: the message signs them as a pair.
	Tip     func() (height uint64, hash [32]byte)
	Publish func(ctx context.Context, m *wire.SignedAlive) error
	// Admit judges whether an identity is a member now.
	Admit func(id *msp.Identity, intermediates [][]byte, now time.Time) error
	// Bound returns the identity that a connected host is bound to. A message
	// that claims such a host for another identity is refused. May be nil.
	Bound func(p peer.ID) (msp.PKIID, bool)
	// OnHeight is told of each accepted height. It MUST NOT block.
	OnHeight func(p peer.ID, height uint64)
	// Changed is told when a member arrives, comes back or dies. It MUST NOT
	// block. May be nil.
	Changed func(m Member)
	// Load and Store keep the highest accepted messages across restarts: one
	// value, empty at first. Both may be nil.
	Load  func() ([]byte, error)
	Store func([]byte) error
}

// Members is one channel's membership. It is safe for concurrent use.
type Members struct {
	c     Config
	id    msp.PKIID
	greet chan struct{} // to Run: somebody arrived

	mu       sync.Mutex // guards what follows
	view     *view
	sequence uint64
	known    map[msp.PKIID]*judged // at most one for each mark
	born     time.Time
}

// judged is an identity that Admit accepted.
type judged struct {
	id    *msp.Identity
	chain [][]byte
	until time.Time
}

// New returns the channel's membership with the marks that were stored. It
// starts nothing.
func New(c Config) (*Members, error) {
	if c.Interval <= 0 {
		c.Interval = DefaultInterval
	}
	if c.Expiry <= 0 {
		c.Expiry = max(DefaultExpiry, 5*c.Interval)
	}
	m := &Members{
		c: c, id: c.Self.Identity().PKIID(),
		greet: make(chan struct{}, 1),
		view:  newView(c.Expiry),
		known: make(map[msp.PKIID]*judged),
		born:  time.Now(),
	}
	if c.Load != nil {
		b, err := c.Load()
		if err != nil {
			return nil, fmt.Errorf("load the marks of members: %w", err)
		}
		if err := m.view.decode(b); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// Run beats until ctx ends, then stores the marks.
func (m *Members) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, m.store()) }()
	beat := time.NewTimer(0) // the first at once
	defer beat.Stop()
	var last, stored time.Time
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-m.greet:
			if d := time.Until(last.Add(arrivalGap)); d < m.c.Interval {
				beat.Reset(max(d, 0))
			}
			continue
		case <-beat.C:
		}
		last = time.Now()
		beat.Reset(m.c.Interval - m.c.Interval/10 + rand.N(m.c.Interval/5))
		if err := m.publish(ctx, last); err != nil && ctx.Err() == nil {
			log.Warnw("an alive message didn't go out", "error", err)
		}
		if m.tick(last, last.Sub(stored) >= storeEvery) {
			stored = last
			if err := m.store(); err != nil {
				return err
			}
		}
	}
}

// Receive judges a message that came from a peer. Nil means that it is news,
// to be passed on; errors carry the reason.
func (m *Members) Receive(from peer.ID, s *wire.SignedAlive) error {
	now := time.Now()
	c, err := parse(m.c.Tag, s)
	if err != nil {
		return err
	}
	if c.id == m.id {
		return m.mirror(c)
	}
	m.mu.Lock()
	err = m.view.judge(c.id, c.Incarnation, c.Sequence, c.sentAt, c.digest, now)
	k := m.known[c.id]
	m.mu.Unlock()
	if err != nil {
		return fmt.Errorf("alive of %s: %w", c.id, err)
	}
	k, err = m.identify(c, k, s, now)
	if err != nil {
		return err
	}
	if m.c.Bound != nil {
		if id, ok := m.c.Bound(c.peer); ok && id != c.id {
			return fmt.Errorf("alive of %s: host %s is %s: %w", c.id, c.peer, id, WrongPeer)
		}
	}
	e, err := m.accept(c, k, now)
	if err != nil {
		return fmt.Errorf("alive of %s: %w", c.id, err)
	}
	m.tell(e)
	return nil
}

// List returns all members heard of, ourselves first.
func (m *Members) List() []Member {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]Member{m.self()}, m.view.members()...)
}

// Find returns a member by its PKI-ID, and its identity, which Admit accepted;
// false if there is none or it isn't alive.
func (m *Members) Find(id msp.PKIID) (Member, *msp.Identity, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k, v := m.known[id], m.view.marks[id]
	if k == nil || v == nil || !v.heard || v.member.State != Alive {
		return Member{}, nil, false
	}
	return v.member, k.id, true
}

// Rejudge asks Admit anew about everyone, after the configuration or a
// revocation list changed. Who isn't a member any more is taken out.
func (m *Members) Rejudge() {
	now := time.Now()
	m.mu.Lock()
	all := make([]*judged, 0, len(m.known))
	for _, k := range m.known {
		all = append(all, k)
	}
	m.mu.Unlock()
	for _, k := range all {
		err := m.c.Admit(k.id, k.chain, now)
		if err == nil {
			continue
		}
		log.Infow("no longer a member", "name", k.id.Name(), "org", k.id.MSPID(), "error", err)
		m.mu.Lock()
		delete(m.known, k.id.PKIID())
		e, was := m.view.expel(k.id.PKIID())
		m.mu.Unlock()
		if was {
			m.tell(e)
		}
	}
}

// mirror judges a message in our own name: an echo of what we sent, or a clone.
func (m *Members) mirror(c *claim) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c.peer == m.c.PeerID && (c.Incarnation < m.c.Incarnation || c.Incarnation == m.c.Incarnation && c.Sequence <= m.sequence) {
		if c.Incarnation == m.c.Incarnation && c.Sequence == m.sequence {
			return nil // what we publish passes here too
		}
		return fmt.Errorf("our own alive: %w", NotNewer)
	}
	return fmt.Errorf("alive in our name from host %s: %w", c.peer, Clone)
}

// identify returns the identity that proves the claim, a member now.
func (m *Members) identify(c *claim, k *judged, s *wire.SignedAlive, now time.Time) (*judged, error) {
	if len(s.Certificate) == 0 && k == nil {
		return nil, fmt.Errorf("alive of %s: %w", c.id, UnknownIdentity)
	}
	if k == nil || len(s.Certificate) > 0 && !bytes.Equal(k.id.Certificate().Raw, s.Certificate) {
		id, err := msp.FromDER(c.MspId, s.Certificate)
		if err != nil {
			return nil, fmt.Errorf("alive of %s: %w", c.id, err)
		}
		k = &judged{id: id, chain: s.Chain}
	}
	if err := c.prove(k.id, s.Signature); err != nil {
		return nil, err
	}
	if now.Before(k.until) {
		return k, nil
	}
	if err := m.c.Admit(k.id, s.Chain, now); err != nil {
		return nil, fmt.Errorf("alive of %s: %w", c.id, err)
	}
	until := now.Add(judgedFor)
	if end := k.id.Certificate().NotAfter; end.Before(until) {
		until = end
	}
	return &judged{id: k.id, chain: s.Chain, until: until}, nil
}

func (m *Members) accept(c *claim, k *judged, now time.Time) (effect, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, err := m.view.accept(message{
		member: Member{
			PKIID: c.id, MSPID: c.MspId, Name: k.id.Name(), Peer: c.peer,
			Height: c.Height, TipHash: [32]byte(c.Alive.TipHash), Endpoint: c.Endpoint,
			Incarnation: c.Incarnation, Sequence: c.Sequence,
		},
		sentAt: c.sentAt, notAfter: k.id.Certificate().NotAfter, digest: c.digest,
	}, now)
	if err == nil {
		m.known[c.id] = k
	}
	return e, err
}

// tick lets time pass, and tells whether the marks are due to be stored.
func (m *Members) tick(now time.Time, late bool) bool {
	m.mu.Lock()
	effects := m.view.tick(now)
	for id := range m.known {
		if m.view.marks[id] == nil {
			delete(m.known, id)
		}
	}
	due := m.view.born || m.view.moved && late
	m.mu.Unlock()
	for _, e := range effects {
		m.tell(e)
	}
	return due
}

// store writes the marks if they changed.
func (m *Members) store() error {
	m.mu.Lock()
	dirty := m.view.born || m.view.moved
	m.view.born, m.view.moved = false, false
	b := m.view.encode()
	m.mu.Unlock()
	if m.c.Store == nil || !dirty {
		return nil
	}
	if err := m.c.Store(b); err != nil {
		return fmt.Errorf("store the marks of members: %w", err)
	}
	return nil
}

// tell passes a change on. Called without mu.
func (m *Members) tell(e effect) {
	if e.height && m.c.OnHeight != nil {
		m.c.OnHeight(e.member.Peer, e.member.Height)
	}
	if e.arrived {
		select {
		case m.greet <- struct{}{}:
		default:
		}
	}
	if (e.arrived || e.died) && m.c.Changed != nil {
		m.c.Changed(e.member)
	}
}

// publish sends the next alive message.
func (m *Members) publish(ctx context.Context, now time.Time) error {
	m.mu.Lock()
	m.sequence++
	me := m.self()
	m.mu.Unlock()
	s, err := sign(&wire.Alive{
		Tag: m.c.Tag[:], PkiId: m.id[:], MspId: me.MSPID, PeerId: []byte(me.Peer),
		Incarnation: me.Incarnation, Sequence: me.Sequence, SentAt: uint64(now.UnixMilli()),
		Height: me.Height, TipHash: me.TipHash[:], Endpoint: m.c.Endpoint,
	}, m.c.Self, slices.Clone(m.c.Chain))
	if err != nil {
		return err
	}
	return m.c.Publish(ctx, s)
}

// self returns ourselves as a member. Called under mu.
func (m *Members) self() Member {
	id := m.c.Self.Identity()
	me := Member{
		PKIID: m.id, MSPID: id.MSPID(), Name: id.Name(), Peer: m.c.PeerID, State: Alive, Self: true,
		Incarnation: m.c.Incarnation, Sequence: m.sequence, Since: m.born, LastSeen: time.Now(),
	}
	me.Endpoint = m.c.Endpoint
	me.Height, me.TipHash = m.c.Tip()
	return me
}

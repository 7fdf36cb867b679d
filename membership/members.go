// Package membership tells who is in a channel and who of them is alive. What a
// member says of itself is signed, and counts only if it is newer than anything
// ever accepted of it (see view), so a replay changes nothing; it goes out on
// change and at a slow beat. Whether it lives, pings on authenticated streams
// find out (see detector). Heights are told unsigned on the same streams, as
// they change: they are hints for the sync.
//
// Disclosure: what a member says for its own organisation alone, the internal
// endpoint, is given to connections of that organisation and to nobody else;
// who has no external endpoint says nothing else. The rest is for the channel's
// members, whose organisations thus learn of each other through any one of
// them; nothing passes from channel to channel.
package membership

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	golog "github.com/ipfs/go-log/v2"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"grapevine/msp"
	"grapevine/wire"
)

// Defaults of [Config], and what isn't configured.
const (
	DefaultPeriod = 1 * time.Second
	DefaultExpiry = 5 * time.Second

	beat        = 30 * time.Second       // of signed messages, and up to a tenth more
	calm        = 4                      // beats that are made one where pings and the exchange of views tell enough
	calmBeat    = 2 * calm * beat        // if all that live are connected
	ownBeats    = 4                      // of which one also goes to the own organisation
	fresh       = 10 * time.Second       // an alive message that greets is no older
	clock       = 100 * time.Millisecond // for which news waits for more
	sweepPause  = 5 * time.Second        // between two looks at whose certificate has ended
	heightPause = 200 * time.Millisecond // between tellings of two heights
	heightRest  = time.Second            // between two of the same
	heightFew   = 4                      // members that are told at once, and a sixteenth of all
	leadPause   = time.Second            // between two alive messages for the sake of who leads
	storeEvery  = 10 * time.Second       // sequences; a new incarnation is stored at once
	judgedFor   = 30 * time.Second       // Admit's yes is remembered; see Rejudge
)

var log = golog.Logger("grapevine/membership")

// Config says who we are and whom to tell.
type Config struct {
	Self        msp.Signer
	Chain       func() [][]byte // our intermediates, DER, as they are now; nil: none
	Tag         [32]byte        // of the channel
	PeerID      peer.ID
	Endpoint    string        // external endpoint, see [wire.ParseEndpoint]; empty: invisible to other organisations
	Internal    string        // internal endpoint, likewise, for the own organisation alone
	Loopback    bool          // members' endpoints may be the loopback's: we listen there
	Role        string        // such as "peer"
	Version     string        // of the program
	Incarnation uint64        // above that of every earlier start; milliseconds since 1970
	Period      time.Duration // of the detector: each looks at a few others in it
	Suspicion   time.Duration // how long a silent member is suspected that nobody else accuses, in a network of about 32; 0: three periods
	Expiry      time.Duration // how old, beyond the clocks' allowance, an alive message may be

	// Tip returns how many blocks are held, durably, and the header hash of the
	// last. Both at once: the message signs them as a pair.
	Tip func() (height uint64, hash [32]byte)
	// State returns how many blocks are judged, durably, and the hash of the world
	// state behind them; 0: there is none. It MUST NOT block. May be nil.
	State func() (height uint64, hash [32]byte)
	// OnState is told what a member says of its world state. It MUST NOT block nor
	// call back. May be nil.
	OnState func(id msp.PKIID, mspID string, height uint64, hash [32]byte)
	// Lead is our part in pulling blocks, which everybody is told; when it changes
	// it is told soon. It MUST NOT block. May be nil.
	Lead func() *wire.Lead
	// Open opens a stream of kind "members" to a connected member; it may block.
	Open func(ctx context.Context, p peer.ID) (network.Stream, error)
	// Publish reaches the members that aren't connected. May be nil.
	Publish func(ctx context.Context, m *wire.SignedAlive) error
	// Admit judges whether an identity is a member now.
	Admit func(id *msp.Identity, intermediates [][]byte, now time.Time) error
	// Bound returns the identity that a connected host is bound to, and its
	// intermediates. A message that claims such a host for another identity is
	// refused. It MUST NOT block.
	Bound func(p peer.ID) (*msp.Identity, [][]byte, bool)
	// OnHeight is told of each height. It MUST NOT block.
	OnHeight func(p peer.ID, height uint64)
	// Changed is told what happens to members, in order. It MUST NOT block. May
	// be nil.
	Changed func(e Event)
	// Probed is told of each answer's time to a ping. It MUST NOT block. May be nil.
	Probed func(rtt time.Duration)
	// Refused is told of each word that was refused. May be nil.
	Refused func(p peer.ID, r *wire.Reason)
	// Load and Store keep the highest accepted messages across restarts: one
	// value, empty at first. Both may be nil.
	Load  func() ([]byte, error)
	Store func([]byte) error
	// Bumped keeps an incarnation of ours that had to be raised. May be nil.
	Bumped func(incarnation uint64) error
}

// Members is one channel's membership. It is safe for concurrent use.
type Members struct {
	c     Config
	id    msp.PKIID
	at    struct{ wide, own [][]byte } // our endpoints, as they travel
	links *links
	read  func(mspID string, der []byte) (*msp.Identity, error) // msp.FromDER; simulations keep what it returns
	check func(id *msp.Identity, digest, sig []byte) error      // id.Verify; likewise
	due   chan struct{}                                         // to Run: publish now

	mu          sync.Mutex // guards what follows
	view        *view
	detector    *detector
	incarnation uint64
	round       uint64 // the newest that was said
	saidAt      time.Time
	wide, own   *wire.SignedAlive     // of the newest round; own may be of an older one
	known       map[msp.PKIID]*judged // at most one for each mark
	hosts       map[msp.PKIID]peer.ID // connected
	talks       map[peer.ID]*talk
	wanted      map[msp.PKIID]time.Time // certificates asked for, and when
	asked       time.Time               // when views were last compared
	swept       time.Time
	echoes      map[uint64]chan peer.ID // that Ping waits for, by nonce
	digests     map[string]summed       // by organisation
	clashed     map[msp.PKIID]time.Time // when two hosts of one identity were last reported
	twin        time.Time               // when another host was last heard in our name
	shadowed    time.Time               // when a host of our identity was last heard that started after us
	news        []news                  // that others may not have
	newsAt      time.Time               // when they are told
	next        time.Time               // when Run looks again, unless the detector wants it sooner
	wound       time.Time               // to which timer is set
	timer       *time.Timer             // Run's, for then; nil while it doesn't run
	above       uint64                  // an incarnation that others hold of us
	lifted      time.Time               // when it was last raised
	height      uint64                  // that all were told
	heightAt    time.Time               // when some were told, last
	lately      uint64                  // what they were told
	tellings    uint64                  // of heights, to anybody
	lead        *wire.Lead              // as it was told last
	left        bool
	born        time.Time
	stats       Stats
	watchers    map[chan Event]bool
}

// Stats counts what membership did since its start.
type Stats struct {
	Suspicions  uint64        // members that became suspect here
	Refutations uint64        // of them, those that turned out to live
	Refuted     uint64        // accusations of ourselves that we refuted
	Checks      uint64        // signatures checked
	Signed      uint64        // signatures made
	Words       uint64        // sent
	Dropped     uint64        // words that didn't fit a queue
	RTT         time.Duration // smoothed, of all answers to pings
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
	if c.Period <= 0 {
		c.Period = DefaultPeriod
	}
	if c.Suspicion <= 0 {
		c.Suspicion = 3 * c.Period
	}
	if c.Expiry <= 0 {
		c.Expiry = DefaultExpiry
	}
	if c.Chain == nil {
		c.Chain = func() [][]byte { return nil }
	}
	id := c.Self.Identity().PKIID()
	m := &Members{
		c: c, id: id,
		read: msp.FromDER, check: (*msp.Identity).Verify,
		due:         make(chan struct{}, 1),
		view:        newView(c.Expiry),
		detector:    newDetector(id, c.Self.Identity().MSPID(), c.Period, c.Suspicion, binary.BigEndian.Uint64(id[:])^c.Incarnation),
		incarnation: c.Incarnation,
		known:       make(map[msp.PKIID]*judged),
		hosts:       make(map[msp.PKIID]peer.ID),
		talks:       make(map[peer.ID]*talk),
		wanted:      make(map[msp.PKIID]time.Time),
		echoes:      make(map[uint64]chan peer.ID),
		digests:     make(map[string]summed),
		clashed:     make(map[msp.PKIID]time.Time),
		watchers:    make(map[chan Event]bool),
		born:        time.Now(),
	}
	var err error
	if m.c.Endpoint, m.at.wide, err = wire.EncodeEndpoint(c.Endpoint); err != nil {
		return nil, fmt.Errorf("the external %w", err)
	}
	if m.c.Internal, m.at.own, err = wire.EncodeEndpoint(c.Internal); err != nil {
		return nil, fmt.Errorf("the internal %w", err)
	}
	m.links = newLinks(c.Open)
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

// Leave tells everybody that this member goes, signed. It returns when the
// word is with the connections, or after a second, or when ctx ends; an error
// says that some weren't told. What is received afterwards changes nothing.
func (m *Members) Leave(ctx context.Context) error {
	err := m.say(ctx, time.Now(), leaving)
	m.mu.Lock()
	m.left = true
	m.mu.Unlock()
	return errors.Join(err, m.links.flush(ctx))
}

// List returns all members heard of, ourselves first.
func (m *Members) List() []Member {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]Member{m.self()}, m.view.members()...)
}

// Stats returns what was counted so far.
func (m *Members) Stats() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.stats
	s.Dropped = m.links.dropped.Load()
	return s
}

// Silent says whether a connected host has been given up: a member that is dead
// or has left, and one that has not said a word since it came, though others may
// not have told of it yet.
func (m *Members) Silent(p peer.ID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.talks[p]
	if t == nil {
		return false
	}
	s := m.detector.all[t.id]
	return s != nil && s.state >= Dead
}

// Find returns a member by its PKI-ID, and its identity, which Admit accepted;
// false if there is none or it isn't alive.
func (m *Members) Find(id msp.PKIID) (Member, *msp.Identity, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k, v := m.known[id], m.view.marks[id]
	if k == nil || v == nil || !v.heard || v.member.State > Suspect {
		return Member{}, nil, false
	}
	return v.member, k.id, true
}

// Identity returns the identity of a member that was heard, which Admit accepted.
func (m *Members) Identity(id msp.PKIID) (*msp.Identity, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if k := m.known[id]; k != nil {
		return k.id, true
	}
	return nil, false
}

// Rejudge asks Admit anew about everyone, after the configuration or a
// revocation list changed. Who isn't a member any more is taken out; who told of
// somebody that Admit refused is asked for that one again.
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
		id := k.id.PKIID()
		delete(m.known, id)
		m.step(event{kind: forget, id: id}, now)
		e, was := m.view.expel(id)
		if was {
			m.notify(Event{Kind: Expelled, Member: e.member})
		}
		m.mu.Unlock()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, t := range m.talks {
		if len(t.refused) == 0 {
			continue
		}
		w := new(wire.Word)
		for _, id := range t.refused {
			w.Want = append(w.Want, id[:])
		}
		t.refused = nil
		m.send(t, w)
	}
}

// Renewed says that the own certificate is another, under the same key: it is
// told at once.
func (m *Members) Renewed() { m.publishSoon() }

// self returns ourselves as a member. Called under mu.
func (m *Members) self() Member {
	id := m.c.Self.Identity()
	me := Member{
		PKIID: m.id, MSPID: id.MSPID(), Name: id.Name(), Peer: m.c.PeerID, State: Alive, Self: true,
		Incarnation: m.incarnation, Sequence: 2 * m.round, Since: m.born, LastSeen: time.Now(),
		Endpoint: m.c.Endpoint, Internal: m.c.Internal, Role: m.c.Role, Version: m.c.Version,
	}
	me.Height, me.TipHash = m.c.Tip()
	if m.c.Lead != nil {
		me.Lead = m.c.Lead()
	}
	return me
}

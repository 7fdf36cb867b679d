package channel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
	"grapevine/msp"
	"grapevine/wire"
)

const (
	// defaultWindow is how many blocks beyond the height are taken.
	defaultWindow = 128
	// greetEvery is how often members that GossipSub has no stream to are shown
	// to it again. It gives a peer up after four streams that were reset.
	greetEvery = 10 * time.Second
	// scoresEvery is how old what Scores returns may be.
	scoresEvery = 30 * time.Second
)

var errEnded = errors.New("the channel's mesh has ended")

// MeshConfig is what a mesh needs of its channel. Its functions are called from
// many goroutines at once and must neither block nor take long.
type MeshConfig struct {
	Channel string   // for logs
	Tag     [32]byte // the channel's tag
	Members int      // about how many there are; the mesh's degree follows from it
	// Rules returns those of the configuration in force, nil while there is
	// none; Height how many blocks the ledger holds.
	Rules  func() *block.Rules
	Height func() uint64
	Window uint64 // how many blocks beyond the height are taken; 0: 128
	// Identify returns the identity of a connected peer. Known finds a member
	// by its PKI-ID, connected or not; nil: only connected ones are found.
	Identify func(peer.ID) (*msp.Identity, bool)
	Known    func(msp.PKIID) (peer.ID, *msp.Identity, bool)
	Self     msp.Signer
	// Deliver takes what was accepted, once each, straight from the validator
	// and before it is forwarded. It MUST NOT block.
	Deliver func(Announced)
	// Ahead takes the hint, unproven, that a member knows of blocks below this
	// height, which couldn't be taken: they are too far ahead, or under a
	// configuration that hasn't come yet. May be nil.
	Ahead func(from peer.ID, height uint64)
	// Below judges the header, with its metadata, of a block that was announced
	// although the ledger holds its number: it says block.Stale, or why its
	// signatures don't hold. Nil: all are stale.
	Below func(*common.Block) error
	// Roots judges the form of what a large block's announcement says of the
	// chunks that its body is cast in. Needed.
	Roots func(size uint64, roots []byte) error
	// Lied takes two announcements of one announcer's that can't both be true,
	// as they travelled, both well signed. May be nil.
	Lied func(announcer msp.PKIID, number uint64, one, other []byte)
	// Alive judges a heartbeat. Nil is Accept; a [wire.Reason] in the error
	// decides otherwise.
	Alive func(from peer.ID, m *wire.SignedAlive) error
	// Refused is called once for each message, or RPC, that was refused,
	// copies included. May be nil.
	Refused func(*wire.Reason)
	Logger  *slog.Logger     // nil: none
	Tracer  pubsub.RawTracer // one more tracer; may be nil
}

// Announced is a block that a member told of. All of it but Size is proven true
// in itself, under the rules in force; its link is not.
type Announced struct {
	From      peer.ID        // who sent the message; this host for its own
	Announcer peer.ID        // who says that it has a large block; empty for an inline one
	Checked   *block.Checked // the block, if it came whole
	Header    *common.Block  // else its header and metadata
	Size      uint64         // of the marshalled BlockData, as said
	Roots     []byte         // of a large block's chunks, as said
	Raw       []byte         // the announcement as it travels
}

// A Mesh is one channel's GossipSub, on the channel's view of the host. It
// carries two topics: announcements of blocks, and alive messages.
//
// What comes is judged before it is delivered or forwarded, and is delivered by
// its validator: there is no subscription whose buffer could overflow.
type Mesh struct {
	view     *View
	conf     MeshConfig
	log      *slog.Logger
	judge    *judge
	offences *offences
	trace    *trace
	limits   limits // belongs to GossipSub's event loop

	ready  chan struct{} // closed when the topics are joined
	ended  chan struct{} // closed when Run returns
	pubsub *pubsub.PubSub
	topics map[string]*pubsub.Topic // pubsub and topics are set before ready is closed
	cuts   chan peer.ID             // whose streams Run is to reset
	held   atomic.Int64             // messages that wait to be forwarded

	scores atomic.Pointer[map[peer.ID]float64] // swapped by GossipSub

	standings struct {
		sync.Mutex
		of map[peer.ID]standing // guarded by the mutex
	}

	gate sync.RWMutex // held for reading while a validator runs
	over bool         // nothing is judged any more; guarded by gate
}

// NewMesh makes a mesh on v; [Mesh.Run] runs it.
func NewMesh(v *View, c MeshConfig) (*Mesh, error) {
	if c.Rules == nil || c.Height == nil || c.Deliver == nil || c.Self == nil || c.Roots == nil {
		return nil, fmt.Errorf("mesh of channel %s: Rules, Height, Deliver, Roots and Self are needed", c.Channel)
	}
	if c.Tag != v.tag {
		return nil, fmt.Errorf("mesh of channel %s: its tag isn't the view's", c.Channel)
	}
	if c.Window == 0 {
		c.Window = defaultWindow
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	m := &Mesh{
		view:     v,
		conf:     c,
		log:      c.Logger,
		offences: newOffences(),
		ready:    make(chan struct{}),
		ended:    make(chan struct{}),
		cuts:     make(chan peer.ID, 64),
	}
	m.trace = &trace{mesh: m}
	m.judge = &judge{
		tag:    c.Tag,
		member: v.admits,
		rules:  c.Rules,
		height: c.Height,
		window: c.Window,
		known:  c.Known,
		ahead:  c.Ahead,
		below:  c.Below,
		roots:  c.Roots,
		lied:   c.Lied,
	}
	if m.judge.known == nil {
		m.judge.known = m.connected
	}
	return m, nil
}

// Run joins the topics and keeps the mesh until ctx ends, whose error it then
// returns. It is called once. When it returns, no stream of the mesh is open
// and nothing more is delivered; GossipSub's own goroutines are at their end.
func (m *Mesh) Run(ctx context.Context) error { return m.run(ctx, m.options()) }

func (m *Mesh) run(ctx context.Context, opts []pubsub.Option) error {
	defer close(m.ended)
	inner, stop := context.WithCancel(ctx)
	defer m.close()
	defer stop()
	if err := m.join(inner, opts); err != nil {
		return fmt.Errorf("mesh of channel %s: %w", m.conf.Channel, err)
	}
	close(m.ready)
	t := time.NewTicker(greetEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case p := <-m.cuts:
			m.cut(p)
		case <-t.C:
			m.greet()
		}
	}
}

// Publish tells the channel of a block, whole: its data MUST be at most
// [wire.InlineLimit] bytes long. It also delivers the block here. A block that
// the ledger holds, or that was heard of before, is not published again, without
// error. It waits until Run has joined.
func (m *Mesh) Publish(ctx context.Context, c *block.Checked) error {
	data, said, err := announce(m.conf.Tag, c, nil, m.conf.Self)
	if err == nil && !said.body {
		err = fmt.Errorf("%d bytes: %w", len(c.Bytes()), block.TooLarge)
	}
	if err == nil {
		err = m.publish(ctx, wire.TopicBlocks, data, own{c, uint64(proto.Size(c.Block().Data)), said})
	}
	if err != nil {
		return fmt.Errorf("publishing block %d of channel %s: %w", c.Number(), m.conf.Channel, err)
	}
	return nil
}

// Sign makes the announcement of a block that doesn't fit into one, with the
// roots of its chunks. It neither publishes nor delivers it, but counts it as
// heard: [block.Stale] says that the others know enough of the block already.
func (m *Mesh) Sign(c *block.Checked, roots []byte) (Announced, error) {
	data, said, err := announce(m.conf.Tag, c, roots, m.conf.Self)
	if err == nil {
		err = m.judge.own(said)
	}
	if err != nil {
		return Announced{}, fmt.Errorf("announcing block %d of channel %s: %w", c.Number(), m.conf.Channel, err)
	}
	b := c.Block()
	return Announced{
		From: m.view.ID(), Announcer: m.view.ID(), Raw: data, Roots: roots, Size: uint64(proto.Size(b.Data)),
		Header: &common.Block{Header: b.Header, Metadata: b.Metadata},
	}, nil
}

// Tell publishes what Sign made. It waits until Run has joined.
func (m *Mesh) Tell(ctx context.Context, a Announced) error {
	if err := m.publish(ctx, wire.TopicBlocks, a.Raw, own{}); err != nil {
		return fmt.Errorf("telling of block %d of channel %s: %w", a.Header.Header.Number, m.conf.Channel, err)
	}
	return nil
}

// Told judges an announcement that a member sent by another way than the topic,
// and delivers it as if it had come there. When it comes there as well it isn't
// forwarded: the topic is for those that the other way doesn't reach.
func (m *Mesh) Told(from peer.ID, data []byte) error {
	m.gate.RLock()
	defer m.gate.RUnlock()
	err := error(Left)
	if !m.over {
		err = m.hear(from, data)
	}
	if err != nil {
		m.refuse(from, err)
	}
	return err
}

// Blame counts an offence of a member's elsewhere in the channel as if it had
// been one here, but doesn't count a refusal.
func (m *Mesh) Blame(p peer.ID) { m.offences.add(p, time.Now()) }

// PublishAlive sends a heartbeat of this node's. It waits until Run has joined.
func (m *Mesh) PublishAlive(ctx context.Context, a *wire.SignedAlive) error {
	data, err := wire.Marshal(a)
	if err == nil {
		err = m.publish(ctx, wire.TopicAlive, data, own{})
	}
	if err != nil {
		return fmt.Errorf("publishing an alive message in channel %s: %w", m.conf.Channel, err)
	}
	return nil
}

// Stats returns what the mesh did so far.
func (m *Mesh) Stats() Stats { return m.trace.read() }

// Scores returns what GossipSub thinks of members, as of a few seconds ago. Who
// isn't named has no stream of the mesh.
func (m *Mesh) Scores() map[peer.ID]float64 {
	if all := m.scores.Load(); all != nil {
		return *all
	}
	return nil
}

// own marks what this node publishes; its validator finds it as the message's
// validator data.
type own struct {
	block *block.Checked // nil: an alive message, or one that Sign made
	size  uint64         // of its marshalled data
	said  claim
}

func (m *Mesh) publish(ctx context.Context, topic string, data []byte, o own) error {
	select {
	case <-m.ready:
	case <-m.ended:
		return errEnded
	case <-ctx.Done():
		return ctx.Err()
	}
	err := m.topics[topic].Publish(ctx, data, pubsub.WithValidatorData(o))
	var v pubsub.ValidationError
	if errors.As(err, &v) && v.Reason == pubsub.RejectValidationIgnored {
		return nil // it was heard of before
	}
	return err
}

// join starts GossipSub, which lives as long as ctx, and joins both topics by
// relaying: validators are asked and messages forwarded without a subscription.
func (m *Mesh) join(ctx context.Context, opts []pubsub.Option) error {
	ps, err := pubsub.NewGossipSub(ctx, m.view, opts...)
	if err != nil {
		return fmt.Errorf("starting GossipSub: %w", err)
	}
	m.pubsub = ps
	m.topics = make(map[string]*pubsub.Topic, 2)
	for topic, validate := range map[string]pubsub.ValidatorEx{
		wire.TopicBlocks: m.validateBlock,
		wire.TopicAlive:  m.validateAlive,
	} {
		err := ps.RegisterTopicValidator(topic, validate,
			pubsub.WithValidatorTimeout(validatorTimeout), pubsub.WithValidatorConcurrency(validatorConcurrency))
		if err != nil {
			return fmt.Errorf("setting the validator of %q: %w", topic, err)
		}
		t, err := ps.Join(topic)
		if err != nil {
			return fmt.Errorf("joining %q: %w", topic, err)
		}
		if _, err := t.Relay(); err != nil { // cancelled by the end of ctx
			return fmt.Errorf("relaying %q: %w", topic, err)
		}
		m.topics[topic] = t
	}
	return nil
}

// close ends the mesh's streams, on which GossipSub's goroutines wait, and
// waits for the validators that run.
func (m *Mesh) close() {
	m.view.RemoveStreamHandler(m.view.meshID())
	m.view.reset(func(s *stream) bool { return s.id == m.view.meshID() })
	m.gate.Lock()
	defer m.gate.Unlock()
	m.over = true
}

// cut ends the mesh's streams with p.
func (m *Mesh) cut(p peer.ID) {
	m.view.reset(func(s *stream) bool { return s.id == m.view.meshID() && s.Conn().RemotePeer() == p })
}

// greet shows GossipSub the members that it has no stream to.
func (m *Mesh) greet() {
	has, members := m.pubsub.ListPeers(""), m.view.Members()
	if len(has) == len(members) {
		return // as nearly always: it has none but members
	}
	for _, p := range members {
		if !slices.Contains(has, p) {
			m.view.Arrive(p)
		}
	}
}

// validateBlock is GossipSub's validator of the blocks' topic. What it accepts
// it has delivered.
func (m *Mesh) validateBlock(ctx context.Context, from peer.ID, msg *pubsub.Message) pubsub.ValidationResult {
	v := m.validate(from, msg, func() error { return m.hear(from, msg.GetData()) }, func(o own) error {
		if o.block == nil {
			return nil
		}
		err := m.judge.own(o.said)
		if err == nil {
			m.conf.Deliver(Announced{From: from, Checked: o.block, Size: o.size})
		}
		return err
	})
	if v == pubsub.ValidationAccept && from != m.view.ID() && floodPublish(m.conf.Members) {
		m.hold(ctx)
	}
	return v
}

// hold waits before a message that was delivered is forwarded. Where publishers
// send to all members, nearly everybody has the message from its publisher, and
// says so to its mesh by IDONTWANT; once that has come, forwarding is left for
// those who the publisher didn't reach. When many are held already, nobody
// waits.
func (m *Mesh) hold(ctx context.Context) {
	if m.held.Add(1) <= maxHeld {
		t := time.NewTimer(holdTime)
		defer t.Stop()
		select {
		case <-t.C:
		case <-m.ended:
		case <-ctx.Done():
		}
	}
	m.held.Add(-1)
}

// hear judges a member's announcement and delivers it.
func (m *Mesh) hear(from peer.ID, data []byte) error {
	told, err := m.judge.announcement(from, data)
	if err == nil {
		m.conf.Deliver(told)
	}
	return err
}

// validateAlive is GossipSub's validator of the alive messages' topic.
func (m *Mesh) validateAlive(_ context.Context, from peer.ID, msg *pubsub.Message) pubsub.ValidationResult {
	return m.validate(from, msg, func() error {
		a, err := m.judge.alive(from, msg.GetData())
		if err == nil && m.conf.Alive != nil {
			err = m.conf.Alive(from, a)
		}
		return err
	}, func(own) error { return nil })
}

// validate asks the one function for a peer's message, the other for our own.
func (m *Mesh) validate(from peer.ID, msg *pubsub.Message, theirs func() error, ours func(own) error) pubsub.ValidationResult {
	m.gate.RLock()
	defer m.gate.RUnlock()
	var err error
	if o, ok := msg.ValidatorData.(own); m.over {
		err = Left
	} else if ok && from == m.view.ID() {
		err = ours(o)
	} else {
		err = theirs()
	}
	if err != nil {
		m.refuse(from, err)
	}
	return verdict(err)
}

// refuse counts one refusal, and what it says about its sender. Own messages
// are refused only for being known already, which counts for nothing.
func (m *Mesh) refuse(from peer.ID, err error) {
	if from == m.view.ID() {
		return
	}
	reason := wire.ReasonOf(err)
	if reason == nil {
		m.log.Warn("can't judge a message", "channel", m.conf.Channel, "from", from, "err", err)
		return
	}
	m.log.Debug("refused", "channel", m.conf.Channel, "from", from, "reason", reason.Code(), "err", err)
	m.trace.refused(reason.Code())
	if m.conf.Refused != nil {
		m.conf.Refused(reason)
	}
	if offends(err) && reason != GraftBackoff { // that one GossipSub counts, for a GRAFT may cross a PRUNE
		m.offences.add(from, time.Now())
	}
	if v := reason.Verdict(); v == wire.Close || v == wire.Ban {
		select { // resetting may wait for the connection, and this may be GossipSub's loop
		case m.cuts <- from:
		default: // it floods: another of its messages will come here
		}
	}
}

// connected finds a connected member by its PKI-ID.
func (m *Mesh) connected(id msp.PKIID) (peer.ID, *msp.Identity, bool) {
	if self := m.conf.Self.Identity(); self.PKIID() == id {
		return m.view.ID(), self, true
	}
	if m.conf.Identify == nil {
		return "", nil, false
	}
	for _, p := range m.view.Members() {
		if who, ok := m.conf.Identify(p); ok && who.PKIID() == id {
			return p, who, true
		}
	}
	return "", nil, false
}

package orderer

import (
	"bytes"
	"fmt"
	"sync"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
	"grapevine/block/tx"
	"grapevine/msp"
)

// maxWriters bounds the identities that are remembered as writers.
const maxWriters = 4096

// admit judges an envelope by Fabric's rules for ordinary transactions (orderer/common/msgprocessor): what a header, its
// creator's signature, the Writers policy, the certificate's end and its size say; nothing about what is inside. So an
// odd envelope becomes part of a block, as it would in Fabric, and the peers find it invalid.
//
// The signer is judged first, because whoever isn't proven to be of the channel's organisations must not learn from any
// answer that the channel exists.
func (c *Chain) admit(env *common.Envelope, now time.Time) (*order, error) {
	header, signer, err := block.Header(env)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", Malformed, err)
	}
	if header.ChannelId != c.c.Name {
		return nil, fmt.Errorf("%w: %s", UnknownChannel, header.ChannelId)
	}
	conf := c.c.Channel()
	if err := c.writers.judge(conf, signer.Creator, env, now); err != nil {
		return nil, err
	}
	switch typ := common.HeaderType(header.Type); typ {
	case common.HeaderType_CONFIG_UPDATE:
		return c.configure(conf, env, now)
	case common.HeaderType_CONFIG, common.HeaderType_ORDERER_TRANSACTION: //nolint:staticcheck // old, and refused
		return nil, fmt.Errorf("a message of type %v can't be submitted: %w", typ, NotOrdinary)
	}
	if conf.Maintenance() {
		return nil, fmt.Errorf("the channel is in maintenance: %w", Maintenance)
	}
	if n, most := size(env), conf.Batch().AbsoluteMaxBytes; n > most {
		return nil, fmt.Errorf("%d bytes, at most %d are allowed: %w", n, most, TooLarge)
	}
	raw, err := canonical(env)
	if err != nil {
		return nil, err
	}
	return newOrder(env, raw, conf.Rules().Sequence), nil
}

// configure makes the configuration that an update leads to, as an order of its own. In maintenance it is taken too:
// that is how maintenance ends. The update that led to the configuration in force is one that was sent again, by a client
// whose answer was lost, or by this node to the leader after the one that ordered it.
func (c *Chain) configure(conf Channel, update *common.Envelope, now time.Time) (*order, error) {
	if conf.Made(update) {
		return &order{config: true, made: true, done: make(chan error, 1)}, nil
	}
	next, err := conf.Propose(update)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", BadUpdate, err)
	}
	env, err := tx.SignedEnvelope(common.HeaderType_CONFIG, c.c.Name, next, c.c.Signer, now)
	if err != nil {
		return nil, fmt.Errorf("making a configuration: %w", err)
	}
	if n, most := size(env), conf.Batch().AbsoluteMaxBytes; n > most {
		return nil, fmt.Errorf("the configuration has %d bytes, at most %d are allowed: %w", n, most, TooLarge)
	}
	raw, err := canonical(env)
	if err != nil {
		return nil, err
	}
	o := newOrder(update, raw, conf.Rules().Sequence)
	o.config = true
	return o, nil
}

// judgeAgain judges an order by the configuration in force.
func (c *Chain) judgeAgain(o *order) error {
	if o.config {
		return fmt.Errorf("made of configuration %d, now it is %d: %w", o.sequence, c.c.Channel().Rules().Sequence, Outdated)
	}
	var env common.Envelope
	if err := proto.Unmarshal(o.raw, &env); err != nil {
		return fmt.Errorf("%w: %w", Malformed, err)
	}
	again, err := c.admit(&env, time.Now())
	if err != nil {
		return err
	}
	o.sequence = again.sequence
	return nil
}

func newOrder(env *common.Envelope, raw []byte, sequence uint64) *order {
	return &order{env: env, sequence: sequence, raw: raw, size: size(env), done: make(chan error, 1)}
}

// canonical is the envelope as it will stand in a block: in the one encoding that decodes and encodes to itself.
func canonical(env *common.Envelope) ([]byte, error) {
	raw, err := proto.Marshal(env)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", Malformed, err)
	}
	if len(env.ProtoReflect().GetUnknown()) == 0 {
		return raw, nil
	}
	var again common.Envelope
	if err := proto.Unmarshal(raw, &again); err != nil {
		return nil, fmt.Errorf("%w: %w", Malformed, err)
	}
	if twice, err := proto.Marshal(&again); err != nil || !bytes.Equal(raw, twice) {
		return nil, fmt.Errorf("the envelope doesn't encode to itself: %w", Malformed)
	}
	return raw, nil
}

// writers remembers the identities that may write under one configuration, so that of each envelope only the signature
// must be verified. Those that may not are judged anew each time: they would fill the memory.
type writers struct {
	mu    sync.Mutex
	rules *block.Rules       // guarded by mu: of the configuration that known was judged under
	known map[string]*writer // guarded by mu: by creator
}

type writer struct {
	id     *msp.Identity
	in     *msp.MSP
	denied error // of an identity that is valid, but may not write
}

// judge holds an envelope against the Writers policy, under which one signature is all there is.
func (w *writers) judge(conf Channel, creator []byte, env *common.Envelope, now time.Time) error {
	if len(creator) == 0 || len(env.Signature) == 0 {
		return fmt.Errorf("unsigned: %w", BadSignature)
	}
	who, err := w.find(conf, creator)
	if err != nil {
		return err
	}
	if err := who.in.Verify(who.id, env.Payload, env.Signature); err != nil {
		return fmt.Errorf("%w: %w", BadSignature, err)
	}
	if who.denied != nil {
		return fmt.Errorf("%w: %w", Forbidden, who.denied)
	}
	if end := who.id.Certificate().NotAfter; now.After(end) {
		return fmt.Errorf("the identity ended %v: %w", end, Expired)
	}
	return nil
}

// find returns who creator is, if it is a valid identity of the channel's organisations.
func (w *writers) find(conf Channel, creator []byte) (*writer, error) {
	rules := conf.Rules()
	w.mu.Lock()
	if w.rules != rules || len(w.known) >= maxWriters {
		w.rules, w.known = rules, make(map[string]*writer)
	}
	who := w.known[string(creator)]
	w.mu.Unlock()
	if who != nil {
		return who, nil
	}
	id, in, err := conf.MSPs().Identify(creator)
	if err == nil {
		err = in.Validate(id)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", Outsider, err)
	}
	who = &writer{id, in, msp.SatisfiedBy(conf.MSPs(), conf.Policy("/Channel/Writers"), id)}
	if who.denied != nil {
		return who, nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.rules == rules {
		w.known[string(creator)] = who
	}
	return who, nil
}

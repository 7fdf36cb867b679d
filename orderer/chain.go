package orderer

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"golang.org/x/sync/semaphore"

	"grapevine/block"
	"grapevine/msp"
)

// Limits. An envelope is held in memory from its submission to its answer, so their bytes are budgeted; a batch may be as
// large as a block, so few are under way.
const (
	maxHeldBytes = 64 << 20 // of envelopes not yet answered; one larger passes alone
	maxBatches   = 64       // proposed and not yet in a block; Raft appends as many at once
	maxBatchData = 64 << 20 // bytes of batches of the preferred size that may be under way
	maxQueued    = 4096     // envelopes that wait for the cutter, or for the leader
)

// ChainConfig is one channel's ordering on one node.
type ChainConfig struct {
	Name    string         // of the channel
	Channel func() Channel // the configuration in force, which Committed brings up to date before it returns
	Ledger  Ledger         // holds the genesis block at least
	Signer  msp.Signer     // signs the blocks
	Dir     string         // of Raft's log, votes and snapshots; made if absent

	// Keys are those of this node's TLS certificates, by which the configuration names it among the consenters.
	Keys func() []Key
	// Links lead to the other consenters; nil: there are none.
	Links Links
	// Endpoints are the gRPC listeners of the channel's orderers, from which blocks are fetched that this node has
	// missed, and through one of which the leader is found; nil: none. This node may be among them.
	Endpoints func() []Endpoint
	// Certificate is what this node shows there; nil: nothing.
	Certificate func() *tls.Certificate
	Heartbeat   time.Duration // of Raft; elections take one to two; 0: 50 ms alone, 500 ms among others

	Committed func(bs []block.Verified) error // called in order, after each Append, before the next block is made; nil: nobody
	// Shown is told of what another orderer shows of the chain, unverified: this node may hold another block of that number.
	// Nil: nobody.
	Shown     func(b *common.Block)
	Transient func(err error) bool // does an Append error pass, as a full disk does? nil: none does
	Logger    *slog.Logger         // nil: silence

	budget  int64                               // tests: instead of maxHeldBytes
	cutOff  int                                 // tests: instead of snapshotSize
	suspect time.Duration                       // tests: instead of suspectAfter
	damage  func(*raftboltdb.BoltStore) backing // tests: instead of the file itself
}

// Chain orders one channel. As long as the configuration names this node among the consenters, it takes part in Raft; until
// then, and from then on, it follows the others' blocks. It is safe for concurrent use.
type Chain struct {
	c      ChainConfig
	client *Client // fetches blocks; nil without endpoints
	relay  *relay  // hands envelopes to the leader

	queue   chan *order         // accepted, on the way to the cutter
	held    *semaphore.Weighted // bytes of envelopes not yet answered
	writers writers
	recent  recent        // envelopes that aren't to be ordered again
	stopped chan struct{} // closed when Run returns

	raft    atomic.Pointer[raft.Raft]  // while this node takes part
	members atomic.Pointer[consenters] // of the newest block's configuration; swapped by whoever appends
	turned  chan struct{}              // holds that members was swapped

	leading state // this node leads
	lost    state // no leader is known
}

// order is one envelope on its way into a block.
type order struct {
	env      *common.Envelope // as it came, for the leader; nil when this node orders it
	sequence uint64           // of the configuration that it was judged under
	raw      []byte           // as it will stand in the block; nil when another orders it
	size     uint32           // as the batch rules count it
	config   bool             // it is a configuration, which has a block of its own
	made     bool             // and stands in a block: nothing is to be done
	done     chan error       // one result: nil when the block is durable
	id       envelopeID       // once the cutter has it
}

// NewChain prepares a chain; nothing runs until Run.
func NewChain(c ChainConfig) (*Chain, error) {
	if c.Channel == nil || c.Ledger == nil || c.Signer == nil || c.Dir == "" || c.Keys == nil {
		return nil, fmt.Errorf("chain %s: Channel, Ledger, Signer, Dir and Keys are needed", c.Name)
	}
	c.Logger = logger(c.Logger)
	if c.budget == 0 {
		c.budget = maxHeldBytes
	}
	if c.cutOff == 0 {
		c.cutOff = snapshotSize
	}
	if c.suspect == 0 {
		c.suspect = suspectAfter
	}
	if c.Committed == nil {
		c.Committed = func([]block.Verified) error { return nil }
	}
	if c.Shown == nil {
		c.Shown = func(*common.Block) {}
	}
	if c.Certificate == nil {
		c.Certificate = func() *tls.Certificate { return nil }
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("chain %s: %w", c.Name, err)
	}
	ch := &Chain{
		c:       c,
		queue:   make(chan *order, maxQueued),
		held:    semaphore.NewWeighted(c.budget),
		stopped: make(chan struct{}),
		turned:  make(chan struct{}, 1),
	}
	if c.Endpoints != nil {
		ch.client = NewClient(ClientConfig{
			Channel: c.Name, Signer: c.Signer, Endpoints: c.Endpoints, ClientCert: c.Certificate, Avoid: c.Keys, Logger: c.Logger,
			Attest: func(b *common.Block) error {
				c.Shown(b)
				return nil
			},
		})
	}
	ch.relay = newRelay(ch)
	ch.lost.set(true)
	members, err := ch.present()
	if err != nil {
		return nil, fmt.Errorf("chain %s: %w", c.Name, err)
	}
	ch.members.Store(members)
	return ch, nil
}

// Run orders, or follows, until ctx ends, and then returns nil, or until the chain can't go on. It may be called once. An
// error that carries BrokenLog says that Raft's disk failed: the process should end then, for Raft's goroutines can't.
func (c *Chain) Run(ctx context.Context) error {
	defer close(c.stopped)
	if err := c.remind(); err != nil {
		return fmt.Errorf("chain %s: %w", c.c.Name, err)
	}
	for ctx.Err() == nil {
		do := c.follow
		if self, ok := c.self(); ok {
			do = func(ctx context.Context) error { return c.consent(ctx, self) }
		}
		if err := do(ctx); err != nil {
			return fmt.Errorf("chain %s: %w", c.c.Name, err)
		}
	}
	return nil
}

// Order checks an envelope by the channel's rules and returns nil when it stands in a durable block. Its errors carry
// one of this package's reasons.
func (c *Chain) Order(ctx context.Context, env *common.Envelope) error {
	o, err := c.submit(ctx, env)
	if err != nil {
		return err
	}
	return c.await(ctx, o)
}

// Name is the channel's.
func (c *Chain) Name() string { return c.c.Name }

// Leader is the consenter that leads; its ID is 0 if none is known.
func (c *Chain) Leader() Consenter {
	if r := c.raft.Load(); r != nil {
		_, id := r.LeaderWithID()
		out, _ := c.members.Load().get(consenterID(id))
		return out
	}
	return Consenter{}
}

// Consenters are those of the configuration in force, in its order. The slice is to be read only.
func (c *Chain) Consenters() []Consenter { return c.members.Load().all }

// Voting are the consenters, and those of earlier configurations that may have a vote in Raft still.
func (c *Chain) Voting() []Consenter { return c.members.Load().voting() }

// Self is this node among the consenters, and whether it is one.
func (c *Chain) Self() (Consenter, bool) { return c.self() }

// Errored returns a channel that is closed while there is no leader to order with. Ask again after it was closed.
func (c *Chain) Errored() <-chan struct{} { return c.lost.done() }

// Ready returns a channel that is closed while this node leads, and so can order. Ask again when it can't any more.
func (c *Chain) Ready() <-chan struct{} { return c.leading.done() }

func (c *Chain) self() (Consenter, bool) { return c.members.Load().find(c.c.Keys()...) }

// present reads who the consenters are from the newest configuration block, and who is leaving from the one before.
func (c *Chain) present() (*consenters, error) {
	number := c.c.Channel().Rules().LastConfig
	now, err := c.consentersAt(number)
	if err != nil || number == 0 {
		return now, err
	}
	b, err := c.block(number - 1)
	if err != nil {
		return nil, err
	}
	earlier, err := lastConfigOf(b)
	if err != nil {
		return nil, err
	}
	before, err := c.consentersAt(earlier)
	if err != nil {
		return nil, err
	}
	return now.after(before), nil
}

func (c *Chain) consentersAt(number uint64) (*consenters, error) {
	b, err := c.block(number)
	if err != nil {
		return nil, err
	}
	return consentersOf(b, nil)
}

func (c *Chain) block(number uint64) (*common.Block, error) {
	raw, err := c.c.Ledger.Block(number)
	if err != nil {
		return nil, fmt.Errorf("read block %d: %w", number, err)
	}
	return block.Decode(raw)
}

// commit hands on blocks that are durable, and takes up who the consenters are now.
func (c *Chain) commit(bs []block.Verified) error {
	for _, v := range bs {
		if !v.IsConfig() {
			c.recent.add(v.Block().GetData().GetData())
			continue
		}
		next, err := consentersOf(v.Block(), c.members.Load())
		if err != nil {
			return err
		}
		c.members.Store(next.after(c.members.Load()))
		select {
		case c.turned <- struct{}{}:
		default: // it will look at the newest
		}
	}
	return c.c.Committed(bs)
}

// submit checks an envelope and puts it on its way: to the cutter, or to the leader.
func (c *Chain) submit(ctx context.Context, env *common.Envelope) (*order, error) {
	o, err := c.admit(env, time.Now())
	if err != nil {
		return nil, err
	}
	return o, c.dispatch(ctx, o, true)
}

// dispatch puts an order on its way. Unless onward is set it goes no further than this node.
func (c *Chain) dispatch(ctx context.Context, o *order, onward bool) error {
	queue := c.queue
	switch {
	case o.made:
		o.done <- nil
		return nil
	case c.leading.is():
		o.env = nil // it goes no further
	case onward && !c.lost.is():
		queue, o.raw = c.relay.queue, nil // the leader encodes it
	default:
		return NotLeader
	}
	if err := c.held.Acquire(ctx, c.weight(o)); err != nil {
		return err
	}
	var err error
	select {
	case queue <- o:
		return nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-c.stopped:
		err = Stopped
	}
	c.held.Release(c.weight(o))
	return err
}

// weight is what of the budget an order holds.
func (c *Chain) weight(o *order) int64 { return min(int64(o.size), c.c.budget) }

// await waits for the order's result.
func (c *Chain) await(ctx context.Context, o *order) error {
	select {
	case err := <-o.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-c.stopped:
		select {
		case err := <-o.done:
			return err
		default:
			return Stopped
		}
	}
}

// finish settles an order, and those that wait for it.
func (c *Chain) finish(o *order, err error) {
	for _, o := range append(c.recent.settled(o), o) {
		c.held.Release(c.weight(o))
		o.done <- err
	}
}

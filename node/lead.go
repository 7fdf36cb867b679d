package node

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"

	"grapevine/block"
	"grapevine/channel"
	"grapevine/orderer"
	"grapevine/wire"
)

// lead pulls from the ordering service and publishes what comes, until ctx
// ends. It has no path of its own into the ledger: what it pulled goes through
// the same checks and the same window as what others publish. It returns early
// only if the source ends, and is then called again.
func (c *Channel) lead(ctx context.Context) {
	c.log.Info("leading: pulling from the ordering service")
	from := c.ledger.Height()
	c.pulled.Store(from)
	c.deaf.Store(0)
	for b, err := range c.source.Blocks(ctx, from) {
		if err == nil {
			c.deaf.Store(0)
			err = c.publish(ctx, b)
		}
		if err == nil {
			c.pulled.Store(b.GetHeader().GetNumber() + 1)
		}
		if err != nil {
			if ctx.Err() == nil {
				c.log.Warn("leading: the source's block is refused; asking again", "err", err)
			}
			return
		}
	}
}

// publish takes one block of the ordering service: check, offer, tell others.
func (c *Channel) publish(ctx context.Context, b *common.Block) error {
	number := b.GetHeader().GetNumber()
	if err := c.sync.Room(ctx, number); err != nil {
		return err
	}
	checked, err := block.CheckBlock(c.conf.Load().Rules(), b)
	if err != nil {
		if r := wire.ReasonOf(err); r != nil {
			c.node.metrics.refused(c.name, r)
		}
		return err
	}
	if c.node.cfg.Quiet {
		c.sync.Offer(checked, c.node.host.ID(), "orderer")
	} else if !c.sync.Has(number, checked.Hash()) {
		// Orderers' copies differ in their signatures, hence in their message
		// ids: a second leader that published too would double the traffic.
		//
		// It is told before it is offered: publishing delivers it to sync as well,
		// and a block that is durable by then would be stale, and told to nobody.
		if err := c.tell(ctx, checked); err != nil {
			return err
		}
		c.sync.Offer(checked, c.node.host.ID(), "orderer") // if the mesh knew it already
	}
	if !block.IsConfig(b) {
		return nil
	}
	return c.turned.wait(ctx, func() bool { return c.conf.Load().Number() >= number })
}

// newSource makes what the leader pulls from. It is kept from one lead to the
// next: a client that was refused a block begins with another orderer.
func (c *Channel) newSource() Source {
	n := c.node
	if n.cfg.Source != nil {
		return n.cfg.Source(c.name, c.conf.Load)
	}
	conf := c.clientConfig()
	conf.Prove = c.prove
	conf.Others = func() []orderer.Sighting { return c.sources.list() }
	conf.OnConnect = func(string) { n.metrics.reconnected(c.name) }
	conf.OnFailure = func(_ string, err error, _ time.Duration) { n.metrics.lost(c.name, err) }
	conf.OnWatch = c.watched
	return orderer.NewClient(conf)
}

// clientConfig is how this node speaks to the channel's orderers.
func (c *Channel) clientConfig() orderer.ClientConfig {
	o := c.node.cfg.Orderers
	return orderer.ClientConfig{
		Channel: c.name, Signer: c.node.signer, Endpoints: c.endpoints, ClientCert: o.Certificate,
		Dial: o.Dial, DialTimeout: o.DialTimeout, MinBackoff: o.MinBackoff, MaxBackoff: o.MaxBackoff, Stall: c.stall(),
		Attest: c.attest,
		Logger: c.log,
	}
}

// stall is how long an orderer may keep back a block that another one attests.
func (c *Channel) stall() time.Duration { return cmp.Or(c.node.cfg.Orderers.Stall, 3*time.Second) }

// attest judges a header that an orderer shows as its newest. One of a later
// configuration counts: else an orderer that withholds a configuration block, and
// all behind it, could never be accused. So does one that this peer holds itself
// and that isn't newer than the configuration: in a quiet channel whose tip is a
// configuration block, orderers have nothing else to show.
func (c *Channel) attest(b *common.Block) error {
	err := block.Attest(c.conf.Load().Rules(), b)
	switch {
	case errors.Is(err, block.UnknownConfig):
		return nil
	case errors.Is(err, block.Stale):
		if own, e := c.ledger.HashAt(b.Header.Number); e == nil && own == block.HeaderHash(b.Header) {
			return nil
		}
		c.forks.shown(b)
	case err == nil:
		c.forks.shown(b)
	}
	return err
}

// endpoints are the ordering service's, as the configuration in force and the
// node's overrides say.
func (c *Channel) endpoints() []orderer.Endpoint { return c.node.endpointsOf(c.conf.Load()) }

func (n *Node) endpointsOf(conf *channel.Config) []orderer.Endpoint {
	var out []orderer.Endpoint
	for _, o := range conf.Orderers() {
		e := orderer.Endpoint{Address: o.Endpoint, Roots: o.TLSRoots}
		if v, ok := n.cfg.Orderers.Overrides[o.Endpoint]; ok {
			e.Override = v.Address
			if v.Newest != nil {
				v.Roots = v.Newest()
			}
			if v.Roots != nil {
				e.Roots = v.Roots
			}
		}
		out = append(out, e)
	}
	return out
}

// turn wakes those who wait for a change. Its zero value isn't usable.
type turn struct {
	mu sync.Mutex
	ch chan struct{} // closed and replaced at each change, owned by mu
}

func newTurn() *turn { return &turn{ch: make(chan struct{})} }

func (t *turn) tell() {
	t.mu.Lock()
	defer t.mu.Unlock()
	close(t.ch)
	t.ch = make(chan struct{})
}

// wait returns when ok does, or with ctx's error.
func (t *turn) wait(ctx context.Context, ok func() bool) error {
	for {
		t.mu.Lock()
		ch := t.ch
		t.mu.Unlock()
		if ok() {
			return nil
		}
		select {
		case <-ch:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"

	"grapevine/block"
	"grapevine/channel"
	"grapevine/deliver"
	"grapevine/ledger"
	"grapevine/msp"
	"grapevine/orderer"
	"grapevine/wire"
)

// ordered is one channel of an ordering node.
type ordered struct {
	node   *Orderer
	name   string
	ledger *ledger.Ledger
	chain  *orderer.Chain
	links  *links
	conf   atomic.Pointer[channel.Config] // in force; swapped by the chain alone
	failed atomic.Pointer[error]          // why the chain has ended
	proven error                          // that the orderers forked the chain, from an earlier life
	forks  *forks

	stop context.CancelFunc // of run; set by the node before run starts
	done chan struct{}      // closed when run has ended
}

func newOrdered(o *Orderer, led *ledger.Ledger) (*ordered, error) {
	c := &ordered{node: o, name: led.Name(), ledger: led, done: make(chan struct{})}
	raw, err := led.Block(0)
	if err != nil {
		return nil, err
	}
	g, err := block.Genesis(raw)
	if err != nil {
		return nil, err
	}
	genesis := g.Hash()
	if raw, _, err = led.ConfigBlock(); err != nil {
		return nil, err
	}
	b, err := block.Decode(raw)
	if err != nil {
		return nil, err
	}
	conf, err := channel.Parse(b)
	if err != nil {
		return nil, err
	}
	c.conf.Store(conf)
	c.forks = newForks(o.cfg.NetworkID, led, c.conf.Load, o.evidence, o.log.With("channel", led.Name()))
	if err := c.forks.stopped(); err != nil {
		c.proven = err
		c.failed.Store(&err)
		led.Halt(err)
	}
	tag := wire.ChannelTag(o.cfg.NetworkID, genesis[:])
	c.links = &links{node: o, chain: func() *orderer.Chain { return c.chain }, tag: tag, met: map[uint64]peer.ID{}}
	c.chain, err = orderer.NewChain(orderer.ChainConfig{
		Name:    led.Name(),
		Channel: func() orderer.Channel { return c.conf.Load() },
		Ledger:  led, Signer: o.signer,
		Dir:         o.raftDir(led.Name()),
		Keys:        o.keys,
		Links:       c.links,
		Endpoints:   c.endpoints,
		Certificate: func() *tls.Certificate { return &o.pairs()[0] },
		Committed:   c.committed,
		Shown:       c.shown,
		Transient:   func(err error) bool { return errors.Is(err, ledger.ErrFull) },
		Logger:      o.log,
	})
	if err != nil {
		return nil, err
	}
	c.links.view = o.door.Open(tag, c.isOrderer)
	c.links.view.Handle(wire.KindRaft, c.links.serve)
	o.guard.setJudge(c.name, c.judge)
	return c, nil
}

// run orders until ctx ends. What stops this channel alone is kept and told; the
// node goes on with its others, unless its disk has failed.
func (c *ordered) run(ctx context.Context) error {
	err := c.proven
	if err == nil {
		err = c.order(ctx)
	}
	if err == nil || errors.Is(err, orderer.BrokenLog) || errors.Is(err, ErrDurability) {
		return err
	}
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return nil
	}
	c.failed.Store(&err)
	c.node.log.Error("ordering on the channel has stopped; the node's other channels go on", "channel", c.name, "err", err)
	return nil
}

// order runs the chain until ctx ends, or it can't go on, or the orderers have
// signed two blocks for one place.
func (c *ordered) order(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.chain.Run(ctx) })
	g.Go(func() error { return c.forks.await(ctx) })
	return c.forks.settle(g.Wait())
}

func (c *ordered) close() error {
	c.node.guard.setJudge(c.name, nil)
	c.node.metrics.forget(c.name)
	return c.links.view.Close()
}

// halted says why the channel isn't ordered any more, or nil.
func (c *ordered) halted() error {
	if err := c.failed.Load(); err != nil {
		return *err
	}
	return c.ledger.Halted()
}

// judge is this channel's say in who may connect: an orderer, whose signature
// would count under its blocks.
func (c *ordered) judge(id *msp.Identity, intermediates [][]byte, now time.Time) error {
	conf := c.conf.Load()
	m := conf.MSP(id.MSPID())
	if m == nil {
		return errNotMine
	}
	if err := m.ValidateLive(id, intermediates, now); err != nil {
		return err
	}
	if err := msp.SatisfiedBy(conf.MSPs(), conf.Policy(channel.PolicyBlockValidation), id); err != nil {
		return fmt.Errorf("%s of %s is no orderer: %w: %s", id.Name(), id.MSPID(), errNotMine, err.Error())
	}
	return nil
}

// isOrderer says whether the host p belongs to an orderer of the channel.
func (c *ordered) isOrderer(p peer.ID) bool {
	id, intermediates, ok := c.node.guard.identity(p)
	return ok && c.judge(id, intermediates, c.node.guard.now()) == nil
}

// endpoints are the orderers' gRPC listeners.
func (c *ordered) endpoints() []orderer.Endpoint {
	return endpointsOf(c.conf.Load())
}

func endpointsOf(conf *channel.Config) (out []orderer.Endpoint) {
	for _, o := range conf.Orderers() {
		out = append(out, orderer.Endpoint{Address: o.Endpoint, Roots: o.TLSRoots})
	}
	return out
}

// committed takes up what just became durable.
func (c *ordered) committed(bs []block.Verified) error {
	for _, v := range bs {
		if err := c.node.pinned(v, c.name); err != nil {
			return err
		}
		if !v.IsConfig() {
			continue
		}
		next, err := c.conf.Load().Next(v.Block())
		if err != nil {
			return fmt.Errorf("taking up configuration block %d: %w", v.Number(), err)
		}
		c.conf.Store(next)
		c.node.log.Info("configuration in force", "channel", c.name, "sequence", next.Sequence(), "block", next.Number())
		for _, p := range c.node.host.Network().Peers() {
			if !c.isOrderer(p) {
				c.links.view.Expel(p)
			}
		}
		c.node.rejudge()
	}
	c.node.metrics.at(c.name, bs[len(bs)-1].Number()+1)
	return nil
}

// shown compares a block or header, which another orderer showed and nobody has
// verified, with this node's own.
func (c *ordered) shown(b *common.Block) {
	if b.GetHeader() == nil || b.Header.Number >= c.ledger.Height() {
		return
	}
	if err := c.forks.below(b); !errors.Is(err, block.Stale) {
		c.node.log.Warn("another orderer's block doesn't hold", "channel", c.name, "block", b.Header.Number, "err", err)
	}
}

// readable is what Deliver sees of the channel.
func (c *ordered) readable() deliver.Channel {
	return deliver.Channel{Source: c.ledger, Errored: c.chain.Errored, Access: func() deliver.Access {
		conf := c.conf.Load()
		path := "/Channel/Readers"
		if conf.Maintenance() {
			path = "/Channel/Orderer/Readers"
		}
		return deliver.Access{Sequence: conf.Sequence(), Readers: conf.Policy(path), MSPs: conf.MSPs()}
	}}
}

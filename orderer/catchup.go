package orderer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"

	"grapevine/block"
)

// pulledAhead is how many blocks are fetched ahead of the disk, and kept in one go at most.
const pulledAhead = 64

// follow takes the other orderers' blocks until the configuration names this node among the consenters, or ctx ends.
func (c *Chain) follow(ctx context.Context) error {
	if c.client == nil {
		return fmt.Errorf("this node is no consenter, and knows no orderer to follow: %w", NoEndpoint)
	}
	c.c.Logger.Info("this node is no consenter of the channel: it follows the others", "channel", c.c.Name)
	c.lost.set(false) // what there is can be read
	defer c.lost.set(true)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	refused := make(chan struct{})
	go func() {
		defer close(refused)
		c.refuseAll(ctx)
	}()
	err := c.pull(ctx, func(block.Tip) bool {
		_, ok := c.self()
		return ok
	})
	cancel()
	<-refused
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// refuseAll settles envelopes that came as this node ceased to be a consenter.
func (c *Chain) refuseAll(ctx context.Context) {
	for {
		select {
		case o := <-c.queue:
			c.finish(o, NotConsenter)
		case o := <-c.relay.queue:
			c.finish(o, NotConsenter)
		case <-ctx.Done():
			return
		}
	}
}

// pull fetches blocks from the other orderers, verifies them and keeps them, until enough says so of the tip. Its caller
// alone appends to the ledger meanwhile.
func (c *Chain) pull(ctx context.Context, enough func(block.Tip) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	tip := c.c.Ledger.Tip()
	for !enough(tip) {
		before := tip
		var err error
		if tip, err = c.pullFrom(ctx, tip, enough); err != nil {
			return err
		}
		if tip == before {
			sleep(ctx, minBackoff) // what came first was refused: another orderer is asked now
		}
	}
	return nil
}

// pullFrom takes what comes until enough, or until a block is refused.
func (c *Chain) pullFrom(ctx context.Context, tip block.Tip, enough func(block.Tip) bool) (block.Tip, error) {
	ctx, cancel := context.WithCancel(ctx)
	ahead := make(chan *common.Block, pulledAhead)
	var ended error // set before ahead is closed
	go func() {
		defer close(ahead)
		for b, err := range c.client.Blocks(ctx, tip.Height) {
			if err != nil {
				ended = err
				return
			}
			select {
			case ahead <- b:
			case <-ctx.Done():
				ended = ctx.Err()
				return
			}
		}
	}()
	defer func() {
		cancel()
		for range ahead { // until the fetcher has ended
		}
	}()
	for b := range ahead {
		made, next, refusal := c.judge(tip, b, ahead)
		if err := c.append(ctx, made); err != nil {
			return tip, err
		}
		if tip = next; refusal != nil || enough(tip) {
			return tip, nil
		}
	}
	return tip, ended
}

// judge verifies a block, and those behind it that are here already, up to a configuration. It returns those that hold, the
// tip they lead to, and why the next one doesn't.
func (c *Chain) judge(tip block.Tip, b *common.Block, more <-chan *common.Block) (made []block.Verified, _ block.Tip, refusal error) {
	rules := c.c.Channel().Rules()
	for b != nil {
		v, err := verify(rules, tip, b)
		if err != nil {
			c.c.Logger.Warn("an orderer's block is refused", "channel", c.c.Name, "block", b.GetHeader().GetNumber(), "reason", err)
			return made, tip, err
		}
		v = c.signed(rules, tip, v)
		made = append(made, v)
		tip = block.Tip{Height: v.Number() + 1, Hash: v.Hash()}
		if v.IsConfig() || len(made) == pulledAhead {
			break
		}
		select {
		case b = <-more: // nil once closed
		default:
			b = nil
		}
	}
	return made, tip, nil
}

// signed is a block under this node's own signature, if the channel takes that: who serves a block vouches for it. Else the
// signature stays that it came with.
func (c *Chain) signed(rules *block.Rules, tip block.Tip, v block.Verified) block.Verified {
	b, err := block.SignAgain(v.Block(), c.c.Signer)
	if err != nil {
		return v
	}
	own, err := verify(rules, tip, b)
	if err != nil {
		return v
	}
	return own
}

// append keeps blocks and hands them on. An error that passes is waited out.
func (c *Chain) append(ctx context.Context, bs []block.Verified) error {
	if len(bs) == 0 {
		return nil
	}
	for {
		err := c.c.Ledger.Append(bs...)
		if err == nil {
			break
		}
		if c.c.Transient == nil || !c.c.Transient(err) {
			return fmt.Errorf("append block %d: %w", bs[0].Number(), err)
		}
		c.c.Logger.Error("blocks wait for the disk", "channel", c.c.Name, "block", bs[0].Number(), "reason", err)
		t := time.NewTimer(retryEvery)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return fmt.Errorf("append block %d: %w: %w", bs[0].Number(), Stopped, err)
		}
	}
	if err := c.commit(bs); err != nil {
		return fmt.Errorf("commit block %d: %w", bs[len(bs)-1].Number(), err)
	}
	return nil
}

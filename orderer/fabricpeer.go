package orderer

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
)

// Peer is a client to one Fabric peer's protos.Deliver: blocks as that peer keeps them, with its validation codes and
// commit hash. Whom it trusts by them is its caller's to decide. It is safe for concurrent use.
type Peer struct{ client *Client }

// NewPeer prepares a client to the peer that is the configuration's one endpoint, and connects to nobody.
func NewPeer(c ClientConfig) *Peer { return &Peer{NewClient(c)} }

// Blocks yields the channel's blocks from number from on, in order, each with header, data and metadata; nothing else
// about them is checked. It never gives up: the one error that it yields, at its end, is ctx's.
func (p *Peer) Blocks(ctx context.Context, from uint64) iter.Seq2[*common.Block, error] {
	return func(yield func(*common.Block, error) bool) {
		c := p.client
		pause := backoff{min: c.c.MinBackoff, max: c.c.MaxBackoff}
		next, done := from, false
		for ctx.Err() == nil {
			before := next
			addr, err := p.once(ctx, &next, func(b *common.Block) bool {
				done = !yield(b, nil)
				return !done
			})
			if done {
				return
			}
			if next > before {
				pause.reset()
			}
			if ctx.Err() == nil {
				c.failed(ctx, addr, err, &pause)
			}
		}
		yield(nil, ctx.Err())
	}
}

// Source is the peer's address while blocks come from it; else empty.
func (p *Peer) Source() string { return p.client.Source() }

func (p *Peer) once(ctx context.Context, next *uint64, yield func(*common.Block) bool) (addr string, err error) {
	c := p.client
	e, err := c.pick()
	if err != nil {
		return "", err
	}
	conn, err := c.dial(e)
	if err != nil {
		return e.Address, err
	}
	defer conn.Close()
	stream, end, err := open(ctx, c.c.DialTimeout, peer.NewDeliverClient(conn).Deliver)
	if err != nil {
		return e.Address, err
	}
	defer end()
	env, err := c.request(forever(*next))
	if err != nil {
		return e.Address, err
	}
	if err := stream.Send(env); err != nil {
		return e.Address, fmt.Errorf("send seek request: %w: %w", Unreachable, err)
	}
	c.connected(e.Address)
	defer c.connected("")
	for {
		r, err := stream.Recv()
		if err != nil {
			return e.Address, fmt.Errorf("receive block %d: %w: %w", *next, Unreachable, err)
		}
		b := r.GetBlock()
		switch {
		case r.GetType() == nil:
			return e.Address, fmt.Errorf("neither block nor status: %w", BadAnswer)
		case b == nil:
			return e.Address, &StatusError{Status: r.GetStatus()}
		case b.Header == nil || b.Metadata == nil || len(b.GetData().GetData()) == 0 || b.Header.Number != *next:
			return e.Address, fmt.Errorf("not the whole block %d: %w", *next, BadAnswer)
		}
		*next++
		if !yield(b) {
			return e.Address, errors.New("enough")
		}
	}
}

package orderer

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"

	"grapevine/block"
)

// Genesis returns block 0 of the chain in which a later block stands. It reads the headers up to that block from one
// orderer, each of which must name the hash of the one before; who trusts the block can trust block 0 then, whoever gave
// it. Each orderer is asked once. An orderer that knows no bare headers sends whole blocks, which is the same.
func (c *Client) Genesis(ctx context.Context, later *common.BlockHeader) (*common.Block, error) {
	var all error
	for range max(1, len(c.c.Endpoints())) {
		e, err := c.pick()
		if err != nil {
			return nil, err
		}
		b, err := c.genesisFrom(ctx, e, later)
		if err == nil {
			return b, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		all = errors.Join(all, fmt.Errorf("%s: %w", e.Address, err))
	}
	return nil, all
}

func (c *Client) genesisFrom(ctx context.Context, e Endpoint, later *common.BlockHeader) (*common.Block, error) {
	conn, err := c.dial(e)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stream, end, err := open(ctx, c.c.DialTimeout, ab.NewAtomicBroadcastClient(conn).Deliver)
	if err != nil {
		return nil, err
	}
	defer end()
	env, err := c.request(&ab.SeekInfo{
		Start: specified(0), Stop: specified(later.Number), Behavior: ab.SeekInfo_FAIL_IF_NOT_READY,
		ErrorResponse: ab.SeekInfo_BEST_EFFORT, ContentType: ab.SeekInfo_HEADER_WITH_SIG,
	})
	if err != nil {
		return nil, err
	}
	if err := stream.Send(env); err != nil {
		return nil, fmt.Errorf("send seek request: %w: %w", Unreachable, err)
	}
	var first *common.Block
	var previous []byte
	for n := uint64(0); ; n++ {
		r, err := stream.Recv()
		if err != nil {
			return nil, fmt.Errorf("receive header %d: %w: %w", n, Unreachable, err)
		}
		b, err := arrived(r, n == 0)
		if err != nil {
			return nil, err
		}
		if b.Header.Number != n || !bytes.Equal(b.Header.PreviousHash, previous) {
			return nil, fmt.Errorf("header %d doesn't follow header %d: %w", b.Header.Number, n, BadAnswer)
		}
		if n == 0 {
			first = b
		}
		hash := block.HeaderHash(b.Header)
		if previous = hash[:]; n == later.Number {
			break
		}
	}
	if want := block.HeaderHash(later); !bytes.Equal(previous, want[:]) {
		return nil, fmt.Errorf("block %d of this chain has header hash %x, not %x: %w", later.Number, previous, want, BadAnswer)
	}
	return first, nil
}

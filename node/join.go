package node

import (
	"context"
	"fmt"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"

	"grapevine/block"
	"grapevine/channel"
	"grapevine/orderer"
)

// joinLater joins a channel by a later configuration block, which who hands it
// over is trusted for as for block 0: the orderers that it names are asked for
// block 0, and for the headers that link the one to the other.
func (n *Node) joinLater(ctx context.Context, b *common.Block, by SyncMode) (*Channel, error) {
	if !block.IsConfig(b) {
		return nil, fmt.Errorf("block %d to join by is no configuration: %w", b.Header.Number, block.BadConfig)
	}
	if sum := block.DataHash(b.Data); string(sum[:]) != string(b.Header.DataHash) {
		return nil, fmt.Errorf("block %d to join by: %w", b.Header.Number, block.BadDataHash)
	}
	conf, err := channel.Parse(b)
	if err != nil {
		return nil, fmt.Errorf("configuration block: %w", err)
	}
	if c, err := n.Channel(conf.Channel()); err == nil {
		if c.ledger.Height() <= b.Header.Number {
			return c, nil // it will come to it, or not: it is joined
		}
		if at, err := c.ledger.ByHash(block.HeaderHash(b.Header)); err != nil || at != b.Header.Number {
			return nil, fmt.Errorf("channel %s: %w", conf.Channel(), ErrJoined)
		}
		return c, nil
	}
	o := n.cfg.Orderers
	genesis, err := orderer.NewClient(orderer.ClientConfig{
		Channel: conf.Channel(), Signer: n.signer, ClientCert: o.Certificate,
		Endpoints: func() []orderer.Endpoint { return n.endpointsOf(conf) },
		Dial:      o.Dial, DialTimeout: o.DialTimeout, Logger: n.log,
	}).Genesis(ctx, b.Header)
	if err != nil {
		return nil, fmt.Errorf("asking the orderers for block 0 of channel %s, which joining by block %d needs: %w", conf.Channel(), b.Header.Number, err)
	}
	return n.JoinBy(ctx, genesis, by)
}

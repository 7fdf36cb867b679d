package node

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
	"grapevine/ledger"
	"grapevine/orderer"
	"grapevine/wire"
)

// Reasons why a Fabric peer's word isn't taken.
var (
	peerDiffers = wire.NewReason("node.fabric_peer_differs", wire.Halt)
	peerCodes   = wire.NewReason("node.fabric_peer_codes", wire.Close)
)

// pointerEvery is how many blocks may be looked at again after a restart.
const pointerEvery = 256

// fabricPeer follows a Fabric peer of the own organisation: a second source of
// blocks, and the one of validation codes. What it says of a block's content
// counts for nothing: the orderers' signatures do. What it says of validity is
// believed, as its organisation believes it.
type fabricPeer struct {
	c      *Channel
	client *orderer.Peer

	mu    sync.Mutex
	next  uint64        // the first block without codes; owned by mu
	grown chan struct{} // closed and replaced when next rises; owned by mu
}

// newFabricPeer returns nil where none is configured.
func (c *Channel) newFabricPeer() (*fabricPeer, error) {
	n := c.node
	addr := n.cfg.FabricPeer
	if addr == "" {
		return nil, nil
	}
	o := n.cfg.Orderers
	f := &fabricPeer{c: c, grown: make(chan struct{}), client: orderer.NewPeer(orderer.ClientConfig{
		Channel: c.name, Signer: n.signer, ClientCert: o.Certificate,
		Endpoints: func() []orderer.Endpoint {
			// Its TLS certificate proves that it is of the own organisation.
			m := c.conf.Load().MSP(n.Identity().MSPID())
			if m == nil {
				return nil
			}
			return []orderer.Endpoint{{Address: addr, Roots: m.TLSRoots()}}
		},
		Dial: o.Dial, DialTimeout: o.DialTimeout, MinBackoff: o.MinBackoff, MaxBackoff: o.MaxBackoff, Logger: c.log,
	})}
	if v, err := n.db.Meta(f.key("next")); err == nil && len(v) == 8 {
		f.next = binary.BigEndian.Uint64(v)
	} else if err != nil && !errors.Is(err, ledger.ErrNotFound) {
		return nil, err
	}
	for ; ; f.next++ {
		if _, err := f.verdict(f.next); errors.Is(err, ledger.ErrUnjudged) {
			return f, nil
		} else if err != nil {
			return nil, err
		}
	}
}

func (f *fabricPeer) key(what any) string { return fmt.Sprintf("fabricpeer/%s/%v", f.c.name, what) }

// run follows the peer until ctx ends.
func (f *fabricPeer) run(ctx context.Context) error {
	for b, err := range f.client.Blocks(ctx, f.height()) {
		if err == nil {
			err = f.take(ctx, b)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			f.c.log.Error("the Fabric peer's block is refused; no validation codes are taken any more before a restart", "peer", f.c.node.cfg.FabricPeer, "err", err)
			<-ctx.Done()
			return ctx.Err()
		}
	}
	return ctx.Err()
}

// take judges one block as the peer keeps it: its content like any source's, and
// that it is the chain's; then its codes are kept.
func (f *fabricPeer) take(ctx context.Context, b *common.Block) error {
	c, number := f.c, b.Header.Number
	codes, commit, plain, err := parted(b)
	if err != nil {
		c.node.metrics.refused(c.name, peerCodes)
		return err
	}
	if number >= c.ledger.Height() {
		if err := c.sync.Room(ctx, number); err != nil {
			return err
		}
		if c.elect.Leading() {
			err = c.publish(ctx, plain)
		} else if checked, cerr := block.CheckBlock(c.conf.Load().Rules(), plain); cerr == nil {
			c.sync.Offer(checked, c.node.host.ID(), "orderer/"+c.node.cfg.FabricPeer)
		} else if err = cerr; errors.Is(cerr, block.UnknownConfig) {
			err = nil // it comes from others
		} else if r := wire.ReasonOf(cerr); r != nil {
			c.node.metrics.refused(c.name, r) // as publish does
		}
		if err != nil {
			return err
		}
		if err := c.ledger.Wait(ctx, number+1); err != nil {
			return err
		}
		if block.IsConfig(b) { // what follows is judged by it
			if err := c.turned.wait(ctx, func() bool { return c.conf.Load().Number() >= number }); err != nil {
				return err
			}
		}
	}
	if at, err := c.ledger.ByHash(block.HeaderHash(b.Header)); err != nil || at != number {
		c.node.metrics.refused(c.name, peerDiffers)
		return fmt.Errorf("block %d of the Fabric peer isn't this channel's: %w", number, peerDiffers)
	}
	if err := c.node.db.PutMeta(f.key(number), append(bytes.Clone(codes), commit...)); err != nil {
		return err
	}
	if number%pointerEvery == 0 {
		if err := c.node.db.PutMeta(f.key("next"), binary.BigEndian.AppendUint64(nil, number)); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next = number + 1
	close(f.grown)
	f.grown = make(chan struct{})
	return nil
}

// parted returns the codes and the commit hash that a peer has added to a block,
// and the block as an orderer sends it. Block 0 has no commit hash, and neither
// have blocks of peers that keep none.
func parted(b *common.Block) (codes, commit []byte, plain *common.Block, err error) {
	m := proto.CloneOf(b.Metadata)
	const filter, hash = int(common.BlockMetadataIndex_TRANSACTIONS_FILTER), int(common.BlockMetadataIndex_COMMIT_HASH)
	if len(m.Metadata) <= filter || len(m.Metadata[filter]) != len(b.Data.Data) {
		return nil, nil, nil, fmt.Errorf("block %d has no code for each transaction: %w", b.Header.Number, peerCodes)
	}
	codes = m.Metadata[filter]
	m.Metadata[filter] = nil
	if len(m.Metadata) > hash {
		var v common.Metadata
		if err := proto.Unmarshal(m.Metadata[hash], &v); err != nil || len(v.Value) != 0 && len(v.Value) != 32 {
			return nil, nil, nil, fmt.Errorf("commit hash of block %d: %w", b.Header.Number, peerCodes)
		}
		commit, m.Metadata[hash] = v.Value, nil
	}
	return codes, commit, &common.Block{Header: b.Header, Data: b.Data, Metadata: m}, nil
}

// height is the number of blocks, from 0 on, whose codes are known.
func (f *fabricPeer) height() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.next
}

// wait returns when the codes of block n are known, or with ctx's error.
func (f *fabricPeer) wait(ctx context.Context, n uint64) error {
	for {
		f.mu.Lock()
		known, grown := n < f.next, f.grown
		f.mu.Unlock()
		if known {
			return nil
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// verdict is what the peer found of block n; ErrUnjudged while that isn't known.
func (f *fabricPeer) verdict(n uint64) (ledger.Verdict, error) {
	v, err := f.c.node.db.Meta(f.key(n))
	if errors.Is(err, ledger.ErrNotFound) {
		return ledger.Verdict{}, fmt.Errorf("block %d: the Fabric peer's codes aren't here: %w", n, ledger.ErrUnjudged)
	}
	if err != nil {
		return ledger.Verdict{}, err
	}
	raw, err := f.c.ledger.Block(n)
	if err != nil {
		return ledger.Verdict{}, err
	}
	b, err := block.Decode(raw)
	if err != nil {
		return ledger.Verdict{}, err
	}
	txs := len(b.Data.Data)
	if len(v) != txs && len(v) != txs+32 {
		return ledger.Verdict{}, fmt.Errorf("kept codes of block %d: %w", n, peerCodes)
	}
	return ledger.Verdict{Codes: v[:txs], CommitHash: v[txs:]}, nil
}

// Verdict is how block n was judged: by this node, or by the organisation's
// Fabric peer.
func (c *Channel) Verdict(n uint64) (ledger.Verdict, error) {
	if c.fabric != nil {
		return c.fabric.verdict(n)
	}
	return c.ledger.Verdict(n)
}

// FabricPeer is the peer whose codes count here, and how many blocks' are known;
// "" if this node judges by itself, or nobody does.
func (c *Channel) FabricPeer() (addr string, height uint64) {
	if c.fabric == nil {
		return "", 0
	}
	return c.node.cfg.FabricPeer, c.fabric.height()
}

package itest

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
	"grapevine/block/tx"
	"grapevine/channel/genesis"
	"grapevine/msp"
	"grapevine/msp/ca"
	"grapevine/node"
)

// ChannelName is the channel of every world.
const ChannelName = "mychannel"

// A World is what exists before any node: organisations, an ordering
// organisation with one signing identity, a genesis block, and the chain that
// grows from it. Its methods are safe for concurrent use.
type World struct {
	Orgs    []*ca.Org
	Orderer msp.Signer
	Genesis *common.Block

	client msp.Signer
	peer   msp.Signer // endorses

	orderers *ca.Org
	seat     tls.Certificate // of the one consenter

	mu     sync.Mutex
	blocks []*common.Block // owned by mu
	config uint64          // number of the newest configuration block, owned by mu
	over   int             // bytes of a block's data without the value, 0 until known; owned by mu
	at     []time.Time     // when each block was handed out, owned by mu
	grown  chan struct{}   // closed and replaced at each block, owned by mu
}

// NewWorld makes a world of n organisations, org1 to orgN. anchors are their
// anchor peers, host:port, one each as far as they are given and not empty.
// Certificates are valid from now: inside a bubble, that is virtual time.
func NewWorld(n int, anchors ...string) (*World, error) {
	now := time.Now()
	w := &World{grown: make(chan struct{})}
	oo, err := ca.NewOrg("OrdererMSP", "orderer", now)
	if err != nil {
		return nil, err
	}
	if w.Orderer, err = oo.Identity("orderer0", "orderer"); err != nil {
		return nil, err
	}
	w.orderers = oo
	if w.seat, err = oo.TLS("orderer0", "localhost", "127.0.0.1"); err != nil {
		return nil, err
	}
	p := genesis.Profile{
		Channel:    ChannelName,
		Orderers:   []genesis.Org{{Name: "OrdererOrg", MSPID: "OrdererMSP", MSP: oo.MSPConfig(), Endpoints: []string{"127.0.0.1:7050"}}},
		Consenters: []genesis.Consenter{{Host: "127.0.0.1", Port: 7051, ServerTLS: pemOf(w.seat.Certificate[0])}},
		Timeout:    100 * time.Millisecond,
		Batch:      &ab.BatchSize{MaxMessageCount: 500, AbsoluteMaxBytes: 100 << 20, PreferredMaxBytes: 2 << 20}, // blocks as large as may be
		Time:       now,
	}
	for i := 1; i <= n; i++ {
		o, err := ca.NewOrg(fmt.Sprintf("Org%dMSP", i), fmt.Sprintf("org%d", i), now)
		if err != nil {
			return nil, err
		}
		w.Orgs = append(w.Orgs, o)
		g := genesis.Org{Name: o.Domain, MSPID: o.MSPID, MSP: o.MSPConfig()}
		if i <= len(anchors) && anchors[i-1] != "" {
			g.Anchors = anchors[i-1 : i]
		}
		p.Orgs = append(p.Orgs, g)
	}
	if w.client, err = w.Orgs[0].Identity("User1@org1", "client"); err != nil {
		return nil, err
	}
	if w.peer, err = w.Orgs[0].Identity("endorser.org1", "peer"); err != nil {
		return nil, err
	}
	if w.Genesis, err = genesis.Block(p); err != nil {
		return nil, err
	}
	w.append(w.Genesis)
	return w, nil
}

// Order makes the next block, whose one transaction writes size bytes that no
// disk can compress, and hands it to every source.
func (w *World) Order(size int) (*common.Block, error) {
	env, err := w.transaction(size)
	if err != nil {
		return nil, err
	}
	raw, err := proto.Marshal(env)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seal(raw)
}

// transaction makes one that writes size bytes.
func (w *World) transaction(size int) (*common.Envelope, error) {
	value := make([]byte, size)
	_, _ = rand.Read(value) // never fails
	env, _, err := tx.Endorse(tx.Proposal{
		Channel: ChannelName, Chaincode: "kv", RWSet: tx.Write("kv", "k", value),
		Creator: w.client, Endorsers: []msp.Signer{w.peer}, Time: time.Now(),
	})
	return env, err
}

// seal signs the next block, of one envelope, and hands it to every source. mu
// is held.
func (w *World) seal(envelope []byte) (*common.Block, error) {
	last := w.blocks[len(w.blocks)-1].Header
	prev := block.HeaderHash(last)
	b := &common.Block{Header: &common.BlockHeader{Number: last.Number + 1, PreviousHash: prev[:]}, Data: &common.BlockData{Data: [][]byte{envelope}}}
	sum := block.DataHash(b.Data)
	b.Header.DataHash = sum[:]
	if block.IsConfig(b) {
		w.config = b.Header.Number
	}
	if err := block.Sign(b, w.Orderer, w.config, nil); err != nil {
		return nil, err
	}
	w.append(b)
	return b, nil
}

// OrderBody makes the next block, whose marshalled data is bytes long or a few
// less, and hands it to every source. A transaction alone takes some 3 KiB.
func (w *World) OrderBody(bytes int) (*common.Block, error) {
	w.mu.Lock()
	over := w.over
	w.mu.Unlock()
	if over == 0 {
		b, err := w.Order(0)
		if err != nil {
			return nil, err
		}
		over = proto.Size(b.Data) + 32 // signatures and lengths differ by some bytes
		w.mu.Lock()
		w.over = over
		w.mu.Unlock()
	}
	return w.Order(max(0, bytes-over))
}

// append hands a block to every source. mu is held, or w is being made.
func (w *World) append(b *common.Block) {
	w.blocks = append(w.blocks, b)
	w.at = append(w.at, time.Now())
	close(w.grown)
	w.grown = make(chan struct{})
}

// Forget drops the data of the block before the last so many, for worlds whose
// chains outgrow memory. Called after each block; who follows MUST be nearer.
func (w *World) Forget(before int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.blocks) - 1 - before; n > 0 {
		w.blocks[n] = &common.Block{Header: w.blocks[n].Header}
	}
}

// Ordered is when block n was handed to the sources.
func (w *World) Ordered(n uint64) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.at[n]
}

// Height is how many blocks were ordered.
func (w *World) Height() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return uint64(len(w.blocks))
}

// Tip is the end of the chain.
func (w *World) Tip() block.Tip {
	w.mu.Lock()
	defer w.mu.Unlock()
	return block.Tip{Height: uint64(len(w.blocks)), Hash: block.HeaderHash(w.blocks[len(w.blocks)-1].Header)}
}

// Source is an ordering service for nodes in one process: it yields the blocks
// as they are ordered. Where a real one is wanted, use node.OpenOrderer.
func (w *World) Source() node.Source { return source{w} }

type source struct{ w *World }

func (s source) Blocks(ctx context.Context, from uint64) iter.Seq2[*common.Block, error] {
	return func(yield func(*common.Block, error) bool) {
		for n := from; ; n++ {
			b, err := s.w.wait(ctx, n)
			if !yield(b, err) || err != nil {
				return
			}
		}
	}
}

func (w *World) wait(ctx context.Context, n uint64) (*common.Block, error) {
	for {
		w.mu.Lock()
		grown := w.grown
		if n < uint64(len(w.blocks)) {
			b := w.blocks[n]
			w.mu.Unlock()
			return b, nil
		}
		w.mu.Unlock()
		select {
		case <-grown:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

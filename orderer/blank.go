package orderer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"
)

// Raft counts on memory: who voted, or confirmed an entry, remembers it. A node whose folder was lost, or whose channel was
// removed and joined again, doesn't; with its vote a leader could be chosen that lacks what was agreed on. So a node that
// begins without a log in a cluster that has one is blank: it votes for nobody until a leader, chosen without it, has
// brought it to all that was agreed on by then.

// blankKey marks the log of a node that is blank.
var blankKey = []byte("grapevine.blank")

// youngTime bounds the question whether the cluster has begun.
const youngTime = 2 * time.Second

var errBlank = errors.New("this node has no memory yet, and doesn't vote")

// blank keeps a node from voting. The zero value lets it.
type blank struct {
	is     atomic.Bool
	agreed atomic.Uint64 // what the leader said last to be agreed on

	once sync.Once
	rpcs chan raft.RPC // what may pass; set by once
}

// gate passes on the calls from in, refusing votes while the node is blank, until done is closed.
func (b *blank) gate(in <-chan raft.RPC, done <-chan struct{}) <-chan raft.RPC {
	b.once.Do(func() {
		b.rpcs = make(chan raft.RPC)
		go func() {
			for {
				select {
				case rpc := <-in:
					if b.judge(rpc) {
						select {
						case b.rpcs <- rpc:
						case <-done:
							return
						}
					}
				case <-done:
					return
				}
			}
		}()
	})
	return b.rpcs
}

func (b *blank) judge(rpc raft.RPC) bool {
	switch c := rpc.Command.(type) {
	case *raft.AppendEntriesRequest:
		b.agreed.Store(c.LeaderCommitIndex)
	case *raft.RequestVoteRequest, *raft.RequestPreVoteRequest:
		if b.is.Load() {
			rpc.Respond(nil, errBlank)
			return false
		}
	}
	return true
}

// recall finds out whether the log says that this node is blank.
func (p *consensus) recall() error {
	v, err := p.store.GetUint64(blankKey)
	if err != nil && !errors.Is(err, raftboltdb.ErrKeyNotFound) {
		return fmt.Errorf("raft log: %w", err)
	}
	if p.transport != nil {
		p.transport.blank.is.Store(v != 0)
	}
	return nil
}

// remember ends the time without memory once this node has what was agreed on.
func (p *consensus) remember() error {
	t := p.transport
	if t == nil || !t.blank.is.Load() {
		return nil
	}
	if agreed := t.blank.agreed.Load(); agreed == 0 || p.raft.CommitIndex() < agreed {
		return nil
	}
	if err := p.store.SetUint64(blankKey, 0); err != nil {
		return err
	}
	t.blank.is.Store(false)
	p.chain.c.Logger.Info("the leader's log is here: this node votes from now on", "channel", p.chain.c.Name)
	return nil
}

// young asks all other orderers at once whether any has more than block 0. Who doesn't answer counts for nothing: when a
// cluster begins, not all are there.
func (c *Chain) young(ctx context.Context) bool {
	if c.client == nil {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, youngTime)
	defer cancel()
	all := c.c.Endpoints()
	answers := make(chan uint64, len(all))
	for _, e := range all {
		go func() { answers <- c.client.height(ctx, e) }()
	}
	for range all {
		if <-answers > 0 {
			return false
		}
	}
	return true
}

// height is the number of the newest block at an endpoint; 0 if it can't be had.
func (c *Client) height(ctx context.Context, e Endpoint) uint64 {
	conn, err := dial(e, c.c.ClientCert(), youngTime, c.avoid(e))
	if err != nil {
		return 0
	}
	defer conn.Close()
	b, err := c.ask(ctx, ab.NewAtomicBroadcastClient(conn), Newest, ab.SeekInfo_HEADER_WITH_SIG)
	if err != nil {
		return 0
	}
	return b.Header.Number
}

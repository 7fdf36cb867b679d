package orderer_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/stretchr/testify/require"

	"grapevine/deliver"
	"grapevine/orderer"
)

// Three nodes make the same blocks, each with its own signature; when the leader goes, the others go on.
func TestThreeNodesAgree(t *testing.T) {
	w := newWorld(t, batchOf(1), time.Second)
	names := []string{"orderer1", "orderer2", "orderer3"}
	transports := make([]*raft.InmemTransport, len(names))
	for i, name := range names {
		_, transports[i] = raft.NewInmemTransport(raft.ServerAddress(name))
		for _, other := range transports[:i] {
			transports[i].Connect(other.LocalAddr(), other)
			other.Connect(transports[i].LocalAddr(), transports[i])
		}
	}
	nodes := make(map[string]*node)
	for i, name := range names {
		nodes[name] = w.start(t.TempDir(), func(c *orderer.ChainConfig, _ *orderer.ServerConfig, _ *deliver.Handler) {
			c.NodeID, c.Transport, c.Voters, c.Heartbeat = name, transports[i], voters(names...), 300*time.Millisecond
			c.Signer = w.identity(w.orderers, name, "orderer")
		})
	}
	// submit finds the leader among the living, and waits until all of them have the block.
	submit := func(i int) {
		var all []*node
		for _, n := range nodes {
			all = append(all, n)
		}
		a, err := w.clientOf(nil, all...).Submit(ctxFor(t, waitLimit), w.tx(i, 10))
		require.NoError(t, err)
		require.Equal(t, common.Status_SUCCESS, a.Status)
		for _, n := range all {
			require.NoError(t, n.ledger.Wait(ctxFor(t, waitLimit), uint64(i)+2))
		}
	}
	for i := range 5 {
		submit(i)
	}
	var first *node
	for _, n := range nodes {
		if first == nil {
			first = n
		}
		require.Equal(t, first.ledger.Tip(), n.ledger.Tip())
		require.Equal(t, 5, n.distinct())
	}
	leader := first.chain.Leader()
	require.Contains(t, nodes, leader)
	gone := nodes[leader]
	require.NoError(t, gone.stop())
	delete(nodes, leader)
	for i := 5; i < 8; i++ {
		submit(i)
	}
	tips := make(map[string]bool)
	for _, n := range nodes {
		require.Equal(t, 8, n.distinct())
		tips[fmt.Sprint(n.ledger.Tip())] = true
		defer n.stop()
	}
	require.Len(t, tips, 1)
}

// distinct counts the different entries. When a leader falls, an envelope that it couldn't answer for is submitted again,
// so one may be in the chain twice.
func (n *node) distinct() int {
	ids := make(map[string]bool)
	for _, raw := range n.entries() {
		ids[idOf(raw)] = true
	}
	return len(ids)
}

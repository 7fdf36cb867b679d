package orderer_test

import (
	"sync"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/stretchr/testify/require"

	"grapevine/orderer"
)

// What a client sends again, for want of an answer, is acknowledged and stands in one block: while it waits to be cut, when
// it stands in a block, and after a restart.
func TestSentAgainIsOrderedOnce(t *testing.T) {
	w := newWorld(t, batchOf(3), time.Second)
	dir := t.TempDir()
	n := w.start(dir).ready()
	twice, other := w.tx(0, 10), w.tx(1, 10)
	submit := func(env *common.Envelope) {
		a, err := w.clientOf(nil, n).Submit(ctxFor(t, waitLimit), env)
		require.NoError(t, err)
		require.Equal(t, common.Status_SUCCESS, a.Status, a.Info)
	}
	var all sync.WaitGroup
	for range 5 {
		all.Go(func() { submit(twice) })
	}
	all.Wait()
	require.Len(t, n.entries(), 1)
	submit(twice)
	submit(other)
	require.Len(t, n.entries(), 2)
	require.NoError(t, n.stop())
	n = w.start(dir).ready()
	submit(twice)
	submit(other)
	require.Len(t, n.entries(), 2)
	require.NoError(t, n.stop())
}

// Whoever leads knows what the leaders before it have ordered.
func TestANewLeaderOrdersNothingAgain(t *testing.T) {
	c := newCluster(t, 3, batchOf(1), time.Second)
	c.start(0, 1, 2)
	env := c.w.tx(0, 10)
	for range 3 {
		leads := c.leader()
		for i := range 3 {
			a, err := c.w.clientOf(nil, c.members[i].node).Submit(ctxFor(t, waitLimit), env)
			require.NoError(t, err)
			require.Equal(t, common.Status_SUCCESS, a.Status, a.Info)
		}
		c.kill(leads)
		c.leader()
		c.start(leads)
		c.submit(1, leads)
		c.same(0, 1, 2)
	}
	require.Len(t, c.members[0].entries(), 4)
}

// An update of the configuration that is sent again, as a node does when it has handed it to a leader that fell, has done
// what it was to do.
func TestUpdateSentAgain(t *testing.T) {
	c := newCluster(t, 3, batchOf(1), time.Second)
	c.w.seat(3)
	c.start(0, 1, 2)
	update := c.proposal(c.members[c.leader()], c.listed(0, 1, 2, 3))
	for range 2 {
		for i := range 3 {
			a, err := c.w.clientOf(nil, c.members[i].node).Submit(ctxFor(t, waitLimit), update)
			require.NoError(t, err)
			require.Equal(t, common.Status_SUCCESS, a.Status, a.Info)
		}
		leads := c.leader()
		c.kill(leads)
		c.leader()
		c.start(leads)
	}
	c.submit(1, 0)
	c.same(0, 1, 2)
	require.Equal(t, uint64(3), c.members[0].ledger.Height(), "the genesis block, the configuration, a transaction")
}

// Of the oldest nothing is known any more, and memory is bounded.
func TestRecentIsBounded(t *testing.T) {
	known := orderer.RecentOf(4)
	raw := func(i int) []byte { return []byte{byte(i)} }
	for i := range 10 {
		known.Add(raw(i), raw(i))
		for k := range 10 {
			require.Equal(t, k <= i && k > i-4, known.Knows(raw(k)), "%d after %d", k, i)
		}
	}
	require.Equal(t, 4, known.Size())
}

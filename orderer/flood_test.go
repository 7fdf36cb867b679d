package orderer_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"
	"github.com/stretchr/testify/require"

	"grapevine/block"
	"grapevine/deliver"
	"grapevine/orderer"
)

// slowLedger keeps nothing until it may.
type slowLedger struct {
	orderer.Ledger
	may <-chan struct{}
}

func (l slowLedger) Append(bs ...block.Verified) error {
	<-l.may
	return l.Ledger.Append(bs...)
}

// A flood meets a disk that stands still: clients are slowed down until they
// stand still too, what the node holds for them stays within its budget, and when
// the disk is back each envelope that was sent is ordered, once.
func TestAFloodIsHeldBack(t *testing.T) {
	const (
		budget  = 4 << 20
		large   = 32 << 10
		streams = 8
	)
	w := newWorld(t, &ab.BatchSize{MaxMessageCount: 10, AbsoluteMaxBytes: 1 << 20, PreferredMaxBytes: 1 << 20}, 20*time.Millisecond)
	may := make(chan struct{})
	n := w.start(t.TempDir(), func(c *orderer.ChainConfig, _ *orderer.ServerConfig, _ *deliver.Handler) {
		c.Ledger = slowLedger{c.Ledger, may}
		c.HoldAtMost(budget)
	}).ready()
	defer n.stop()
	var sent, answered atomic.Int64
	enough := make(chan struct{})
	var all sync.WaitGroup
	for s := range streams {
		all.Go(func() {
			envs := make(chan *common.Envelope)
			go func() {
				defer close(envs)
				for i := 0; ; i++ {
					select {
					case envs <- w.tx(i*streams+s, large):
						sent.Add(1)
					case <-enough:
						return
					}
				}
			}()
			client := w.clientOf(func(c *orderer.ClientConfig) { c.Stall = time.Hour }, n)
			for a, err := range client.Broadcast(ctxFor(t, 2*time.Minute), envs) {
				if err != nil || a.Status != common.Status_SUCCESS {
					t.Errorf("%v %v", a, err)
					return
				}
				answered.Add(1)
			}
		})
	}
	before, same := int64(-1), 0
	require.Eventually(t, func() bool {
		if now := n.chain.Held(); now == before && now > budget/2 {
			same++
		} else {
			before, same = now, 0
		}
		return same > 20
	}, waitLimit, 20*time.Millisecond, "they stand still")
	require.LessOrEqual(t, before, int64(budget))
	require.Zero(t, answered.Load(), "nothing is durable yet")
	close(enough)
	close(may)
	all.Wait()
	require.Equal(t, sent.Load(), answered.Load())
	require.Len(t, n.entries(), int(sent.Load()))
	t.Logf("%d envelopes of %d KiB; %d KiB were held", sent.Load(), large>>10, before>>10)
}

package orderer_test

import (
	"sync"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"
	"github.com/stretchr/testify/require"
)

// BenchmarkOrder submits small transactions over gRPC and TLS, on as many streams, each with many under way, until they
// stand in durable blocks: signatures, Raft's log and the ledger are real.
func BenchmarkOrder(b *testing.B) {
	for _, bc := range []struct {
		name    string
		streams int
		size    int
	}{{"streams=1/bytes=100", 1, 100}, {"streams=4/bytes=100", 4, 100}, {"streams=4/bytes=1024", 4, 1024}} {
		b.Run(bc.name, func(b *testing.B) {
			w := newWorld(b, &ab.BatchSize{MaxMessageCount: 500, AbsoluteMaxBytes: 10 << 20, PreferredMaxBytes: 2 << 20}, 50*time.Millisecond)
			n := w.start(b.TempDir()).ready()
			envs := make([]*common.Envelope, b.N)
			for i := range envs {
				envs[i] = w.tx(i, bc.size)
			}
			c := w.clientOf(nil, n)
			b.ReportAllocs()
			b.ResetTimer()
			queue := make(chan *common.Envelope)
			var all sync.WaitGroup
			for range bc.streams {
				all.Go(func() {
					for a, err := range c.Broadcast(b.Context(), queue) {
						require.NoError(b, err)
						require.Equal(b, common.Status_SUCCESS, a.Status)
					}
				})
			}
			for _, env := range envs {
				queue <- env
			}
			close(queue)
			all.Wait()
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tx/s")
			b.ReportMetric(float64(b.N)/float64(n.ledger.Height()-1), "tx/block")
			require.NoError(b, n.stop())
		})
	}
}

package itest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"
	"github.com/stretchr/testify/require"

	"grapevine/block/tx"
)

// BenchmarkPeersKeepUp orders transactions of 1 KiB in blocks of 500, as fast as
// clients get answers, while two peers of each of three organisations follow: real
// nodes on loopback and on disk, which share the machine. It tells what the
// orderers bring, how many blocks the slowest peer is behind them at the last
// answer, and how long it takes from there.
func BenchmarkPeersKeepUp(b *testing.B) {
	for _, n := range []int{1, 3} {
		b.Run(fmt.Sprintf("orderers=%d", n), func(b *testing.B) { keepUp(b, n) })
	}
}

func keepUp(b *testing.B, orderers int) {
	const size, clients = 1024, 4
	ctx, cancel := context.WithTimeout(b.Context(), 5*time.Minute)
	defer cancel()
	w := newTownOf(b, ctx, orderers, &ab.BatchSize{MaxMessageCount: 500, AbsoluteMaxBytes: 10 << 20, PreferredMaxBytes: 2 << 20})
	w.meet(w.peers)
	who, err := w.orgs[1].Identity("User1@org2", "client")
	require.NoError(b, err)
	envs := make([]*common.Envelope, b.N)
	for i := range envs {
		data := &common.Metadata{Value: append([]byte(fmt.Sprint(i)), make([]byte, size)...)[:size]}
		envs[i], err = tx.SignedEnvelope(common.HeaderType_ENDORSER_TRANSACTION, ChannelName, data, who, time.Now())
		require.NoError(b, err)
	}
	first := w.height()
	b.ResetTimer()
	queue := make(chan *common.Envelope)
	var all sync.WaitGroup
	for range clients {
		client := w.client(1)
		all.Go(func() {
			for a, err := range client.Broadcast(ctx, queue) {
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
	ordered := b.Elapsed()
	last, slowest := w.height(), w.height()
	for _, p := range w.peers {
		slowest = min(slowest, p.channel.Ledger().Height())
	}
	for _, p := range w.peers {
		require.NoError(b, p.channel.Ledger().Wait(ctx, last))
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/ordered.Seconds(), "tx/s")
	b.ReportMetric(float64(last-first)/ordered.Seconds(), "blocks/s")
	b.ReportMetric(float64(last-first)/b.Elapsed().Seconds(), "peer-blocks/s")
	b.ReportMetric(float64(last-slowest), "blocks-behind")
	b.ReportMetric(float64((b.Elapsed() - ordered).Milliseconds()), "ms-behind")
	w.same(w.peers)
}

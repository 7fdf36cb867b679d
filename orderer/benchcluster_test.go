package orderer_test

import (
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"
	"github.com/stretchr/testify/require"
)

const (
	benchBatch = 500
	benchSize  = 1024
)

// BenchmarkCluster orders transactions of 1 KiB in blocks of 500, over gRPC and TLS, with one and three nodes, until they
// stand in durable blocks; the clients speak to all nodes. Links are pipes in memory, all else is real.
func BenchmarkCluster(b *testing.B) {
	for _, n := range []int{1, 3} {
		b.Run(fmt.Sprintf("nodes=%d", n), func(b *testing.B) {
			c := newCluster(b, n, &ab.BatchSize{MaxMessageCount: benchBatch, AbsoluteMaxBytes: 10 << 20, PreferredMaxBytes: 2 << 20}, 50*time.Millisecond)
			var all []int
			var nodes []*node
			for i := range n {
				all = append(all, i)
			}
			c.start(all...)
			c.leader()
			for _, m := range c.members {
				nodes = append(nodes, m.node)
			}
			envs := make([]*common.Envelope, b.N)
			for i := range envs {
				envs[i] = c.w.tx(i, benchSize)
			}
			queue := make(chan *common.Envelope)
			var clients sync.WaitGroup
			b.ResetTimer()
			for range 2 * n {
				client := c.w.clientOf(nil, nodes...)
				clients.Go(func() {
					for a, err := range client.Broadcast(b.Context(), queue) {
						require.NoError(b, err)
						require.Equal(b, common.Status_SUCCESS, a.Status)
					}
				})
			}
			for _, env := range envs {
				queue <- env
			}
			close(queue)
			clients.Wait()
			b.StopTimer()
			report(b)
		})
	}
}

// BenchmarkRawRaft appends as many bytes to hashicorp/raft with the same log, in entries as large as those blocks, on as
// many nodes: what is left when nothing is signed, verified or kept twice.
func BenchmarkRawRaft(b *testing.B) {
	for _, n := range []int{1, 3} {
		b.Run(fmt.Sprintf("nodes=%d", n), func(b *testing.B) { rawRaft(b, n) })
	}
}

func rawRaft(b *testing.B, n int) {
	const patience = 10 * time.Second // a disk that is written flat out delays heartbeats
	var all []*raft.Raft
	var config raft.Configuration
	var transports []*raft.InmemTransport
	for i := range n {
		id := fmt.Sprint(i)
		addr, trans := raft.NewInmemTransportWithTimeout(raft.ServerAddress(id), patience)
		config.Servers = append(config.Servers, raft.Server{ID: raft.ServerID(id), Address: addr})
		transports = append(transports, trans)
	}
	for i, trans := range transports {
		for k, other := range transports {
			if i != k {
				trans.Connect(config.Servers[k].Address, other)
			}
		}
		store, err := raftboltdb.NewBoltStore(filepath.Join(b.TempDir(), "raft.db"))
		require.NoError(b, err)
		conf := raft.DefaultConfig()
		conf.LocalID, conf.LogOutput = config.Servers[i].ID, io.Discard
		conf.HeartbeatTimeout, conf.ElectionTimeout, conf.LeaderLeaseTimeout = patience, patience, patience
		if i == 0 {
			conf.HeartbeatTimeout, conf.ElectionTimeout, conf.LeaderLeaseTimeout = time.Second, time.Second, time.Second // it leads
		}
		conf.BatchApplyCh = true
		snaps := raft.NewDiscardSnapshotStore()
		require.NoError(b, raft.BootstrapCluster(conf, store, store, snaps, trans, config))
		r, err := raft.NewRaft(conf, &raft.MockFSM{}, store, store, snaps, trans)
		require.NoError(b, err)
		all = append(all, r)
		defer func() {
			require.NoError(b, r.Shutdown().Error())
			require.NoError(b, store.Close())
		}()
	}
	var leader *raft.Raft
	require.Eventually(b, func() bool {
		for _, r := range all {
			if r.State() == raft.Leader {
				leader = r
			}
		}
		return leader != nil
	}, waitLimit, 5*time.Millisecond)
	entry := make([]byte, benchBatch*benchSize)
	b.ResetTimer()
	var pending []raft.ApplyFuture
	for i := 0; i < b.N; i += benchBatch {
		pending = append(pending, leader.Apply(entry, 0))
	}
	for _, f := range pending {
		require.NoError(b, f.Error())
	}
	b.StopTimer()
	report(b)
}

// report tells transactions and bytes a second.
func report(b *testing.B) {
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tx/s")
	b.ReportMetric(float64(b.N*benchSize)/b.Elapsed().Seconds()/(1<<20), "MiB/s")
}

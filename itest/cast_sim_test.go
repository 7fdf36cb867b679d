package itest

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"grapevine/itest/figures"
)

// TestSimCast casts blocks of several sizes among real nodes, and measures how
// long they take and what comes to a receiver for each byte of them. With make
// sim there are also 50 nodes; larger groups are simulated in channel/cast, by
// its core alone: of real nodes, each takes a megabyte and more before the first
// block, and each packet some microseconds.
func TestSimCast(t *testing.T) {
	groups := []struct{ orgs, peers, blocks int }{{2, 5, 5}}
	if figures.Long() {
		groups = append(groups, struct{ orgs, peers, blocks int }{10, 5, 3})
	}
	var r figures.Records
	for _, g := range groups {
		t.Run(fmt.Sprint(g.orgs*g.peers), func(t *testing.T) {
			simulate(t, g.orgs, g.peers, func(s *sim) { s.casts(&r, g.blocks) })
		})
	}
	figures.Save(t, "itest.cast", r)
}

// casts orders blocks of each size.
func (s *sim) casts(r *figures.Records, blocks int) {
	t := s.t
	s.order(1, 4<<10, time.Second) // the first connections are still being made
	s.settle()
	pulled := map[*Peer]uint64{}
	for _, p := range s.Peers {
		pulled[p] = p.Channel.Traffic().Pulled
	}
	for _, kib := range []int{16, 128, 1024} {
		before, heard := s.received(), s.Heard()
		first := s.order(blocks, kib<<10, time.Second)
		s.settle()
		ds := figures.Sorted(s.delays(first))
		each := float64(blocks * (len(s.Peers) - 1))
		copies := float64(s.received()-before) / each / float64(kib<<10)
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		t.Logf("%d nodes, %d KiB: p50 %v p99 %v max %v, %.3f copies, %.2f announcements, %d MiB of heap for all", len(s.Peers), kib,
			figures.At(ds, .5), figures.At(ds, .99), figures.At(ds, 1), copies, float64(s.Heard()-heard)/each, m.HeapInuse>>20)
		require.Less(t, copies, 1.6)
		p := map[string]any{"nodes": len(s.Peers), "block_kib": kib, "mbits": simBits / 1e6, "latency_ms": figures.Millis(simLatency)}
		r.Spread("cast.nodes.disk", p, ds)
		r.Add("cast.nodes.copies", p, "copies per receiver", copies)
		r.Add("cast.nodes.announcements", p, "messages per receiver", float64(s.Heard()-heard)/each)
		r.Add("cast.nodes.heap", p, "MiB per node", float64(m.HeapInuse>>20)/float64(len(s.Peers)))
	}
	s.traced()
	for _, p := range s.Peers {
		require.Zero(t, p.Channel.Traffic().Cast.Pulls)
		require.Equal(t, pulled[p], p.Channel.Traffic().Pulled)
	}
}

// traced holds that any member can tell how the last block came to all.
func (s *sim) traced() {
	t := s.t
	all := s.Peers[3].Channel.Trace(s.ctx, s.World.Height()-1)
	require.Len(t, all, len(s.Peers))
	tip := s.World.Tip()
	for i, v := range all {
		require.NoError(t, v.Err)
		require.Equal(t, tip.Hash[:], v.Hash)
		require.False(t, v.Durable.Before(v.Came))
		if i == 0 {
			require.Equal(t, "orderer", v.Path)
			continue
		}
		require.Equal(t, "striped", v.Path)
		require.Equal(t, all[0].Member.Peer, v.From)
		require.Greater(t, v.Came, all[0].Came)
		require.InDelta(t, 1.1, v.Copies, .3)
	}
}

// received is how many bytes of chunks, and what belongs to them, came to the
// nodes but the first.
func (s *sim) received() (n uint64) {
	for _, p := range s.Peers[1:] {
		n += p.Channel.Traffic().Cast.Received
	}
	return n
}

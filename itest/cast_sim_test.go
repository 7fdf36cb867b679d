package itest

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"grapevine/itest/figures"
)

// TestSimCast casts blocks of several sizes among real nodes, and measures how
// long they take and what comes to a receiver for each byte of them. With make
// sim there are also 50 nodes. The same sizes and groups are simulated in
// channel/cast too, by its core alone, beside GossipSub and the fluid bound: of
// real nodes, each takes a megabyte and more before the first block, and each
// packet some microseconds.
func TestSimCast(t *testing.T) {
	groups := []castGroup{{2, 5, 5, []int{16, 128, 1 << 10}}}
	if figures.Long() {
		groups = append(groups, castGroup{10, 5, 3, []int{16, 128, 1 << 10}})
	}
	castAmong(t, "itest.cast", groups...)
}

// TestSoakCastNodes does so among more nodes, and with larger blocks: as far as they
// fit into 24 GB. 100 nodes take 14 GB with blocks of 32 MiB, and 1000 would with
// none.
func TestSoakCastNodes(t *testing.T) {
	if os.Getenv("GRAPEVINE_SOAK") == "" {
		t.Skip("make soak runs it")
	}
	castAmong(t, "itest.cast.large",
		castGroup{2, 5, 2, []int{8 << 10, 32 << 10}},
		castGroup{10, 5, 3, []int{8 << 10}},
		castGroup{20, 5, 3, []int{16, 128, 1 << 10}},
		castGroup{20, 5, 2, []int{8 << 10}},
		castGroup{40, 5, 3, []int{16, 128, 1 << 10}},
		castGroup{10, 5, 1, []int{32 << 10}},
		castGroup{40, 5, 1, []int{8 << 10}},
		castGroup{20, 5, 1, []int{32 << 10}})
}

// A castGroup is of so many organisations with so many peers each, to whom so
// many blocks of each size are cast.
type castGroup struct {
	orgs, peers, blocks int
	kib                 []int
}

func castAmong(t *testing.T, name string, groups ...castGroup) {
	var r figures.Records
	for _, g := range groups {
		t.Run(fmt.Sprintf("%d nodes, %d KiB", g.orgs*g.peers, g.kib), func(t *testing.T) {
			most := int64(g.orgs*g.peers) * int64(slices.Max(g.kib)) << 10
			simulateOn(t, stage{orgs: g.orgs, peers: g.peers, disk: most > 500<<20}, func(s *sim) { s.casts(&r, g.blocks, g.kib...) })
		})
	}
	figures.Save(t, name, r)
}

// casts orders blocks of each size.
func (s *sim) casts(r *figures.Records, blocks int, sizes ...int) {
	t := s.t
	s.order(1, 4<<10, time.Second) // the first connections are still being made
	s.settle()
	for _, kib := range sizes {
		before, pulled, heard := s.received(), s.pulled(), s.Heard()
		first := s.order(blocks, kib<<10, max(time.Second, time.Duration(kib)*time.Second/(4<<10))) // each alone
		s.settle()
		ds := figures.Sorted(s.delays(first))
		each := float64(blocks * (len(s.Peers) - 1))
		copies := float64(s.received()-before) / each / float64(kib<<10)
		for i, d := range s.slowest(first) {
			t.Logf("block %d: the last has it after %v", i+1, d)
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		t.Logf("%d nodes, %d KiB: p50 %v p99 %v max %v, %.3f copies, %.2f announcements, %d MiB of heap for all", len(s.Peers), kib,
			figures.At(ds, .5), figures.At(ds, .99), figures.At(ds, 1), copies, float64(s.Heard()-heard)/each, m.HeapInuse>>20)
		require.Less(t, copies, 1.6)
		require.Equal(t, pulled, s.pulled(), "bytes that were pulled")
		p := map[string]any{"nodes": len(s.Peers), "block_kib": kib, "mbits": simBits / 1e6, "latency_ms": figures.Millis(simLatency)}
		r.Spread("cast.nodes.disk", p, ds)
		r.Add("cast.nodes.copies", p, "copies per receiver", copies)
		r.Add("cast.nodes.announcements", p, "messages per receiver", float64(s.Heard()-heard)/each)
		r.Add("cast.nodes.heap", p, "MiB per node", float64(m.HeapInuse>>20)/float64(len(s.Peers)))
	}
	s.traced()
	for _, p := range s.Peers {
		require.Zero(t, p.Channel.Traffic().Cast.Pulls)
	}
}

// pulled is how many bytes came in answers to requests for blocks, to all nodes.
func (s *sim) pulled() (n uint64) {
	for _, p := range s.Peers {
		n += p.Channel.Traffic().Pulled
	}
	return n
}

// slowest is how long each block took until the last node had it.
func (s *sim) slowest(first uint64) (out []time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := first; n < s.World.Height(); n++ {
		last := s.World.Ordered(n)
		for _, at := range s.came[n] {
			if at.After(last) {
				last = at
			}
		}
		out = append(out, last.Sub(s.World.Ordered(n)))
	}
	return out
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

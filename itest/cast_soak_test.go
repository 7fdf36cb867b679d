package itest

import (
	"context"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"grapevine/channel/cast"
	"grapevine/itest/figures"
	"grapevine/node"
)

// TestSoakCast orders blocks of 1 MiB, five a second, for as long as
// GRAPEVINE_SOAK says, to ten real nodes on loopback with their ledgers on disk:
// all reach the tip, equal, and memory doesn't grow. They keep the last 200.
func TestSoakCast(t *testing.T) {
	long, err := time.ParseDuration(os.Getenv("GRAPEVINE_SOAK"))
	if err != nil {
		t.Skip("make soak runs it")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*long+5*time.Minute)
	defer cancel()
	net, err := newGrapevine(ctx, 10, 2, func(c *node.Config) { // 3 GiB in 10 minutes, at each
		c.Judge = true // what wasn't judged isn't pruned
		c.Snapshots.Blocks = 200
	})
	require.NoError(t, err)
	g := net.(*grapevine)
	defer func() { require.NoError(t, g.close()) }()
	const every = 200 * time.Millisecond
	var heaps []float64 // MiB, after each tenth
	tick := time.NewTicker(every)
	defer tick.Stop()
	blocks := int(long / every)
	for i := range blocks {
		<-tick.C
		if _, _, err := g.send(1 << 20); err != nil {
			require.NoError(t, err)
		}
		g.World.Forget(64)
		if i%max(1, blocks/10) == blocks/10-1 {
			require.NoError(t, g.Await(ctx, g.World.Height()))
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			heaps = append(heaps, float64(m.HeapInuse)/(1<<20))
		}
	}
	require.NoError(t, g.Await(ctx, g.World.Height()))
	require.NoError(t, g.Same())
	ds := make([]time.Duration, 0, 9*blocks)
	for n, at := range g.came.disk {
		for _, v := range at {
			ds = append(ds, v.Sub(g.World.Ordered(n)))
		}
	}
	ds = figures.Sorted(ds)
	var all cast.Stats
	for _, p := range g.Peers {
		s := p.Channel.Traffic().Cast
		all.Pulls, all.Turned, all.Needs = all.Pulls+s.Pulls, all.Turned+s.Turned, all.Needs+s.Needs
	}
	t.Logf("%d blocks: p50 %v p99 %v max %v, %d pulls, %d of them for too many under way, %d questions, ways %v; heap in MiB after each tenth %.0f", blocks,
		figures.At(ds, .5), figures.At(ds, .99), figures.At(ds, 1), all.Pulls, all.Turned, all.Needs, g.Peers[0].Channel.Traffic().Cast.Handed, heaps)
	third := max(1, len(heaps)/3)
	require.Less(t, slices.Max(heaps[len(heaps)-third:]), 1.3*slices.Max(heaps[:2*third])+64, "memory grows")
}

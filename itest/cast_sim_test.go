package itest

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"grapevine/itest/figures"
)

// TestSimCast casts blocks of several sizes among real nodes, and measures how
// long they take and what comes to a receiver for each byte of them.
func TestSimCast(t *testing.T) {
	simulate(t, 2, 5, func(s *sim) {
		for _, kib := range []int{16, 128, 1024} {
			before := s.received()
			first := s.order(5, kib<<10, time.Second)
			s.settle()
			ds := figures.Sorted(s.delays(first))
			copies := float64(s.received()-before) / float64(5*kib<<10*(len(s.Peers)-1))
			t.Logf("%d KiB: p50 %v p99 %v max %v, %.3f copies", kib, figures.At(ds, .5), figures.At(ds, .99), figures.At(ds, 1), copies)
			require.Less(t, copies, 1.6)
		}
		for _, p := range s.Peers {
			require.Zero(t, p.Channel.Traffic().Cast.Pulls)
			require.Zero(t, p.Channel.Traffic().Pulled)
		}
	})
}

// received is how many bytes of chunks, and what belongs to them, came to the
// nodes but the first.
func (s *sim) received() (n uint64) {
	for _, p := range s.Peers[1:] {
		n += p.Channel.Traffic().Cast.Received
	}
	return n
}

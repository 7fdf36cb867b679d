package itest

import (
	"context"
	"iter"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/stretchr/testify/require"

	"grapevine/channel"
	"grapevine/election"
	"grapevine/itest/figures"
	"grapevine/node"
)

// A tap is an ordering service for one node, which may hold its blocks back: to
// the others it is a leader who does.
type tap struct {
	source
	drip  atomic.Int64  // nanoseconds for each block; below 0: none comes
	open  atomic.Int32  // streams
	most  atomic.Int32  // at once
	began atomic.Uint64 // the block that the last stream began with
}

func (t *tap) Blocks(ctx context.Context, from uint64) iter.Seq2[*common.Block, error] {
	return func(yield func(*common.Block, error) bool) {
		t.began.Store(from)
		t.most.Store(max(t.most.Load(), t.open.Add(1)))
		defer t.open.Add(-1)
		for b, err := range t.source.Blocks(ctx, from) {
			switch d := time.Duration(t.drip.Load()); {
			case d < 0:
				<-ctx.Done()
			case d > 0:
				select {
				case <-time.After(d):
				case <-ctx.Done():
				}
			}
			if ctx.Err() != nil {
				b, err = nil, ctx.Err()
			}
			if !yield(b, err) || err != nil {
				return
			}
		}
	}
}

func (t *tap) Source() string { return "127.0.0.1:7050" }

func (t *tap) Newest(context.Context) (uint64, error) { return t.w.Height() - 1, nil }

// L4, T23: a leader that keeps blocks for itself, or hands them out so slowly
// that it seems to be at work, is overtaken by a peer that learned from the
// orderers that there is more; and when it doesn't step down, too.
func TestLeaderIsOvertaken(t *testing.T) {
	for _, k := range []struct {
		name string
		drip time.Duration
	}{{"it withholds", -1}, {"it drips", 5900 * time.Millisecond}} {
		t.Run(k.name, func(t *testing.T) {
			taps := make([]*tap, 4)
			var leaders func() []int
			simulateOn(t, stage{orgs: 1, peers: len(taps), tune: func(i int, c *node.Config) {
				taps[i] = new(tap)
				c.Leader = election.Dynamic
				whole := c.Source
				c.Source = func(name string, conf func() *channel.Config) node.Source {
					taps[i].source = whole(name, conf).(source)
					return taps[i]
				}
			}}, func(s *sim) {
				leaders = func() (all []int) {
					for i, p := range s.Peers {
						if p.Channel.Election().Leading {
							all = append(all, i)
						}
					}
					return all
				}
				s.until("one leads", func() bool { return len(leaders()) == 1 })
				bad := leaders()[0]
				s.order(20, 500, 200*time.Millisecond)
				s.settle()
				taps[bad].drip.Store(int64(k.drip))
				first := s.order(100, 500, 200*time.Millisecond)
				s.settle()
				require.NotContains(t, leaders(), bad)
				require.Len(t, leaders(), 1)
				good := taps[leaders()[0]]
				require.GreaterOrEqual(t, good.began.Load(), first, "its stream began at its ledger's height")
				require.EqualValues(t, 1, good.open.Load())
				for i, p := range taps {
					require.LessOrEqual(t, p.most.Load(), int32(1), "two streams of one peer")
					require.Equal(t, p == good, p.open.Load() == 1, "peer %d: who leads no more has ended its stream", i)
				}
				delays := figures.Sorted(s.delays(first))
				t.Logf("blocks lacked %v at most, half of them %v", delays[len(delays)-1], delays[len(delays)/2])
				// T23: a gap of at most 6 s.
				require.Less(t, delays[len(delays)-1], 6*time.Second)
				var why []string
				for _, x := range s.Peers[bad].Channel.LeaderHistory() {
					why = append(why, x.Why)
				}
				require.Contains(t, why, "claimed", "another one came")
			})
		})
	}
}

package deliver_test

import (
	"context"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"
	"github.com/stretchr/testify/require"
)

// follows asks for all blocks from a position on.
func follows(start *ab.SeekPosition, content ab.SeekInfo_SeekContentType) ask {
	return ask{seek: &ab.SeekInfo{Start: start, Stop: at(math.MaxUint64), ContentType: content}}
}

// What many follow is read once for all of them, whole or as headers.
func TestReadOnceForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var all []*stream
		for i := range 40 {
			s := w.connect(t.Context())
			defer s.cancel()
			content := ab.SeekInfo_BLOCK
			if i%4 == 0 {
				content = ab.SeekInfo_HEADER_WITH_SIG
			}
			s.requests <- w.envelope(follows(oldest, content))
			all = append(all, s)
		}
		for n := range uint64(30) {
			if n > 5 {
				w.chain.grow(1)
			}
			for i, s := range all {
				b := s.next().GetBlock()
				require.Equal(t, n, b.GetHeader().GetNumber())
				require.Equal(t, i%4 != 0 || n == 0, b.Data != nil, "block 0 is a configuration's")
			}
		}
		require.Equal(t, 30, w.chain.reads())
	})
}

// A reader that takes nothing holds nobody back, and misses nothing when it reads
// again, though the others' blocks aren't kept for it.
func TestReaderThatSleeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.handler.SlowReader = time.Hour
		w.chain.size = 1 << 20
		sleeper, quick := w.connect(t.Context()), w.connect(t.Context())
		defer sleeper.cancel()
		defer quick.cancel()
		for _, s := range []*stream{sleeper, quick} {
			s.requests <- w.envelope(follows(newest, ab.SeekInfo_BLOCK))
			require.EqualValues(t, 5, s.next().GetBlock().GetHeader().GetNumber())
		}
		const last = 60
		for n := uint64(6); n <= last; n++ {
			w.chain.grow(1)
			require.Equal(t, n, quick.next().GetBlock().GetHeader().GetNumber())
		}
		for n := uint64(6); n <= last; n++ {
			require.Equal(t, n, sleeper.next().GetBlock().GetHeader().GetNumber())
		}
		w.chain.grow(1)
		require.EqualValues(t, last+1, quick.next().GetBlock().GetHeader().GetNumber())
		require.EqualValues(t, last+1, sleeper.next().GetBlock().GetHeader().GetNumber())
	})
}

// Readers of all kinds, that begin anywhere, pause and leave, while the chain
// grows in bursts: each gets its blocks one after the other.
func TestReadersAtWill(t *testing.T) {
	for seed := range uint64(10) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			r := rand.New(rand.NewPCG(seed, 1))
			w.chain.size = 200 << 10
			w.chain.grow(r.IntN(200))
			var work sync.WaitGroup
			done := make(chan struct{})
			for range 12 {
				from, pause := r.Uint64N(w.chain.Height()+1), time.Duration(r.IntN(40))*time.Millisecond
				leaves, begins := r.IntN(300), time.Duration(r.IntN(2000))*time.Millisecond
				work.Go(func() {
					time.Sleep(begins)
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					s := w.connect(ctx)
					s.requests <- w.envelope(follows(at(from), ab.SeekInfo_BLOCK))
					for n := from; n < from+uint64(leaves); n++ {
						select {
						case a := <-s.replies:
							if got := a.GetBlock().GetHeader().GetNumber(); got != n {
								t.Errorf("seed %d: block %d, awaited was %d", seed, got, n)
								return
							}
						case <-done: // nothing new comes
							return
						}
						time.Sleep(pause)
					}
				})
			}
			for range 50 {
				time.Sleep(time.Duration(r.IntN(100)) * time.Millisecond)
				w.chain.grow(r.IntN(8))
			}
			time.Sleep(time.Minute)
			close(done)
			work.Wait()
		})
	}
}

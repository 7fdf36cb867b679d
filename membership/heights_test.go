package membership

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"
)

// While blocks flow a member tells a few others at once how high it is, so that
// what it says doesn't grow with the network; yet each hears a new height from
// somebody soon, and all hear everybody's last.
func TestHeightsFlow(t *testing.T) {
	cast()
	synctest.Test(t, func(t *testing.T) {
		const members, rate, seconds = 12, 10, 20
		var mu sync.Mutex
		height := uint64(1)
		var told [members]map[peer.ID]uint64 // newest by teller
		var since [members]time.Time         // the last new height was heard
		longest := time.Duration(0)
		all := make([]int, members)
		for i := range all {
			all[i], told[i] = i, map[peer.ID]uint64{}
		}
		tip := func() (uint64, [32]byte) {
			mu.Lock()
			defer mu.Unlock()
			return height, [32]byte{1}
		}
		w := newTown(t, func(i int, c *Config) {
			c.Tip = tip
			c.OnHeight = func(p peer.ID, h uint64) {
				mu.Lock()
				defer mu.Unlock()
				if highest(told[i]) < h {
					if !since[i].IsZero() {
						longest = max(longest, time.Since(since[i]))
					}
					since[i] = time.Now()
				}
				told[i][p] = h
			}
		}, all...)
		for i := range all {
			w.run(i)
		}
		w.joinAll()
		time.Sleep(time.Minute)
		calm, _ := w.said()
		time.Sleep(seconds * time.Second)
		moved, _ := w.said()
		calm = moved - calm
		mu.Lock()
		clear(since[:])
		mu.Unlock()
		for range seconds * rate {
			mu.Lock()
			height++
			mu.Unlock()
			for _, p := range w.parties {
				p.Grown()
			}
			time.Sleep(time.Second / rate)
		}
		words, _ := w.said()
		words -= moved + calm
		most := members * seconds * int(time.Second/heightPause) * heightFew
		require.LessOrEqual(t, words, most, "each would be told by each: %d", most/heightFew*(members-1))
		time.Sleep(heightPause + heightRest*(members/heightFew))
		mu.Lock()
		require.LessOrEqual(t, longest, 4*heightPause)
		for i := range told {
			require.Len(t, told[i], members-1)
			for _, h := range told[i] {
				require.Equal(t, height, h)
			}
		}
		mu.Unlock()
		w.end()
	})
}

func highest(m map[peer.ID]uint64) (h uint64) {
	for _, x := range m {
		h = max(h, x)
	}
	return h
}

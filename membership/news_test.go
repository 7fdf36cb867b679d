package membership

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// TestHubTellsOfNewcomers: who connects to one that all others are connected to
// is known to all of them at the next stroke of its clock.
func TestHubTellsOfNewcomers(t *testing.T) {
	cast()
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, nil, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)
		for i := range w.parties {
			w.run(i)
		}
		for i := 1; i < 11; i++ {
			w.join(0, i)
		}
		time.Sleep(3 * time.Second)
		w.join(0, 11)
		time.Sleep(clock + 20*time.Millisecond)
		for i := range w.parties {
			_, ok := w.sees(i, 11)
			require.True(t, ok, i)
		}
		w.mu.Lock()
		words := w.words
		w.mu.Unlock()
		time.Sleep(3 * clock)
		w.mu.Lock()
		require.Less(t, w.words-words, 12*11, "they go on telling each other")
		w.mu.Unlock()
		w.end()
	})
}

// TestViewsMerge: two that meet learn what the other has heard, though only one asks.
func TestViewsMerge(t *testing.T) {
	cast()
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, nil, 0, 1, 2, 3, 4, 5)
		w.run(0, 1, 2, 3, 4, 5)
		w.join(0, 2)
		w.join(0, 3)
		w.join(1, 4)
		w.join(1, 5)
		time.Sleep(5 * time.Second)
		w.parties[1].Members.mu.Lock()
		w.parties[1].asked = time.Now().Add(time.Hour) // it has just asked somebody else
		w.parties[1].Members.mu.Unlock()
		w.join(0, 1)
		time.Sleep(4 * clock)
		for i := range w.parties {
			for j := range w.parties {
				m, ok := w.sees(i, j)
				require.True(t, ok, "%d of %d", i, j)
				require.Equal(t, Alive, m.State)
			}
		}
		w.end()
	})
}

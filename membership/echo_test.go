package membership

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A ping goes directly, or through who is connected; a hidden member is asked
// for through its own organisation alone.
func TestPing(t *testing.T) {
	cast()
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, func(k int, c *Config) {
			if k == 2 {
				c.Endpoint = ""
			}
		}, 0, 1, 2, 6)
		w.run(0, 1, 2, 3)
		w.join(0, 1)
		w.join(1, 2)
		w.join(1, 3)
		time.Sleep(5 * time.Second)
		ping := func(i, j int) (Echo, error) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			return w.parties[i].Ping(ctx, w.parties[j].id)
		}
		e, err := ping(0, 1)
		require.NoError(t, err)
		require.Equal(t, Echo{RTT: 10 * time.Millisecond}, e)
		for _, j := range []int{2, 3} {
			e, err = ping(0, j)
			require.NoError(t, err)
			require.Equal(t, Echo{20 * time.Millisecond, hostOf(1)}, e)
		}
		_, err = ping(3, 2)
		require.ErrorIs(t, err, ErrUnknown, "hidden")
		w.cut(1, 3, false)
		_, err = ping(1, 3)
		require.ErrorIs(t, err, ErrNoAnswer)
		w.cut(0, 1, true)
		_, err = ping(0, 2)
		require.ErrorIs(t, err, ErrNobody)
		_, err = w.parties[0].Ping(t.Context(), [32]byte{1})
		require.ErrorIs(t, err, ErrUnknown)
		require.Empty(t, w.parties[0].echoes)
		w.end()
	})
}

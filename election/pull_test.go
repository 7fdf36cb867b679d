package election

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Leadership that comes and goes a thousand times, faster than a pull can end:
// there are never two pulls at once, one that is over doesn't begin, unless it
// ends at the very moment, and the last word counts.
func TestPullsDontOverlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		live, begun, late := 0, 0, 0
		p := newPull(func(ctx context.Context) {
			live++
			begun++
			require.Equal(t, 1, live, "two pulls")
			if ctx.Err() != nil {
				late++
			}
			<-ctx.Done()
			time.Sleep(20 * time.Millisecond) // closing a stream takes a moment
			live--
		})
		p.end() // before the first
		for i := range 1000 {
			p.begin(t.Context())
			p.begin(t.Context()) // twice is once
			if i%3 != 0 {
				time.Sleep(time.Duration(i%50) * time.Millisecond)
			}
			p.end()
			p.end()
			if i%7 == 0 {
				time.Sleep(time.Duration(i%50) * time.Millisecond)
			}
		}
		p.begin(t.Context())
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, 1, live, "it leads at last")
		p.wait()
		require.Zero(t, live)
		require.Greater(t, begun, 100)
		require.LessOrEqual(t, late, begun/10, "a third of them end at once")
		p.wait()
	})
}

package election

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestNoMode(t *testing.T) {
	_, err := New(Config{Mode: Mode(7)})
	require.ErrorContains(t, err, "mode 7")
	require.Equal(t, "unknown", Mode(7).String())
	require.Equal(t, []string{"standby", "static", "dynamic"}, []string{Standby.String(), Static.String(), Dynamic.String()})
}

func TestStandbyNeverLeads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, err := New(Config{Mode: Standby})
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		err = e.Run(ctx, func(context.Context) { t.Error("a standby peer leads") })
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.False(t, e.Leading())
		require.Equal(t, Standby, e.Mode())
	})
}

func TestStaticLeadsUntilTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, err := New(Config{Mode: Static})
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		terms, over := 0, false
		err = e.Run(ctx, func(term context.Context) {
			terms++
			require.True(t, e.Leading())
			<-term.Done()
			time.Sleep(time.Second) // closing what it holds takes a while: Run waits
			over = true
		})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 1, terms)
		require.True(t, over, "Run returned before lead did")
		require.False(t, e.Leading())
	})
}

func TestStaticStartsAgainWithGrowingPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, err := New(Config{Mode: Static})
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		var starts []time.Time
		require.ErrorIs(t, e.Run(ctx, func(context.Context) { starts = append(starts, time.Now()) }), context.DeadlineExceeded)
		require.Greater(t, len(starts), 50, "gave up")
		for i := 1; i < len(starts); i++ {
			gap := starts[i].Sub(starts[i-1])
			require.Positive(t, gap, "no pause")
			require.LessOrEqual(t, gap, lastPause)
		}
		require.Less(t, starts[1].Sub(starts[0]), time.Second, "the first pause is long")
	})
}

func TestAPauseIsForgottenOnceALeadLasted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, err := New(Config{Mode: Static})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		n := 0
		var ended time.Time
		require.ErrorIs(t, e.Run(ctx, func(context.Context) {
			if n++; n == 20 {
				time.Sleep(settled)
				ended = time.Now()
			}
			if n == 21 {
				require.Less(t, time.Since(ended), time.Second)
				cancel()
			}
		}), context.Canceled)
	})
}

func TestRunOnceAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, err := New(Config{Mode: Standby})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- e.Run(ctx, nil) }()
		synctest.Wait()
		require.ErrorIs(t, e.Run(ctx, nil), ErrRunning)
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
		require.ErrorIs(t, e.Run(ctx, nil), context.Canceled, "run again after the end")
	})
}

// Stop before the first term, and a thousand flaps: no leak, never two terms at
// once.
func TestFlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, err := New(Config{Mode: Static})
		require.NoError(t, err)
		live := 0
		for i := range 1000 {
			ctx, cancel := context.WithCancel(t.Context())
			if i%3 == 0 {
				cancel()
			}
			done := make(chan error, 1)
			go func() {
				done <- e.Run(ctx, func(term context.Context) {
					live++
					require.Equal(t, 1, live)
					<-term.Done()
					live--
				})
			}()
			synctest.Wait()
			cancel()
			require.ErrorIs(t, <-done, context.Canceled)
		}
		require.Zero(t, live)
	})
}

// What is counted as time without a leader never falls, though the state is made
// with the time of a step, which may be past: a counter that falls ends a
// process.
func TestTimeWithoutALeaderNeverFalls(t *testing.T) {
	e, err := New(Config{Mode: Dynamic})
	require.NoError(t, err)
	now := time.Now()
	m := newMachine(settings{candidate: true}, now)
	m.role = following
	r := &run{Election: e, machine: m, pull: newPull(nil), last: now}
	r.publish(now.Add(time.Second))
	require.Equal(t, time.Second, e.State().Leaderless)
	r.publish(now.Add(time.Second - time.Microsecond))
	require.Equal(t, time.Second, e.State().Leaderless)
	r.publish(now.Add(2 * time.Second))
	require.Equal(t, 2*time.Second, e.State().Leaderless)
}

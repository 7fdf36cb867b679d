package election

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	golog "github.com/ipfs/go-log/v2"
	"github.com/stretchr/testify/require"
)

func TestCompany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCompany(t, 4)
		defer c.stop()
		var changes []Change
		watched, stop := context.WithCancel(t.Context())
		defer stop()
		events := c.members[1].Events(watched)
		go func() {
			for e := range events {
				changes = append(changes, e)
			}
		}()
		for _, m := range c.members {
			m.start()
		}
		time.Sleep(3 * time.Second)
		require.Len(t, c.leaders(), 1)
		first := c.leaders()[0]
		for _, m := range c.members {
			s := m.State()
			require.Equal(t, first.pki(), s.Leader.PKIID)
			require.Equal(t, m == first, s.Leader.Self)
			require.Equal(t, "orderer:7050", s.Leader.Orderer)
			require.Equal(t, 3, s.Neighbours)
			require.EqualValues(t, 1, s.Leader.Term)
			require.Less(t, time.Since(s.Leader.Heard), time.Second)
		}
		{ // a leader that stops says so
			first.stop()
			time.Sleep(700 * time.Millisecond)
			require.Len(t, c.leaders(), 1)
			require.Zero(t, first.leading.Load())
		}
		second := c.leaders()[0]
		{ // one that is cut off hands over
			second.cut.Store(true)
			time.Sleep(4 * time.Second)
			require.Len(t, c.leaders(), 1)
			require.NotEqual(t, second, c.leaders()[0])
			require.Zero(t, second.leading.Load())
		}
		{ // one is asked to yield
			third := c.leaders()[0]
			second.cut.Store(false)
			first.start()
			time.Sleep(10 * time.Second)
			require.Equal(t, []*member{third}, c.leaders(), "nobody comes back for his rank")
			require.NoError(t, third.Yield(t.Context()))
			time.Sleep(time.Second)
			require.Len(t, c.leaders(), 1)
			require.NotEqual(t, third, c.leaders()[0])
			require.ErrorIs(t, third.Yield(t.Context()), ErrNotLeading)
		}
		synctest.Wait()
		var why []string
		for _, x := range c.members[1].History() {
			why = append(why, x.Why)
		}
		require.GreaterOrEqual(t, c.members[1].State().Changes, uint64(3), "%v", why)
		require.Positive(t, c.members[1].State().Leaderless)
		require.Equal(t, c.members[1].History(), changes)
		require.True(t, slices.Contains(why, "yielded"), "%v", why)
	})
}

// A stopped election is stopped again, stopped before it met anybody, started
// and stopped a thousand times: one pull at a time, and nothing is left.
func TestFlapping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCompany(t, 3)
		defer c.stop()
		m := c.members[0]
		m.start()
		m.stop()
		m.stop()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.ErrorIs(t, m.Run(ctx, m.lead), context.Canceled)
		require.ErrorIs(t, m.Yield(ctx), context.Canceled, "nobody runs")
		for _, m := range c.members {
			m.start()
		}
		for i := range 1000 {
			m := c.members[i%3]
			m.stop()
			if i%7 == 0 {
				time.Sleep(time.Duration(i) * time.Millisecond)
			}
			m.start()
		}
		time.Sleep(5 * time.Second)
		require.Len(t, c.leaders(), 1)
	})
}

// F-L9: the ordering service comes and goes, and with it leadership.
func TestFlappingOrderers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCompany(t, 3)
		defer c.stop()
		for _, m := range c.members {
			m.start()
		}
		for i := range 1000 {
			for _, m := range c.members {
				m.cut.Store(i%2 == 0)
			}
			time.Sleep(time.Duration(100+i*7%4000) * time.Millisecond)
			require.LessOrEqual(t, len(c.leaders()), 2)
		}
		for _, m := range c.members {
			m.cut.Store(true)
		}
		time.Sleep(10 * time.Second)
		require.Empty(t, c.leaders())
		for _, m := range c.members {
			m.cut.Store(false)
		}
		time.Sleep(5 * time.Second)
		require.Len(t, c.leaders(), 1)
	})
}

// A lone peer that expects nobody leads at once; one that does waits for grace.
func TestAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCompany(t, 2)
		defer c.stop()
		c.members[0].c.Expects = false
		c.members[0].start()
		time.Sleep(time.Second)
		require.True(t, c.members[0].Leading())
		c.stop()
		c.members[1].start()
		time.Sleep(1900 * time.Millisecond)
		require.False(t, c.members[1].Leading())
		time.Sleep(time.Second)
		require.True(t, c.members[1].Leading())
	})
}

// Who knows nothing of orderers, for its source is another, leads all the same.
func TestBlind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCompany(t, 2)
		defer c.stop()
		for _, m := range c.members {
			m.c.Newest, m.c.Stream = nil, nil
			m.start()
		}
		time.Sleep(time.Minute)
		require.Len(t, c.leaders(), 1)
		require.EqualValues(t, 1, c.leaders()[0].leads.Load())
	})
}

var errSign = errors.New("the key is gone")

// A key that can't sign ends no process: the others elect somebody.
func TestCannotSign(t *testing.T) {
	golog.SetAllLoggers(golog.LevelFatal)
	defer golog.SetAllLoggers(golog.LevelError)
	synctest.Test(t, func(t *testing.T) {
		c := newCompany(t, 1)
		defer c.stop()
		c.members[0].c.Self = mute{players()[0]}
		c.members[0].start()
		time.Sleep(10 * time.Second)
	})
}

type mute struct{ player }

func (mute) Sign([]byte) ([]byte, error) { return nil, errSign }

package blocksync

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestProgress(t *testing.T) {
	var p Meter
	now := epoch
	p.look(100, 100+behindFrom-1, now)
	require.Zero(t, p.Told(100, 131, now), "the ordinary way of a block")
	p.look(100, 10_100, now)
	p.Add(10, 1000, now)
	require.Zero(t, p.Told(100, 10_100, now).BytesPerSec, "no time has passed")
	for range 20 { // 100 blocks a second, of 1000 bytes
		now = now.Add(time.Second)
		p.Add(100, 100_000, now)
	}
	v := p.Told(2110, 10_100, now)
	require.True(t, v.Active())
	require.EqualValues(t, 2010, v.Blocks)
	require.EqualValues(t, 2_001_000, v.Bytes)
	require.InEpsilon(t, 100_000, v.BytesPerSec, .11)
	require.InEpsilon(t, 80, v.Left.Seconds(), .11)
	v = p.Told(2110, 10_100, now.Add(time.Minute))
	require.Zero(t, v.Left, "nothing came of late")
	p.look(10_099, 10_100, now)
	require.False(t, p.Told(10_099, 10_100, now).Active())
}

// What is told of the channel's height is what may be believed: a third of the
// peers can't move it.
func TestTarget(t *testing.T) {
	m := newSim(t, 10, 128, 1<<20)
	target := func() uint64 { return m.s.target(m.now) }
	require.EqualValues(t, 10, target())
	for i, claim := range []uint64{50, 52, 51, 1 << 60} {
		m.peers[testPeer(i)] = &simPeer{id: testPeer(i), manner: silent}
		m.step(evHeight{testPeer(i), claim})
	}
	require.EqualValues(t, 52, target())
	m.put(80, testPeer(0), 0) // proof
	require.EqualValues(t, 81, target())
}

// A status says what is missing, who is asked, and of whom what is known.
func TestStatus(t *testing.T) {
	orderers()
	synctest.Test(t, func(t *testing.T) {
		w := simulate(t, 3)
		defer w.close()
		c := newChain(t).grow(200, 1000)
		n := newNode(t, w.hosts[0], c, 1)
		defer n.close()
		good := newNode(t, w.hosts[1], c, len(c.raw))
		defer good.close()
		serveWith(w.hosts[2], c, func(s networkStream, _ *wireRequest, _ *chain) { time.Sleep(time.Minute) })
		n.Height(w.hosts[2].ID(), 201)
		n.Offer(n.check(c.raw[4]), "x", "push")
		s := n.Status()
		require.EqualValues(t, 1, s.Height)
		require.EqualValues(t, 201, s.Target)
		require.Equal(t, []Gap{{1, 4}, {5, 201}}, s.Gaps)
		require.Equal(t, 1, s.Waiting)
		require.True(t, s.Progress.Active())
		require.Zero(t, s.Progress.Left)
		n.start()
		time.Sleep(time.Second)
		s = n.Status()
		require.NotEmpty(t, s.Requests)
		require.Equal(t, w.hosts[2].ID(), s.Requests[0].Peer)
		require.EqualValues(t, 1, s.Requests[0].From)
		time.Sleep(3 * time.Second)
		s = n.Status()
		var bad Source
		for _, v := range s.Sources {
			if v.Peer == w.hosts[2].ID() {
				bad = v
			}
		}
		require.Equal(t, "too slow", bad.Why)
		require.False(t, bad.Until.IsZero())
		require.False(t, bad.Banned)
		n.Height(w.hosts[1].ID(), 201)
		require.EqualValues(t, 201, n.Hurry())
		n.reach(201, 10*time.Second)
		synctest.Wait()
		s = n.Status()
		require.Empty(t, s.Gaps)
		require.False(t, s.Progress.Active())
		require.Zero(t, s.Buffered)
		require.Positive(t, s.Peak)
		require.Positive(t, good.Served())
		time.Sleep(time.Minute)
	})
}

// With repair off a gap stays, and an announced body is pulled all the same.
func TestNoRepair(t *testing.T) {
	orderers()
	synctest.Test(t, func(t *testing.T) {
		w := simulate(t, 2)
		defer w.close()
		c := newChain(t).grow(10, 1000)
		n := newNode(t, w.hosts[0], c, 1, func(conf *Config) { conf.NoRepair = true })
		defer n.close()
		s := newNode(t, w.hosts[1], c, len(c.raw))
		defer s.close()
		n.start()
		n.Height(s.host.ID(), 11)
		time.Sleep(time.Minute)
		require.EqualValues(t, 1, n.led.Height())
		n.Announced(1, c.hash(1), 1000, s.host.ID())
		n.reach(2, 2*time.Second)
		time.Sleep(time.Minute)
		require.EqualValues(t, 2, n.led.Height())
	})
}

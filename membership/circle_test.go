package membership

import (
	"fmt"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	"grapevine/msp"
)

const again = 3 * time.Second

// crowd returns n living members whose peer IDs are in order.
func crowd(n int) []Member {
	all := make([]Member, n)
	for i := range all {
		all[i] = Member{Peer: peer.ID(fmt.Sprintf("peer%03d", i)), PKIID: simID(i)}
	}
	return all
}

// A circleWorld is one node.
type circleWorld struct {
	takes     time.Duration // a dial
	c         *Circle
	now       time.Time
	strangers []Member
	connected int
	reach     func(m Member) bool // nil: nobody refuses
	dialled   map[peer.ID][]time.Duration
	ends      map[time.Time][]Member
}

// run lets time pass; a look comes as often as Due asks for it, or a dial ends.
func (w *circleWorld) run(t *testing.T, d time.Duration) {
	began := w.now
	for end := w.now.Add(d); w.now.Before(end); {
		for _, m := range w.ends[w.now] {
			w.c.Done(m.Peer, w.now)
			if w.reach != nil && !w.reach(m) {
				continue
			}
			w.connected++
			for i, s := range w.strangers {
				if s.Peer == m.Peer {
					w.strangers = append(w.strangers[:i:i], w.strangers[i+1:]...)
					break
				}
			}
		}
		dial, wait := w.c.Due(w.strangers, w.connected, w.now)
		alive := 0
		for _, m := range dial {
			w.dialled[m.Peer] = append(w.dialled[m.Peer], w.now.Sub(began))
			at := w.now.Add(w.takes)
			w.ends[at] = append(w.ends[at], m)
			if m.State != Dead && m.PKIID != (msp.PKIID{}) {
				alive++
			}
		}
		require.LessOrEqual(t, alive, aliveDials)
		next := end
		if wait > 0 {
			next = w.now.Add(wait)
		}
		for at := range w.ends {
			if at.After(w.now) && at.Before(next) {
				next = at
			}
		}
		w.now = next
	}
}

func newCircleWorld(self peer.ID, strangers []Member) *circleWorld {
	return &circleWorld{takes: 100 * time.Millisecond, c: NewCircle(self, "", 7, again), now: bubbleEpoch, strangers: strangers, dialled: map[peer.ID][]time.Duration{}, ends: map[time.Time][]Member{}}
}

// TestCircleIsLeisurely: the first few connections are made at once, the rest
// one by one, until there are enough.
func TestCircleIsLeisurely(t *testing.T) {
	w := newCircleWorld("peer", crowd(100))
	w.run(t, time.Second)
	require.GreaterOrEqual(t, w.connected, fewPeers)
	require.LessOrEqual(t, w.connected, fewPeers+10)
	w.run(t, time.Minute)
	require.Equal(t, mostPeers, w.connected)
	for p, at := range w.dialled {
		require.Len(t, at, 1, p)
	}
}

// TestCircleSparesTheBusy: where handshakes take long, there are fewer.
func TestCircleSparesTheBusy(t *testing.T) {
	w := newCircleWorld("peer", crowd(100))
	w.takes = time.Second
	w.run(t, 20*time.Second)
	require.GreaterOrEqual(t, w.connected, fewPeers)
	require.LessOrEqual(t, w.connected, fewPeers+8)
	w.takes = 10 * time.Millisecond // it was a moment
	w.run(t, 30*time.Second)
	require.Equal(t, mostPeers, w.connected)
}

// TestCircleWaitsForTheLower: who has the higher peer ID dials only when it has
// waited in vain, longer when it has enough peers meanwhile.
func TestCircleWaitsForTheLower(t *testing.T) {
	w := newCircleWorld("zzz", crowd(20))
	w.run(t, courtesy-time.Millisecond)
	require.Empty(t, w.dialled)
	w.run(t, 4*time.Second)
	require.GreaterOrEqual(t, w.connected, fewPeers)
	require.LessOrEqual(t, w.connected, fewPeers+1)
	w.run(t, reserve+10*time.Second)
	require.Equal(t, 20, w.connected)
}

// TestCircleTriesForEver: who doesn't answer is tried with growing pauses, and
// many such don't keep others from being dialled.
func TestCircleTriesForEver(t *testing.T) {
	all := crowd(60)
	for i := range all[:50] {
		if all[i].State = Dead; i%2 == 0 {
			all[i] = Member{Peer: all[i].Peer} // known from the address book
		}
	}
	w := newCircleWorld("peer", all)
	w.reach = func(m Member) bool { return m.State != Dead && m.PKIID != (msp.PKIID{}) }
	w.run(t, 2*time.Second)
	require.GreaterOrEqual(t, w.connected, fewPeers)
	w.run(t, 5*time.Minute)
	require.Equal(t, 10, w.connected)
	for _, m := range all[:50] {
		at := w.dialled[m.Peer]
		require.GreaterOrEqual(t, len(at), 5, m.Peer)
		last := at[len(at)-1] - at[len(at)-2]
		require.LessOrEqual(t, last, 2*again*(1+60/lostDials), m.Peer)
	}
	w.reach = nil
	w.run(t, time.Minute)
	require.Equal(t, 60, w.connected)
}

// TestCircleForgets: nothing is kept of whom it isn't told of any more, and a
// dial that never ended is counted once.
func TestCircleForgets(t *testing.T) {
	c := NewCircle("peer", "", 1, again)
	dial, _ := c.Due(crowd(5), 0, bubbleEpoch)
	require.Len(t, dial, aliveDials)
	again, _ := c.Due(nil, 0, bubbleEpoch.Add(time.Second))
	require.Empty(t, again)
	require.Len(t, c.known, aliveDials, "those under way")
	for _, m := range dial {
		c.Done(m.Peer, bubbleEpoch)
		c.Done(m.Peer, bubbleEpoch)
	}
	_, wait := c.Due(nil, 0, bubbleEpoch.Add(2*time.Second))
	require.Zero(t, wait)
	require.Empty(t, c.known)
	require.Zero(t, c.alive)
}

// TestCircleFull: who has all the connections it wants dials nobody who lives,
// and goes on trying those who are lost.
func TestCircleFull(t *testing.T) {
	all := crowd(200)
	for i := range all[:100] {
		all[i].State = Dead
	}
	w := newCircleWorld("peer", all)
	w.connected = mostPeers
	w.reach = func(m Member) bool { return lives(m) }
	w.run(t, 2*time.Minute)
	for _, m := range all {
		if lives(m) {
			require.Empty(t, w.dialled[m.Peer])
		} else {
			require.GreaterOrEqual(t, len(w.dialled[m.Peer]), 2, m.Peer)
		}
	}
}

// The own organisation's members are dialled first, and also when there are
// connections enough, up to a limit.
func TestOwnOrganisationFirst(t *testing.T) {
	all := crowd(200)
	for i := 100; i < 140; i++ {
		all[i].MSPID = "Org1MSP"
	}
	w := newCircleWorld("peer000", all[1:])
	w.c.home = "Org1MSP"
	w.run(t, 5*time.Minute)
	latest, others := time.Duration(0), 0
	for _, m := range all[1:] {
		at := w.dialled[m.Peer]
		switch {
		case m.MSPID == "":
			others += min(1, len(at))
		default:
			require.NotEmpty(t, at)
			latest = max(latest, at[0])
		}
	}
	require.Equal(t, mostPeers-40, others)
	for _, m := range all[1:] {
		if at := w.dialled[m.Peer]; m.MSPID == "" && len(at) > 0 {
			require.GreaterOrEqual(t, at[0], latest)
		}
	}

	for connected, wanted := range map[int]bool{mostPeers: true, mostPeers + homeRoom: false} {
		c := NewCircle("peer000", "Org1MSP", 1, again)
		dial, _ := c.Due(all[90:110], connected, bubbleEpoch)
		require.Equal(t, wanted, len(dial) > 0)
		for _, m := range dial {
			require.Equal(t, "Org1MSP", m.MSPID)
		}
	}
}

package membership

import (
	"bytes"
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	"grapevine/msp"
	"grapevine/wire"
)

// TestDisclosure: the internal endpoint reaches the own organisation and no
// byte of it anybody else; who has no external endpoint is unknown outside.
// Parties 0, 1, 2 are of Org1, 3 and 4 of Org2, 5 of Org3; 1 has no external
// endpoint.
func TestDisclosure(t *testing.T) {
	cast()
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, func(k int, c *Config) {
			c.Internal = fmt.Sprintf("canary%d-of-%s:7051", k, c.Self.Identity().MSPID())
			if k == 1 {
				c.Endpoint = ""
			}
		}, 0, 1, 2, 6, 7, 9)
		org := func(k int) string { return w.parties[k].c.Self.Identity().MSPID() }
		for k, p := range w.parties {
			send := p.links.deliver
			p.links.deliver = func(to peer.ID, word *wire.Word) bool {
				b := must(wire.Marshal(word))
				for j, q := range w.parties {
					if q.c.PeerID != to {
						continue
					}
					for x := range w.parties {
						if org(x) != org(j) && bytes.Contains(b, fmt.Appendf(nil, "canary%d", x)) {
							t.Errorf("%d tells %d of %s the internal endpoint of %d of %s", k, j, org(j), x, org(x))
						}
						id := w.parties[1].id
						if org(j) != org(1) && bytes.Contains(b, id[:]) && k != 1 {
							t.Errorf("%d tells %d of %s of %d, who has no external endpoint", k, j, org(j), 1)
						}
					}
				}
				return send(to, word)
			}
		}
		w.run(0, 1, 2, 3, 4, 5)
		w.join(0, 1)
		w.join(0, 2)
		w.join(1, 3) // the invisible one has called at Org2 itself
		w.join(0, 3)
		w.join(3, 4)
		w.join(3, 5)
		time.Sleep(5 * time.Minute)
		for i := range w.parties {
			for j := range w.parties {
				m, ok := w.sees(i, j)
				require.Equal(t, i == j || j != 1 || org(i) == org(1), ok, "%d of %d", i, j)
				if ok && org(i) == org(j) {
					require.Equal(t, fmt.Sprintf("canary%d-of-%s:7051", j, org(j)), m.Internal)
				} else {
					require.Empty(t, m.Internal)
				}
			}
		}
		w.end()
	})
}

// TestAnchors: 0 of Org1 and 6 of Org2 know only 9, the anchor of Org3. They
// learn of each other through it, and talk on when it is gone.
func TestAnchors(t *testing.T) {
	cast()
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, nil, 0, 6, 9)
		w.run(0, 1, 2)
		w.join(0, 2)
		time.Sleep(10 * time.Second)
		w.join(1, 2)
		time.Sleep(time.Second)
		m, ok := w.sees(1, 0)
		require.True(t, ok)
		require.Equal(t, "peer0:7051", m.Endpoint, "where to dial it")
		w.join(0, 1)
		w.cut(0, 2, true)
		w.cut(1, 2, true)
		time.Sleep(time.Minute)
		for _, e := range [][2]int{{0, 1}, {1, 0}} {
			m, _ := w.sees(e[0], e[1])
			require.Equal(t, Alive, m.State)
			m, _ = w.sees(e[0], 2)
			require.Equal(t, Dead, m.State)
		}
		w.end()
	})
}

// TestHiddenDeath: of a member that only its own organisation knows, the word of
// that organisation's members suffices, however many others there are.
func TestHiddenDeath(t *testing.T) {
	cast()
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, func(k int, c *Config) {
			if k == 2 {
				c.Endpoint = ""
			}
		}, 0, 1, 2, 6, 7, 8, 9, 10, 11)
		for i := range w.parties {
			w.run(i)
			for j := range i {
				if i != 2 || j == 1 {
					w.join(i, j)
				}
			}
		}
		time.Sleep(10 * time.Second)
		m, _ := w.sees(0, 2)
		require.Equal(t, Alive, m.State, "by hearsay")
		w.cut(1, 2, false)
		time.Sleep(8 * time.Second)
		for i := range 2 {
			m, _ := w.sees(i, 2)
			require.Equal(t, Dead, m.State)
		}
		w.end()
	})
}

func TestLeave(t *testing.T) {
	cast()
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, nil, 0, 1, 6, 9)
		w.run(0, 1, 2, 3)
		w.joinAll()
		time.Sleep(5 * time.Second)
		var recorded []*wire.SignedAlive
		last := func() *wire.SignedAlive {
			w.parties[3].mu.Lock()
			defer w.parties[3].mu.Unlock()
			return w.parties[3].wide
		}
		old := last()
		require.NoError(t, w.parties[3].Leave(t.Context()))
		recorded = append(recorded, old, last())
		time.Sleep(50 * time.Millisecond)
		for i := range 3 {
			m, _ := w.sees(i, 3)
			require.Equal(t, Left, m.State, "at once")
			require.Equal(t, "left", m.State.String())
		}
		time.Sleep(time.Minute)
		for i := range 3 {
			for _, s := range recorded {
				require.ErrorIs(t, w.parties[i].Receive(hostOf(1), s), NotNewer)
			}
			m, _ := w.sees(i, 3)
			require.Equal(t, Left, m.State)
			require.Equal(t, []Kind{Joined, Departed}, w.happened(i, 3))
		}
		w.end()
	})
}

// A peer that was ahead of time, or whose disk went back, is heard again soon:
// it learns what the others hold of it, and says more.
func TestClockWentBack(t *testing.T) {
	cast()
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, nil, 0, 1, 2)
		w.run(0, 1)
		w.join(0, 1)
		ahead := signed(2, func(a *wire.Alive) {
			a.Incarnation, a.Sequence = a.SentAt+25_000, 77
		})
		for i := range 2 {
			require.NoError(t, w.parties[i].Receive(hostOf(2), ahead))
		}
		var bumped uint64 // written by Run, read when it has ended
		w.parties[2].c.Bumped = func(i uint64) error { bumped = i; return nil }
		w.run(2)
		w.join(0, 2)
		w.join(1, 2)
		time.Sleep(2 * DefaultExpiry)
		for i := range 2 {
			m, _ := w.sees(i, 2)
			require.Equal(t, Alive, m.State)
			require.Equal(t, "inside2:7051", m.Internal, "it still shadows itself")
		}
		w.end()
		m, _ := w.sees(0, 2)
		require.Equal(t, m.Incarnation, bumped)
	})
}

// Certificates travel once: who lacks one asks.
func TestCertificateIsFetched(t *testing.T) {
	cast()
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, func(k int, c *Config) {
			c.Bound = func(p peer.ID) (*msp.Identity, [][]byte, bool) {
				if k == 2 && p == hostOf(0) || k == 0 && p == hostOf(9) {
					return nil, nil, false // they aren't connected
				}
				return boundTo(p)
			}
		}, 0, 6, 9)
		der := cast()[0].Identity().Certificate().Raw
		n := 0
		send := w.parties[1].links.deliver
		w.parties[1].links.deliver = func(to peer.ID, word *wire.Word) bool {
			n += bytes.Count(must(wire.Marshal(word)), der)
			return send(to, word)
		}
		w.run(0, 1, 2)
		w.join(0, 1)
		w.join(1, 2)
		time.Sleep(10 * time.Minute)
		_, ok := w.sees(2, 0)
		require.True(t, ok)
		w.end()
		require.Equal(t, 1, n)
	})
}

// What members say to each other must have the form of it.
func TestBadWords(t *testing.T) {
	cast()
	synctest.Test(t, func(t *testing.T) {
		p := newParty(t, 0, nil)
		p.Arrived(hostOf(1))
		for _, w := range []*wire.Word{
			{Target: []byte{1}},
			{TipHash: []byte{1}},
			{Have: []byte{1}},
			{Want: [][]byte{{1}}},
			{Accused: [][]byte{{1}}},
			{Accused: make([][]byte, maxAccused+1)},
			{Want: make([][]byte, maxWant+1)},
			{Alive: make([][]byte, maxAlives+1)},
		} {
			require.ErrorIs(t, p.Hear(hostOf(1), w), BadWord)
		}
		require.Error(t, p.Hear(hostOf(1), &wire.Word{Alive: [][]byte{{1}}}))
	})
}

func TestEvents(t *testing.T) {
	cast()
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, nil, 0, 1)
		ctx, cancel := context.WithCancel(t.Context())
		var got []Kind
		events := w.parties[0].Events(ctx)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for e := range events {
				got = append(got, e.Kind)
			}
		}()
		w.run(0, 1)
		w.join(0, 1)
		time.Sleep(3 * time.Second)
		w.cut(0, 1, false)
		time.Sleep(10 * time.Second)
		w.join(0, 1)
		time.Sleep(5 * time.Second)
		cancel()
		<-done
		require.Equal(t, []Kind{Joined, Suspected, Died, Recovered}, got)
		slow := w.parties[0].Events(t.Context())
		for range 2 * eventBuffer {
			w.parties[0].Members.mu.Lock()
			w.parties[0].notify(Event{Kind: Joined})
			w.parties[0].Members.mu.Unlock()
		}
		n := 0
		for e := range slow {
			if n++; e.Kind == Lost {
				break
			}
		}
		require.Equal(t, eventBuffer, n)
		w.end()
	})
}

// TestIdle counts what an idle channel of connected members costs.
func TestIdle(t *testing.T) {
	cast()
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, nil, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)
		for i := range w.parties {
			w.run(i)
		}
		w.joinAll()
		time.Sleep(time.Minute)
		before := make([]Stats, len(w.parties))
		for i, p := range w.parties {
			before[i] = p.Stats()
		}
		words, size := w.said()
		time.Sleep(10 * time.Minute)
		n := float64(len(w.parties))
		var checks float64
		for i, p := range w.parties {
			s := p.Stats()
			checks += float64(s.Checks-before[i].Checks) / 600 / n
			require.Equal(t, before[i].Suspicions, s.Suspicions)
		}
		moreWords, moreSize := w.said()
		t.Logf("%.0f members, each second and member: %.2f checks, %.1f words, %.0f bytes", n, checks, float64(moreWords-words)/600/n, float64(moreSize-size)/600/n)
		require.LessOrEqual(t, checks, n/30*1.25)
		w.end()
	})
}

// Who is connected and never says a word is silent, though nobody else has told
// of it: it was suspended before it could introduce itself. Once it speaks it
// isn't.
func TestSilentNewcomer(t *testing.T) {
	cast()
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, nil, 0, 1, 2)
		w.run(0, 1)
		w.join(0, 1)
		late := w.parties[2].c.PeerID
		w.parties[0].Arrived(late) // nothing passes
		require.False(t, w.parties[0].Silent(late), "it has had no time")
		time.Sleep(4 * time.Second)
		require.True(t, w.parties[0].Silent(late))
		require.False(t, w.parties[0].Silent(w.parties[1].c.PeerID))
		require.Empty(t, w.happened(0, 2), "it isn't known to be a member")
		_, ok := w.sees(0, 2)
		require.False(t, ok)

		w.run(2)
		w.join(0, 2)
		time.Sleep(10 * time.Second)
		require.False(t, w.parties[0].Silent(late))
		require.Equal(t, []Kind{Joined}, w.happened(0, 2))
		w.cut(0, 2, false)
		time.Sleep(10 * time.Second)
		require.True(t, w.parties[0].Silent(late), "dead")
		w.cut(0, 2, true)
		require.False(t, w.parties[0].Silent(late), "not connected")

		w.parties[1].Arrived(late)
		w.parties[1].Gone(late) // and nothing is kept of it but what was told
		w.end()
		for i := range 2 {
			require.Len(t, w.parties[i].detector.all, 2)
		}
	})
}

// A newcomer to a calm channel believes nothing of what was said long ago: those
// whom the member knows that it calls say anew that they live. 0 and 1 are of
// Org1, and so is newcomer 3; 2 is of Org2, and so is newcomer 4.
func TestNewcomerHearsOfAll(t *testing.T) {
	cast()
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, nil, 0, 1, 6, 2, 7)
		w.run(0, 1, 2)
		w.join(0, 1)
		w.join(1, 2)
		w.join(0, 2)
		time.Sleep(10 * time.Minute)
		w.run(3, 4)
		for _, late := range []int{3, 4} {
			w.join(1, late)
			time.Sleep(2 * time.Second)
			for i := range 3 {
				m, ok := w.sees(late, i)
				require.True(t, ok, "%d doesn't hear of %d", late, i)
				require.Equal(t, Alive, m.State)
				if late == 3 && i < 2 {
					require.NotEmpty(t, m.Internal, "%d doesn't hear all of %d", late, i)
				}
			}
			time.Sleep(time.Minute)
		}
		w.end()
	})
}

// Who believes a member dead that hasn't said anything since is told better: it
// is asked to say that it lives. So is one who has an older word of it, and not one
// who knows as much as we.
func TestBuriedIsAsked(t *testing.T) {
	cast()
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, nil, 0, 1, 6)
		var asked atomic.Int64
		send := w.parties[1].links.deliver
		w.parties[1].links.deliver = func(to peer.ID, word *wire.Word) bool {
			asked.Add(int64(len(word.Want)))
			return send(to, word)
		}
		w.run(0, 1, 2)
		w.join(0, 1)
		w.join(1, 2)
		w.join(0, 2)
		time.Sleep(10 * time.Minute)
		var m Member
		old := func() bool { // what 0 said last, and it doesn't speak of itself soon
			var ok bool
			m, ok = w.sees(1, 0)
			require.True(t, ok)
			w.parties[1].Members.mu.Lock()
			defer w.parties[1].Members.mu.Unlock()
			age := time.Since(w.parties[1].view.marks[m.PKIID].sentAt)
			return age > time.Minute && age < 100*time.Second
		}
		entry := func(sequence uint64) []byte { return appendEntry(nil, m.PKIID, m.Incarnation, sequence) }
		for _, c := range []struct {
			word func() *wire.Word
			want int64
		}{
			{func() *wire.Word { return &wire.Word{Have: entry(m.Sequence), Ask: true} }, 0},
			{func() *wire.Word { return &wire.Word{Have: entry(1), Ask: true} }, 1},
			{func() *wire.Word {
				return &wire.Word{Have: entry(m.Sequence), Ask: true, Accused: [][]byte{entry(roundOf(m.Sequence))}}
			}, 1},
		} {
			for !old() {
				time.Sleep(time.Second)
			}
			asked.Store(0)
			require.NoError(t, w.parties[1].Hear(hostOf(6), c.word()))
			time.Sleep(50 * time.Millisecond)
			require.Equal(t, c.want, asked.Load())
		}
		w.end()
	})
}

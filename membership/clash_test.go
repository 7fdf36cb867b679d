package membership

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	"grapevine/msp"
	"grapevine/wire"
)

// Two live hosts show one certificate: the one that started last counts, the
// other keeps quiet, both and all others report it, and the views don't flip.
// When the last is gone, the other is heard again.
func TestTwoHostsOfOneIdentity(t *testing.T) {
	cast()
	newest := makeHost(50)
	synctest.Test(t, func(t *testing.T) {
		bound := func(p peer.ID) (*msp.Identity, [][]byte, bool) {
			if p == newest {
				return cast()[2].Identity(), nil, true
			}
			return boundTo(p)
		}
		w := newTown(t, func(_ int, c *Config) { c.Bound = bound }, 0, 1, 2, 6)
		w.run(0, 1, 2, 3)
		w.joinAll()
		time.Sleep(10 * time.Second)
		const older, newer = 2, 4
		w.mu.Lock()
		w.parties = append(w.parties, newParty(t, 2, func(c *Config) { c.Bound, c.PeerID = bound, newest }))
		w.mu.Unlock()
		w.wire(newer, w.parties[newer])
		w.run(newer)
		w.join(newer, 3) // which knows the other one
		sure := func() {
			t.Helper()
			for i := range w.parties {
				if i == 2 || i == newer {
					continue
				}
				m, _ := w.sees(i, older)
				require.Equal(t, Alive, m.State)
				require.Equal(t, newest, m.Peer, "as %d sees it", i)
			}
		}
		time.Sleep(2 * time.Second)
		sure()
		for i, p := range w.parties {
			p.mu.Lock()
			n := 0
			for _, e := range p.changes {
				if e.Kind == Cloned {
					n++
					require.Equal(t, w.parties[older].id, e.Member.PKIID)
					require.Equal(t, newest, e.Member.Peer, "at %d", i)
					require.Equal(t, hostOf(2), e.Other)
				}
			}
			p.mu.Unlock()
			require.Equal(t, 1, n, "reports by %d", i)
		}
		for range 60 {
			time.Sleep(10 * time.Second)
			sure()
		}
		for i, p := range w.parties {
			p.mu.Lock()
			n := 0
			for _, e := range p.changes {
				if e.Kind == Cloned {
					n++
				}
			}
			p.mu.Unlock()
			require.LessOrEqual(t, n, 12, "%d reports it now and then", i)
			if i != 2 && i != newer {
				require.Equal(t, []Kind{Joined, Joined}, noClones(w.happened(i, older)), "at %d", i)
			}
		}
		w.cut(newer, 3, true)
		time.Sleep(4 * time.Minute)
		for _, i := range []int{0, 1, 3} {
			m, _ := w.sees(i, older)
			require.Equal(t, Alive, m.State)
			require.Equal(t, hostOf(2), m.Peer, "as %d sees it", i)
		}
		w.end()
	})
}

func noClones(all []Kind) (out []Kind) {
	for _, k := range all {
		if k != Cloned {
			out = append(out, k)
		}
	}
	return out
}

// What a former host of an identity said before the present one started shows
// nothing, nor does what isn't well signed, nor what is old.
func TestNoClash(t *testing.T) {
	cast()
	synctest.Test(t, func(t *testing.T) {
		p := newParty(t, 0, func(c *Config) { c.Bound = nil })
		former := func(f func(a *wire.Alive)) *wire.SignedAlive {
			return signed(1, func(a *wire.Alive) {
				a.PeerId = []byte(hostOf(5))
				f(a)
			})
		}
		before := former(func(a *wire.Alive) { a.Sequence = 2 })
		time.Sleep(time.Second)
		require.NoError(t, p.Receive(hostOf(1), signed(1, func(a *wire.Alive) { a.Incarnation = uint64(time.Now().UnixMilli()) })))
		time.Sleep(time.Second)
		forged := former(func(a *wire.Alive) { a.Sequence = 3 })
		forged.Signature = before.Signature
		for _, s := range []*wire.SignedAlive{
			before, forged, former(func(a *wire.Alive) { a.Left = true }), former(func(a *wire.Alive) { a.PeerId = []byte(hostOf(1)) }),
		} {
			require.ErrorIs(t, p.Receive(hostOf(1), s), NotNewer)
		}
		late := former(func(a *wire.Alive) { a.Sequence = 4 })
		time.Sleep(36 * time.Second)
		require.ErrorIs(t, p.Receive(hostOf(1), late), NotNewer)
		for _, e := range p.changes {
			require.NotEqual(t, Cloned, e.Kind)
		}
		require.ErrorIs(t, p.Receive(hostOf(1), former(func(*wire.Alive) {})), NotNewer)
		require.Equal(t, Cloned, p.changes[len(p.changes)-1].Kind, "this does")
	})
}

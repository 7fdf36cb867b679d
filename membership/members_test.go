package membership

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	"grapevine/msp"
	"grapevine/wire"
)

type peerID = peer.ID

// hear brings everything that each party publishes to all others.
func hear(t *testing.T, parties ...*party) {
	for i, p := range parties {
		p.c.Publish = func(_ context.Context, s *wire.SignedAlive) error {
			if err := p.Receive(p.c.PeerID, s); err != nil { // as pubsub does with our own
				return err
			}
			for j, q := range parties {
				if j == i {
					continue
				}
				if err := q.Receive(p.c.PeerID, s); err != nil {
					t.Errorf("%d to %d: %v", i, j, err)
				}
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			p.sent = append(p.sent, s)
			return nil
		}
	}
}

// heard returns how many members' heights were told.
func (p *party) heard() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.heights)
}

// last returns the last change told.
func (p *party) last() Member {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changes[len(p.changes)-1]
}

func TestMembersFindEachOther(t *testing.T) {
	cast()
	synctest.Test(t, func(t *testing.T) {
		var parties []*party
		for i := range 4 {
			parties = append(parties, newParty(t, i, nil))
		}
		hear(t, parties...)
		ctx, cancel := context.WithCancel(t.Context())
		over := make(chan error, 4)
		begin := func(p *party, ctx context.Context) { go func() { over <- p.Run(ctx) }() }
		for _, p := range parties[:3] {
			begin(p, ctx)
		}
		time.Sleep(100 * time.Millisecond)
		last, leave := context.WithCancel(ctx)
		begin(parties[3], last)
		time.Sleep(arrivalGap + 50*time.Millisecond) // greeted at once, not at the next beat
		synctest.Wait()
		for _, p := range parties {
			list := p.List()
			require.Len(t, list, 4)
			require.True(t, list[0].Self)
			for _, m := range list {
				require.Equal(t, Alive, m.State)
				require.EqualValues(t, 42, m.Height)
				require.Equal(t, [32]byte{4, 2}, m.TipHash)
				require.Contains(t, m.Name, "peer")
			}
			require.Equal(t, 3, p.heard())
		}
		leave()
		<-over
		time.Sleep(DefaultExpiry + 2*time.Second)
		synctest.Wait()
		for _, p := range parties[:3] {
			i := slices.IndexFunc(p.List(), func(m Member) bool { return m.Peer == hostOf(3) })
			require.Equal(t, Dead, p.List()[i].State)
			require.Equal(t, "dead", p.List()[i].State.String())
			require.Equal(t, Dead, p.last().State)
		}
		time.Sleep(time.Minute)
		cancel()
		for range 3 {
			require.ErrorIs(t, <-over, context.Canceled)
		}
		for _, p := range parties[:3] {
			require.InDelta(t, 67, len(p.sent), 10, "the slow beat is one a second")
			require.LessOrEqual(t, p.stores, 15, "marks are stored now and then")
		}
	})
}

func TestRejudgeExpels(t *testing.T) {
	cast()
	synctest.Test(t, func(t *testing.T) {
		p := newParty(t, 0, nil)
		require.NoError(t, p.Receive(hostOf(1), signed(1, nil)))
		p.Rejudge()
		require.Len(t, p.List(), 2)
		revoked := errors.New("revoked")
		p.admit = revoked
		p.Rejudge()
		require.Len(t, p.List(), 1)
		require.Equal(t, Dead, p.changes[len(p.changes)-1].State)
		require.ErrorIs(t, p.Receive(hostOf(1), signed(1, func(a *wire.Alive) { a.Sequence = 2 })), revoked)
		p.admit = nil
		require.ErrorIs(t, p.Receive(hostOf(1), signed(1, nil)), NotNewer, "its mark was forgotten")
		require.NoError(t, p.Receive(hostOf(1), signed(1, func(a *wire.Alive) { a.Sequence = 3 })))
	})
}

// A no of Admit holds even within the time for which a yes is remembered, and a
// yes no longer than the certificate.
func TestAdmit(t *testing.T) {
	cast()
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		stranger := errors.New("not a member")
		p := newParty(t, 0, func(c *Config) {
			c.Admit = func(id *msp.Identity, _ [][]byte, _ time.Time) error {
				asked++
				if id.Name() == "peer2.org1.example.com" {
					return stranger
				}
				return nil
			}
		})
		for i := range 20 {
			s := signed(1, func(a *wire.Alive) { a.Sequence = uint64(i + 1) })
			if i > 0 {
				s.Certificate = nil // known by now
			}
			require.NoError(t, p.Receive(hostOf(1), s))
			time.Sleep(time.Second)
		}
		require.Equal(t, 1, asked)
		require.ErrorIs(t, p.Receive(hostOf(2), signed(2, nil)), stranger)
		require.Len(t, p.List(), 2)
		require.Empty(t, p.heights[hostOf(2)])
	})
}

func TestStoreThatFailsEndsRun(t *testing.T) {
	cast()
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("input/output error")
		p := newParty(t, 0, func(c *Config) { c.Store = func([]byte) error { return broken } })
		require.NoError(t, p.Receive(hostOf(1), signed(1, nil)))
		require.ErrorIs(t, p.Run(t.Context()), broken)
	})
}

package itest

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// spoil flips bits all over the files of a stopped peer's ledger.
func spoil(t *testing.T, p *Peer, kinds ...string) {
	t.Helper()
	spoilt := 0
	for _, kind := range kinds {
		files, err := filepath.Glob(filepath.Join(p.cfg.Dir, "ledger", kind))
		require.NoError(t, err)
		for _, f := range files {
			b, err := os.ReadFile(f)
			require.NoError(t, err)
			for at := len(b) / 5; at < len(b); at += 9000 {
				b[at] ^= 0x10
			}
			require.NoError(t, os.WriteFile(f, b, 0o600))
			spoilt++
		}
	}
	require.Positive(t, spoilt)
}

// sameAs checks that two running peers hold the same, to the byte.
func sameAs(t *testing.T, ctx context.Context, a, b *Peer) {
	t.Helper()
	la, lb := a.Channel.Ledger(), b.Channel.Ledger()
	require.Equal(t, la.Tip(), lb.Tip())
	require.Equal(t, la.State().Height, lb.State().Height)
	require.Equal(t, la.State().Hash, lb.State().Hash)
	for n := range la.Height() {
		x, err := la.Block(n)
		require.NoError(t, err)
		y, err := lb.Block(n)
		require.NoError(t, err)
		require.True(t, bytes.Equal(x, y), "block %d", n)
	}
	s, _, err := b.Channel.Scrub(ctx, false, 0)
	require.NoError(t, err)
	require.True(t, s.Damage.None())
}

// TestDamagedPeerIsMadeGood is L11: a peer comes back on files full of flipped
// bits. It serves, finds them, fetches from others what follows from nothing that
// it has, and ends equal to them while new blocks come. So does one that can't
// open its store any more.
func TestDamagedPeerIsMadeGood(t *testing.T) {
	ctx := longPatience(t)
	s := swarm(t, 2)
	require.NoError(t, s.StartAll(ctx))
	p := s.Peers[3]
	for _, damage := range []struct {
		name  string
		kinds []string
	}{
		{"tables", []string{"*.sst"}},
		{"value files", []string{"*.blob"}},
		{"log", []string{"*.log"}},
		{"manifest", []string{"MANIFEST-*"}},
	} {
		t.Run(damage.name, func(t *testing.T) {
			for range 60 {
				_, err := s.World.Order(6000)
				require.NoError(t, err)
			}
			require.NoError(t, s.Await(ctx, s.World.Height()))
			require.NoError(t, s.Stop(p))
			require.NoError(t, s.Start(ctx, p)) // which brings what was in the log to its place
			_, err := s.World.Order(6000)
			require.NoError(t, err)
			require.NoError(t, s.Await(ctx, s.World.Height()))
			require.NoError(t, s.Stop(p))
			spoil(t, p, damage.kinds...)
			done := keepOrdering(t, s.World, 20)
			require.NoError(t, s.Start(ctx, p))
			found, _, err := p.Channel.Scrub(ctx, true, 0)
			require.NoError(t, err)
			<-done
			require.NoError(t, s.Await(ctx, s.World.Height()))
			_, _, err = p.Channel.Scrub(ctx, true, 0) // what compactions found meanwhile
			require.NoError(t, err)
			order(t, s.World, 3)
			require.NoError(t, s.Await(ctx, s.World.Height()))
			require.NoError(t, s.Same())
			sameAs(t, ctx, s.Peers[0], p)
			u := p.Channel.Upkeep()
			require.True(t, u.Damage.None())
			require.NoError(t, p.Channel.Halted())
			t.Logf("found %d blocks damaged, index %v, state %v, %d lost; repaired %+v", len(found.Damage.Blocks), found.Damage.Index,
				found.Damage.State, found.Damage.Lost, u.Repaired)
			if damage.name != "log" {
				require.True(t, u.Repaired.Blocks > 0 || u.Repaired.Tables > 0 || u.Repaired.Lost > 0)
			}
		})
	}
}

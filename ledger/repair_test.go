package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"grapevine/block"
)

// worn makes a store with a channel of judged blocks in tables of several levels,
// in value files and in the log, beside another channel. It isn't closed.
// Of a block whose checksum fails Pebble searches the bit, so blocks are small.
func worn(t testing.TB, fs vfs.FS, dir string) (c, other *script) {
	s := scripts()
	c, other = s["middle"], s["small"]
	d, err := Open(dir, Options{fs: fs, CacheBytes: 1 << 20})
	require.NoError(t, err)
	l, err := d.Create("middle", c.all[0])
	require.NoError(t, err)
	o, err := d.Create("small", other.all[0])
	require.NoError(t, err)
	l.Judge(&scribe{})
	o.Judge(&scribe{})
	for from := 1; from < 61; from += 12 {
		to := min(from+12, len(c.all))
		require.NoError(t, l.Append(c.all[from:to]...))
		require.NoError(t, o.Append(other.all[from:to]...))
		if from < 40 {
			flush(t, d)
		}
		if from == 25 {
			require.NoError(t, d.pebble.Compact(context.Background(), []byte{0}, []byte{0xff}, false))
		}
	}
	if fs != nil {
		return c, other
	}
	require.NoError(t, d.Close())
	return c, other
}

// mended opens a damaged store, has it scrubbed and repaired, and checks that it
// then holds everything. It reports what was found, and whether it could be opened.
func mended(fs vfs.FS, dir string, chains map[string]*script) (found Damage, did Repaired, opened bool, err error) {
	ctx := context.Background()
	d, err := Open(dir, Options{fs: fs, CacheBytes: 1 << 20})
	opened = true
	if errors.Is(err, ErrCorrupt) {
		opened = false
		d, err = Open(dir, Options{fs: fs, CacheBytes: 1 << 20, Rescue: true})
	}
	if err != nil {
		return found, did, false, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	for name := range chains {
		l, err := d.Channel(name)
		if err != nil {
			return found, did, opened, err
		}
		l.Judge(&scribe{})
		s, err := l.Scrub(ctx, Scrubbing{})
		if err != nil {
			return found, did, opened, err
		}
		found.Blocks = append(found.Blocks, s.Damage.Blocks...)
		found.Index, found.State, found.Tip = found.Index || s.Damage.Index, found.State || s.Damage.State, found.Tip || s.Damage.Tip
		found.Lost += s.Damage.Lost
		if s.Damage.None() != (l.Halted() == nil) && s.Damage.Tables == 0 && d.halt.Load() == nil {
			return found, did, opened, fmt.Errorf("found %+v and halted is %w", s.Damage, l.Halted())
		}
	}
	for name, c := range chains {
		l, err := d.Channel(name)
		if err != nil {
			return found, did, opened, err
		}
		r, err := l.Repair(ctx, func(_ context.Context, n uint64, hash [32]byte) (block.Verified, error) {
			if c.all[n].Hash() != hash {
				return block.Verified{}, fmt.Errorf("block %d is looked for by a wrong hash", n)
			}
			return c.all[n], nil
		})
		if err != nil {
			return found, did, opened, err
		}
		did.Tables, did.Blocks, did.State = did.Tables+r.Tables, did.Blocks+r.Blocks, did.State || r.State
	}
	for name, c := range chains {
		l, err := d.Channel(name)
		if err != nil {
			return found, did, opened, err
		}
		goOn := func() error { return errors.Join(l.Append(c.all[l.Height():]...), l.CatchUp(ctx, nil)) }
		err = goOn()
		for range 3 { // a compaction that began before may find the damage after
			if errors.Is(err, ErrCorrupt) {
				if _, err = l.Repair(ctx, nil); err == nil {
					err = goOn()
				}
			}
		}
		if err != nil {
			return found, did, opened, err
		}
		n := uint64(len(c.all))
		if err := c.matches(d, l, n, n); err != nil {
			return found, did, opened, err
		}
		if s, err := l.Scrub(ctx, Scrubbing{}); err != nil || len(s.Damage.Blocks) > 0 || s.Damage.Index || s.Damage.State {
			return found, did, opened, fmt.Errorf("scrubbed again: %+v: %w", s.Damage, err)
		}
	}
	return found, did, opened, d.pebble.Compact(ctx, []byte{0}, []byte{0xff}, false)
}

// TestRepairAfterBitFlips is F-D2 with L11: a bit is flipped anywhere in the store,
// and what it damaged is found and made good; a store that
// can't be opened begins anew.
func TestRepairAfterBitFlips(t *testing.T) {
	fs := vfs.NewCrashableMem()
	worn(t, fs, "ledger")
	fs = same(fs)
	chains := map[string]*script{"middle": scripts()["middle"], "small": scripts()["small"]}
	stride := 6997
	switch {
	case os.Getenv("GRAPEVINE_SOAK") != "":
		stride = 211
	case raced:
		stride = 39119
	}
	names, err := fs.List("ledger")
	require.NoError(t, err)
	flips, found, refetched, states, tables, shut := 0, 0, 0, 0, 0, 0
	for _, name := range names {
		if name == markerName || name == "LOCK" { // without the first it isn't ours
			continue
		}
		file := path.Join("ledger", name)
		b := bytes.TrimRight(readFile(t, fs, file), "\x00")
		for at := min(100, len(b)/2); at < len(b); at += 1 + stride/2 + at%(stride/2) {
			damaged := same(fs)
			c := bytes.Clone(b)
			c[at] ^= 1 << (at % 8)
			writeFile(t, damaged, file, c)
			f, did, opened, err := mended(damaged, "ledger", chains)
			require.NoError(t, err, "%s at %d of %d: found %+v, did %+v", name, at, len(b), f, did)
			flips++
			if !opened {
				shut++
			}
			if !f.None() {
				found++
			}
			refetched += int(did.Blocks)
			tables += did.Tables
			if did.State {
				states++
			}
		}
	}
	t.Logf("%d flips: %d found, %d blocks fetched again, %d states made anew, %d tables replaced, %d stores begun anew", flips, found, refetched, states, tables, shut)
	require.Positive(t, found)
	require.Positive(t, refetched+states+tables+shut)
}

// TestRepairOnRealFolder damages many bytes of each file of a folder of the
// operating system.
func TestRepairOnRealFolder(t *testing.T) {
	chains := map[string]*script{"middle": scripts()["middle"], "small": scripts()["small"]}
	for _, kind := range []string{".sst", ".blob", ".log"} {
		t.Run(kind, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "ledger")
			worn(t, nil, dir)
			files, err := filepath.Glob(filepath.Join(dir, "*"+kind))
			require.NoError(t, err)
			require.NotEmpty(t, files)
			for _, f := range files {
				b, err := os.ReadFile(f)
				require.NoError(t, err)
				if kind == ".log" {
					b = bytes.TrimRight(b, "\x00")
				}
				for at := len(b) / 7; at < len(b); at += 2000 {
					b[at] ^= 0x55
				}
				require.NoError(t, os.WriteFile(f, b, 0o600))
			}
			found, did, opened, err := mended(nil, dir, chains)
			require.NoError(t, err, "found %+v, did %+v", found, did)
			require.False(t, found.None())
			t.Logf("opened %v, found %d blocks, index %v, state %v, tip %v, %d lost; did %+v", opened, len(found.Blocks), found.Index, found.State, found.Tip, found.Lost, did)
		})
	}
}

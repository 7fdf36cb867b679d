package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"grapevine/block"
)

// readFile and writeFile work on what a closed store left.
func readFile(t testing.TB, fs vfs.FS, name string) []byte {
	f, err := fs.Open(name)
	require.NoError(t, err)
	b, err := io.ReadAll(f)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	return b
}

func writeFile(t testing.TB, fs vfs.FS, name string, b []byte) {
	f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	_, err = f.Write(b)
	require.NoError(t, err)
	require.NoError(t, errors.Join(f.Sync(), f.Close()))
}

// aged makes a store with blocks in tables, in value files and in the log. It
// isn't closed, as after kill -9.
func aged(t *testing.T) (*vfs.MemFS, []block.Verified) {
	fs := vfs.NewCrashableMem()
	c, genesis := newChain(t, "c")
	all := append([]block.Verified{genesis}, c.some(12, 700)...)
	all = append(all, c.some(4, 9000)...)
	d := openMem(t, fs)
	l, err := d.Create("c", genesis)
	require.NoError(t, err)
	require.NoError(t, l.Append(all[1:8]...))
	require.NoError(t, l.Append(all[8:15]...))
	flush(t, d)
	for _, b := range all[15:] {
		require.NoError(t, l.Append(b))
	}
	return same(fs), all
}

// same copies a file system as it stands.
func same(fs *vfs.MemFS) *vfs.MemFS {
	return fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
}

// examine opens a damaged store and reads all of it: every answer must be right
// or an error that says what is wrong. It returns the height it came up with.
func examine(fs vfs.FS, all []block.Verified) (height uint64, damage error, wrong error) {
	d, err := Open("ledger", Options{fs: fs, CacheBytes: 1 << 20})
	if err != nil {
		if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrForeign) {
			return 0, err, fmt.Errorf("opening says neither corrupt nor foreign: %w", err)
		}
		return 0, err, nil
	}
	defer func() {
		if e := d.Close(); e != nil && damage == nil {
			damage = e
		}
	}()
	l, err := d.Channel("c")
	if err != nil {
		return 0, nil, fmt.Errorf("the channel is gone: %w", err)
	}
	height = l.Height()
	note := func(err error) {
		if damage = errors.Join(damage, err); !errors.Is(err, ErrCorrupt) {
			wrong = fmt.Errorf("a read says something else than corrupt: %w", err)
		} else if l.Halted() == nil {
			wrong = fmt.Errorf("the channel goes on over %w", err)
		}
	}
	if err := l.Halted(); err != nil {
		damage = err
	}
	for n := range height {
		want := all[n].Bytes()
		raw, err := l.Block(n)
		if err != nil {
			note(err)
		} else if !bytes.Equal(raw, want) {
			return height, damage, fmt.Errorf("block %d has other bytes", n)
		}
		if at, err := l.ByHash(all[n].Hash()); err != nil {
			if !errors.Is(err, ErrNotFound) {
				note(err)
			} else if damage == nil {
				return height, damage, fmt.Errorf("hash %d isn't found", n)
			}
		} else if at != n {
			return height, damage, fmt.Errorf("hash %d is at %d", n, at)
		}
	}
	n := uint64(0)
	for raw, err := range l.Range(0, height) {
		if err != nil {
			note(err)
		} else if !bytes.Equal(raw, all[n].Bytes()) {
			return height, damage, fmt.Errorf("range has other bytes at %d", n)
		}
		n++
	}
	return height, damage, wrong
}

// TestBitFlips is F-D2: after kill -9, one bit flipped anywhere is detected or
// harmless.
func TestBitFlips(t *testing.T) {
	fs, all := aged(t)
	names, err := fs.List("ledger")
	require.NoError(t, err)
	stride := 797
	if raced {
		stride = 7919
	}
	if os.Getenv("GRAPEVINE_SOAK") != "" {
		stride = 1
	}
	flips, detected := 0, 0
	for _, name := range names {
		name = path.Join("ledger", name)
		b := readFile(t, fs, name)
		if strings.HasSuffix(name, ".log") {
			b = bytes.TrimRight(b, "\x00")
		}
		for at := 0; at < len(b); at += 1 + at%stride {
			damaged := same(fs)
			c := bytes.Clone(b)
			c[at] ^= 1 << (at % 8)
			writeFile(t, damaged, name, c)
			height, damage, wrong := examine(damaged, all)
			flips++
			where := fmt.Sprintf("%s at %d of %d", name, at, len(b))
			require.NoError(t, wrong, where)
			switch {
			case damage != nil:
				detected++
			case height != uint64(len(all)):
				t.Errorf("%s: %d of %d blocks, and no word of it", where, height, len(all))
			}
		}
	}
	t.Logf("%d flips, %d detected, the others harmless", flips, detected)
}

// TestFileGone is F-D3: a file deleted or emptied.
func TestFileGone(t *testing.T) {
	fs, all := aged(t)
	names, err := fs.List("ledger")
	require.NoError(t, err)
	for _, name := range names {
		for _, how := range []string{"deleted", "emptied", "zeroed"} {
			t.Run(name+" "+how, func(t *testing.T) {
				file := path.Join("ledger", name)
				damaged := same(fs)
				switch how {
				case "deleted":
					require.NoError(t, damaged.Remove(file))
				case "emptied":
					writeFile(t, damaged, file, nil)
				case "zeroed":
					writeFile(t, damaged, file, make([]byte, len(readFile(t, fs, file))))
				}
				height, damage, wrong := examine(damaged, all)
				require.NoError(t, wrong)
				if damage == nil {
					require.Len(t, all, int(height))
				}
			})
		}
	}
}

func TestCorruptBlockHaltsItsChannelOnly(t *testing.T) {
	d := openMem(t, vfs.NewMem())
	c, genesis := newChain(t, "c")
	o, g2 := newChain(t, "other")
	l, err := d.Create("c", genesis)
	require.NoError(t, err)
	other, err := d.Create("other", g2)
	require.NoError(t, err)
	require.NoError(t, l.Append(c.some(5, 100)...))
	// The bytes of another block under a block's key: every checksum holds.
	swapped, err := l.Block(2)
	require.NoError(t, err)
	require.NoError(t, d.pebble.Set(blockKey(l.record.number, 3), swapped, nil))

	_, err = l.Block(3)
	require.ErrorIs(t, err, ErrCorrupt)
	require.ErrorContains(t, err, "channel c: block 3")
	require.ErrorIs(t, l.Append(c.next(1, "x")), ErrCorrupt)
	require.ErrorIs(t, l.Halted(), ErrHalted)
	_, err = l.Block(2)
	require.NoError(t, err, "what is whole is still read")
	seen := 0
	for _, err := range l.Range(0, 6) {
		if err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
			break
		}
		seen++
	}
	require.Equal(t, 3, seen)
	require.NoError(t, other.Append(o.some(1, 1)...), "other channels go on")
}

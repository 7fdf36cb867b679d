package ledger

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"grapevine/block"
	"grapevine/wire"
)

// tally is what a scribe's state needs to go on: its hash isn't a function of the
// entries, so it is looked up.
type tally struct {
	chain *script
	at    uint64
	items int
}

func (t *tally) Add(items []Item) { t.items += len(items) }

func (t *tally) Done([]byte) ([32]byte, []byte) {
	carry := t.chain.folds[t.at].carry
	if t.items != len(t.chain.folds[t.at].entries) {
		return [32]byte{}, nil
	}
	return sha256.Sum256(carry), carry
}

// proof are the blocks that a snapshot at a height comes with.
func (c *script) proof(height uint64) (all []block.Verified) {
	for _, v := range c.all[:height] {
		if v.Number() == 0 || v.IsConfig() || v.Number() == height-1 {
			all = append(all, v)
		}
	}
	return all
}

func snapshotOf(l *Ledger, o SnapshotOptions) (*Snapshot, error) {
	w, err := l.World(context.Background())
	if err != nil {
		return nil, err
	}
	s, err := w.Snapshot(context.Background(), o)
	if e := w.Close(); err == nil {
		err = e
	}
	return s, err
}

// carryOver takes a snapshot from one store into another, from chunk to chunk.
func carryOver(d *DB, s *Snapshot, chunks ...int) (*Incoming, error) {
	blocks, err := s.Blocks()
	if err != nil {
		return nil, err
	}
	in, err := d.Receive(s.Manifest.Channel, s.Raw, s.Index(), blocks, s.Attestations())
	if err != nil {
		return nil, err
	}
	if chunks == nil {
		for i := range s.Chunks() {
			chunks = append(chunks, i)
		}
	}
	for _, i := range chunks {
		c, err := s.Chunk(i)
		if err != nil {
			return nil, err
		}
		if err := in.Put(i, c); err != nil {
			return nil, err
		}
	}
	return in, nil
}

func (c *script) restore(d *DB, in *Incoming) (*Ledger, error) {
	h := in.Manifest.Height
	return d.Restore(context.Background(), Restoration{Snapshot: in, Blocks: c.proof(h), Tally: &tally{chain: c, at: h}})
}

// stands checks every key of a ledger whose beginning isn't kept.
func (c *script) stands(d *DB, l *Ledger, kept span, height uint64) error {
	f := c.folds[height]
	want := maps.Clone(f.pairs)
	for k := range want {
		switch key := []byte(k); {
		case key[0] == spaceChannel && key[1] == kindVerdict && binary.BigEndian.Uint64(key[2:]) < kept.blocks,
			key[0] == spaceState && key[1] == kindTouch && binary.BigEndian.Uint64(key[len(key)-16:]) < kept.history:
			delete(want, k)
		}
	}
	if err := (&fold{height: height, pairs: want}).holds(d, l); err != nil {
		return err
	}
	if l.sub.get().kept != kept {
		return fmt.Errorf("the lowest block is %d", l.Lowest())
	}
	for i, v := range c.all[:height] {
		n := uint64(i)
		raw, err := l.Block(n)
		if n >= kept.blocks || n == 0 || v.IsConfig() {
			if err != nil || !bytes.Equal(raw, v.Bytes()) {
				return fmt.Errorf("block %d: %w", n, err)
			}
		} else if err == nil {
			return fmt.Errorf("block %d is held", n)
		}
		for _, id := range v.TxIDs() {
			if id == "" {
				continue
			}
			if _, _, err := l.ByTxID(id); err != nil {
				return err
			}
		}
	}
	if want := (block.Tip{Height: height, Hash: c.all[height-1].Hash()}); l.Tip() != want {
		return fmt.Errorf("the tip is %v", l.Tip())
	}
	_, n, err := l.ConfigBlock()
	if err != nil || height > 21 && n != 21 || height <= 21 && n != 0 {
		return fmt.Errorf("configuration block %d: %w", n, err)
	}
	return nil
}

// leftovers counts the keys that belong to no channel.
func leftovers(t testing.TB, d *DB) int {
	n := countKeys(t, d, []byte{spaceChannel}, []byte{spaceState + 1})
	for _, name := range d.Channels() {
		l, err := d.Channel(name)
		require.NoError(t, err)
		lower, upper := channelSpan(l.record.number)
		n -= countKeys(t, d, lower, upper)
		lower, upper = stateSpan(l.record.number)
		n -= countKeys(t, d, lower, upper)
	}
	return n + countKeys(t, d, []byte{spaceNode, kindRestoring}, []byte{spaceNode, kindRestoring + 1})
}

// source is a store with a whole chain, judged up to a height.
func source(t testing.TB, fs vfs.FS, name string, height uint64) (*DB, *Ledger) {
	c := scripts()[name]
	d, err := Open("source", Options{fs: fs})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	l, err := d.Create(name, c.all[0])
	require.NoError(t, err)
	require.NoError(t, judged(l, &scribe{}))
	require.NoError(t, l.Append(c.all[1:height]...))
	return d, l
}

func TestSnapshotRestores(t *testing.T) {
	c := scripts()["small"]
	_, from := source(t, vfs.NewMem(), "small", 50)
	s, err := snapshotOf(from, SnapshotOptions{Algorithm: "scribe"})
	require.NoError(t, err)
	again, err := snapshotOf(from, SnapshotOptions{})
	require.NoError(t, err)
	require.Same(t, s, again, "made twice at one height")

	fs := vfs.NewMem()
	d, err := Open("ledger", Options{fs: fs})
	require.NoError(t, err)
	old, err := d.Create("small", c.all[0])
	require.NoError(t, err)
	in, err := carryOver(d, s)
	require.NoError(t, err)
	l, err := c.restore(d, in)
	require.NoError(t, err)
	require.ErrorIs(t, old.Append(c.all[1]), ErrNotFound)
	require.NoError(t, c.stands(d, l, span{49, 50}, 50))
	require.Zero(t, leftovers(t, d))

	t.Run("it goes on", func(t *testing.T) {
		l.Judge(&scribe{})
		require.NoError(t, l.Append(c.all[47:55]...)) // some of which aren't kept any more
		require.NoError(t, c.stands(d, l, span{49, 50}, 55))
	})
	t.Run("below is pruned", func(t *testing.T) {
		_, err := l.Block(30)
		require.ErrorIs(t, err, ErrPruned)
		require.ErrorIs(t, err, ErrNotFound)
		_, err = l.Verdict(30)
		require.ErrorIs(t, err, ErrPruned)
		for _, err := range l.Range(30, 55) {
			require.ErrorIs(t, err, ErrPruned)
		}
		require.ErrorIs(t, l.ForgetState(), ErrPruned)
	})
	t.Run("a snapshot of it is the source's", func(t *testing.T) {
		require.NoError(t, from.Append(c.all[50:55]...))
		a, err := snapshotOf(from, SnapshotOptions{Algorithm: "scribe"})
		require.NoError(t, err)
		b, err := snapshotOf(l, SnapshotOptions{Algorithm: "scribe"})
		require.NoError(t, err)
		require.Equal(t, a.Name, b.Name)
		require.Len(t, l.Snapshots(), 2, "the one that it was restored from is served")
	})
	t.Run("opened again", func(t *testing.T) {
		require.NoError(t, d.Close())
		d, err = Open("ledger", Options{fs: fs})
		require.NoError(t, err)
		l, err := d.Channel("small")
		require.NoError(t, err)
		require.NoError(t, l.Halted())
		require.NoError(t, c.stands(d, l, span{49, 50}, 55))
		require.Len(t, l.Snapshots(), 2)
		require.NoError(t, d.Drop("small"))
		require.Zero(t, leftovers(t, d))
		left, err := fs.List("ledger/" + snapshotsDir)
		require.NoError(t, err)
		require.Empty(t, left)
		require.NoError(t, d.Close())
	})
}

// TestSnapshotsAtHeights is that a snapshot is at its height exactly, however many
// blocks come in one commit, and that it costs the commits nothing.
func TestSnapshotsAtHeights(t *testing.T) {
	c := scripts()["small"]
	d, err := Open("ledger", Options{fs: vfs.NewMem()})
	require.NoError(t, err)
	l, err := d.Create("small", c.all[0])
	require.NoError(t, err)
	require.NoError(t, l.Append(c.all[1:30]...)) // to be judged later
	worlds := make(chan *World, 100)
	l.CutEvery(7, func(w *World) { worlds <- w })
	require.NoError(t, judged(l, &scribe{}))
	require.NoError(t, l.Append(c.all[30:]...))
	close(worlds)
	var at []uint64
	for w := range worlds {
		at = append(at, w.Height())
		s, err := w.Snapshot(context.Background(), SnapshotOptions{Keep: 3, Attest: func([32]byte) ([]byte, error) { return []byte("so it is"), nil }})
		require.NoError(t, err)
		require.Equal(t, w.Height(), s.Manifest.Height)
		require.Equal(t, [][]byte{[]byte("so it is")}, s.Attestations())
		require.NoError(t, w.Close())
	}
	require.Equal(t, []uint64{7, 14, 21, 28, 35, 42, 49, 56}, at)
	require.Len(t, l.Snapshots(), 3)
	_, other := source(t, vfs.NewMem(), "small", 49)
	s, err := snapshotOf(other, SnapshotOptions{})
	require.NoError(t, err)
	require.Equal(t, l.Snapshots()[1].Name, s.Name, "made of what was committed since")
	require.NoError(t, d.Close())
}

func TestPrune(t *testing.T) {
	c := scripts()["large"]
	fs := vfs.NewMem()
	d, err := Open("ledger", Options{fs: fs})
	require.NoError(t, err)
	l, err := d.Create("large", c.all[0])
	require.NoError(t, err)
	require.NoError(t, judged(l, &scribe{}))
	require.NoError(t, l.Append(c.all[1:40]...))
	require.NoError(t, l.Prune(context.Background(), 30))
	require.NoError(t, c.stands(d, l, span{30, 30}, 40))
	require.NoError(t, l.Append(c.all[40:50]...))
	_, whole := source(t, vfs.NewMem(), "large", 50)
	want, err := snapshotOf(whole, SnapshotOptions{})
	require.NoError(t, err)
	got, err := snapshotOf(l, SnapshotOptions{})
	require.NoError(t, err)
	require.Equal(t, want.Name, got.Name)
	require.NoError(t, l.Prune(context.Background(), 1<<40))
	require.Equal(t, uint64(49), l.Lowest())
	require.NoError(t, d.Close())
	d, err = Open("ledger", Options{fs: fs})
	require.NoError(t, err)
	l, err = d.Channel("large")
	require.NoError(t, err)
	require.NoError(t, l.Halted())
	require.Equal(t, uint64(49), l.Lowest())
	require.NoError(t, judged(l, &scribe{}))
	require.NoError(t, l.Append(c.all[50:]...))
	require.NoError(t, d.Close())
}

// TestHostileSnapshots is Y16 as far as the ledger meets it: nothing stays.
func TestHostileSnapshots(t *testing.T) {
	c := scripts()["small"]
	_, from := source(t, vfs.NewMem(), "small", 50)
	s, err := snapshotOf(from, SnapshotOptions{})
	require.NoError(t, err)
	good, err := s.Chunk(0)
	require.NoError(t, err)
	var all [][2][]byte
	require.NoError(t, pairs(good, func(k, v []byte) error { all = append(all, [2][]byte{k, v}); return nil }))
	blocks, err := s.Blocks()
	require.NoError(t, err)
	for what, change := range map[string]func(m *wire.SnapshotManifest, chunk []byte) []byte{
		"Y16 keys out of order": func(m *wire.SnapshotManifest, _ []byte) []byte {
			out := appendPair(nil, all[1][0], all[1][1])
			return appendPair(out, all[0][0], all[0][1])
		},
		"Y16 a key twice": func(*wire.SnapshotManifest, []byte) []byte {
			out := appendPair(nil, all[0][0], all[0][1])
			return appendPair(out, all[0][0], all[0][1])
		},
		"Y16 truncated within a pair": func(_ *wire.SnapshotManifest, c []byte) []byte { return c[:len(c)-1] },
		"Y16 a pair of another space": func(*wire.SnapshotManifest, []byte) []byte { return appendPair(nil, []byte("t"), nil) },
		"Y16 no key":                  func(*wire.SnapshotManifest, []byte) []byte { return appendPair(nil, nil, nil) },
		"Y16 an entry of a block to come": func(*wire.SnapshotManifest, []byte) []byte {
			return appendPair(nil, entryKey(0, Key{Namespace: "n", Key: "k"})[5:], marshalEntry(&Entry{Block: 50, Value: []byte("v")}))
		},
		"Y16 one entry left out": func(m *wire.SnapshotManifest, _ []byte) (out []byte) {
			m.Records--
			for i, kv := range all {
				if i > 0 && kv[0][0] == kindEntry && all[i-1][0][0] != kindEntry {
					continue
				}
				out = appendPair(out, kv[0], kv[1])
			}
			return out
		},
		"another state hash": func(m *wire.SnapshotManifest, c []byte) []byte {
			m.StateHash = bytes.Repeat([]byte{1}, 32)
			return c
		},
		"another tip":        func(m *wire.SnapshotManifest, c []byte) []byte { m.BlockHash = m.Genesis; return c },
		"another chain":      func(m *wire.SnapshotManifest, c []byte) []byte { m.Genesis = m.BlockHash; return c },
		"more records":       func(m *wire.SnapshotManifest, c []byte) []byte { m.Records++; return c },
		"fewer codes":        func(m *wire.SnapshotManifest, c []byte) []byte { m.Codes = nil; return c },
		"config of no block": func(m *wire.SnapshotManifest, c []byte) []byte { m.Config = 20; return c },
	} {
		t.Run(what, func(t *testing.T) {
			fs := vfs.NewMem()
			d, err := Open("ledger", Options{fs: fs})
			require.NoError(t, err)
			old, err := d.Create("small", c.all[0])
			require.NoError(t, err)
			m, err := ParseManifest(s.Raw)
			require.NoError(t, err)
			chunk := change(m, good)
			hash := sha256.Sum256(chunk)
			index := append(binary.BigEndian.AppendUint32(nil, uint32(len(chunk))), hash[:]...)
			root := wire.HashParts([]byte(wire.DomainChunks), index)
			m.Root, m.Bytes, m.Chunks = root[:], uint64(len(chunk)), 1
			raw, err := wire.Marshal(m)
			require.NoError(t, err)
			in, err := d.Receive("small", raw, index, blocks, nil)
			require.NoError(t, err)
			require.ErrorIs(t, in.Put(0, append([]byte{0}, chunk...)), ErrBadSnapshot)
			require.NoError(t, in.Put(0, chunk))
			_, err = c.restore(d, in)
			require.ErrorIs(t, err, ErrBadSnapshot)
			require.Zero(t, leftovers(t, d))
			left, err := fs.List(fs.PathJoin("ledger", snapshotsDir, snapshotFolder("small")))
			require.NoError(t, err)
			require.Empty(t, left)
			require.Equal(t, uint64(1), old.Height())
			require.NoError(t, old.Append(c.all[1]), "the ledger stays what it was")
			require.NoError(t, d.Close())
		})
	}
	t.Run("Y16 10⁶ files", func(t *testing.T) {
		m, err := ParseManifest(s.Raw)
		require.NoError(t, err)
		m.Chunks, m.Bytes, m.Records = MaxChunks+1, 1<<40, 1<<40
		raw, err := wire.Marshal(m)
		require.NoError(t, err)
		_, err = ParseManifest(raw)
		require.ErrorIs(t, err, ErrBadSnapshot)
	})
	t.Run("Y16 path traversal", func(t *testing.T) {
		require.Regexp(t, "^[0-9a-f]{32}$", snapshotFolder("../../etc/passwd"))
	})
}

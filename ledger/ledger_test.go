package ledger

import (
	"context"
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"grapevine/block"
)

// openMem opens a store on a file system in memory, closed with the test.
func openMem(tb testing.TB, fs vfs.FS) *DB {
	tb.Helper()
	d, err := Open("ledger", Options{fs: fs})
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, d.Close()) })
	return d
}

// fresh is a new store with one channel.
func fresh(t *testing.T, name string) (*DB, *Ledger, *chain) {
	c, genesis := newChain(t, name)
	d := openMem(t, vfs.NewMem())
	l, err := d.Create(name, genesis)
	require.NoError(t, err)
	return d, l, c
}

func TestAppendAndRead(t *testing.T) {
	fs := vfs.NewMem()
	c, genesis := newChain(t, "c1")
	d, err := Open("data/ledger", Options{fs: fs})
	require.NoError(t, err)
	l, err := d.Create("c1", genesis)
	require.NoError(t, err)
	require.Equal(t, uint64(1), l.Height())
	raw, n, err := l.ConfigBlock()
	require.NoError(t, err)
	require.Equal(t, uint64(0), n)
	require.Equal(t, genesis.Bytes(), raw)

	all := []block.Verified{genesis, c.next(10, "a", "b"), c.next(10, "c", ""), c.reconfigure(), c.next(5000, "a", "d")}
	require.NoError(t, l.Append(all[1]))
	require.NoError(t, l.Append(all[2:]...))
	require.NoError(t, l.Append())

	tip := c.tip
	check := func(l *Ledger) {
		require.Equal(t, tip, l.Tip())
		for i, b := range all {
			raw, err := l.Block(uint64(i))
			require.NoError(t, err)
			require.Equal(t, b.Bytes(), raw)
			n, err := l.ByHash(b.Hash())
			require.NoError(t, err)
			require.Equal(t, uint64(i), n)
		}
		_, err := l.Block(uint64(len(all)))
		require.ErrorIs(t, err, ErrNotFound)
		_, err = l.ByHash([32]byte{1})
		require.ErrorIs(t, err, ErrNotFound)
		for id, want := range map[string][2]int{"a": {1, 0}, "b": {1, 1}, "c": {2, 0}, "d": {4, 1}} {
			n, i, err := l.ByTxID(id)
			require.NoError(t, err)
			require.Equal(t, want, [2]int{int(n), i}, "the first place of %s", id)
		}
		for _, id := range []string{"", "e"} {
			_, _, err := l.ByTxID(id)
			require.ErrorIs(t, err, ErrNotFound)
		}
		raw, n, err := l.ConfigBlock()
		require.NoError(t, err)
		require.Equal(t, uint64(3), n)
		require.Equal(t, all[3].Bytes(), raw)
	}
	check(l)
	require.NoError(t, d.Close())
	require.NoError(t, d.Close())
	require.ErrorIs(t, l.Append(c.next(1, "z")), ErrClosed)
	_, err = l.Block(0)
	require.ErrorIs(t, err, ErrClosed)

	d, err = Open("data/ledger", Options{fs: fs})
	require.NoError(t, err)
	require.Equal(t, []string{"c1"}, d.Channels())
	l, err = d.Channel("c1")
	require.NoError(t, err)
	check(l)
	require.NoError(t, d.Close())
}

func TestAppendRefuses(t *testing.T) {
	t.Run("gap", func(t *testing.T) {
		_, l, c := fresh(t, "c")
		b1, b2 := c.next(1, "1"), c.next(1, "2")
		require.ErrorIs(t, l.Append(b2), ErrGap)
		require.ErrorIs(t, l.Append(b1, b1), ErrGap)
		require.ErrorIs(t, l.Append(b2, b1), ErrGap)
		require.Error(t, l.Append(block.Verified{}))
		require.Equal(t, uint64(1), l.Height(), "a refused batch leaves nothing")
		require.NoError(t, l.Append(b1, b2))
	})
	t.Run("held blocks are passed over", func(t *testing.T) {
		_, l, c := fresh(t, "c")
		bs := c.some(4, 10)
		require.NoError(t, l.Append(bs[:3]...))
		require.NoError(t, l.Append(bs[1]))
		require.NoError(t, l.Append(bs...))
		require.Equal(t, c.tip, l.Tip())
	})
	t.Run("fork at a held height halts", func(t *testing.T) {
		_, l, c := fresh(t, "c")
		other := c.fork()
		bs := c.some(2, 10)
		forked := other.some(1, 10)
		require.NoError(t, l.Append(bs...))
		require.ErrorIs(t, l.Append(forked...), ErrFork)
		err := l.Append(c.next(1, "x"))
		require.ErrorIs(t, err, ErrHalted)
		require.ErrorIs(t, err, ErrFork)
		raw, err := l.Block(1)
		require.NoError(t, err, "reads go on")
		require.Equal(t, bs[0].Bytes(), raw)
	})
	t.Run("a block of another branch doesn't link", func(t *testing.T) {
		_, l, c := fresh(t, "c")
		other := c.fork()
		require.NoError(t, l.Append(c.some(1, 10)...))
		require.ErrorIs(t, l.Append(other.some(2, 10)[1]), ErrGap)
	})
	t.Run("halted by its owner", func(t *testing.T) {
		d, l, c := fresh(t, "c")
		reason := errors.New("for a reason")
		require.NoError(t, l.Halted())
		l.Halt(reason)
		l.Halt(errors.New("for another"))
		require.ErrorIs(t, l.Halted(), reason)
		require.ErrorIs(t, l.Append(c.next(1, "x")), reason)
		require.NoError(t, d.PutMeta("k", []byte("other things go on")))
	})
}

func TestCreate(t *testing.T) {
	d, l, c := fresh(t, "c")
	_, genesis := newChain(t, "c")
	again, err := d.Create("c", genesis)
	require.NoError(t, err)
	require.Same(t, l, again)
	_, other := newChain(t, "other")
	_, err = d.Create("c", other)
	require.ErrorIs(t, err, ErrExists)
	_, err = d.Create("", genesis)
	require.Error(t, err)
	_, err = d.Create("x", block.Verified{})
	require.Error(t, err)
	_, err = d.Create("x", c.next(1, "1"))
	require.Error(t, err)
	_, err = d.Channel("x")
	require.ErrorIs(t, err, ErrNotFound)
}

func TestChannelsDontMeet(t *testing.T) {
	fs := vfs.NewMem()
	d := openMem(t, fs)
	one, g1 := newChain(t, "one")
	two, g2 := newChain(t, "two")
	l1, err := d.Create("one", g1)
	require.NoError(t, err)
	l2, err := d.Create("two", g2)
	require.NoError(t, err)
	require.NoError(t, l1.Append(one.some(3, 10)...))
	require.NoError(t, l2.Append(two.some(5, 10)...))
	require.Equal(t, one.tip, l1.Tip())
	require.Equal(t, two.tip, l2.Tip())
	_, err = l1.ByHash(two.tip.Hash)
	require.ErrorIs(t, err, ErrNotFound)
	_, _, err = l1.ByTxID("two-1")
	require.ErrorIs(t, err, ErrNotFound)
	n := 0
	for _, err := range l1.Range(0, 100) {
		require.NoError(t, err)
		n++
	}
	require.Equal(t, 4, n)
	require.Equal(t, []string{"one", "two"}, d.Channels())
}

func TestDrop(t *testing.T) {
	fs := vfs.NewMem()
	d := openMem(t, fs)
	c, genesis := newChain(t, "gone")
	other, g2 := newChain(t, "other")
	l, err := d.Create("gone", genesis)
	require.NoError(t, err)
	stays, err := d.Create("other", g2)
	require.NoError(t, err)
	require.NoError(t, l.Append(c.some(5, 100)...))
	require.NoError(t, stays.Append(other.some(5, 100)...))

	waiting := make(chan error)
	go func() { waiting <- l.Wait(context.Background(), 100) }()
	require.NoError(t, d.Drop("gone"))
	require.ErrorIs(t, <-waiting, ErrNotFound)
	require.ErrorIs(t, d.Drop("gone"), ErrNotFound)
	_, err = l.Block(0)
	require.ErrorIs(t, err, ErrNotFound)
	require.ErrorIs(t, l.Append(c.next(1, "x")), ErrNotFound)
	require.Equal(t, []string{"other"}, d.Channels())
	require.Equal(t, other.tip, stays.Tip())

	// The same name again is a new channel, without the old one's blocks.
	c, genesis = newChain(t, "gone")
	l, err = d.Create("gone", genesis)
	require.NoError(t, err)
	_, _, err = l.ByTxID("gone-1")
	require.ErrorIs(t, err, ErrNotFound)
	require.NoError(t, l.Append(c.some(2, 10)...))
	require.Equal(t, c.tip, l.Tip())
	lower, upper := channelSpan(1)
	require.Zero(t, countKeys(t, d, lower, upper))
}

func TestMeta(t *testing.T) {
	fs := vfs.NewMem()
	d, err := Open("ledger", Options{fs: fs})
	require.NoError(t, err)
	_, err = d.Meta("incarnation")
	require.ErrorIs(t, err, ErrNotFound)
	require.NoError(t, d.PutMeta("incarnation", []byte("7")))
	require.NoError(t, d.PutMeta("incarnation", []byte("8")))
	require.NoError(t, d.Close())
	require.ErrorIs(t, d.PutMeta("incarnation", nil), ErrClosed)
	_, err = d.Meta("incarnation")
	require.ErrorIs(t, err, ErrClosed)
	d = openMem(t, fs)
	v, err := d.Meta("incarnation")
	require.NoError(t, err)
	require.Equal(t, "8", string(v))
}

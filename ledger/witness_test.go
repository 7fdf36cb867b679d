package ledger

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

func TestWitness(t *testing.T) {
	fs := vfs.NewMem()
	c, genesis := newChain(t, "c")
	d, err := Open("ledger", Options{fs: fs})
	require.NoError(t, err)
	l, err := d.Create("c", genesis)
	require.NoError(t, err)
	require.NoError(t, l.Append(c.some(3, 10)...))
	_, other := newChain(t, "other")
	_, err = d.Create("other", other)
	require.NoError(t, err)
	require.NoError(t, d.Drop("other"))
	require.NoError(t, d.Close())

	reopen := func(change func(w *witness)) (*DB, error) {
		g := newGate(fs, silent{}, nil)
		w, _, err := openWitness(g, "ledger", silent{})
		require.NoError(t, err)
		change(w)
		require.NoError(t, w.close())
		return Open("ledger", Options{fs: fs})
	}
	halted := func(d *DB, err error) error {
		require.NoError(t, err)
		l, err := d.Channel("c")
		require.NoError(t, err)
		require.Equal(t, uint64(4), l.Height())
		defer func() { require.NoError(t, d.Close()) }()
		return l.Halted()
	}
	require.NoError(t, halted(reopen(func(*witness) {})))
	require.NoError(t, halted(reopen(func(w *witness) { w.see(1, 3) })), "a store may be ahead")
	require.ErrorIs(t, halted(reopen(func(w *witness) { w.see(1, 5) })), ErrCorrupt, "but not behind")
	require.NoError(t, halted(reopen(func(w *witness) {
		w.see(1, 4)
		w.see(2, 1)
	})), "a dropped channel isn't lost")
	_, err = reopen(func(w *witness) { w.see(3, 9) })
	require.ErrorIs(t, err, ErrCorrupt, "another is")
	require.ErrorContains(t, err, witnessName)
	require.NoError(t, fs.Remove("ledger/"+witnessName))
	require.NoError(t, halted(reopen(func(*witness) {})))
}

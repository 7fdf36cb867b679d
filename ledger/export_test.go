package ledger

import (
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/stretchr/testify/require"
)

// countKeys counts the keys in [lower, upper).
func countKeys(tb testing.TB, d *DB, lower, upper []byte) int {
	it, err := d.pebble.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	require.NoError(tb, err)
	n := 0
	for ok := it.First(); ok; ok = it.Next() {
		n++
	}
	require.NoError(tb, it.Close())
	return n
}

// flush writes what is in memory to its place on the disk.
func flush(tb testing.TB, d *DB) { require.NoError(tb, d.pebble.Flush()) }

package ledger

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// A store whose disk was full or failed, or whose files are damaged, is left to
// the end of the process: these of Pebble's goroutines stay behind. What a store
// in good order leaves behind, TestNothingLeft says: nothing.
func TestMain(m *testing.M) {
	const pebble = "github.com/cockroachdb/pebble/v2"
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("grapevine/ledger.(*gate).park"),
		goleak.IgnoreAnyFunction("grapevine/ledger.(*DB).Close.func1"),
		goleak.IgnoreAnyFunction(pebble+".(*DB).Apply"),
		goleak.IgnoreAnyFunction(pebble+".(*cleanupManager).mainLoop"),
		goleak.IgnoreAnyFunction(pebble+".(*DB).collectTableStats"),
		goleak.IgnoreAnyFunction(pebble+".(*ConcurrencyLimitScheduler).periodicGranter"),
		goleak.IgnoreAnyFunction(pebble+"/internal/genericcache.(*shard[...]).releaseLoop"),
		goleak.IgnoreAnyFunction(pebble+"/record.(*LogWriter).flushLoop"),
	)
}

func TestNothingLeft(t *testing.T) {
	before := goleak.IgnoreCurrent()
	c, genesis := newChain(t, "c")
	d, err := Open("ledger", Options{fs: vfs.NewMem()})
	require.NoError(t, err)
	l, err := d.Create("c", genesis)
	require.NoError(t, err)
	require.NoError(t, l.Append(c.some(20, 100_000)...))
	flush(t, d)
	require.NoError(t, d.Drop("c"))
	require.NoError(t, d.Close())
	goleak.VerifyNone(t, before)
}

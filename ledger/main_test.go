package ledger

import (
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// Goroutines of a store whose disk failed stay parked by design.
		goleak.IgnoreAnyFunction("grapevine/ledger.(*gate).park"),
		goleak.IgnoreAnyFunction("github.com/cockroachdb/pebble/v2.(*DB).Apply"),
		goleak.IgnoreAnyFunction("github.com/cockroachdb/pebble/v2.(*cleanupManager).mainLoop"),
	)
}

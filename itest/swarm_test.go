package itest

import (
	"context"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// TestMain fails for goroutines that are left; libp2p counts bandwidth in one of
// the process.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/libp2p/go-flow-metrics.(*sweeper).run"))
}

// testLog speaks with -v and GRAPEVINE_LOG set.
func testLog() *slog.Logger {
	if os.Getenv("GRAPEVINE_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// loopback is [Loopback] for a test.
func loopback(t testing.TB, n int) (listen func(i int) []string, endpoint func(i int) string) {
	listen, endpoint, err := Loopback(n)
	require.NoError(t, err)
	return listen, endpoint
}

// patience bounds a wait on the real clock; nothing ever sleeps it out.
func patience(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestBlocksReachEveryLedger(t *testing.T) {
	listen, endpoint := loopback(t, 6)
	w, err := NewWorld(3, endpoint(0), endpoint(1), endpoint(2))
	require.NoError(t, err)
	s, err := NewSwarm(w, SwarmConfig{Dir: t.TempDir(), Peers: 2, Listen: listen, Endpoint: endpoint, Log: testLog()})
	require.NoError(t, err)
	ctx := patience(t)
	require.NoError(t, s.StartAll(ctx))
	defer func() { require.NoError(t, s.StopAll()) }()
	for i := range 20 {
		_, err := w.Order(100 << (i % 12))
		require.NoError(t, err)
	}
	require.NoError(t, s.Await(ctx, w.Height()))
	require.NoError(t, s.Same())
}

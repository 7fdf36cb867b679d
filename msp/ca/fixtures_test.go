package ca_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// fixtures returns the folder of the recorded Raft network, or skips.
func fixtures(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("GRAPEVINE_FIXTURES")
	if dir == "" {
		shared := filepath.Join("..", "..", "..", "shared")
		if _, err := os.Stat(shared); err != nil {
			t.Skip("no recorded Fabric networks: set GRAPEVINE_FIXTURES")
		}
		dir = filepath.Join(shared, "fixtures")
	}
	dir = filepath.Join(dir, "fabric", "raft")
	_, err := os.Stat(dir)
	require.NoError(t, err, "the recorded networks are incomplete")
	return dir
}

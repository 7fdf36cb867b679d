package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// A ledger that is whole is told so; flipped bits are found, and what follows from
// the blocks is made good without a node; a store that can't be opened begins anew.
func TestLedgerUpkeepOffline(t *testing.T) {
	dir := t.TempDir()
	play{}.object(t, 0, "ledger", "import", "--genesis", fixtures(t, "raft", "genesis.block"), "--blocks", fixtures(t, "raft", "blocks"), "--data", dir)
	v := play{}.object(t, 0, "ledger", "verify", "mychannel", "--data", dir)
	require.Equal(t, "LedgerChecks", v["kind"])
	require.Equal(t, true, v["ok"])
	item := v["items"].([]any)[0].(map[string]any)
	require.ElementsMatch(t, []string{
		"channel", "ok", "height", "blocks", "entries", "bytes", "stateHash", "damage", "findings", "failures", "repaired", "elapsedSec",
	}, keys(item))
	require.Equal(t, 31.0, item["blocks"])
	require.Positive(t, item["entries"])
	hash := item["stateHash"]

	v = play{}.object(t, 0, "ledger", "rebuild-state", "--data", dir)
	require.Equal(t, "LedgerRebuild", v["kind"])
	require.Equal(t, true, v["items"].([]any)[0].(map[string]any)["same"])

	spoil := func(pattern string) {
		files, err := filepath.Glob(filepath.Join(dir, "ledger", pattern))
		require.NoError(t, err)
		require.NotEmpty(t, files)
		for _, f := range files {
			b, err := os.ReadFile(f)
			require.NoError(t, err)
			for at := len(b) / 3; at < len(b); at += 900 {
				b[at] ^= 1
			}
			require.NoError(t, os.WriteFile(f, b, 0o600))
		}
	}
	spoil("*.blob") // blocks lie there
	v = play{}.object(t, 6, "ledger", "verify", "--data", dir)
	require.Equal(t, false, v["ok"])
	item = v["items"].([]any)[0].(map[string]any)
	require.NotEmpty(t, item["damage"].(map[string]any)["blocks"])
	require.NotEmpty(t, item["findings"])
	require.Equal(t, hash, item["stateHash"])
	play{}.object(t, 6, "ledger", "scrub", "--data", dir) // blocks must come from elsewhere

	spoil("MANIFEST-*")
	play{}.fails(t, 1, "STA013", "ledger", "verify", "--data", dir)
	v = play{}.object(t, 0, "ledger", "scrub", "--data", dir)
	require.Equal(t, 1.0, v["items"].([]any)[0].(map[string]any)["height"])
	require.DirExists(t, filepath.Join(dir, "ledger", "damaged-1"))
}

// upkeep has nodes of the running network read their ledgers through and make their
// world state anew; nothing is ordered meanwhile.
func (m *machine) upkeep(t *testing.T, height float64, stateHash any) {
	t.Helper()
	for _, args := range [][]string{{"ledger", "verify", "mychannel"}, {"ledger", "scrub"}, {"state", "repair", "mychannel"}, {"ledger", "verify", "--target", "orderer0"}} {
		v := m.object(t, 0, args...)
		require.Equal(t, "LedgerChecks", v["kind"], args)
		require.Equal(t, true, v["ok"], args)
		item := of(v, "items")[0]
		require.Equal(t, height, item["height"], args)
		require.Equal(t, height, item["blocks"], args)
		if len(args) < 4 {
			require.Equal(t, stateHash, item["stateHash"], args)
		}
	}
	v := m.object(t, 0, "ledger", "rebuild-state", "mychannel")
	require.Equal(t, "LedgerRebuild", v["kind"])
	item := of(v, "items")[0]
	require.Equal(t, true, item["same"])
	require.Equal(t, height, item["height"])
	require.Equal(t, stateHash, item["stateHash"])
	m.refused(t, 1, "STA003", "ledger", "rebuild-state", "mychannel", "--target", "orderer0")
	m.refused(t, 1, "API007", "ledger", "verify", "other")
}

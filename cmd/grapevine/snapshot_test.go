package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// snapshots makes, lists, exports, checks and imports a snapshot of the running
// network, and lets a peer that has lost everything come by it. genesis.block is
// there; nothing is ordered meanwhile.
func (m *machine) snapshots(t *testing.T, height float64, stateHash, tip any) {
	t.Helper()
	m.refused(t, 1, "STA023", "snapshot", "export", "mychannel", "none.snapshot", "--target", "peer1.org1")
	m.refused(t, 1, "STA003", "snapshot", "create", "mychannel", "--target", "orderer0")
	made := m.object(t, 0, "snapshot", "create", "mychannel")
	require.ElementsMatch(t, []string{
		"apiVersion", "kind", "channel", "height", "tipHash", "commitHash", "stateHash", "algorithm", "name", "records", "bytes", "chunks", "attestedBy",
	}, keys(made))
	require.Equal(t, height, made["height"])
	require.Equal(t, stateHash, made["stateHash"])
	require.Equal(t, []any{"Org1MSP"}, made["attestedBy"])
	require.Equal(t, made["name"], m.object(t, 0, "snapshot", "create", "mychannel", "--target", "peer0.org2")["name"], "peers make other snapshots")

	export := m.object(t, 0, "snapshot", "export", "mychannel", "net.snapshot")
	require.Len(t, export["snapshot"].(map[string]any)["attestedBy"], 2)
	list := m.object(t, 0, "snapshot", "ls", "mychannel")
	require.Equal(t, made["name"], of(list, "items")[0]["name"])
	require.Len(t, of(list, "items")[0]["attestedBy"], 2, "the other's attestation is kept")

	verify := []string{"snapshot", "verify", "mychannel", "net.snapshot", "--genesis", "genesis.block"}
	v := m.object(t, 0, verify...)
	require.Equal(t, true, v["ok"])
	require.Equal(t, 2.0, v["needed"])
	v = m.object(t, 6, append(verify, "--attested", "3")...)
	require.Equal(t, "STA022", v["code"])
	raw, err := os.ReadFile(filepath.Join(m.root, "net.snapshot"))
	require.NoError(t, err)
	raw[len(raw)-10] ^= 1
	require.NoError(t, os.WriteFile(filepath.Join(m.root, "bad.snapshot"), raw, 0o600))
	v = m.object(t, 6, "snapshot", "verify", "mychannel", "bad.snapshot", "--genesis", "genesis.block")
	require.Equal(t, "ledger.bad_snapshot", v["code"])
	m.refused(t, 6, "STA021", "snapshot", "import", "mychannel", "bad.snapshot", "--genesis", "genesis.block", "--data", "restored")
	m.refused(t, 2, "API001", "snapshot", "verify", "mychannel", "net.snapshot")

	in := m.object(t, 0, "snapshot", "import", "mychannel", "net.snapshot", "--genesis", "genesis.block", "--data", "restored")
	require.ElementsMatch(t, []string{"apiVersion", "kind", "snapshot", "file", "dir"}, keys(in))
	require.Equal(t, stateHash, m.object(t, 0, "state", "hash", "mychannel", "--data", "restored")["stateHash"])
	require.Equal(t, tip, m.object(t, 0, "channel", "info", "mychannel", "--data", "restored")["tipHash"])
	require.Equal(t, height-1, m.object(t, 0, "snapshot", "ls", "mychannel", "--data", "restored")["lowest"])
	m.refused(t, 1, "STA020", "block", "get", "mychannel", "1", "--data", "restored")
	m.object(t, 0, "block", "get", "mychannel", "newest", "--data", "restored")
	m.object(t, 0, "block", "get", "mychannel", "0", "--data", "restored")

	// A peer that lost all comes by it.
	const peer = "peer1.org2"
	m.object(t, 0, "channel", "leave", "mychannel", "--purge", "--yes", "--target", peer)
	m.refused(t, 2, "API001", "channel", "join", "mychannel", "--block", "genesis.block", "--sync", "quick", "--target", peer)
	m.object(t, 0, "channel", "join", "mychannel", "--block", "genesis.block", "--sync", "snapshot", "--wait", "--target", peer)
	require.Equal(t, height-1, m.object(t, 0, "snapshot", "ls", "mychannel", "--target", peer)["lowest"])
	require.Equal(t, stateHash, m.object(t, 0, "state", "hash", "mychannel", "--target", peer)["stateHash"])
	require.Equal(t, "genesis", m.object(t, 0, "state", "status", "mychannel", "--target", peer)["snapshot"].(map[string]any)["mode"])
	m.refused(t, 1, "STA020", "block", "get", "mychannel", "1", "--target", peer)
	m.refused(t, 1, "STA020", "ledger", "rebuild-state", "mychannel", "--target", peer)
	m.refused(t, 1, "STA020", "ledger", "rebuild-state", "mychannel", "--data", "restored")
	require.Equal(t, stateHash, m.object(t, 0, "ledger", "scrub", "mychannel", "--target", peer)["items"].([]any)[0].(map[string]any)["stateHash"])
}

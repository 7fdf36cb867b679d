package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var checkFields = []string{"apiVersion", "kind", "ok", "strict", "files", "errors", "warnings", "findings"}

func TestConfigCheck(t *testing.T) {
	dir := t.TempDir()
	p := play{dir: dir}
	v := p.object(t, 0, "config", "check")
	require.ElementsMatch(t, checkFields, keys(v))
	require.Equal(t, true, v["ok"])
	require.Empty(t, v["files"])

	f := write(t, dir, "bad.yaml", []byte("peer:\n  gossip:\n    orgLeader: true\n    useLeaderElection: true\n    externalEndpoint: p:7051\n"))
	v = p.object(t, 3, "config", "check", "bad.yaml")
	require.Equal(t, false, v["ok"])
	require.Equal(t, []any{f}, v["files"])
	require.Equal(t, 1.0, v["errors"])
	require.Equal(t, 0.0, v["warnings"])
	finding := v["findings"].([]any)[0].(map[string]any)
	require.ElementsMatch(t, []string{"code", "severity", "message", "fix", "key", "value", "why", "suggestion", "source"}, keys(finding))
	require.Equal(t, "CFG012", finding["code"])
	require.Equal(t, "error", finding["severity"])
	require.Equal(t, map[string]any{"kind": "file", "name": f, "line": 4.0}, finding["source"])

	r := p.run("config", "check", "bad.yaml")
	require.Equal(t, 3, r.code)
	require.Contains(t, r.out, "error CFG012: peer.gossip.useLeaderElection and peer.gossip.orgLeader are both true\n  why:  useLeaderElection = true  from bad.yaml:4\n        orgLeader         = true  from bad.yaml:3\n")
	require.Empty(t, r.err)

	v = play{dir: dir, env: []string{"CORE_PEER_GOSSIP_BOOTSTAP=a:1"}}.object(t, 0, "config", "check")
	finding = v["findings"].([]any)[0].(map[string]any)
	require.Equal(t, "CFG003", finding["code"])
	require.Equal(t, "CORE_PEER_GOSSIP_BOOTSTRAP", finding["suggestion"])
	require.Equal(t, map[string]any{"kind": "env", "name": "CORE_PEER_GOSSIP_BOOTSTAP", "line": 0.0}, finding["source"])
	v = play{dir: dir, env: []string{"CORE_PEER_GOSSIP_BOOTSTAP=a:1"}}.object(t, 3, "config", "check", "--strict")
	require.Equal(t, true, v["strict"])
	require.Equal(t, false, v["ok"])

	v = p.object(t, 3, "config", "check", "absent.yaml")
	require.Equal(t, "CFG001", v["findings"].([]any)[0].(map[string]any)["code"])
	require.Equal(t, 3, p.run("config", "check", "--config", "bad.yaml").code)
}

func TestConfigCheckOfSamples(t *testing.T) {
	for _, f := range []string{"core.yaml", "orderer.yaml"} {
		v := play{}.object(t, 0, "config", "check", filepath.Join("conf", "testdata", f))
		require.Equal(t, true, v["ok"], f)
		for _, x := range v["findings"].([]any) {
			require.NotEqual(t, "CFG003", x.(map[string]any)["code"])
		}
	}
}

func TestConfigShow(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "core.yaml", []byte(strings.Repeat("#\n", 10)+"peer:\n  gossip:\n    propagatePeerNum: 3\n    election: {leaderAliveThreshold: 10s}\n"))
	p := play{dir: dir, env: []string{"CORE_PEER_GOSSIP_BOOTSTRAP=peer0.org1:7051 peer1.org1:7051", "CORE_PEER_GOSSIP_BOOTSTAP=x"}}
	r := p.run("config", "show", "--sources", "peer.gossip")
	require.Equal(t, 0, r.code)
	line := func(key string) string {
		for _, l := range strings.Split(r.out, "\n") {
			if strings.HasPrefix(l, key+" ") {
				return strings.Join(strings.Fields(l), " ")
			}
		}
		return ""
	}
	require.Equal(t, "peer.gossip.bootstrap [peer0.org1:7051 peer1.org1:7051] env CORE_PEER_GOSSIP_BOOTSTRAP", line("peer.gossip.bootstrap"))
	require.Equal(t, "peer.gossip.election.leaderAliveThreshold 10s core.yaml:14", line("peer.gossip.election.leaderAliveThreshold"))
	require.Equal(t, "peer.gossip.propagatePeerNum 3 → mesh degree 3 core.yaml:13", line("peer.gossip.propagatePeerNum"))
	require.Contains(t, r.err, "warning CFG003: unknown env CORE_PEER_GOSSIP_BOOTSTAP (did you mean CORE_PEER_GOSSIP_BOOTSTRAP?)\n")
	v := p.object(t, 0, "config", "show", "PEER.Gossip.Bootstrap")
	require.Len(t, v["items"], 1)
	e := p.fails(t, 1, "CFG003", "config", "show", "peer.gosip")
	require.Contains(t, e.err, "there is no key")
}

func TestConfigExplain(t *testing.T) {
	v := play{}.object(t, 0, "config", "explain", "CORE_PEER_GOSSIP_ORGLEADER")
	require.Equal(t, "peer.gossip.orgLeader", v["key"])
	require.Equal(t, "false", v["default"])
	require.Equal(t, "true", v["fabricDefault"])
	require.Equal(t, "honoured", v["treatment"])
	e := play{}.fails(t, 1, "CFG003", "config", "explain", "peer.gossip.orgLeadr")
	require.Contains(t, e.err, "peer.gossip.orgLeader")
}

func TestVersion(t *testing.T) {
	v := play{}.object(t, 0, "version")
	require.ElementsMatch(t, []string{"apiVersion", "kind", "version", "commit", "go", "libp2p"}, keys(v))
	require.Equal(t, "Version", v["kind"])
}

func TestCompletion(t *testing.T) {
	for _, s := range []string{"bash", "zsh", "fish", "powershell"} {
		r := play{}.run("completion", s)
		require.Equal(t, 0, r.code)
		require.Contains(t, r.out, "grapevine")
	}
}

func TestKeysAreCompleted(t *testing.T) {
	r := play{}.run("__complete", "config", "explain", "peer.gossip.b")
	require.Contains(t, r.out, "peer.gossip.bootstrap")
	require.Contains(t, r.out, "General.ListenPort")
}

func TestCF12FolderWithoutCACerts(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "signcerts"), 0o755))
	r := play{}.fails(t, 4, "MSP001", "msp", "inspect", dir)
	require.Contains(t, r.err, dir)
	play{}.fails(t, 4, "MSP001", "msp", "verify", filepath.Join(dir, "absent"))
}

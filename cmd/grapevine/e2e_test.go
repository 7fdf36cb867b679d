package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A machine runs the program as it is built, with folders of its own.
type machine struct {
	bin, root string
	env       []string
}

// newMachine builds the program.
func newMachine(t *testing.T) *machine {
	if testing.Short() {
		t.Skip("it builds the program and runs processes")
	}
	root := t.TempDir()
	m := &machine{bin: filepath.Join(root, "grapevine"), root: root}
	m.env = append(os.Environ(), "XDG_CONFIG_HOME="+filepath.Join(root, "config"), "XDG_DATA_HOME="+filepath.Join(root, "data"))
	build := exec.Command("go", "build", "-o", m.bin, ".")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return m
}

// command prepares a run; it is killed when it takes longer than anything should.
func (m *machine) command(t *testing.T, args ...string) (*exec.Cmd, *bytes.Buffer, *bytes.Buffer) {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Second)
	t.Cleanup(cancel)
	c := exec.CommandContext(ctx, m.bin, args...)
	var out, errs bytes.Buffer
	c.Dir, c.Env, c.Stdout, c.Stderr = m.root, m.env, &out, &errs
	c.WaitDelay = time.Second
	return c, &out, &errs
}

func (m *machine) run(t *testing.T, exit int, args ...string) string {
	t.Helper()
	c, out, errs := m.command(t, args...)
	err := c.Run()
	require.NotNil(t, c.ProcessState, "%v", err)
	require.Equal(t, exit, c.ProcessState.ExitCode(), "%v: %s%s", args, out, errs)
	return out.String()
}

// object runs with -o json and decodes what came.
func (m *machine) object(t *testing.T, exit int, args ...string) map[string]any {
	t.Helper()
	var v map[string]any
	require.NoError(t, json.Unmarshal([]byte(m.run(t, exit, append(args, "-o", "json")...)), &v), "%v", args)
	noNull(t, v)
	return v
}

var (
	devStatusKeys = []string{"apiVersion", "kind", "ready", "dashboard", "channels", "orderers", "peers"}
	devPeerKeys   = []string{"name", "org", "mspId", "peerId", "pkiId", "pid", "state", "leader", "anchor", "channel", "height", "tipHash", "stateHash", "members"}
	statusKeys    = []string{
		"apiVersion", "kind", "name", "org", "mspId", "peerId", "pkiId", "role", "pid", "version", "startedAt", "uptimeSec", "healthy", "problems",
		"listen", "operations", "channels", "certificates",
	}
)

func of(v map[string]any, list string) (out []map[string]any) {
	for _, x := range v[list].([]any) {
		out = append(out, x.(map[string]any))
	}
	return out
}

// The whole way: a network of real processes is made, takes transactions while
// a peer is killed, and ends with equal ledgers, all told as scripts rely on it.
func TestDevNetwork(t *testing.T) {
	m := newMachine(t)
	shape := []string{"--orgs", "2", "--peers", "2"}
	m.refused(t, 5, "DEV001", "dev", "status")
	t.Cleanup(func() {
		c, out, errs := m.command(t, "dev", "down")
		if err := c.Run(); err != nil && c.ProcessState.ExitCode() != 5 {
			t.Errorf("dev down: %v: %s%s", err, out, errs)
		}
	})

	up := m.object(t, 0, append([]string{"dev", "up", "--detach"}, shape...)...)
	require.ElementsMatch(t, append([]string{"dir", "context", "inProcess", "elapsedMs", "steps", "next"}, devStatusKeys...), keys(up))
	require.Equal(t, true, up["ready"])
	require.Equal(t, "dev", up["context"])
	require.Equal(t, filepath.Join(m.root, "data", "grapevine", "dev"), up["dir"])
	require.Len(t, up["peers"], 4)
	again := m.object(t, 0, append([]string{"dev", "up", "--detach"}, shape...)...)
	require.Equal(t, of(up, "peers")[0]["pid"], of(again, "peers")[0]["pid"], "nothing was started again")
	m.refused(t, 1, "DEV003", "dev", "up", "--detach")
	m.refused(t, 2, "DEV006", "dev", "up", "--orderers", "8", "--dir", "other")

	tx := m.object(t, 0, "dev", "tx", "--count", "20", "--size", "64")
	require.ElementsMatch(t, []string{"apiVersion", "kind", "channel", "sent", "accepted", "committed", "failed", "firstBlock", "lastBlock", "elapsedMs", "txPerSec", "latencyMs"}, keys(tx))
	require.Equal(t, 20.0, tx["committed"])
	require.ElementsMatch(t, []string{"p50", "p99", "max"}, keys(tx["latencyMs"].(map[string]any)))

	testPeerVerbs(t, m)
	testLeaderVerbs(t, m)
	m.run(t, 0, "dev", "kill", "peer1.org2")
	m.refused(t, 1, "DEV011", "dev", "kill", "peer1.org2")
	m.refused(t, 5, "NET001", "status", "--target", "peer1.org2")
	require.Equal(t, 5.0, m.object(t, 0, "dev", "tx", "--count", "5")["committed"], "those that live have them")
	m.refused(t, 5, "NET001", "peers", "ping", "peer1.org2")
	for state := ""; state != "dead"; {
		state = of(m.object(t, 0, "channel", "members", "mychannel"), "items")[3]["state"].(string)
	}
	require.Equal(t, "peer1.org2\n", m.run(t, 0, "peers", "ls", "--state", "dead", "-o", "name"))
	dead := of(m.object(t, 0, "dev", "status"), "peers")[3]
	require.Equal(t, "dead", dead["state"])
	require.Equal(t, 0.0, dead["pid"])
	require.NotEmpty(t, dead["tipHash"], "as last seen")

	m.run(t, 0, "dev", "pause", "peer1.org1")
	require.Equal(t, "stopped", of(m.object(t, 0, "dev", "status"), "peers")[1]["state"])
	m.run(t, 0, "dev", "resume", "peer1.org1")
	m.run(t, 0, "dev", "restart", "peer1.org2")
	require.Equal(t, 3.0, m.object(t, 0, "dev", "tx", "--count", "3")["committed"], "by all: the one that came back caught up")

	s := m.object(t, 0, "dev", "status", "--wait", "30s")
	require.ElementsMatch(t, devStatusKeys, keys(s))
	peers := of(s, "peers")
	for _, p := range peers {
		require.ElementsMatch(t, devPeerKeys, keys(p))
		require.Equal(t, "alive", p["state"])
		require.Equal(t, peers[0]["tipHash"], p["tipHash"])
		require.Len(t, p["stateHash"], 64)
		require.Equal(t, peers[0]["stateHash"], p["stateHash"])
		require.Equal(t, peers[0]["height"], p["height"])
	}
	m.speaks(t, peers[0])
	m.reconfigures(t)

	m.run(t, 0, "dev", "down")
	m.run(t, 0, "dev", "down")
	m.refused(t, 2, "API001", "dev", "clean")
	m.run(t, 0, "dev", "clean", "--yes")
	require.NoDirExists(t, up["dir"].(string))
	m.refused(t, 5, "DEV001", "status", "--target", "peer0.org1")
}

// speaks tries the verbs that ask a node.
func (m *machine) speaks(t *testing.T, first map[string]any) {
	t.Helper()
	s := m.object(t, 0, "status")
	require.ElementsMatch(t, statusKeys, keys(s))
	require.Equal(t, "peer0.org1", s["name"], "the development network's first peer")
	ch := of(s, "channels")[0]
	require.ElementsMatch(t, []string{"name", "height", "lag", "tipHash", "leader", "isLeader", "source", "alive", "suspect", "dead", "validity", "stateHash", "progress"}, keys(ch))
	require.Equal(t, "own", ch["validity"])
	require.Equal(t, first["stateHash"], ch["stateHash"])
	require.Equal(t, first["tipHash"], ch["tipHash"])
	require.ElementsMatch(t, []string{"use", "subject", "issuer", "notAfter", "expiresInSec"}, keys(of(s, "certificates")[0]))
	require.Len(t, s["certificates"], 2)

	require.Equal(t, "mychannel\n", m.run(t, 0, "channel", "ls", "-o", "name"))
	require.Equal(t, "mychannel\n:4\n", m.run(t, 0, "__complete", "channel", "info", ""))
	info := m.object(t, 0, "channel", "info", "mychannel", "--target", "orderer0")
	require.Equal(t, first["tipHash"], info["tipHash"])
	require.Equal(t, 2.0, of(m.object(t, 0, "channel", "info", "mychannel"), "orgs")[0]["alive"])
	require.Contains(t, m.run(t, 0, "channel", "config", "mychannel"), `"channel_group"`)
	transfer := m.object(t, 0, "state", "status", "mychannel")
	require.ElementsMatch(t, []string{"channel", "height", "target", "lag", "paused", "progress", "snapshot", "buffer", "gaps", "requests", "sources", "apiVersion", "kind"}, keys(transfer))
	require.Equal(t, first["height"], transfer["height"])
	require.Empty(t, transfer["gaps"])
	require.Len(t, transfer["sources"], 3)
	require.Equal(t, true, m.object(t, 0, "state", "sync", "mychannel")["done"])
	m.refused(t, 1, "API007", "state", "status", "other")
	m.refused(t, 1, "API008", "state", "sync", "mychannel", "--target", "orderer0")
	newest := m.object(t, 0, "block", "get", "mychannel", "newest")
	require.Equal(t, first["tipHash"], newest["hash"])
	for _, x := range of(newest, "txs") {
		require.Equal(t, "VALID", x["validity"])
	}
	require.Equal(t, first["stateHash"], m.object(t, 0, "state", "hash", "mychannel")["stateHash"])
	m.refused(t, 1, "STA001", "state", "get", "mychannel", "nothing", "--namespace", "kv")
	m.refused(t, 1, "STA003", "state", "hash", "mychannel", "--target", "orderer0")
	require.Contains(t, m.run(t, 0, "state", "dump", "mychannel", "--namespace", "kv", "-o", "json"), `"kind":"StateEntry"`)

	m.run(t, 0, "block", "get", "mychannel", "0", "--raw", "genesis.block")
	export := m.object(t, 0, "block", "export", "mychannel", "oldest..newest", "chain.blocks")
	require.ElementsMatch(t, []string{"apiVersion", "kind", "channel", "file", "blocks", "size"}, keys(export))
	require.Equal(t, first["height"], export["blocks"])
	for _, args := range [][]string{{"mychannel"}, {"mychannel", "1..newest"}, {"mychannel", "2"}, {"--genesis", "genesis.block", "--blocks", "chain.blocks"}} {
		require.Equal(t, true, m.object(t, 0, append([]string{"block", "verify"}, args...)...)["ok"])
	}
	require.Equal(t, first["tipHash"], m.object(t, 0, "ledger", "import", "--genesis", "genesis.block", "--blocks", "chain.blocks", "--data", "copy")["tipHash"])
	require.Equal(t, info["genesisHash"], m.object(t, 0, "channel", "info", "mychannel", "--data", "copy")["genesisHash"])

	m.upkeep(t, first["height"].(float64), first["stateHash"])
	m.snapshots(t, first["height"].(float64), first["stateHash"], first["tipHash"])

	// Joining is idempotent; leaving asks, and keeps the blocks unless told.
	require.Equal(t, true, m.object(t, 0, "channel", "join", "mychannel", "--block", "genesis.block")["already"])
	m.refused(t, 1, "CHN001", "channel", "join", "other", "--block", "genesis.block")
	m.refused(t, 2, "API001", "channel", "leave", "mychannel", "--target", "peer1.org1")
	m.object(t, 0, "channel", "leave", "mychannel", "--purge", "--yes", "--target", "peer1.org1")
	m.refused(t, 1, "API007", "channel", "info", "mychannel", "--target", "peer1.org1")
	var net struct {
		Nodes []struct {
			Name string
			TLS  string
			GRPC int

			Admin int
		}
	}
	dir := filepath.Join(m.root, "data", "grapevine", "dev")
	raw, err := os.ReadFile(filepath.Join(dir, "network.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(raw, &net))
	orderer := net.Nodes[0]
	from := []string{"channel", "join", "mychannel", "--from", "127.0.0.1:" + strconv.Itoa(orderer.GRPC), "--cafile", filepath.Join(dir, orderer.TLS, "ca.crt"), "--target", "peer1.org1", "--hash"}
	m.refused(t, 6, "CHN007", append(from, first["tipHash"].(string))...)
	require.Equal(t, false, m.object(t, 0, append(from, info["genesisHash"].(string), "--wait")...)["already"])
	require.Equal(t, first["tipHash"], m.object(t, 0, "channel", "info", "mychannel", "--target", "peer1.org1")["tipHash"], "--wait returned when it had caught up")
	require.Equal(t, true, m.object(t, 0, "state", "sync", "mychannel", "--wait", "--target", "peer1.org1")["done"])

	// Fabric's peer channel, of the node and of an orderer.
	require.Equal(t, "mychannel\n", m.run(t, 0, "peer", "channel", "list", "-o", "name"))
	require.Equal(t, first["tipHash"], m.object(t, 0, "peer", "channel", "getinfo", "-c", "mychannel")["tipHash"])
	require.Equal(t, true, m.object(t, 0, "peer", "channel", "join", "-b", "genesis.block")["already"])
	for _, which := range []string{"oldest", "config", "newest", "1"} {
		m.run(t, 0, "peer", "channel", "fetch", which, "own.block", "-c", "mychannel")
		m.run(t, 0, "peer", "channel", "fetch", which, "ordered.block", "-c", "mychannel", "-o", from[4], "--cafile", from[6], "--target", "peer1.org1")
		var own, ordered struct{ Header map[string]string } // each orderer signs its own copy
		require.NoError(t, json.Unmarshal([]byte(m.run(t, 0, "block", "decode", "own.block")), &own))
		require.NoError(t, json.Unmarshal([]byte(m.run(t, 0, "block", "decode", "ordered.block")), &ordered))
		require.Len(t, own.Header, 3)
		require.Equal(t, own.Header, ordered.Header, which)
	}

	m.participates(t, filepath.Join(dir, "crypto", "ordererOrganizations", "orderer"), net.Nodes[1].Admin, first["height"].(float64))
	m.tails(t)
}

// participates takes a channel from an orderer and gives it back, by osnadmin and
// by our own verbs; what it missed it gets from the others.
func (m *machine) participates(t *testing.T, org string, port int, height float64) {
	t.Helper()
	user := filepath.Join(org, "users", "Admin@orderer", "tls")
	osn := func(args ...string) string {
		return m.run(t, 0, append([]string{
			"osnadmin", "channel", args[0], "-o", "127.0.0.1:" + strconv.Itoa(port), "--ca-file", filepath.Join(org, "tlsca", "tlsca.orderer-cert.pem"),
			"--client-cert", filepath.Join(user, "client.crt"), "--client-key", filepath.Join(user, "client.key"),
		}, args[1:]...)...)
	}
	require.Contains(t, osn("list"), "Status: 200\n{\n\t\"systemChannel\": null,\n\t\"channels\": [\n")
	require.Contains(t, osn("list", "-c", "mychannel"), `"consensusRelation": "consenter"`)
	require.Equal(t, "Status: 204\n\n", osn("remove", "-c", "mychannel"))
	require.NotContains(t, osn("list", "--no-status"), "Status")
	m.refused(t, 1, "API007", "orderer", "channel", "list", "mychannel", "--target", "orderer1")
	j := m.object(t, 0, "orderer", "channel", "join", "mychannel", "-b", "genesis.block", "--target", "orderer1")
	require.ElementsMatch(t, []string{"apiVersion", "kind", "name", "consensusRelation", "status", "height", "reason"}, keys(j))
	require.Contains(t, osn("join", "-c", "mychannel", "-b", "genesis.block"), "Status: 405")
	require.Eventually(t, func() bool {
		return of(m.object(t, 0, "orderer", "channel", "list", "--target", "orderer1"), "items")[0]["height"].(float64) >= height
	}, 30*time.Second, 100*time.Millisecond)
	m.refused(t, 1, "API008", "orderer", "channel", "list", "--target", "peer0.org1")
	m.refused(t, 2, "API001", "orderer", "channel", "remove", "mychannel")
}

// tails follows a channel until it is interrupted.
func (m *machine) tails(t *testing.T) {
	t.Helper()
	c, _, errs := m.command(t, "block", "tail", "mychannel", "--from", "oldest", "-o", "json")
	c.Stdout = nil
	out, err := c.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, c.Start())
	d := json.NewDecoder(out)
	for n := range 2 {
		var b map[string]any
		require.NoError(t, d.Decode(&b))
		require.Equal(t, "Block", b["kind"])
		require.Equal(t, float64(n), b["number"])
	}
	require.NoError(t, c.Process.Signal(os.Interrupt))
	require.NoError(t, c.Wait(), "0 on the first signal: %s", errs)
}

// refused wants a coded error, as JSON on stderr, and nothing on stdout.
func (m *machine) refused(t *testing.T, exit int, code string, args ...string) {
	t.Helper()
	c, out, errs := m.command(t, append(args, "-o", "json")...)
	_ = c.Run() // its exit code is looked at
	var e map[string]any
	lines := bytes.Split(bytes.TrimSpace(errs.Bytes()), []byte("\n"))
	require.NoError(t, json.Unmarshal(lines[len(lines)-1], &e), "%v: %s", args, errs)
	require.Equal(t, code, e["code"], "%v: %s", args, errs)
	require.Equal(t, exit, c.ProcessState.ExitCode(), "%v: %s", args, errs)
	require.Empty(t, out.String(), "%v", args)
}

// reconfigures changes the channel while it runs: an organisation's anchor peer.
func (m *machine) reconfigures(t *testing.T) {
	admin := []string{"--msp", filepath.Join(m.root, "data/grapevine/dev/crypto/peerOrganizations/org2/users/Admin@org2/msp"), "--mspid", "Org2MSP"}
	m.object(t, 0, "channel", "config", "set-anchor", "mychannel", "org2", "127.0.0.1:7999", "--out", "anchor.pb")
	user := []string{"--msp", filepath.Join(m.root, "data/grapevine/dev/crypto/peerOrganizations/org1/users/Admin@org1/msp"), "--mspid", "Org1MSP"}
	m.refused(t, 1, "CHN010", append([]string{"channel", "config", "submit", "anchor.pb"}, user...)...) // another organisation's administrator
	m.object(t, 0, append([]string{"channel", "config", "sign", "anchor.pb"}, admin...)...)
	u := m.object(t, 0, append([]string{"channel", "config", "submit", "anchor.pb"}, admin...)...)
	require.NotEmpty(t, u["submitted"])
	require.Equal(t, 1.0, m.object(t, 0, "dev", "tx", "--count", "1")["committed"], "under the new configuration")
	for _, name := range []string{"peer0.org1", "peer1.org2"} {
		i := m.object(t, 0, "channel", "info", "mychannel", "--target", name)
		require.Equal(t, 1.0, i["configSequence"], name)
		require.Equal(t, []any{"127.0.0.1:7999"}, of(i, "orgs")[1]["anchors"], name)
	}
}

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

type summary struct {
	Height uint64 `json:"height"`
	Tip    string `json:"current_block_hash_hex"`
}

func manifest(t testing.TB, network string) summary {
	t.Helper()
	raw, err := os.ReadFile(fixtures(t, network, "manifest.json"))
	require.NoError(t, err)
	var s summary
	require.NoError(t, json.Unmarshal(raw, &s))
	return s
}

func keys(v map[string]any) []string {
	var out []string
	for k := range v {
		out = append(out, k)
	}
	return out
}

func TestVerifyAcceptsRecordedChains(t *testing.T) {
	for _, network := range []string{"raft", "bft"} {
		genesis, blocks := fixtures(t, network, "genesis.block"), fixtures(t, network, "blocks")
		v := play{}.object(t, 0, "block", "verify", "--genesis", genesis, "--blocks", blocks)
		require.ElementsMatch(t, []string{"apiVersion", "kind", "channel", "from", "to", "checked", "ok", "policy", "failures", "elapsedMs"}, keys(v))
		require.Equal(t, "BlockVerification", v["kind"])
		require.Equal(t, "mychannel", v["channel"])
		require.Equal(t, true, v["ok"])
		require.Equal(t, 31.0, v["checked"])
		require.Equal(t, 30.0, v["to"])
		require.Empty(t, v["failures"])
		require.NotEmpty(t, v["policy"])
	}
}

// broken copies a recorded chain and breaks the copy.
func broken(t *testing.T, network string, edit func(dir string)) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(dir, os.DirFS(fixtures(t, network, "blocks"))))
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	require.NoError(t, err)
	for _, f := range files {
		require.NoError(t, os.Chmod(f, 0o600))
	}
	edit(dir)
	return dir
}

func TestVerifyRefusesBrokenChains(t *testing.T) {
	name := func(dir string, n int) string { return filepath.Join(dir, fmt.Sprintf("%04d.block", n)) }
	read := func(p string) []byte {
		b, err := os.ReadFile(p)
		require.NoError(t, err)
		return b
	}
	put := func(p string, b []byte) { require.NoError(t, os.WriteFile(p, b, 0o600)) }
	for what, c := range map[string]struct {
		check string
		edit  func(dir string)
	}{
		"missing": {"previousHash", func(dir string) { require.NoError(t, os.Remove(name(dir, 7))) }},
		"swapped": {"previousHash", func(dir string) {
			a, b := read(name(dir, 9)), read(name(dir, 10))
			put(name(dir, 9), b)
			put(name(dir, 10), a)
		}},
		"doubled":  {"previousHash", func(dir string) { put(filepath.Join(dir, "0009.copy"), read(name(dir, 9))) }},
		"cut":      {"wellFormed", func(dir string) { b := read(name(dir, 12)); put(name(dir, 12), b[:len(b)-7]) }},
		"noise":    {"wellFormed", func(dir string) { put(name(dir, 12), []byte("noise")) }},
		"flipped":  {"", func(dir string) { b := read(name(dir, 12)); b[len(b)/2] ^= 1; put(name(dir, 12), b) }},
		"no first": {"", func(dir string) { require.NoError(t, os.Remove(name(dir, 0))) }},
	} {
		for _, network := range []string{"raft", "bft"} {
			t.Run(network+"/"+what, func(t *testing.T) {
				dir := broken(t, network, c.edit)
				v := play{}.object(t, 6, "block", "verify", "--genesis", fixtures(t, network, "genesis.block"), "--blocks", dir)
				require.Equal(t, false, v["ok"])
				f := v["failures"].([]any)[0].(map[string]any)
				require.ElementsMatch(t, []string{"number", "code", "check", "message"}, keys(f))
				require.Contains(t, f["code"], "block.")
				if c.check != "" {
					require.Equal(t, c.check, f["check"], f)
				}
				r := play{}.run("block", "verify", "--genesis", fixtures(t, network, "genesis.block"), "--blocks", dir)
				require.Equal(t, 6, r.code)
				require.Contains(t, r.out, "FAIL")
			})
		}
	}
}

// A file of block export is refused wherever it is cut, and may begin another.
func TestVerifyExportedFile(t *testing.T) {
	data, dir := filepath.Join(t.TempDir(), "data"), t.TempDir()
	genesis := fixtures(t, "raft", "genesis.block")
	p := play{dir: dir}
	p.object(t, 0, "ledger", "import", "--genesis", genesis, "--blocks", fixtures(t, "raft", "blocks"), "--data", data)
	for i, span := range []string{"0..11", "12..newest"} {
		v := p.object(t, 0, "block", "export", "mychannel", span, fmt.Sprintf("part%d", i), "--data", data)
		require.Equal(t, []float64{12, 19}[i], v["blocks"])
	}
	a, err := os.ReadFile(filepath.Join(dir, "part0"))
	require.NoError(t, err)
	b, err := os.ReadFile(filepath.Join(dir, "part1"))
	require.NoError(t, err)
	verify := func(exit int, raw []byte) map[string]any {
		write(t, dir, "file", raw)
		return p.object(t, exit, "block", "verify", "--genesis", genesis, "--blocks", "file")
	}
	require.Equal(t, 31.0, verify(0, append(append([]byte{}, a...), b...))["checked"])
	require.Equal(t, 12.0, verify(0, a)["checked"])
	for _, cut := range []int{1, len(a) / 2, len(a) - 1} {
		require.Equal(t, "block.malformed", verify(6, a[:cut])["failures"].([]any)[0].(map[string]any)["code"])
	}
	verify(6, b)
	one, err := os.ReadFile(genesis)
	require.NoError(t, err)
	require.Equal(t, 1.0, verify(0, one)["checked"], "a file may be one block")
	require.Equal(t, true, p.object(t, 0, "block", "verify", "mychannel", "3..9", "--data", data)["ok"])
	p.fails(t, 1, "API002", "block", "verify", "--genesis", genesis, "--blocks", "nothing")
	p.fails(t, 1, "API007", "block", "export", "mychannel", "0..99", "file2", "--data", data)
	p.fails(t, 1, "API002", "block", "export", "mychannel", "0..9", "no/such/folder", "--data", data)
	require.NoFileExists(t, filepath.Join(dir, "file2"))
}

func TestVerifyUnderAnotherGenesis(t *testing.T) {
	v := play{}.object(t, 6, "block", "verify", "--genesis", fixtures(t, "bft", "genesis.block"), "--blocks", fixtures(t, "raft", "blocks"))
	require.Equal(t, false, v["ok"])
	require.Equal(t, 0.0, v["failures"].([]any)[0].(map[string]any)["number"])
}

func TestDecodeIsConfigtxlators(t *testing.T) {
	for _, network := range []string{"raft", "bft"} {
		for n := range 31 {
			name := fmt.Sprintf("%04d", n)
			raw := fixtures(t, network, "blocks", name+".block")
			want, err := os.ReadFile(fixtures(t, network, "blocks-json", name+".json"))
			require.NoError(t, err)
			if len(want) == 0 { // Fabric's tool refuses an entry that doesn't parse
				play{}.fails(t, 1, "BLK003", "block", "decode", raw)
				continue
			}
			r := play{}.run("block", "decode", raw)
			require.Equal(t, 0, r.code, r.err)
			require.JSONEq(t, string(want), r.out, "%s %s", network, name)
		}
	}
}

func TestLedgerImportAndReading(t *testing.T) {
	for _, network := range []string{"raft", "bft"} {
		t.Run(network, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			p, want := play{}, manifest(t, network)
			args := []string{"ledger", "import", "--genesis", fixtures(t, network, "genesis.block"), "--blocks", fixtures(t, network, "blocks"), "--data", dir}
			v := p.object(t, 0, args...)
			require.Equal(t, want.Tip, v["tipHash"])
			require.Equal(t, float64(want.Height), v["height"])
			require.Equal(t, float64(want.Height), v["imported"])
			v = p.object(t, 0, args...)
			require.Equal(t, 0.0, v["imported"], "again: nothing new")

			info := p.object(t, 0, "channel", "info", "mychannel", "--data", dir)
			require.ElementsMatch(t, []string{
				"apiVersion", "kind", "name", "height", "lag", "tipHash", "previousHash", "genesisHash", "stateHash",
				"configSequence", "configBlock", "consensus", "orgs", "orderers", "validity", "halted", "haltCode",
			}, keys(info))
			require.Equal(t, want.Tip, info["tipHash"])
			require.Equal(t, map[string]string{"raft": "etcdraft", "bft": "BFT"}[network], info["consensus"])
			require.Equal(t, "own", info["validity"])
			require.Len(t, info["stateHash"], 64)
			org := info["orgs"].([]any)[0].(map[string]any)
			require.Equal(t, "OrgA", org["org"])
			require.Equal(t, "OrgAMSP", org["mspId"])

			for _, n := range []string{"oldest", "newest", "1", "9", "24", "25", "29"} {
				b := p.object(t, 0, "block", "get", "mychannel", n, "--data", dir)
				require.ElementsMatch(t, []string{
					"apiVersion", "kind", "channel", "number", "hash", "previousHash", "dataHash", "size", "config", "lastConfig",
					"txCount", "txs", "signatures", "commitHash", "validitySource",
				}, keys(b))
				if n == "oldest" {
					require.Empty(t, b["signatures"])
					continue
				}
				for _, s := range b["signatures"].([]any) {
					require.Equal(t, true, s.(map[string]any)["valid"], "block %s: %v", n, s)
					require.Equal(t, "OrdererMSP", s.(map[string]any)["mspId"])
				}
				tx := b["txs"].([]any)[0].(map[string]any)
				require.ElementsMatch(t, []string{"index", "id", "type", "mspId", "subject", "time", "size", "validity", "validityCode", "payload"}, keys(tx))
				require.NotEqual(t, "NOT_VALIDATED", tx["validity"])
				require.NotEqual(t, 254.0, tx["validityCode"])
				require.Equal(t, "own", b["validitySource"])
				require.Len(t, b["commitHash"], 64)
			}
			e := p.object(t, 0, "state", "get", "mychannel", "alice", "--namespace", "basic", "--data", dir)
			require.ElementsMatch(t, []string{"apiVersion", "kind", "channel", "namespace", "collection", "key", "value", "text", "version", "height"}, keys(e))
			require.Equal(t, map[string]any{"block": 12.0, "tx": 0.0}, e["version"])
			require.Equal(t, 1, p.run("state", "get", "mychannel", "nobody", "--namespace", "basic", "--data", dir).code)
			h := p.object(t, 0, "state", "hash", "mychannel", "--data", dir)
			require.Equal(t, info["stateHash"], h["stateHash"])
			require.Equal(t, info["tipHash"], h["tipHash"])
			require.NotEqual(t, h["stateHash"], p.object(t, 0, "state", "hash", "mychannel", "--at", "30", "--data", dir)["stateHash"])
			require.Equal(t, 1, p.run("state", "hash", "mychannel", "--at", "32", "--data", dir).code)
			past := p.object(t, 0, "state", "history", "mychannel", "alice", "--namespace", "basic", "--data", dir)["items"].([]any)
			require.Equal(t, e["value"], past[len(past)-1].(map[string]any)["value"])
			require.Equal(t, 0, p.run("state", "dump", "mychannel", "--hashes", "--data", dir, "-o", "json").code)
			full := p.object(t, 0, "block", "get", "mychannel", "9", "--full", "--data", dir)
			require.NotEmpty(t, full["txs"].([]any)[0].(map[string]any)["payload"])

			raw := filepath.Join(t.TempDir(), "b")
			require.Equal(t, 0, p.run("block", "get", "mychannel", "9", "--raw", raw, "--data", dir).code)
			got, err := os.ReadFile(raw)
			require.NoError(t, err)
			recorded, err := os.ReadFile(fixtures(t, network, "blocks", "0009.block"))
			require.NoError(t, err)
			require.Equal(t, recorded, got)

			p.fails(t, 1, "API007", "block", "get", "mychannel", "99", "--data", dir)
			p.fails(t, 1, "API007", "channel", "info", "other", "--data", dir)
		})
	}
}

func TestImportStopsAtTheFirstBadBlock(t *testing.T) {
	dir := broken(t, "raft", func(dir string) { require.NoError(t, os.Remove(filepath.Join(dir, "0007.block"))) })
	data := t.TempDir()
	r := play{}.fails(t, 6, "BLK001", "ledger", "import", "--genesis", fixtures(t, "raft", "genesis.block"), "--blocks", dir, "--data", data)
	require.Contains(t, r.err, "block 7 does not hold")
	info := play{}.object(t, 0, "channel", "info", "mychannel", "--data", data)
	require.Equal(t, 7.0, info["height"])
	play{}.fails(t, 3, "CHN005", "ledger", "import", "--genesis", fixtures(t, "bft", "genesis.block"), "--blocks", fixtures(t, "bft", "blocks"), "--data", data)
}

func TestNoLedgerThere(t *testing.T) {
	dir := t.TempDir()
	play{}.fails(t, 1, "API002", "channel", "info", "mychannel", "--data", dir)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries, "reading makes nothing")
	play{}.fails(t, 5, "API010", "channel", "info", "mychannel")
	// CF13: another program's folder is left alone.
	write(t, dir, "ledger/CURRENT", []byte("something else"))
	r := play{}.run("channel", "info", "mychannel", "--data", dir)
	require.Equal(t, 3, r.code, r.err)
	require.Contains(t, r.err, "CFG019")
}

func TestYAMLAndNames(t *testing.T) {
	y := play{}.run("config", "explain", "peer.id", "-o", "yaml")
	require.True(t, strings.HasPrefix(y.out, "apiVersion: grapevine/v1\nkind: ConfigKey\nkey: peer.id\n"), y.out)
	n := play{}.run("config", "show", "peer.gossip.election", "-o", "name")
	require.Equal(t, 4, strings.Count(n.out, "\n"), n.out)
}

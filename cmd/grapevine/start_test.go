package main

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"grapevine/msp"
	"grapevine/msp/ca"
)

const (
	onePeer    = "crypto/peerOrganizations/org1.example.com/peers/peer0.org1.example.com/"
	oneOrderer = "crypto/ordererOrganizations/example.com/orderers/orderer0.example.com/"
)

// site makes a folder with identities, valid for a year already, a core.yaml
// and an orderer.yaml.
func site(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, "crypto-config.yaml", []byte(organisations))
	r := play{dir: dir, now: time.Now().AddDate(-1, 0, 0)}.run("ca", "generate", "-f", "crypto-config.yaml", "-o", "crypto")
	require.Equal(t, 0, r.code, r.err)
	write(t, dir, "core.yaml", []byte(`peer:
  id: peer0
  localMspId: Org1MSP
  mspConfigPath: `+onePeer+`msp
  fileSystemPath: data
  listenAddress: 127.0.0.1:0
operations: {listenAddress: "127.0.0.1:0"}
`))
	write(t, dir, "orderer.yaml", []byte(`General:
  LocalMSPID: OrdererMSP
  LocalMSPDir: `+oneOrderer+`msp
  ListenAddress: 127.0.0.1
  ListenPort: 0
  TLS: {Enabled: true, Certificate: `+oneOrderer+`tls/server.crt, PrivateKey: `+oneOrderer+`tls/server.key, RootCAs: [`+oneOrderer+`tls/ca.crt]}
FileLedger: {Location: data-orderer}
Operations: {ListenAddress: ""}
`))
	return dir
}

// Each way to start a node wrongly says what, why and what to do.
func TestBadStarts(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = busy.Close() })
	peerEnv := func(name, value string) []string { return []string{"CORE_" + name + "=" + value} }
	for name, c := range map[string]struct {
		exit int
		code string
		role string
		env  []string
		edit func(t *testing.T, dir string)
		says string
	}{
		"CF12 no cacerts":   {exit: 4, code: "MSP001", edit: remove("msp/cacerts"), says: "cacerts"},
		"no signcerts":      {exit: 4, code: "MSP001", edit: remove("msp/signcerts"), says: "signcerts"},
		"no MSP folder":     {exit: 4, code: "MSP001", edit: remove("msp"), says: "msp"},
		"CF10 no key":       {exit: 4, code: "CERT002", edit: remove("msp/keystore/priv_sk")},
		"CF10 another key":  {exit: 4, code: "CERT002", edit: anotherKey},
		"CF11 readable key": {exit: 4, code: "CERT003", edit: readableKey, says: "chmod 600"},
		"C expired":         {exit: 4, code: "CERT004", edit: reissue("Org1", -48*time.Hour), says: "valid from"},
		"C another CA's":    {exit: 4, code: "MSP002", edit: reissue("elsewhere", 48*time.Hour), says: "issued by"},
		"CF9 port in use":   {exit: 3, code: "CFG009", env: peerEnv("PEER_LISTENADDRESS", busy.Addr().String()), says: "another process"},
		"CF9 operations":    {exit: 3, code: "CFG009", env: peerEnv("OPERATIONS_LISTENADDRESS", busy.Addr().String()), says: "operations"},
		"CF9 gRPC":          {exit: 3, code: "CFG009", role: "orderer", env: []string{"ORDERER_GENERAL_LISTENPORT=" + strings.TrimPrefix(busy.Addr().String(), "127.0.0.1:")}},
		"a file for a data folder": {
			exit: 3, code: "CFG001", edit: func(t *testing.T, dir string) { write(t, dir, "data", []byte("x")) },
			says: "data folder",
		},
		"CF13 foreign folder": {exit: 3, code: "CFG019", edit: func(t *testing.T, dir string) { write(t, dir, "data/ledger/CURRENT", []byte("x")) }},
		"CF6 both flags":      {exit: 3, code: "CFG012", env: append(peerEnv("PEER_GOSSIP_USELEADERELECTION", "true"), "CORE_PEER_GOSSIP_ORGLEADER=true")},
		"no identity":         {exit: 3, code: "CFG023", env: peerEnv("PEER_LOCALMSPID", "")},
		"no such file":        {exit: 3, code: "CFG001", edit: func(t *testing.T, dir string) { require.NoError(t, os.Remove(filepath.Join(dir, "core.yaml"))) }},
		"a relay nowhere":     {exit: 3, code: "FAB001", role: "relay", says: "relay.listenAddress"},
		"a relay without TLS": {exit: 3, code: "FAB002", role: "relay", env: []string{"GRAPEVINE_RELAY_LISTENADDRESS=127.0.0.1:0", "CORE_PEER_TLS_CERT_FILE=", "CORE_PEER_TLS_KEY_FILE="}, says: "relay.tls.cert.file"},
		"CF9 a relay's port":  {exit: 3, code: "CFG009", role: "relay", env: append(relayTLS(), "GRAPEVINE_RELAY_LISTENADDRESS="+busy.Addr().String()), says: "another process"},
		"no Fabric peer":      {exit: 3, code: "FAB005", env: []string{"GRAPEVINE_EVENTS_VALIDITY=fabricPeer"}, says: "events.fabricPeer"},
		"a relay's orderers":  {exit: 3, code: "CFG004", role: "relay", env: []string{"GRAPEVINE_RELAY_ORDERERS=[{from: 'o:7050'}]"}, says: "listenAddress"},
		"no TLS":              {exit: 3, code: "CFG006", role: "orderer", env: []string{"ORDERER_GENERAL_TLS_ENABLED=false"}},
		"no genesis block": {
			exit: 3, code: "BLK003", role: "orderer", env: []string{"ORDERER_GENERAL_BOOTSTRAPMETHOD=file", "ORDERER_GENERAL_BOOTSTRAPFILE=noise"},
			edit: func(t *testing.T, dir string) { write(t, dir, "noise", []byte("noise")) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := site(t)
			if c.edit != nil {
				c.edit(t, dir)
			}
			args := []string{"peer", "start", "--config", "core.yaml", "-q"}
			if c.role == "relay" {
				args[0] = c.role
			}
			if c.role == "orderer" {
				args = []string{"orderer", "start", "--config", "orderer.yaml", "-q"}
			}
			r := play{dir: dir, env: c.env}.run(args...)
			require.Equal(t, c.exit, r.code, r.err)
			i := strings.Index(r.err, "error "+c.code+": ")
			require.GreaterOrEqual(t, i, 0, "%s", r.err)
			told := r.err[i:]
			require.Contains(t, told, "  why:  ")
			require.Contains(t, told, "  fix:  ")
			require.Contains(t, told, c.says)
			require.NotContains(t, r.err, "goroutine ")
			require.Empty(t, r.out)
		})
	}
}

// relayTLS names the peer's TLS certificate as the relay's.
func relayTLS() []string {
	return []string{"GRAPEVINE_RELAY_TLS_CERT_FILE=" + onePeer + "tls/server.crt", "GRAPEVINE_RELAY_TLS_KEY_FILE=" + onePeer + "tls/server.key"}
}

// A relay is a peer that says it is one, and listens for Fabric peers; a peer
// with the same keys does the same.
func TestRelayRuns(t *testing.T) {
	for _, role := range []string{"relay", "peer"} {
		t.Run(role, func(t *testing.T) {
			dir := site(t)
			write(t, dir, "grapevine.yaml", []byte("relay:\n  listenAddress: 127.0.0.1:0\n  orderers: [{from: 'orderer1.example.com:7050', listenAddress: '127.0.0.1:0'}]\n  tls: {cert: {file: "+
				onePeer+"tls/server.crt}, key: {file: "+onePeer+"tls/server.key}}\n"))
			r := background(dir, role, "start", "--config", "core.yaml", "--config", "grapevine.yaml")
			p := play{dir: dir}
			s := r.up(t, p, filepath.Join(dir, "data"))
			require.Equal(t, role, s["role"])
			p.object(t, 0, "channel", "join", "mychannel", "--block", fixtures(t, "raft", "genesis.block"), "--target", filepath.Join(dir, "data"))
			r.signals <- syscall.SIGTERM
			require.Equal(t, 0, <-r.code, &r.err)
		})
	}
}

// remove takes a part of the peer's folder away.
func remove(part string) func(t *testing.T, dir string) {
	return func(t *testing.T, dir string) { require.NoError(t, os.RemoveAll(filepath.Join(dir, onePeer, part))) }
}

func anotherKey(t *testing.T, dir string) {
	other, err := os.ReadFile(filepath.Join(dir, strings.Replace(onePeer, "peer0", "peer1", 1), "msp/keystore/priv_sk"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, onePeer, "msp/keystore/priv_sk"), other, 0o600))
}

func readableKey(t *testing.T, dir string) {
	require.NoError(t, os.Chmod(filepath.Join(dir, onePeer, "msp/keystore/priv_sk"), 0o644))
}

// reissue gives the peer another certificate for its key: of its own CA, or of
// one elsewhere.
func reissue(by string, life time.Duration) func(t *testing.T, dir string) {
	return func(t *testing.T, dir string) {
		s, err := msp.Load("Org1MSP", filepath.Join(dir, onePeer, "msp"))
		require.NoError(t, err)
		authority, err := ca.Open(filepath.Join(dir, "crypto/peerOrganizations/org1.example.com/ca"))
		require.NoError(t, err)
		if by == "elsewhere" {
			authority, err = ca.New("elsewhere.org", "ca.elsewhere.org", ca.P256, time.Now().AddDate(-1, 0, 0))
			require.NoError(t, err)
		}
		der, err := authority.Issue(ca.Request{
			CN: "peer0.org1.example.com", OU: []string{"peer"}, Key: s.Identity().Certificate().PublicKey,
			NotBefore: time.Now().Add(-72 * time.Hour), NotAfter: time.Now().Add(life),
		})
		require.NoError(t, err)
		files, err := filepath.Glob(filepath.Join(dir, onePeer, "msp/signcerts/*"))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(files[0], pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644))
	}
}

// A running program, in process.
type running struct {
	signals chan os.Signal
	code    chan int
	mu      sync.Mutex
	err     bytes.Buffer // owned by mu
}

func (r *running) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err.Write(b)
}

// background runs the program until it is told to stop.
func background(dir string, args ...string) *running { return following(dir, io.Discard, args...) }

// following is background with somebody who reads what it says on stdout.
func following(dir string, out io.Writer, args ...string) *running {
	r := &running{signals: make(chan os.Signal, 2), code: make(chan int, 1)}
	go func() {
		r.code <- run(world{args: args, dir: dir, out: out, err: r, signals: r.signals, now: time.Now})
	}()
	return r
}

// up waits until the node answers, and returns its status.
func (r *running) up(t *testing.T, p play, target string) map[string]any {
	t.Helper()
	for {
		select {
		case code := <-r.code:
			require.FailNow(t, "it ended", "%d: %s", code, &r.err)
		default:
		}
		if s := p.run("status", "--target", target, "-o", "json"); s.code != 5 {
			var v map[string]any
			require.NoError(t, json.Unmarshal([]byte(s.out), &v), s.err)
			return v
		}
	}
}

func TestPeerRunsAndStops(t *testing.T) {
	dir := site(t)
	p := play{dir: dir}
	r := background(dir, "peer", "start", "--config", "core.yaml")
	data := filepath.Join(dir, "data")
	s := r.up(t, p, data)
	require.ElementsMatch(t, statusKeys, keys(s))
	require.Equal(t, true, s["healthy"])

	// What is watched comes as lines of JSON, one for each change.
	in, out := io.Pipe()
	w := following(dir, out, "channel", "ls", "--watch", "-o", "json", "--target", data)
	lines := json.NewDecoder(in)
	var seen struct{ Items []struct{ Name string } }
	require.NoError(t, lines.Decode(&seen))
	require.Empty(t, seen.Items)
	defer func() {
		w.signals <- os.Interrupt
		require.Equal(t, 0, <-w.code, &w.err)
	}()

	locked := p.fails(t, 3, "CFG022", "peer", "start", "--config", "core.yaml", "-q")
	require.Contains(t, locked.err, "fix:")
	genesis := fixtures(t, "raft", "genesis.block")
	require.Equal(t, false, p.object(t, 0, "channel", "join", "mychannel", "--block", genesis, "--target", data)["already"])
	require.NoError(t, lines.Decode(&seen))
	require.Equal(t, "mychannel", seen.Items[0].Name)
	// The configuration names the same node.
	require.Equal(t, true, p.object(t, 0, "channel", "join", "mychannel", "--block", genesis, "--config", "core.yaml")["already"])
	p.fails(t, 3, "CHN005", "channel", "join", "mychannel", "--block", fixtures(t, "bft", "genesis.block"), "--target", data)
	p.fails(t, 1, "BLK003", "channel", "join", "mychannel", "--block", write(t, dir, "noise", []byte("noise")), "--target", data)
	r.operations(t, p, s["operations"].(string))

	r.signals <- syscall.SIGTERM
	require.Equal(t, 0, <-r.code, &r.err)
	p.fails(t, 5, "NET001", "status", "--target", data)
}

// operations tries the operations listener with the shapes that Fabric's
// clients know.
func (r *running) operations(t *testing.T, p play, addr string) {
	t.Helper()
	ask := func(method, path, body string) (int, map[string]any) {
		req, err := http.NewRequest(method, "http://"+addr+path, strings.NewReader(body))
		require.NoError(t, err)
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		raw, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		v := map[string]any{}
		_ = json.Unmarshal(raw, &v) // not all answers are JSON
		return resp.StatusCode, v
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		code, v := ask("GET", path, "")
		require.Equal(t, 200, code)
		require.Equal(t, "OK", v["status"])
		require.NotEmpty(t, v["time"])
	}
	code, v := ask("GET", "/version", "")
	require.Equal(t, 200, code)
	require.ElementsMatch(t, []string{"CommitSHA", "Version"}, keys(v))
	for path, want := range map[string]int{"/livez": 200, "/metrics": 200, "/debug/pprof/": 200, "/nothing": 404} {
		code, _ := ask("GET", path, "")
		require.Equal(t, want, code, path)
	}
	code, _ = ask("POST", "/healthz", "")
	require.Equal(t, 405, code)

	_, v = ask("GET", "/logspec", "")
	require.Equal(t, map[string]any{"spec": "info"}, v)
	code, _ = ask("PUT", "/logspec", `{"spec":"gossip.state=debug:warning"}`)
	require.Equal(t, 204, code)
	_, v = ask("GET", "/logspec", "")
	require.Equal(t, "gossip.state=debug:warning", v["spec"])
	for _, bad := range []string{`{"spec":"loud"}`, `{"spec":"=info"}`, `{}`, `nothing`} {
		code, v = ask("PUT", "/logspec", bad)
		require.Equal(t, 400, code, bad)
		require.NotEmpty(t, v["error"])
	}

	// A node can be read there, and not changed.
	require.Equal(t, "Status", p.object(t, 0, "status", "--target", addr)["kind"])
	p.fails(t, 4, "NET003", "channel", "leave", "mychannel", "--yes", "--target", "http://"+addr)
	tls := p.fails(t, 5, "NET001", "status", "--target", "https://"+addr)
	require.Contains(t, tls.err, "TLS was spoken to a port without TLS")
}

// Over the operations listener with TLS, a client certificate is needed for all
// but health and version, and one of an administrator to change the node.
func TestAdminOverTLS(t *testing.T) {
	dir := site(t)
	env := func(user string) []string {
		base := filepath.Join(dir, "crypto/peerOrganizations/org1.example.com/users", user)
		cert, err := filepath.Glob(filepath.Join(base, "msp/signcerts/*"))
		require.NoError(t, err)
		require.NotEmpty(t, cert)
		return []string{
			"CORE_PEER_TLS_ROOTCERT_FILE=" + filepath.Join(dir, onePeer, "tls/ca.crt"),
			"CORE_PEER_TLS_CLIENTCERT_FILE=" + cert[0], "CORE_PEER_TLS_CLIENTKEY_FILE=" + filepath.Join(base, "msp/keystore/priv_sk"),
		}
	}
	core, err := os.ReadFile(filepath.Join(dir, "core.yaml"))
	require.NoError(t, err)
	write(t, dir, "core.yaml", bytes.Replace(core, []byte(`listenAddress: "127.0.0.1:0"`), []byte(`listenAddress: "127.0.0.1:0", tls: {enabled: true, `+
		`cert: {file: `+onePeer+`tls/server.crt}, key: {file: `+onePeer+`tls/server.key}, `+
		`clientRootCAs: {files: [`+onePeer+`msp/cacerts/ca.org1.example.com-cert.pem]}}`), 1))
	r := background(dir, "peer", "start", "--config", "core.yaml")
	local := r.up(t, play{dir: dir}, filepath.Join(dir, "data"))["operations"].(string)
	addr := "https://" + strings.Replace(local, "127.0.0.1", "localhost", 1)

	nobody := play{dir: dir, env: env("User1@org1.example.com")[:1]}
	user, boss := play{dir: dir, env: env("User1@org1.example.com")}, play{dir: dir, env: env("Admin@org1.example.com")}
	nobody.fails(t, 4, "NET003", "status", "--target", addr)
	require.Equal(t, 0, user.run("status", "--target", addr).code)
	genesis := fixtures(t, "raft", "genesis.block")
	user.fails(t, 4, "NET003", "channel", "join", "mychannel", "--block", genesis, "--target", addr)
	require.Equal(t, false, boss.object(t, 0, "channel", "join", "mychannel", "--block", genesis, "--target", addr)["already"])
	boss.object(t, 0, "channel", "leave", "mychannel", "--purge", "--yes", "--target", addr)
	play{dir: dir}.fails(t, 5, "NET002", "status", "--target", addr)
	other := boss.fails(t, 5, "NET001", "status", "--target", "https://"+local)
	require.Contains(t, other.err, "not for this address")
	plain := boss.fails(t, 5, "NET001", "status", "--target", local)
	require.Contains(t, plain.err, "a port with TLS was spoken to without")

	r.signals <- syscall.SIGTERM
	require.Equal(t, 0, <-r.code, &r.err)
}

// CLI5: node down, wrong port, TLS and none.
func TestCLI5Unreachable(t *testing.T) {
	dir := t.TempDir()
	r := play{}.fails(t, 5, "NET001", "status", "--target", dir)
	require.Contains(t, r.err, "the node is down")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var g sync.WaitGroup
	g.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintf(c, "220 mail.example.com ESMTP\r\n")
			_ = c.Close()
		}
	})
	r = play{}.fails(t, 5, "NET001", "status", "--target", l.Addr().String())
	require.Contains(t, r.err, "wrong port")
	require.NoError(t, l.Close())
	g.Wait()
	r = play{}.fails(t, 5, "NET001", "status", "--target", l.Addr().String())
	require.Contains(t, r.err, "the node is down")
	play{}.fails(t, 2, "API009", "status", "--context", "prod")
	play{}.fails(t, 5, "DEV001", "status", "--target", "peer0.org1")
	play{}.fails(t, 2, "API001", "version", "--watch")
}

package conf

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// judge loads one file's text as core.yaml, with variables.
func judge(t testing.TB, yaml string, env ...string) *Settings {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "core.yaml"), []byte(yaml), 0o600))
	return Load(Input{Dir: dir, System: filepath.Join(dir, "none"), Env: env})
}

// codes lists the codes of a severity, CFG008 left out unless asked for: it
// comes with every configuration without an external endpoint.
func codes(s *Settings, severity string) []string {
	out := []string{}
	for _, f := range s.Findings() {
		if f.Severity == severity && f.Code != "CFG008" {
			out = append(out, f.Code)
		}
	}
	return out
}

func refused(t testing.TB, s *Settings, code string) *Finding {
	t.Helper()
	require.Error(t, s.Err())
	require.Contains(t, codes(s, SeverityError), code)
	for _, f := range s.Findings() {
		if f.Code == code {
			return f
		}
	}
	return nil
}

func TestDefaults(t *testing.T) {
	for _, sc := range []*schema{peerSchema, ordererSchema} {
		for _, k := range sc.keys {
			require.NotEmpty(t, k.Meaning, k.Path)
			require.NotEmpty(t, k.Treatment, k.Path)
			if k.Default == "" && k.Treatment != Ignored && k.Kind != Anything {
				require.NotEmpty(t, k.Absent, "%s has neither a default nor says what happens without", k.Path)
			}
			for _, text := range []string{k.Default, k.Fabric} {
				if text == "" || text == "none" || k.Treatment == Ignored {
					continue
				}
				_, b := parseText(k, text)
				require.Nil(t, b, "%s: %s", k.Path, text)
			}
		}
	}
	s := Load(Input{Dir: t.TempDir(), System: t.TempDir(), Env: []string{"CORE_PEER_LOCALMSPID=Org1MSP"}})
	require.NoError(t, s.Err())
	require.Empty(t, codes(s, SeverityWarning))
	p, err := s.Peer()
	require.NoError(t, err)
	require.Equal(t, Dynamic, p.Mode)
	require.Equal(t, []string{"/ip4/0.0.0.0/tcp/7051", "/ip4/0.0.0.0/udp/7051/quic-v1"}, p.Listen)
	require.Equal(t, "prometheus", p.Operations.Metrics)
	require.Equal(t, 2*time.Second, p.Gossip.LeaderAlive)
	require.Equal(t, 2*time.Second, p.Deliver.BackoffMax)
	require.True(t, p.Deliver.BlockGossip && p.Gossip.Repair && p.Gossip.Push && p.Deliver.Cluster)
	require.Zero(t, p.Gossip.MeshDegree)
	require.Equal(t, "/var/hyperledger/production", p.Dir)
}

func TestFabricsSamplesAreKnown(t *testing.T) {
	s := Load(Input{Files: []string{"testdata/core.yaml"}})
	require.NoError(t, s.Err())
	require.Equal(t, RolePeer, s.Role)
	require.NotContains(t, codes(s, SeverityWarning), "CFG003")
	require.Subset(t, codes(s, SeverityWarning), []string{"CFG031", "CFG032", "CFG018", "CFG007"})
	p, err := s.Peer()
	require.NoError(t, err)
	require.Equal(t, Static, p.Mode)
	require.Equal(t, 10*time.Second, p.Deliver.BackoffMax)
	require.Equal(t, 3, p.Gossip.MeshDegree)
	require.True(t, filepath.IsAbs(p.MSPDir))
	require.Equal(t, "testdata", filepath.Base(filepath.Dir(p.MSPDir)))

	s = Load(Input{Files: []string{"testdata/orderer.yaml"}})
	require.NoError(t, s.Err())
	require.Equal(t, RoleOrderer, s.Role)
	require.NotContains(t, codes(s, SeverityWarning), "CFG003")
	o, err := s.Orderer()
	require.NoError(t, err)
	require.Equal(t, "127.0.0.1:7050", o.GRPC)
	require.Equal(t, 1<<20, o.MaxRequest)
	require.Equal(t, "127.0.0.1:9443", o.Admin.Listen)
	require.Equal(t, "SampleOrg", o.MSPID)
}

func TestFilesAreFound(t *testing.T) {
	root := t.TempDir()
	write := func(p, text string) string {
		p = filepath.Join(root, p)
		require.NoError(t, os.MkdirAll(filepath.Dir(p), 0o700))
		require.NoError(t, os.WriteFile(p, []byte(text), 0o600))
		return p
	}
	here := write("here/core.yaml", "peer: {id: here}")
	own := write("here/grapevine.yaml", "p2p: {listen: [/ip4/127.0.0.1/tcp/1]}")
	cfg := write("cfg/core.yaml", "peer: {id: cfg}")
	sys := write("sys/core.yaml", "peer: {id: sys}")
	order := write("sys/orderer.yaml", "General: {LocalMSPID: OrdererMSP}")
	write("empty/x", "")
	load := func(dir string, role Role, files []string, env ...string) *Settings {
		return Load(Input{Role: role, Dir: filepath.Join(root, dir), System: filepath.Join(root, "sys"), Files: files, Env: env})
	}
	for _, c := range []struct {
		name string
		s    *Settings
		want []string
		id   string
	}{
		{"here", load("here", AnyRole, nil), []string{here, own}, "here"},
		{"variable alone", load("here", AnyRole, nil, "FABRIC_CFG_PATH="+filepath.Dir(cfg)), []string{cfg, own}, "cfg"},
		{"system", load("cfg/..", AnyRole, nil), []string{sys}, "sys"},
		{"orderer", load("here", RoleOrderer, nil), []string{order, own}, ""},
		{"named", load("here", AnyRole, []string{cfg, "core.yaml"}), []string{cfg, here}, "here"},
		{"variable without file", load("here", AnyRole, nil, "FABRIC_CFG_PATH="+filepath.Join(root, "empty")), []string{own}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.NoError(t, c.s.Err())
			require.Equal(t, c.want, c.s.Files)
			if c.id != "" {
				require.Equal(t, c.id, c.s.str("peer.id"))
			}
		})
	}
	refused(t, load("here", AnyRole, []string{"absent.yaml"}), "CFG001")
	refused(t, load("here", AnyRole, []string{"."}), "CFG001")
	refused(t, load("here", AnyRole, nil, "FABRIC_CFG_PATH=/does/not/exist"), "CFG001")
	none := Load(Input{Dir: filepath.Join(root, "empty"), System: filepath.Join(root, "empty")})
	require.NoError(t, none.Err())
	require.Empty(t, none.Files)
}

func TestPrecedenceAndSources(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a.yaml"), filepath.Join(dir, "b.yaml")
	require.NoError(t, os.WriteFile(a, []byte("peer:\n  id: a\n  networkId: a\n  localMspId: a\n  gossip:\n    election:\n      leaderAliveThreshold: 10s\n"), 0o600))
	require.NoError(t, os.WriteFile(b, []byte("# one\nPeer:\n  NETWORKID: b\n  LOCALMSPID: b\n"), 0o600))
	s := Load(Input{Files: []string{a, b}, Env: []string{"CORE_PEER_LOCALMSPID=c"}, Flags: []Flag{{"--id", "peer.id", "f"}}})
	require.NoError(t, s.Err())
	source := func(k string) string { return s.value(k).Text + " " + s.value(k).Source.String() }
	require.Equal(t, "f flag --id", source("peer.id"))
	require.Equal(t, "b b.yaml:3", source("peer.networkId"))
	require.Equal(t, "c env CORE_PEER_LOCALMSPID", source("peer.localMspId"))
	require.Equal(t, "10s a.yaml:7", source("peer.gossip.election.leaderAliveThreshold"))
	require.Equal(t, "false default", source("peer.tls.enabled"))
}

func TestSpellings(t *testing.T) {
	for name, c := range map[string]struct {
		yaml string
		env  []string
		want []string
	}{
		"list":          {"peer: {gossip: {bootstrap: [a:1, 'b:2']}}", nil, []string{"a:1", "b:2"}},
		"string":        {"peer: {gossip: {bootstrap: 'a:1 b:2'}}", nil, []string{"a:1", "b:2"}},
		"commas":        {"peer: {gossip: {bootstrap: 'a:1, b:2'}}", nil, []string{"a:1", "b:2"}},
		"case":          {"PEER: {Gossip: {BOOTSTRAP: [a:1]}}", nil, []string{"a:1"}},
		"core. dropped": {"core.peer.gossip.bootstrap: a:1", nil, []string{"a:1"}},
		"core: above":   {"core:\n  peer: {gossip: {bootstrap: a:1}}", nil, []string{"a:1"}},
		"dotted":        {"peer.gossip:\n  bootstrap: a:1", nil, []string{"a:1"}},
		"env":           {"peer: {gossip: {bootstrap: [x:9]}}", []string{"CORE_PEER_GOSSIP_BOOTSTRAP=a:1 b:2"}, []string{"a:1", "b:2"}},
		"env commas":    {"", []string{"CORE_PEER_GOSSIP_BOOTSTRAP=a:1,b:2"}, []string{"a:1", "b:2"}},
		"env empty":     {"peer: {gossip: {bootstrap: [x:9]}}", []string{"CORE_PEER_GOSSIP_BOOTSTRAP="}, nil},
		"multiaddr":     {"peer: {gossip: {bootstrap: /dns4/a/udp/1/quic-v1}}", nil, []string{"/dns4/a/udp/1/quic-v1"}},
		"empty key":     {"peer: {gossip: {bootstrap: }}", nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := judge(t, c.yaml, c.env...)
			require.NoError(t, s.Err())
			require.Empty(t, codes(s, SeverityWarning))
			got := s.list("peer.gossip.bootstrap")
			require.Equal(t, strings.Join(c.want, " "), strings.Join(got, " "))
		})
	}
}

func TestOverrides(t *testing.T) {
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca.pem")
	require.NoError(t, os.WriteFile(ca, []byte("x"), 0o600))
	s := judge(t, "peer:\n  localMspId: X\n  deliveryclient:\n    addressOverrides:\n      - {from: 'o:7050', to: 'r:7050', caCertsFile: "+ca+"}\n")
	p, err := s.Peer()
	require.NoError(t, err)
	require.Equal(t, []Override{{"o:7050", "r:7050", ca, 5}}, p.Deliver.Overrides)

	s = judge(t, "peer: {localMspId: X}", "CORE_PEER_DELIVERYCLIENT_ADDRESSOVERRIDES=[{from: o:7050, to: r:7050, caCertsFile: "+ca+"}]")
	p, err = s.Peer()
	require.NoError(t, err)
	require.Equal(t, []Override{{"o:7050", "r:7050", ca, 0}}, p.Deliver.Overrides)

	for _, bad := range []string{"[{from: o:7050}]", "[{from: o, to: r:1}]", "[{form: o:1, to: r:1}]", "x", "{from: o:1}", "[1]"} {
		refused(t, judge(t, "", "CORE_PEER_DELIVERYCLIENT_ADDRESSOVERRIDES="+bad), "CFG004")
	}
	f := refused(t, judge(t, "peer:\n  deliveryclient:\n    addressOverrides:\n      - {from: 'o:1', to: 'r:1', caCertsFile: gone.pem}\n"), "CFG001")
	require.Equal(t, 4, f.Source.Line)
}

func TestLeaderModes(t *testing.T) {
	for _, c := range []struct {
		yaml string
		mode Mode
	}{
		{"", Dynamic},
		{"peer: {gossip: {orgLeader: true}}", Static},
		{"peer: {gossip: {orgLeader: true, useLeaderElection: false}}", Static},
		{"peer: {gossip: {useLeaderElection: true}}", Dynamic},
		{"peer: {gossip: {useLeaderElection: true, orgLeader: false}}", Dynamic},
		{"peer: {gossip: {useLeaderElection: false}}", Standby},
		{"peer: {gossip: {useLeaderElection: false, orgLeader: false}}", Standby},
	} {
		s := judge(t, c.yaml)
		require.NoError(t, s.Err(), c.yaml)
		require.Equal(t, c.mode, s.mode(), c.yaml)
	}
}

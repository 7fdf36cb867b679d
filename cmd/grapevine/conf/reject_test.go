package conf

import (
	"bytes"
	"encoding/base64"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"grapevine/cmd/grapevine/fault"
)

// The rows CF1 to CF16 that a file or variable can break by itself.
func TestHostile(t *testing.T) {
	const warn = SeverityWarning
	big := strings.Repeat("&", 1)
	bomb := "a: &a {x: 1, y: 1}\n"
	for c := 'b'; c <= 'k'; c++ {
		prev := string(c - 1)
		bomb += string(c) + ": " + big + string(c) + " {"
		for i := range 9 {
			bomb += "k" + string(rune('0'+i)) + ": *" + prev + ", "
		}
		bomb += "z: 1}\n"
	}
	for _, c := range []struct {
		name, yaml, env string
		severity, code  string
		reason          string
	}{
		{"CF1/key", "peer: {gosip: {bootstrap: a:1}}", "", warn, "CFG003", "config.unknown_key"},
		{"CF1/variable", "", "CORE_PEER_GOSSIP_BOOTSTAP=a:1", warn, "CFG003", "config.unknown_key"},
		{"CF1/own variable", "", "GRAPEVINE_P2P_LISTENS=a", warn, "CFG003", "config.unknown_key"},
		{"CF1/unused", "vm: {endpoint: x}", "", warn, "CFG032", "config.unused_key"},
		{"CF1/unused variable", "", "CORE_CHAINCODE_MODE=dev", warn, "CFG032", "config.unused_key"},
		{"CF2/same", "peer: {id: a, id: b}", "", SeverityError, "CFG005", "config.duplicate_key"},
		{"CF2/case", "peer: {id: a, ID: b}", "", SeverityError, "CFG005", "config.duplicate_key"},
		{"CF2/dotted", "peer: {id: a}\npeer.id: b", "", SeverityError, "CFG005", "config.duplicate_key"},
		{"CF2/core", "peer: {id: a}\ncore: {peer: {id: b}}", "", SeverityError, "CFG005", "config.duplicate_key"},
		{"CF3/bool", "peer: {gossip: {orgLeader: maybe}}", "", SeverityError, "CFG004", "config.type"},
		{"CF3/yes", "peer: {gossip: {orgLeader: yes}}", "", SeverityError, "CFG004", "config.type"},
		{"CF3/number as bool", "peer: {gossip: {orgLeader: 1}}", "", SeverityError, "CFG004", "config.type"},
		{"CF3/int", "peer: {gossip: {propagatePeerNum: three}}", "", SeverityError, "CFG004", "config.type"},
		{"CF3/float", "peer: {gossip: {propagatePeerNum: 3.5}}", "", SeverityError, "CFG004", "config.type"},
		{"CF3/map for value", "peer: {id: {a: b}}", "", warn, "CFG003", "config.unknown_key"},
		{"CF3/list for value", "peer: {id: [a, b]}", "", SeverityError, "CFG004", "config.type"},
		{"CF3/value for section", "peer: {gossip: true}", "", SeverityError, "CFG004", "config.type"},
		{"CF3/address", "peer: {listenAddress: here}", "", SeverityError, "CFG004", "config.type"},
		{"CF3/port", "peer: {listenAddress: 'a:70000'}", "", SeverityError, "CFG004", "config.type"},
		{"CF3/endpoint", "peer: {gossip: {externalEndpoint: '0.0.0.0:7051'}}", "", SeverityError, "CFG004", "config.type"},
		{"CF3/word", "metrics: {provider: promethius}", "", SeverityError, "CFG004", "config.type"}, //nolint:misspell // on purpose
		{"CF3/policy", "peer: {deliveryclient: {policy: clusters}}", "", SeverityError, "CFG004", "config.type"},
		{"CF4/no unit", "peer: {gossip: {pullInterval: 10}}", "", SeverityError, "CFG010", "config.duration"},
		{"CF4/no unit, quoted", "peer: {gossip: {pullInterval: '10'}}", "", SeverityError, "CFG010", "config.duration"},
		{"CF4/variable", "", "CORE_PEER_GOSSIP_PULLINTERVAL=10", SeverityError, "CFG010", "config.environment"},
		{"CF4/huge", "peer: {gossip: {pullInterval: 1000000000h}}", "", SeverityError, "CFG004", "config.duration"},
		{"CF4/days", "peer: {gossip: {pullInterval: 1d}}", "", SeverityError, "CFG004", "config.duration"},
		{"CF4/zero", "peer: {gossip: {connTimeout: 0}}", "", warn, "CFG014", "config.zero_default"},
		{"CF4/zero seconds", "peer: {gossip: {connTimeout: 0s}}", "", warn, "CFG014", "config.zero_default"},
		{"CF4/negative", "peer: {gossip: {connTimeout: -5s}}", "", warn, "CFG014", "config.zero_default"},
		{"CF4/zero number", "peer: {gossip: {maxConnectionAttempts: 0}}", "", warn, "CFG014", "config.zero_default"},
		{"CF4/zero elsewhere", "peer: {keepalive: {interval: 0s}}", "", SeverityError, "CFG004", "config.duration"},
		{"CF4/negative elsewhere", "peer: {maxRecvMsgSize: -1}", "", SeverityError, "CFG004", "config.type"},
		{"CF5", "peer: {gossip: {aliveTimeInterval: 5s, aliveExpirationTimeout: 9s}}", "", SeverityError, "CFG006", "config.contradiction"},
		{"CF6/file", "peer: {gossip: {orgLeader: true, useLeaderElection: true}}", "", SeverityError, "CFG012", "config.both_leader_flags"},
		{"CF6/mixed", "peer: {gossip: {orgLeader: true}}", "CORE_PEER_GOSSIP_USELEADERELECTION=true", SeverityError, "CFG012", "config.both_leader_flags"},
		{"CF7/self", "peer: {address: 'a:1', gossip: {bootstrap: 'a:1'}}", "", warn, "CFG007", "config.bootstrap"},
		{"CF7/twice", "peer: {gossip: {bootstrap: 'b:1 b:1'}}", "", warn, "CFG007", "config.bootstrap"},
		{"CF14/bool", "", "CORE_PEER_GOSSIP_ORGLEADER=maybe", SeverityError, "CFG004", "config.environment"},
		{"CF14/empty bool", "", "CORE_PEER_GOSSIP_ORGLEADER=", SeverityError, "CFG004", "config.environment"},
		{"CF14/empty duration", "", "CORE_PEER_GOSSIP_PULLINTERVAL=", SeverityError, "CFG004", "config.environment"},
		{"CF14/logging", "", "FABRIC_LOGGING_SPEC=loud", SeverityError, "CFG004", "config.environment"},
		{"CF16/tab", "peer:\n\tid: a\n", "", SeverityError, "CFG002", "config.yaml"},
		{"CF16/tab after spaces", "peer:\n  \tid: a\n", "", SeverityError, "CFG002", "config.yaml"},
		{"CF16/UTF-8", "peer:\n  id: \xff\xfe\n", "", SeverityError, "CFG002", "config.yaml"},
		{"CF16/NUL", "peer:\n  id: \x00\n", "", SeverityError, "CFG002", "config.yaml"},
		{"CF16/alias bomb", bomb, "", SeverityError, "CFG002", "config.yaml"},
		{"CF16/merge", "a: &a {id: x}\npeer:\n  <<: *a\n", "", SeverityError, "CFG002", "config.yaml"},
		{"CF16/own alias", "peer: &p\n  gossip: *p\n", "", SeverityError, "CFG002", "config.yaml"},
		{"CF16/deep", strings.Repeat("a: {", 5000) + strings.Repeat("}", 5000), "", SeverityError, "CFG002", "config.yaml"},
		{"CF16/two documents", "peer: {id: a}\n---\npeer: {id: b}\n", "", SeverityError, "CFG002", "config.yaml"},
		{"CF16/no map", "- a\n- b\n", "", SeverityError, "CFG002", "config.yaml"},
		{"CF16/syntax", "peer: {id: a\n", "", SeverityError, "CFG002", "config.yaml"},
		{"CFG013", "peer: {gossip: {skipBlockVerification: true}}", "", SeverityError, "CFG013", "config.skip_verification"},
		{"CFG015", "peer: {gossip: {pullInterval: 3s, digestWaitTime: 1s, responseWaitTime: 2s}}", "", SeverityError, "CFG015", "config.pull_interval"},
		{"CFG015/alone", "peer: {gossip: {pullInterval: 2s}}", "", SeverityError, "CFG015", "config.pull_interval"},
		{"CFG016", "peer: {gossip: {useLeaderElection: true, state: {enabled: false}}, deliveryclient: {blockGossipEnabled: false}}", "", SeverityError, "CFG016", "config.cannot_follow"},
		{"CFG017", "peer: {gossip: {useLeaderElection: true, state: {enabled: false}}}", "", warn, "CFG017", "config.no_repair"},
		{"CFG017/standby", "peer: {gossip: {useLeaderElection: false, orgLeader: false, state: {enabled: false}}}", "", warn, "CFG017", "config.no_repair"},
		{"CFG018", "peer: {deliveryclient: {reConnectBackoffThreshold: 11s}}", "", warn, "CFG018", "config.backoff_capped"},
		{"CFG031", "peer: {gossip: {orgLeader: true, useLeaderElection: false, state: {enabled: false}}, deliveryclient: {blockGossipEnabled: false}}", "", warn, "CFG031", "config.spread_off"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var env []string
			if c.env != "" {
				env = []string{c.env}
			}
			dir := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(dir, "core.yaml"), []byte(c.yaml), 0o600))
			start := time.Now()
			s := Load(Input{Dir: dir, System: dir + "/none", Env: env})
			took := time.Since(start)
			got := slices.DeleteFunc(codes(s, c.severity), func(code string) bool { return code == fault.NotBuilt }) // TestWhatIsNotBuiltIsSaid
			require.Equal(t, []string{c.code}, got)
			if c.severity == warn {
				require.NoError(t, s.Err())
			} else {
				require.Equal(t, fault.ExitConfig, fault.Of(s.Err()).Exit)
			}
			for _, f := range s.Findings() {
				if f.Code != c.code {
					continue
				}
				require.Equal(t, c.reason, f.Reason)
				require.NotEmpty(t, f.Message)
				if c.env != "" {
					require.Contains(t, f.Text(), strings.SplitN(c.env, "=", 2)[0])
				}
			}
			require.Less(t, took, 2*time.Second, "bounded work")
		})
	}
}

func TestNamesAreSuggested(t *testing.T) {
	for yaml, want := range map[string]string{
		"peer: {gosip: {bootstrap: a:1}}":           "peer.gossip.bootstrap",
		"peer: {bootstrap: a:1}":                    "peer.gossip.bootstrap",
		"peer: {gossip: {orgLaeder: true}}":         "peer.gossip.orgLeader",
		"peer: {gossip: {state: {enable: true}}}":   "peer.gossip.state.enabled",
		"completely: {different: {thing: [1, 2]}}":  "",
		"peer: {gossip: {useLeaderElections: yes}}": "peer.gossip.useLeaderElection",
	} {
		s := judge(t, yaml)
		require.Equal(t, []string{"CFG003"}, codes(s, SeverityWarning), yaml)
		require.Equal(t, want, s.Findings()[0].Suggestion, yaml)
	}
	s := judge(t, "", "CORE_PEER_GOSSIP_BOOTSTAP=a:1")
	require.Contains(t, s.Findings()[0].Message+s.Findings()[1].Message, "unknown env CORE_PEER_GOSSIP_BOOTSTAP (did you mean CORE_PEER_GOSSIP_BOOTSTRAP?)")
}

func TestCF8NoExternalEndpoint(t *testing.T) {
	s := judge(t, "")
	require.Len(t, s.Findings(), 1)
	require.Equal(t, "CFG008", s.Findings()[0].Code)
	require.Empty(t, judge(t, "peer: {gossip: {externalendpoint: 'p:7051'}}").Findings())
}

func TestCF9PortZeroIsAccepted(t *testing.T) {
	s := judge(t, "peer: {localMspId: X, listenAddress: '127.0.0.1:0'}")
	p, err := s.Peer()
	require.NoError(t, err)
	require.Equal(t, []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"}, p.Listen)
}

func TestCF16BOMAndCRLFAreAccepted(t *testing.T) {
	s := judge(t, "\xef\xbb\xbfpeer:\r\n  id: a\r\n  gossip:\r\n    orgLeader: true\r\n")
	require.NoError(t, s.Err())
	require.Equal(t, "a", s.str("peer.id"))
	require.True(t, s.flag("peer.gossip.orgLeader"))
}

func TestAliasesAreFollowed(t *testing.T) {
	s := judge(t, "peer:\n  address: &a 'a:1'\n  gossip:\n    endpoint: *a\n")
	require.NoError(t, s.Err())
	require.Equal(t, "a:1", s.str("peer.gossip.endpoint"))
}

func TestErrorsNameFileLineAndColumn(t *testing.T) {
	f := refused(t, judge(t, "peer:\n  id: a\n\tx: 1\n"), "CFG002")
	require.Equal(t, 3, f.Source.Line)
	require.Contains(t, f.Message, "core.yaml:3:1: a tab in the indentation")
	both := refused(t, judge(t, "peer:\n  gossip:\n    orgLeader: true\n", "CORE_PEER_GOSSIP_USELEADERELECTION=true"), "CFG012")
	require.Equal(t, []string{
		"useLeaderElection = true  from env CORE_PEER_GOSSIP_USELEADERELECTION",
		"orgLeader         = true  from core.yaml:3",
	}, both.Why)
}

func TestLargeFilesAreNotRead(t *testing.T) {
	dir := t.TempDir()
	f := filepath.Join(dir, "core.yaml")
	require.NoError(t, os.WriteFile(f, nil, 0o600))
	require.NoError(t, os.Truncate(f, 1<<30))
	refused(t, Load(Input{Files: []string{f}}), "CFG001")
}

func TestCLI10SecretsAreNotShown(t *testing.T) {
	pin := base64.StdEncoding.EncodeToString([]byte("a secret pin"))
	s := judge(t, "peer: {BCCSP: {PKCS11: {Pin: "+pin+", KeyIds: [{id: "+pin+"}]}}}", "CORE_PEER_BCCSP_PKCS11_LABEL=x")
	for _, v := range s.Values("") {
		require.NotContains(t, v.Text, pin)
	}
	for _, f := range s.Findings() {
		require.NotContains(t, f.Text()+f.Value, pin)
	}
	p := s.value("peer.BCCSP.PKCS11.Pin")
	require.Equal(t, "[secret]", p.Text)
	refused(t, judge(t, "", "CORE_PEER_BCCSP_PKCS11_PIN=\x00"+pin), "CFG004")
	for _, f := range judge(t, "", "CORE_PEER_BCCSP_PKCS11_PIN=\x00"+pin).Findings() {
		require.NotContains(t, f.Text()+f.Value, pin)
	}
}

func TestExplain(t *testing.T) {
	for _, name := range []string{"peer.gossip.orgLeader", "PEER.GOSSIP.ORGLEADER", "core.peer.gossip.orgleader", "CORE_PEER_GOSSIP_ORGLEADER"} {
		k, _ := Explain(name)
		require.NotNil(t, k, name)
		require.Equal(t, "peer.gossip.orgLeader", k.Path)
	}
	k, near := Explain("peer.gossip.orgLeadr")
	require.Nil(t, k)
	require.Equal(t, "peer.gossip.orgLeader", near)
	k, _ = Explain("General.ListenPort")
	require.Equal(t, "ORDERER_GENERAL_LISTENPORT", k.Env())
}

func FuzzConfigFile(f *testing.F) {
	core, err := os.ReadFile("testdata/core.yaml")
	require.NoError(f, err)
	orderer, err := os.ReadFile("testdata/orderer.yaml")
	require.NoError(f, err)
	for _, seed := range [][]byte{core, orderer, nil, []byte("a: &a {b: *a}"), []byte("peer:\n\tid: x"), []byte("<<: {a: 1}"), []byte("- 1"), []byte("\xef\xbb\xbfpeer: {id: x}\r\n"), []byte("peer: {deliveryclient: {addressOverrides: [{from: a:1, to: b:2}]}}")} {
		f.Add(seed, "CORE_PEER_GOSSIP_PULLINTERVAL=10")
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, raw []byte, env string) {
		name := filepath.Join(dir, "core.yaml")
		require.NoError(t, os.WriteFile(name, raw, 0o600))
		in := Input{Files: []string{name}, Env: []string{env}}
		s := Load(in)
		again := Load(in)
		require.Equal(t, len(s.Findings()), len(again.Findings()), "the verdict is stable")
		for _, f := range s.Findings() {
			require.NotEmpty(t, f.Text())
			_, ok := fault.Lookup(f.Code)
			require.True(t, ok, f.Code)
		}
		if s.Err() == nil {
			if p, err := s.Peer(); s.Role == RolePeer && err == nil {
				require.NotEmpty(t, p.MSPID)
				require.False(t, bytes.ContainsRune([]byte(p.MSPID), 0))
			}
		}
	})
}

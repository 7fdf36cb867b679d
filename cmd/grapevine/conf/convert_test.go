package conf

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

const fabricsOwn = `
peer:
  id: peer0
  localMspId: Org1MSP
  mspConfigPath: msp
  fileSystemPath: /var/hyperledger/production
  handlers: {authFilters: [{name: DefaultAuth}]}
  gossip:
    bootstrap: peer1.org1:7051 peer2.org1:7051
    useLeaderElection: false
    orgLeader: false
    state: {enabled: false}
    reconnectInterval: 25s
  deliveryclient:
    blockGossipEnabled: false
    addressOverrides:
      - {from: orderer.example.com:7050, to: 10.0.0.1:7050}
vm: {endpoint: "unix:///var/run/docker.sock"}
chaincode: {mode: net}
`

// converted loads a text, converts it, and loads the result.
func converted(t *testing.T, text string, enable bool) (before, after *Settings, dropped []Dropped) {
	dir := t.TempDir()
	load := func(name string, raw []byte) *Settings {
		file := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(file, raw, 0o600))
		return Load(Input{Role: RolePeer, Files: []string{file}, Dir: dir})
	}
	before = load("core.yaml", []byte(text))
	raw, dropped, err := before.Convert(enable)
	require.NoError(t, err)
	return before, load("converted.yaml", raw), dropped
}

// Converted, a configuration says the same, and there is nothing left to say of
// keys without meaning.
func TestConvertKeepsWhatCounts(t *testing.T) {
	before, after, dropped := converted(t, fabricsOwn, false)
	for _, v := range before.Values("") {
		require.Equal(t, v.Text, after.value(v.Key.Path).Text, v.Key.Path)
	}
	for _, f := range after.Findings() {
		require.NotContains(t, []string{"CFG003", "CFG032"}, f.Code, f.Message)
	}
	var keys []string
	for _, d := range dropped {
		keys = append(keys, d.Key)
	}
	require.Contains(t, keys, "vm.*")
	require.Contains(t, keys, "chaincode.*")
}

func TestConvertEnablesDissemination(t *testing.T) {
	before, after, dropped := converted(t, fabricsOwn, true)
	require.False(t, before.flag("peer.deliveryclient.blockGossipEnabled"))
	require.True(t, after.flag("peer.deliveryclient.blockGossipEnabled"))
	require.True(t, after.flag("peer.gossip.state.enabled"))
	require.Equal(t, Dynamic, after.mode())
	require.Contains(t, dropped, Dropped{"peer.gossip.orgLeader", "dissemination is enabled: false would switch it off or change how"})
	require.Len(t, after.value("peer.deliveryclient.addressOverrides").Parsed, 1)
}

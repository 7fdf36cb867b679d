package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// Against a recorded channel, offline: an update is made, signed by two, and
// says what it changes; nobody signs twice and nothing is overwritten.
func TestConfigUpdates(t *testing.T) {
	dir := t.TempDir()
	p := play{dir: dir}
	p.object(t, 0, "ledger", "import", "--genesis", fixtures(t, "raft", "genesis.block"), "--blocks", fixtures(t, "raft", "blocks"), "--data", "data")
	admin := func(org string) string {
		out := filepath.Join(dir, org)
		require.NoError(t, os.CopyFS(out, os.DirFS(fixtures(t, "raft", "crypto", "peerOrganizations", org, "users", "Admin@"+org, "msp"))))
		require.NoError(t, filepath.WalkDir(filepath.Join(out, "keystore"), func(path string, d os.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				err = os.Chmod(path, 0o600)
			}
			return err
		}))
		return out
	}
	u := p.object(t, 0, "channel", "config", "set-anchor", "mychannel", "OrgAMSP", "peer9.org1.example.com:7051", "--data", "data")
	require.Equal(t, "ConfigUpdate", u["kind"])
	require.Equal(t, "mychannel.update.pb", u["file"])
	require.Len(t, u["changes"], 1)
	require.Contains(t, u["changes"].([]any)[0].(map[string]any)["path"], "/values/AnchorPeers")
	require.Empty(t, u["signers"])
	p.fails(t, 1, "API002", "channel", "config", "set-anchor", "mychannel", "OrgAMSP", "a:1", "--data", "data") // the file exists

	org1 := admin("orga.example.com")
	s := p.object(t, 0, "channel", "config", "sign", "mychannel.update.pb", "--msp", org1, "--mspid", "OrgAMSP")
	require.Len(t, s["signers"], 1)
	p.fails(t, 1, "CHN008", "channel", "config", "sign", "mychannel.update.pb", "--msp", org1, "--mspid", "OrgAMSP")
	s = p.object(t, 0, "channel", "config", "sign", "mychannel.update.pb", "--msp", admin("orgb.example.com"), "--mspid", "OrgBMSP")
	require.Len(t, s["signers"], 2)

	// The recorded configuration, edited.
	now := p.run("channel", "config", "mychannel", "--data", "data")
	require.Equal(t, 0, now.code)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "now.json"), []byte(now.out), 0o600))
	p.fails(t, 1, "CHN009", "channel", "config", "diff", "mychannel", "now.json", "--data", "data", "--out", "none.pb")
	p.fails(t, 1, "CHN008", "channel", "config", "diff", "mychannel", "mychannel.update.pb", "--data", "data", "--out", "none.pb")
	p.fails(t, 1, "CHN008", "channel", "config", "sign", "now.json", "--msp", org1, "--mspid", "OrgAMSP")
	p.fails(t, 1, "CHN008", "channel", "config", "remove-org", "mychannel", "Org9MSP", "--data", "data", "--out", "none.pb")
	r := p.object(t, 0, "channel", "config", "remove-org", "mychannel", "OrgBMSP", "--data", "data", "--out", "remove.pb")
	require.NotEmpty(t, r["changes"])
}

const fabricPeer = `
peer:
  id: peer0.org1
  localMspId: Org1MSP
  mspConfigPath: msp
  fileSystemPath: data
  address: peer0.org1:7051
  gossip: {useLeaderElection: false, orgLeader: true, externalEndpoint: "peer0.org1:7051", state: {enabled: false}}
  deliveryclient: {blockGossipEnabled: false}
vm: {endpoint: "unix:///var/run/docker.sock"}
`

// A Fabric peer's folder is judged offline: what is off is said with the command
// that mends it, and a certificate near its end is warned of.
func TestDoctorFromFabric(t *testing.T) {
	dir := t.TempDir()
	p := play{dir: dir, now: epoch}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "crypto-config.yaml"), []byte(`
PeerOrgs: [{Name: org1, Domain: org1, EnableNodeOUs: true, Template: {Count: 1}, Users: {Count: 0}}]
`), 0o600))
	require.Equal(t, 0, p.run("ca", "generate", "-f", "crypto-config.yaml", "-o", "crypto").code)
	require.NoError(t, os.Rename(filepath.Join(dir, "crypto/peerOrganizations/org1/peers/peer0.org1/msp"), filepath.Join(dir, "msp")))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "core.yaml"), []byte(fabricPeer), 0o600))

	byCode := func(v map[string]any) map[string]map[string]any {
		out := map[string]map[string]any{}
		for _, c := range v["checks"].([]any) {
			c := c.(map[string]any)
			out[c["code"].(string)+" "+c["status"].(string)] = c
		}
		return out
	}
	v := p.object(t, 0, "doctor", "--from-fabric", dir)
	require.Equal(t, "Doctor", v["kind"])
	require.Equal(t, true, v["ok"])
	checks := byCode(v)
	require.Contains(t, checks["CFG031 warn"]["fix"], "config convert")
	require.Contains(t, checks, "CERT002 pass")
	require.Contains(t, checks, "MSP002 pass")
	require.Contains(t, checks, "CERT006 skip")

	// Long after, the certificate has ended; a folder without one fails too.
	old := play{dir: dir, now: epoch.AddDate(50, 0, 0)}
	require.Contains(t, byCode(old.object(t, 6, "doctor", "--from-fabric", "core.yaml")), "CERT004 fail")
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "msp", "keystore")))
	require.NotContains(t, byCode(p.object(t, 6, "doctor", "--from-fabric", dir)), "MSP002 pass")
	p.object(t, 6, "doctor", "--from-fabric", filepath.Join(dir, "nowhere"))

	// What doctor tells to do can be done.
	c := p.run("config", "convert", "core.yaml", "--enable-dissemination", "-q")
	require.Equal(t, 0, c.code, c.err)
	require.NotContains(t, c.out, "orgLeader")
	require.NotContains(t, c.out, "docker")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "new.yaml"), []byte(c.out), 0o600))
	require.NotContains(t, byCode(p.object(t, 6, "doctor", "--from-fabric", "new.yaml")), "CFG031 warn")
}

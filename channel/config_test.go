package channel_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/stretchr/testify/require"

	"grapevine/block"
	"grapevine/channel"
	"grapevine/msp"
	"grapevine/wire"
)

// recordedNetwork returns the folder of a recorded Fabric network.
func recordedNetwork(t testing.TB, network string) string {
	t.Helper()
	dir := os.Getenv("GRAPEVINE_FIXTURES")
	if dir == "" {
		shared := filepath.Join("..", "..", "shared")
		if _, err := os.Stat(shared); err != nil {
			t.Skip("the recorded Fabric chains are not beside this clone; GRAPEVINE_FIXTURES may name them")
		}
		dir = filepath.Join(shared, "fixtures")
	}
	dir = filepath.Join(dir, "fabric", network)
	if _, err := os.Stat(dir); err != nil {
		t.Fatalf("fixtures: %v", err)
	}
	return dir
}

func readFile(t testing.TB, elem ...string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(elem...))
	require.NoError(t, err)
	return raw
}

func readBlock(t testing.TB, elem ...string) *common.Block {
	t.Helper()
	b, err := block.Decode(readFile(t, elem...))
	require.NoError(t, err)
	return b
}

// refusedBy demands a reason's code and verdict.
func refusedBy(t testing.TB, want *wire.Reason, err error) {
	t.Helper()
	require.Error(t, err)
	got := wire.ReasonOf(err)
	require.NotNil(t, got, "no reason in: %v", err)
	require.Equal(t, want.Code(), got.Code(), "%v", err)
	require.Equal(t, want.Verdict(), got.Verdict(), "%v", err)
}

// TestRecordedConfigs reads every configuration of the recorded chains, each
// from the one before it, and prints it as configtxlator did.
func TestRecordedConfigs(t *testing.T) {
	for _, network := range []string{"raft", "bft"} {
		t.Run(network, func(t *testing.T) {
			dir := recordedNetwork(t, network)
			c, err := channel.Parse(readBlock(t, dir, "genesis.block"))
			require.NoError(t, err)
			require.Zero(t, c.Sequence())
			for n := range 31 {
				b := readBlock(t, dir, "blocks", fmt.Sprintf("%04d.block", n))
				if !block.IsConfig(b) {
					continue
				}
				if n > 0 {
					next, err := c.Next(b)
					require.NoError(t, err, "block %d", n)
					require.Equal(t, c.Sequence()+1, next.Sequence())
					again, err := c.Next(b)
					require.NoError(t, err)
					require.Same(t, next, again)
					c = next
				}
				require.EqualValues(t, n, c.Number())
				require.EqualValues(t, n, c.Rules().LastConfig)
				require.JSONEq(t, printedConfig(t, dir, n), string(jsonOf(t, c)))
			}
			require.EqualValues(t, 5, c.Sequence())
			checkRecorded(t, c, network)

			newest, err := channel.Parse(readBlock(t, dir, "config.block"))
			require.NoError(t, err)
			require.Equal(t, jsonOf(t, c), jsonOf(t, newest))
		})
	}
}

func jsonOf(t testing.TB, c *channel.Config) []byte {
	raw, err := c.JSON()
	require.NoError(t, err)
	return raw
}

// printedConfig is configtxlator's JSON of the configuration in block n.
func printedConfig(t testing.TB, dir string, n int) string {
	var b struct {
		Data struct {
			Data []struct {
				Payload struct {
					Data struct{ Config json.RawMessage }
				}
			}
		}
	}
	require.NoError(t, json.Unmarshal(readFile(t, dir, "blocks-json", fmt.Sprintf("%04d.json", n)), &b))
	return string(b.Data.Data[0].Payload.Data.Config)
}

func checkRecorded(t *testing.T, c *channel.Config, network string) {
	require.Equal(t, "mychannel", c.Channel())
	require.False(t, c.Maintenance())
	require.True(t, c.Capable("V3_0"))
	require.EqualValues(t, 20, c.Batch().MaxMessageCount)
	require.Equal(t, 500*time.Millisecond, c.BatchTimeout())
	require.EqualValues(t, 20, c.Rules().MaxMessages)

	orgs := c.Orgs()
	require.Len(t, orgs, 3)
	for i, name := range []string{"OrgA", "OrgB", "OrgC"} {
		require.Equal(t, name, orgs[i].Name)
		require.Equal(t, name+"MSP", orgs[i].MSPID)
		require.Len(t, orgs[i].Anchors, 1)
		require.Same(t, c.MSP(name+"MSP"), orgs[i].MSP)
	}
	require.Len(t, c.MSPs(), 4)
	require.Len(t, c.Orderers(), map[string]int{"raft": 3, "bft": 4}[network])
	for _, o := range c.Orderers() {
		require.Equal(t, "OrdererMSP", o.MSPID)
		require.NotEmpty(t, o.RootsPEM)
		require.NotNil(t, o.TLSRoots)
		require.Contains(t, o.Endpoint, "127.0.0.1:")
	}
	if network == "raft" {
		require.Equal(t, channel.ConsensusRaft, c.Consensus())
		require.Len(t, c.Consenters(), 3)
		require.False(t, c.Rules().BFT)
	} else {
		require.Equal(t, channel.ConsensusBFT, c.Consensus())
		require.Len(t, c.Consenters(), 4)
		require.Equal(t, 3, c.Rules().Quorum())
		require.NotEmpty(t, c.Consenters()[0].Identity)
	}
	require.Equal(t, msp.Deny, c.Policy("/Channel/Application/Absent"))
}

// TestRecordedMembers: the live judge knows the clock, and the revocation that
// came with a configuration.
func TestRecordedMembers(t *testing.T) {
	dir := recordedNetwork(t, "raft")
	first, err := channel.Parse(readBlock(t, dir, "genesis.block"))
	require.NoError(t, err)
	last, err := channel.Parse(readBlock(t, dir, "config.block"))
	require.NoError(t, err)
	peers := filepath.Join(dir, "crypto", "peerOrganizations")
	load := func(mspID string, elem ...string) *msp.Identity {
		found, err := filepath.Glob(filepath.Join(append(append([]string{peers}, elem...), "msp", "signcerts", "*.pem")...))
		require.NoError(t, err)
		require.Len(t, found, 1)
		id, err := msp.FromPEM(mspID, readFile(t, found[0]))
		require.NoError(t, err)
		return id
	}
	peer := load("OrgAMSP", "orga.example.com", "peers", "peer0.orga.example.com")
	now := peer.Certificate().NotBefore.Add(time.Hour)
	require.NoError(t, last.Member(peer, nil, now))
	refusedBy(t, msp.Expired, last.Member(peer, nil, now.AddDate(50, 0, 0)))

	user := load("OrgBMSP", "orgb.example.com", "users", "User2@orgb.example.com")
	require.NoError(t, first.Member(user, nil, now))
	refusedBy(t, msp.Revoked, last.Member(user, nil, now))

	stranger, err := msp.FromDER("OtherMSP", peer.Certificate().Raw)
	require.NoError(t, err)
	refusedBy(t, channel.NotMember, last.Member(stranger, nil, now))

	orderers, err := filepath.Glob(filepath.Join(dir, "crypto", "ordererOrganizations", "*", "orderers", "*", "msp", "signcerts", "*.pem"))
	require.NoError(t, err)
	require.NotEmpty(t, orderers)
	orderer, err := msp.FromPEM("OrdererMSP", readFile(t, orderers[0]))
	require.NoError(t, err)
	refusedBy(t, channel.NotMember, last.Member(orderer, nil, now))
}

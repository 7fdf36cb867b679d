package admin

import (
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"grapevine/block"
	"grapevine/channel"
	"grapevine/channel/genesis"
	"grapevine/msp/ca"
)

// recorded reads a file of the recorded Fabric channels.
func recorded(t testing.TB, parts ...string) []byte {
	t.Helper()
	root := recordings(t)
	if root == "" {
		t.Skip("no recorded channels: set GRAPEVINE_FIXTURES")
	}
	b, err := os.ReadFile(filepath.Join(append([]string{root, "fabric"}, parts...)...))
	if err != nil {
		t.Fatalf("the recorded channels lack: %v", err)
	}
	return b
}

// recordings is where the recorded channels are, empty if they aren't here.
func recordings(t testing.TB) string {
	t.Helper()
	if root := os.Getenv("GRAPEVINE_FIXTURES"); root != "" {
		return root
	}
	shared, err := filepath.Abs(filepath.Join("..", "..", "..", "..", "shared"))
	require.NoError(t, err)
	if _, err := os.Stat(shared); err != nil {
		return ""
	}
	return filepath.Join(shared, "fixtures")
}

func rulesOf(t testing.TB, raw []byte) *block.Rules {
	b, err := block.Decode(raw)
	require.NoError(t, err)
	c, err := channel.Parse(b)
	require.NoError(t, err)
	return c.Rules()
}

func TestDecodeBlockJudgesEachSignature(t *testing.T) {
	for _, network := range []string{"raft", "bft"} {
		rules := rulesOf(t, recorded(t, network, "genesis.block"))
		raw := recorded(t, network, "blocks", "0001.block")
		b, err := DecodeBlock(raw, rules, false)
		require.NoError(t, err)
		require.NotEmpty(t, b.Signatures)
		for _, s := range b.Signatures {
			require.True(t, s.Valid)
			require.Equal(t, "OrdererMSP", s.MSPID)
			require.Contains(t, s.Subject, "CN=orderer")
			require.Equal(t, network == "bft", s.ConsenterID != 0)
		}
		require.True(t, b.Config)
		require.Equal(t, "config", b.Txs[0].Type)
		require.Equal(t, "mychannel", b.Channel)

		unjudged, err := DecodeBlock(raw, nil, false)
		require.NoError(t, err)
		require.False(t, unjudged.Signatures[0].Valid)

		decoded, err := block.Decode(append([]byte(nil), raw...))
		require.NoError(t, err)
		decoded.Header.DataHash = make([]byte, 32)
		forged, err := block.Marshal(decoded)
		require.NoError(t, err)
		b, err = DecodeBlock(forged, rules, false)
		require.NoError(t, err)
		for _, s := range b.Signatures {
			require.False(t, s.Valid)
		}
	}
}

func TestDecodeBlockAgainstTheRecord(t *testing.T) {
	var summary []struct {
		Number uint64 `json:"number"`
		Hash   string `json:"header_hash"`
		Tx     []struct {
			ID string `json:"txid"`
		} `json:"tx"`
	}
	require.NoError(t, json.Unmarshal(recorded(t, "raft", "summary.json"), &summary))
	require.Len(t, summary, 31)
	for _, want := range summary {
		b, err := DecodeBlock(recorded(t, "raft", "blocks", fmt.Sprintf("%04d.block", want.Number)), nil, true)
		require.NoError(t, err)
		require.Equal(t, want.Hash, b.Hash)
		require.Len(t, want.Tx, b.TxCount)
		for i, tx := range want.Tx {
			require.Equal(t, i, b.Txs[i].Index)
			require.Equal(t, tx.ID, b.Txs[i].ID)
			require.NotEmpty(t, b.Txs[i].Payload)
		}
	}
	// Odd entries are shown as far as they can be read.
	b, err := DecodeBlock(recorded(t, "raft", "blocks", "0025.block"), nil, false)
	require.NoError(t, err)
	require.Equal(t, "message", b.Txs[0].Type)
}

func TestDecodeBlockRefusesNoise(t *testing.T) {
	for _, raw := range [][]byte{nil, {0xff}, []byte("noise")} {
		_, err := DecodeBlock(raw, nil, false)
		require.Error(t, err)
	}
}

func FuzzDecodeBlock(f *testing.F) {
	orderers, err := ca.NewOrg("OrdererMSP", "orderer", time.Now())
	require.NoError(f, err)
	cert, err := orderers.TLS("orderer0", "localhost")
	require.NoError(f, err)
	first, err := genesis.Block(genesis.Profile{
		Channel:    "mychannel",
		Orderers:   []genesis.Org{{Name: "OrdererOrg", MSPID: "OrdererMSP", MSP: orderers.MSPConfig(), Endpoints: []string{"127.0.0.1:7050"}}},
		Consenters: []genesis.Consenter{{Host: "127.0.0.1", Port: 7051, ServerTLS: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})}},
		Time:       time.Now(),
	})
	require.NoError(f, err)
	own, err := block.Marshal(first)
	require.NoError(f, err)
	rules := rulesOf(f, own)
	f.Add(own)
	if recordings(f) != "" {
		rules = rulesOf(f, recorded(f, "bft", "genesis.block"))
		for _, n := range []string{"0000", "0009", "0018", "0025", "0029"} {
			f.Add(recorded(f, "raft", "blocks", n+".block"))
			f.Add(recorded(f, "bft", "blocks", n+".block"))
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := DecodeBlock(raw, rules, true)
		if err != nil {
			return
		}
		out, err := Marshal(b)
		require.NoError(t, err)
		require.True(t, json.Valid(out))
		_, err = hex.DecodeString(b.Hash)
		require.NoError(t, err)
	})
}

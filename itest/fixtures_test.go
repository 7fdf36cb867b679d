package itest

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
	"grapevine/channel"
	"grapevine/ledger"
	"grapevine/msp"
	"grapevine/node"
)

// recording is what a real Fabric network left: its chain, its identities and
// what its peers reported.
type recording struct {
	dir    string
	folder string   // of the identity that signer gave last
	files  [][]byte // the blocks as an orderer delivered them
	chain  []*common.Block
	conf   *channel.Config // of block 0
	tip    block.Tip       // as every real peer reported it

	verdicts []ledger.Verdict  // codes and commit hashes, as a real peer kept them
	state    map[string][]byte // of the chaincode's namespace, but for composite keys, as queries answered
}

// record loads the recorded network called name, or skips the test where no
// recordings are.
func record(t *testing.T, name string) *recording {
	t.Helper()
	dir := os.Getenv("GRAPEVINE_FIXTURES")
	if dir == "" {
		beside := filepath.Join("..", "..", "shared")
		if _, err := os.Stat(beside); err != nil {
			t.Skip("no recorded Fabric networks: GRAPEVINE_FIXTURES isn't set, and there is no folder of them beside the clone")
		}
		dir = filepath.Join(beside, "fixtures")
	}
	r := &recording{dir: filepath.Join(dir, "fabric", name)}
	for n := 0; ; n++ {
		raw, err := os.ReadFile(filepath.Join(r.dir, "blocks", fmt.Sprintf("%04d.block", n)))
		if os.IsNotExist(err) {
			break
		}
		require.NoError(t, err)
		b, err := block.Decode(raw)
		require.NoError(t, err)
		r.files, r.chain = append(r.files, raw), append(r.chain, b)
	}
	require.NotEmpty(t, r.chain, "%s holds no blocks", r.dir)
	var err error
	r.conf, err = channel.Parse(r.chain[0])
	require.NoError(t, err)

	var reports map[string]struct {
		Height           uint64
		CurrentBlockHash string
	}
	raw, err := os.ReadFile(filepath.Join(r.dir, "chaininfo.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(raw, &reports))
	require.NotEmpty(t, reports)
	for who, v := range reports {
		hash, err := base64.StdEncoding.DecodeString(v.CurrentBlockHash)
		require.NoError(t, err)
		tip := block.Tip{Height: v.Height, Hash: [32]byte(hash)}
		if r.tip.Height != 0 {
			require.Equal(t, r.tip, tip, "the real peers differ: %s", who)
		}
		r.tip = tip
	}
	require.EqualValues(t, len(r.chain), r.tip.Height)
	for n := range r.chain {
		raw, err := os.ReadFile(filepath.Join(r.dir, "peerblocks", fmt.Sprintf("%04d.block", n)))
		require.NoError(t, err)
		b, err := block.Decode(raw)
		require.NoError(t, err)
		m := &common.Metadata{}
		require.NoError(t, proto.Unmarshal(b.Metadata.Metadata[common.BlockMetadataIndex_COMMIT_HASH], m))
		r.verdicts = append(r.verdicts, ledger.Verdict{Codes: b.Metadata.Metadata[common.BlockMetadataIndex_TRANSACTIONS_FILTER], CommitHash: m.Value})
	}
	raw, err = os.ReadFile(filepath.Join(r.dir, "state.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(raw, &r.state))
	return r
}

// judged holds a ledger's verdicts and world state against those of the real
// peers, and returns the state hashes.
func (r *recording) judged(t *testing.T, l *ledger.Ledger) (hashes [][32]byte) {
	t.Helper()
	for n, want := range r.verdicts {
		v, err := l.Verdict(uint64(n))
		require.NoError(t, err)
		require.Equal(t, want.Codes, v.Codes, "block %d", n)
		require.Equal(t, string(want.CommitHash), string(v.CommitHash), "block %d", n)
		hashes = append(hashes, v.StateHash)
	}
	w, err := l.World(t.Context())
	require.NoError(t, err)
	got := map[string][]byte{}
	for x, err := range w.Range("basic", "\x01", "") {
		require.NoError(t, err)
		got[x.Key.Key] = x.Value
	}
	require.Equal(t, r.state, got)
	require.Equal(t, hashes[len(hashes)-1], w.Hash())
	require.NoError(t, w.Close())
	return hashes
}

// peer gives a node the identity of peer k of an organisation: its folder as
// cryptogen wrote it.
func (r *recording) peer(t *testing.T, org channel.Org, k int, c *node.Config) {
	t.Helper()
	domain := strings.ToLower(org.Name) + ".example.com"
	c.Name = fmt.Sprintf("peer%d.%s", k, domain)
	folder := filepath.Join(r.dir, "crypto", "peerOrganizations", domain, "peers", c.Name, "msp")
	var err error
	c.Signer, err = msp.Load(org.MSPID, folder)
	require.NoError(t, err)
	c.Chain, err = msp.LoadChain(folder)
	require.NoError(t, err)
	conf, _, err := msp.LoadConfig(org.MSPID, folder)
	require.NoError(t, err)
	c.MSP, err = msp.New(conf, msp.Features{NodeOUs: true})
	require.NoError(t, err)
}

// longPatience is for plays of several acts, on busy machines, under the race
// detector.
func longPatience(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

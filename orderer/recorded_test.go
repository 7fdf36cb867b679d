package orderer_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"iter"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
	"grapevine/channel"
	"grapevine/deliver"
	"grapevine/msp"
	"grapevine/orderer"
)

// recorded is a chain that never grows.
type recorded []*common.Block

func (r recorded) Height() uint64 { return uint64(len(r)) }

func (r recorded) Blocks(ctx context.Context, from uint64) iter.Seq2[*common.Block, error] {
	return func(yield func(*common.Block, error) bool) {
		for n := from; n < r.Height(); n++ {
			if !yield(r[n], nil) {
				return
			}
		}
		<-ctx.Done()
		yield(nil, ctx.Err())
	}
}

// fixtures is the folder of a recorded Fabric network.
func fixtures(t *testing.T, network string) string {
	t.Helper()
	dir := os.Getenv("GRAPEVINE_FIXTURES")
	if dir == "" {
		beside := filepath.Join("..", "..", "shared")
		if _, err := os.Stat(beside); err != nil {
			t.Skip("no recorded Fabric networks: GRAPEVINE_FIXTURES isn't set, and there is no folder of them beside the clone")
		}
		dir = filepath.Join(beside, "fixtures")
	}
	dir = filepath.Join(dir, "fabric", network)
	if _, err := os.Stat(dir); err != nil {
		t.Fatalf("fixtures: %v", err)
	}
	return dir
}

// A chain that real Fabric orderers signed goes through our server and our client, over TLS, to a real peer's identity;
// what arrives is verified block by block under the configuration that the chain itself carries, and is byte for byte
// what the orderers sent.
func TestRecordedChain(t *testing.T) {
	for _, network := range []string{"raft", "bft"} {
		t.Run(network, func(t *testing.T) { testRecorded(t, fixtures(t, network)) })
	}
}

func testRecorded(t *testing.T, dir string) {
	var chain recorded
	var files [][]byte
	for n := 0; ; n++ {
		raw, err := os.ReadFile(filepath.Join(dir, "blocks", fmt.Sprintf("%04d.block", n)))
		if os.IsNotExist(err) {
			break
		}
		require.NoError(t, err)
		b, err := block.Decode(raw)
		require.NoError(t, err)
		chain, files = append(chain, b), append(files, raw)
	}
	require.Len(t, chain, 31)
	conf, err := channel.Parse(chain[0])
	require.NoError(t, err)
	folders, err := filepath.Glob(filepath.Join(dir, "crypto", "peerOrganizations", "*", "peers", "*", "msp"))
	require.NoError(t, err)
	require.NotEmpty(t, folders)
	var peer msp.Signer
	for _, org := range conf.Orgs() {
		if peer, err = msp.Load(org.MSPID, folders[0]); err == nil && org.MSP.Validate(peer.Identity()) == nil {
			break
		}
	}
	require.NoError(t, err)

	w := newWorld(t, batchOf(1), time.Second)
	cert, _ := w.tls(w.orderers)
	born := peer.Identity().Certificate().NotBefore.Add(time.Hour)
	handler := &deliver.Handler{
		// The recorded certificates may not be valid yet, or any more, when this runs.
		Now: func() time.Time { return born }, TimeWindow: 100 * 365 * 24 * time.Hour,
		Channels: func(name string) (deliver.Channel, bool) {
			return deliver.Channel{Source: chain, Access: func() deliver.Access {
				return deliver.Access{Sequence: conf.Sequence(), MSPs: conf.MSPs(), Readers: conf.Policy("/Channel/Readers")}
			}}, name == conf.Channel()
		},
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	var serving sync.WaitGroup
	serving.Go(func() {
		s := orderer.NewServer(orderer.ServerConfig{Certificate: func() *tls.Certificate { return &cert }, Deliver: handler.Serve})
		if err := s.Run(ctx, l); err != nil {
			t.Error(err)
		}
	})
	defer serving.Wait()
	defer cancel()

	c := orderer.NewClient(orderer.ClientConfig{Channel: conf.Channel(), Signer: peer, Endpoints: func() []orderer.Endpoint {
		return []orderer.Endpoint{{Address: l.Addr().String(), Roots: w.orderers.TLSPool()}}
	}})
	first, err := c.Fetch(ctx, 0)
	require.NoError(t, err)
	require.True(t, proto.Equal(chain[0], first))

	verified, err := block.Genesis(files[0])
	require.NoError(t, err)
	tip := block.Tip{Height: 1, Hash: verified.Hash()}
	now := conf
	for b, err := range c.Blocks(ctx, 1) {
		require.NoError(t, err)
		raw, err := block.Marshal(b)
		require.NoError(t, err)
		require.Equal(t, files[tip.Height], raw)
		checked, err := block.Check(now.Rules(), raw)
		require.NoError(t, err)
		verified, err := block.Verify(now.Rules(), tip, checked)
		require.NoError(t, err)
		tip = block.Tip{Height: verified.Number() + 1, Hash: verified.Hash()}
		if verified.IsConfig() {
			now, err = now.Next(verified.Block())
			require.NoError(t, err)
		}
		if tip.Height == chain.Height() {
			break
		}
	}
	require.Equal(t, block.HeaderHash(chain[30].Header), tip.Hash)
}

package itest

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
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
	"grapevine/deliver"
	"grapevine/election"
	"grapevine/ledger"
	"grapevine/node"
)

// kept is the recorded chain as a Fabric peer keeps it.
type kept struct {
	blocks []*common.Block
	spoil  func(*common.Block) *common.Block // nil: as it is
}

func (k kept) Height() uint64 { return uint64(len(k.blocks)) }

func (k kept) Blocks(ctx context.Context, from uint64) iter.Seq2[*common.Block, error] {
	return func(yield func(*common.Block, error) bool) {
		for n := from; n < k.Height(); n++ {
			b := k.blocks[n]
			if k.spoil != nil {
				b = k.spoil(proto.CloneOf(b))
			}
			if !yield(b, nil) {
				return
			}
		}
		<-ctx.Done()
		yield(nil, ctx.Err())
	}
}

// fabricPeer serves what a real peer of an organisation kept, by its TLS
// certificate, and returns its address.
func (r *recording) fabricPeer(t *testing.T, org string, spoil func(*common.Block) *common.Block) (addr string, stop func()) {
	t.Helper()
	k := kept{spoil: spoil}
	for n := range r.chain {
		raw, err := os.ReadFile(filepath.Join(r.dir, "peerblocks", fmt.Sprintf("%04d.block", n)))
		require.NoError(t, err)
		b := &common.Block{}
		require.NoError(t, proto.Unmarshal(raw, b))
		k.blocks = append(k.blocks, b)
	}
	folder := filepath.Join(r.dir, "crypto", "peerOrganizations", org+".example.com", "peers", "peer1."+org+".example.com", "tls")
	cert, err := tls.LoadX509KeyPair(filepath.Join(folder, "server.crt"), filepath.Join(folder, "server.key"))
	require.NoError(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		h := &deliver.Handler{Channels: func(name string) (deliver.Channel, bool) {
			return deliver.Channel{Source: k, Access: func() deliver.Access {
				return deliver.Access{Sequence: r.conf.Sequence(), MSPs: r.conf.MSPs(), Readers: r.conf.Policy("/Channel/Application/Readers")}
			}}, name == r.conf.Channel()
		}}
		if err := deliver.NewServer(deliver.ServerConfig{Handler: h, Certificate: func() *tls.Certificate { return &cert }}).Run(ctx, l); err != nil {
			t.Error(err)
		}
	})
	stop = func() { cancel(); serving.Wait() }
	t.Cleanup(stop)
	return l.Addr().String(), stop
}

// A peer whose orderers are all away follows its organisation's Fabric peer: it
// has every block, proven by the orderers' signatures, and the codes and commit
// hashes of that peer; what it hands out carries them. They outlive it.
func TestFabricPeerAsSource(t *testing.T) {
	for _, network := range []string{"raft", "bft"} {
		t.Run(network, func(t *testing.T) {
			r, ctx := record(t, network), longPatience(t)
			addr, stop := r.fabricPeer(t, "orga", nil)
			cfg, reg := followsFabric(t, r, addr)
			n, err := node.Open(cfg)
			require.NoError(t, err)
			c, err := n.Join(ctx, r.chain[0])
			require.NoError(t, err)
			runs, cancel := context.WithCancel(ctx)
			done := make(chan error, 1)
			go func() { done <- n.Run(runs) }()
			require.NoError(t, c.Ledger().Wait(ctx, r.tip.Height))
			require.Equal(t, r.tip, c.Ledger().Tip())
			require.NoError(t, soon(ctx, "all codes", func() bool { _, h := c.FabricPeer(); return h == r.tip.Height }))
			check := func(c *node.Channel) {
				for i, want := range r.verdicts {
					v, err := c.Verdict(uint64(i))
					require.NoError(t, err)
					require.Equal(t, want.Codes, v.Codes, "block %d", i)
					require.Equal(t, string(want.CommitHash), string(v.CommitHash), "block %d", i)
				}
			}
			check(c)
			_, err = c.Ledger().Verdict(1)
			require.ErrorIs(t, err, ledger.ErrUnjudged, "it judges nothing itself")
			require.Zero(t, counted(t, reg, ""))
			cancel()
			require.NoError(t, <-done)
			require.NoError(t, n.Close())
			stop()
			cfg.Metrics = prometheus.NewRegistry()
			n, err = node.Open(cfg)
			require.NoError(t, err)
			defer func() { require.NoError(t, n.Close()) }()
			c, err = n.Channel(r.conf.Channel())
			require.NoError(t, err)
			check(c)
		})
	}
}

// followsFabric is a peer without orderers that believes a Fabric peer.
func followsFabric(t *testing.T, r *recording, addr string) (node.Config, *prometheus.Registry) {
	listen, endpoint := loopback(t, 1)
	cfg := node.Default()
	r.peer(t, r.conf.Orgs()[0], 0, &cfg)
	cfg.Dir, cfg.Listen, cfg.ExternalEndpoint, cfg.Log, cfg.Leader = t.TempDir(), listen(0), endpoint(0), testLog(), election.Static
	cfg.Judge, cfg.FabricPeer = false, addr
	overrides := map[string]node.Override{}
	for _, o := range r.conf.Orderers() {
		overrides[o.Endpoint] = node.Override{Address: deaf(t)}
	}
	cfg.Orderers = node.OrdererClient{Overrides: overrides, MaxBackoff: 100 * time.Millisecond}
	reg := prometheus.NewRegistry()
	cfg.Metrics = reg
	return cfg, reg
}

// What a Fabric peer says beside the truth is refused, counted once, and leaves
// nothing behind.
func TestHostileFabricPeer(t *testing.T) {
	r := record(t, "raft")
	at := func(number uint64, f func(*common.Block)) func(*common.Block) *common.Block {
		return func(b *common.Block) *common.Block {
			if b.Header.Number == number {
				f(b)
			}
			return b
		}
	}
	for _, tc := range []struct {
		name, org string
		spoil     func(*common.Block) *common.Block
		code      string
		height    uint64
	}{
		{"a code too few", "orga", at(11, func(b *common.Block) {
			b.Metadata.Metadata[common.BlockMetadataIndex_TRANSACTIONS_FILTER] = []byte{0, 0}
		}), "node.fabric_peer_codes", 11},
		{"no codes, as of an orderer", "orga", at(5, func(b *common.Block) { b.Metadata.Metadata[common.BlockMetadataIndex_TRANSACTIONS_FILTER] = nil }), "node.fabric_peer_codes", 5},
		{"a commit hash of another length", "orga", at(5, func(b *common.Block) {
			b.Metadata.Metadata[common.BlockMetadataIndex_COMMIT_HASH] = []byte{10, 1, 1}
		}), "node.fabric_peer_codes", 5},
		{"B other data", "orga", at(5, func(b *common.Block) { b.Data.Data[0][20] ^= 1 }), "block.bad_data_hash", 5},
		{"B no orderer's signature", "orga", at(5, func(b *common.Block) { wrongSignatures(b) }), "block.bad_signature", 5},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx := longPatience(t)
			addr, _ := r.fabricPeer(t, tc.org, tc.spoil)
			cfg, reg := followsFabric(t, r, addr)
			n, err := node.Open(cfg)
			require.NoError(t, err)
			c, err := n.Join(ctx, r.chain[0])
			require.NoError(t, err)
			run(t, n)
			require.NoError(t, soon(ctx, "a refusal", func() bool { return counted(t, reg, tc.code) > 0 }))
			require.EqualValues(t, 1, counted(t, reg, tc.code))
			_, known := c.FabricPeer()
			require.Equal(t, tc.height, known)
			require.Equal(t, tc.height, c.Ledger().Height())
			_, err = c.Verdict(tc.height)
			require.ErrorIs(t, err, ledger.ErrUnjudged)
		})
	}
	// One of another organisation isn't spoken to: its TLS certificate shows it.
	ctx := longPatience(t)
	addr, _ := r.fabricPeer(t, "orgb", nil)
	cfg, _ := followsFabric(t, r, addr)
	n, err := node.Open(cfg)
	require.NoError(t, err)
	c, err := n.Join(ctx, r.chain[0])
	require.NoError(t, err)
	run(t, n)
	require.EqualValues(t, 1, c.Ledger().Height())
	require.Equal(t, block.HeaderHash(r.chain[0].Header), c.Ledger().Tip().Hash)
}

// counted is a reason's count of refusals; "" is all reasons'.
func counted(t *testing.T, reg *prometheus.Registry, reason string) float64 {
	t.Helper()
	return countedBy(t, reg, "grapevine_rejected_total", reason)
}

// countedBy is what a metric that counts by reason says.
func countedBy(t *testing.T, reg *prometheus.Registry, metric, reason string) (sum float64) {
	t.Helper()
	all, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range all {
		if f.GetName() != metric {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "reason" && (l.GetValue() == reason || reason == "") {
					sum += m.GetCounter().GetValue()
				}
			}
		}
	}
	return sum
}

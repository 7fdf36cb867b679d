package itest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"iter"
	"net"
	"path/filepath"
	"sync"
	"testing"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"

	"grapevine/block"
	"grapevine/channel"
	"grapevine/deliver"
	"grapevine/election"
	"grapevine/node"
	"grapevine/orderer"
)

// Height and Blocks serve the recorded chain, which never grows.
func (r *recording) Height() uint64 { return uint64(len(r.chain)) }

func (r *recording) Blocks(ctx context.Context, from uint64) iter.Seq2[*common.Block, error] {
	return func(yield func(*common.Block, error) bool) {
		for n := from; n < r.Height(); n++ {
			if !yield(r.chain[n], nil) {
				return
			}
		}
		<-ctx.Done()
		yield(nil, ctx.Err())
	}
}

// serve runs an orderer of the recorded network, with its own TLS certificate,
// at a free port: AtomicBroadcast over the recorded chain for the channel's
// readers. It returns its address, and the end waits for it.
func (r *recording) serve(t *testing.T, name string) string {
	t.Helper()
	folder := filepath.Join(r.dir, "crypto", "ordererOrganizations", "example.com", "orderers", name+".example.com", "tls")
	cert, err := tls.LoadX509KeyPair(filepath.Join(folder, "server.crt"), filepath.Join(folder, "server.key"))
	require.NoError(t, err)
	h := &deliver.Handler{Channels: func(name string) (deliver.Channel, bool) {
		return deliver.Channel{Source: r, Access: func() deliver.Access {
			return deliver.Access{Sequence: r.conf.Sequence(), MSPs: r.conf.MSPs(), Readers: r.conf.Policy("/Channel/Readers")}
		}}, name == r.conf.Channel()
	}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := orderer.NewServer(orderer.ServerConfig{Certificate: func() *tls.Certificate { return &cert }, Deliver: h.Serve}).Run(ctx, l); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); serving.Wait() })
	return l.Addr().String()
}

// deaf is an address at which nobody listens, for the length of the test.
func deaf(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := l.Addr().String()
	require.NoError(t, l.Close())
	return addr
}

// barred is the source of a node that has no ordering service.
type barred struct{ t *testing.T }

func (b barred) Blocks(context.Context, uint64) iter.Seq2[*common.Block, error] {
	return func(yield func(*common.Block, error) bool) {
		b.t.Error("a follower asked the ordering service")
		yield(nil, errors.New("not for followers"))
	}
}

// A chain that a real Fabric network made, its blocks signed by real orderers,
// goes through AtomicBroadcast to the leaders of three organisations and from
// them to their followers, who know no orderer. Every node is a peer of that
// network by its own MSP folder, and ends with the hash that the real peers
// reported, their verdict on each transaction and their world state.
func TestRecordedChainReachesEveryLedger(t *testing.T) {
	for _, c := range []struct {
		network  string
		orderers []string // serving, of those that the configuration names
	}{
		{"raft", []string{"orderer1", "orderer2", "orderer3"}},
		{"bft", []string{"orderer1"}},
	} {
		t.Run(c.network, func(t *testing.T) {
			r := record(t, c.network)
			overrides := map[string]node.Override{}
			for i, o := range r.conf.Orderers() {
				addr := deaf(t)
				if i < len(c.orderers) {
					addr = r.serve(t, c.orderers[i])
				}
				overrides[o.Endpoint] = node.Override{Address: addr}
			}
			require.GreaterOrEqual(t, len(overrides), 3)
			carry(t, r, overrides)
		})
	}
}

func carry(t *testing.T, r *recording, overrides map[string]node.Override) {
	ctx := longPatience(t)
	orgs := r.conf.Orgs()
	require.Len(t, orgs, 3)
	const peers = 2
	listen, endpoint := loopback(t, peers*len(orgs))
	var channels []*node.Channel
	var leaders []*node.Node
	for i := range peers * len(orgs) {
		k, org := i/len(orgs), orgs[i%len(orgs)]
		cfg := node.Default()
		r.peer(t, org, k, &cfg)
		cfg.Dir, cfg.Listen, cfg.ExternalEndpoint, cfg.Log = t.TempDir(), listen(i), endpoint(i), testLog()
		if k == 0 {
			cfg.Leader, cfg.Orderers.Overrides = election.Static, overrides
		} else {
			cfg.Leader = election.Standby
			cfg.Bootstrap = []string{endpoint(i % len(orgs))}
			cfg.Source = func(string, func() *channel.Config) node.Source { return barred{t} }
		}
		n, err := node.Open(cfg)
		require.NoError(t, err)
		ch, err := n.Join(ctx, r.chain[0])
		require.NoError(t, err)
		run(t, n)
		channels = append(channels, ch)
		if k == 0 {
			leaders = append(leaders, n)
		}
	}
	// The anchor peers of the configuration are those of long ago, so one
	// connection between the organisations is made by hand; the others follow
	// from what members tell of each other.
	for _, n := range leaders[1:] {
		require.NoError(t, leaders[0].Host().Connect(ctx, info(t, n)))
	}
	for _, ch := range channels {
		require.NoError(t, ch.Ledger().Wait(ctx, r.tip.Height))
		require.Equal(t, r.tip, ch.Ledger().Tip())
		for n, want := range r.chain {
			raw, err := ch.Ledger().Block(uint64(n))
			require.NoError(t, err)
			b, err := block.Decode(raw)
			require.NoError(t, err)
			// Orderers' copies differ in their signatures alone.
			require.Equal(t, want.Header.String(), b.Header.String())
			require.Equal(t, want.Data.Data, b.Data.Data)
		}
	}
	hashes := r.judged(t, channels[0].Ledger())
	for i, ch := range channels {
		require.Equal(t, hashes, r.judged(t, ch.Ledger()))
		s := ch.Status()
		require.NoError(t, s.Halted)
		require.Equal(t, i < len(orgs), s.Leading)
		if !s.Leading {
			require.Contains(t, []string{"push", "pull", "state"}, s.SourceKind)
		}
	}
}

// run runs a node until the test ends, and closes it.
func run(t *testing.T, n *node.Node) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, n.Close()); err != nil {
			t.Error(err)
		}
	})
}

// info is where a node listens.
func info(t *testing.T, n *node.Node) peer.AddrInfo {
	t.Helper()
	out := peer.AddrInfo{ID: n.PeerID()}
	for _, s := range n.Listen() {
		a, err := ma.NewMultiaddr(s)
		require.NoError(t, err, fmt.Sprintf("node listens on %q", s))
		out.Addrs = append(out.Addrs, a)
	}
	return out
}

package itest

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hyperledger/fabric-gateway/pkg/client"
	"github.com/hyperledger/fabric-gateway/pkg/hash"
	"github.com/hyperledger/fabric-gateway/pkg/identity"
	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
	"grapevine/msp"
	"grapevine/node"
)

// A gateway world is one organisation of two peers, of which the second, a
// follower, serves client SDKs.
type gatewayWorld struct {
	*World
	swarm  *Swarm
	serves *Peer
	addr   string
	roots  *x509.CertPool
	client *tls.Certificate // shown by clients; nil: none
}

func newGatewayWorld(t *testing.T, mutual bool) *gatewayWorld {
	listen, endpoint := loopback(t, 3)
	w, err := NewWorld(1, endpoint(0))
	require.NoError(t, err)
	o := w.Orgs[0]
	cert, err := o.TLS("peer1.org1", "localhost", "127.0.0.1")
	require.NoError(t, err)
	g := &gatewayWorld{World: w, addr: endpoint(2), roots: x509.NewCertPool()}
	g.roots.AddCert(o.TLSCA.Certificate())
	services := node.ClientServices{Address: g.addr, Certificate: func() *tls.Certificate { return &cert }}
	if mutual {
		services.ClientRoots = func() *x509.CertPool { return g.roots }
		shown, err := o.TLS("client")
		require.NoError(t, err)
		g.client = &shown
	}
	g.swarm, err = NewSwarm(w, SwarmConfig{
		Dir: t.TempDir(), Peers: 2, Listen: listen, Endpoint: endpoint, Log: testLog(),
		Tune: func(i int, c *node.Config) {
			if i == 1 {
				c.Clients = services
			}
		},
	})
	require.NoError(t, err)
	g.serves = g.swarm.Peers[1]
	require.NoError(t, g.swarm.StartAll(t.Context()))
	t.Cleanup(func() { require.NoError(t, g.swarm.StopAll()) })
	return g
}

// block is one that was ordered.
func (g *gatewayWorld) block(n uint64) *common.Block {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.blocks[n]
}

// dial is a connection as an application opens one.
func (g *gatewayWorld) dial(t *testing.T) *grpc.ClientConn {
	conf := &tls.Config{RootCAs: g.roots, MinVersion: tls.VersionTLS12}
	if g.client != nil {
		conf.Certificates = []tls.Certificate{*g.client}
	}
	quick := grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.2, MaxDelay: time.Second}, MinConnectTimeout: 5 * time.Second}
	conn, err := grpc.NewClient("passthrough:///"+g.addr, grpc.WithTransportCredentials(credentials.NewTLS(conf)), grpc.WithConnectParams(quick))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	return conn
}

// network is what fabric-gateway's SDK makes of the peer for a member.
func (g *gatewayWorld) network(t *testing.T, who msp.Signer) *client.Network {
	return g.networkOver(t, g.dial(t), who)
}

func (g *gatewayWorld) networkOver(t *testing.T, conn *grpc.ClientConn, who msp.Signer) *client.Network {
	id, err := identity.NewX509Identity(who.Identity().MSPID(), who.Identity().Certificate())
	require.NoError(t, err)
	options := []client.ConnectOption{client.WithSign(who.Sign), client.WithHash(hash.NONE), client.WithClientConnection(conn)}
	if g.client != nil {
		sum := sha256.Sum256(g.client.Certificate[0])
		options = append(options, client.WithTLSClientCertificateHash(sum[:]))
	}
	gw, err := client.Connect(id, options...)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, gw.Close()) })
	return gw.GetNetwork(ChannelName)
}

func (g *gatewayWorld) member(t *testing.T) msp.Signer {
	s, err := g.Orgs[0].Identity("User7@org1", "client")
	require.NoError(t, err)
	return s
}

// next takes what a stream of events brings next.
func next[T any](ctx context.Context, t *testing.T, events <-chan T) T {
	t.Helper()
	select {
	case e, ok := <-events:
		require.True(t, ok, "the stream of events has ended")
		return e
	case <-ctx.Done():
		require.NoError(t, ctx.Err())
		panic("unreachable")
	}
}

// The SDK of fabric-gateway reads a follower's blocks, whole and filtered, from
// the start and from the next commit on.
func TestGatewayEvents(t *testing.T) {
	g := newGatewayWorld(t, false)
	ctx := patience(t)
	network := g.network(t, g.member(t))
	for range 5 {
		_, err := g.Order(100)
		require.NoError(t, err)
	}
	whole, err := network.BlockEvents(ctx, client.WithStartBlock(0))
	require.NoError(t, err)
	filtered, err := network.FilteredBlockEvents(ctx, client.WithStartBlock(0))
	require.NoError(t, err)
	for n := range uint64(6) {
		b := next(ctx, t, whole)
		require.Equal(t, n, b.Header.Number)
		want := g.block(n)
		require.Equal(t, block.HeaderHash(want.Header), block.HeaderHash(b.Header))
		require.True(t, proto.Equal(want.Data, b.Data))
		require.Len(t, b.Metadata.Metadata[common.BlockMetadataIndex_TRANSACTIONS_FILTER], len(b.Data.Data), "a code for each transaction")

		f := next(ctx, t, filtered)
		require.Equal(t, n, f.Number)
		require.Equal(t, ChannelName, f.ChannelId)
		require.Len(t, f.FilteredTransactions, len(b.Data.Data))
		if n > 0 {
			require.Equal(t, common.HeaderType_ENDORSER_TRANSACTION, f.FilteredTransactions[0].Type)
			require.Len(t, f.FilteredTransactions[0].Txid, 64)
		}
	}
	// Fabric's figures, under Fabric's names.
	figure := func(name string, labels map[string]string) (sum float64) {
		all, err := g.serves.Metrics.Gather()
		require.NoError(t, err)
		for _, f := range all {
			for _, m := range f.GetMetric() {
				fits := f.GetName() == name
				for _, l := range m.GetLabel() {
					want, ok := labels[l.GetName()]
					fits = fits && (!ok || want == l.GetValue())
				}
				if fits {
					sum += m.GetCounter().GetValue()
				}
			}
		}
		return sum
	}
	for kind, filtered := range map[string]string{"block": "false", "filtered_block": "true"} {
		of := map[string]string{"channel": ChannelName, "filtered": filtered, "data_type": kind}
		require.NoError(t, soon(ctx, "the figures", func() bool { return figure("deliver_blocks_sent", of) == 6 }))
		require.EqualValues(t, 1, figure("deliver_requests_received", of))
		require.Zero(t, figure("deliver_requests_completed", of), "they go on")
	}
	require.EqualValues(t, 2, figure("deliver_streams_opened", nil))
	require.Zero(t, figure("deliver_streams_closed", nil))
}

// A thousand blocks, whole and filtered, while the peer is restarted again and
// again: an application that keeps a checkpoint loses no event and gets none
// twice.
func TestGatewayCheckpoint(t *testing.T) {
	g := newGatewayWorld(t, true)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	const blocks, restarts = 1000, 9
	conn := g.dial(t)
	network := g.networkOver(t, conn, g.member(t))
	var reached [2]atomic.Uint64 // of each application: events got
	var streams [2]int
	var work sync.WaitGroup
	work.Go(func() {
		checkpoint := new(client.InMemoryCheckpointer)
		streams[0] = follow(ctx, t, conn, &reached[0], blocks, func() (<-chan *common.Block, error) {
			return network.BlockEvents(ctx, client.WithStartBlock(0), client.WithCheckpoint(checkpoint))
		}, func(b *common.Block) uint64 { checkpoint.CheckpointBlock(b.Header.Number); return b.Header.Number })
	})
	work.Go(func() {
		checkpoint := new(client.InMemoryCheckpointer)
		streams[1] = follow(ctx, t, conn, &reached[1], blocks, func() (<-chan *peer.FilteredBlock, error) {
			return network.FilteredBlockEvents(ctx, client.WithStartBlock(0), client.WithCheckpoint(checkpoint))
		}, func(b *peer.FilteredBlock) uint64 { checkpoint.CheckpointBlock(b.Number); return b.Number })
	})
	stopped := 0
	for g.Height() < blocks {
		_, err := g.Order(10)
		require.NoError(t, err)
		if at := g.Height(); at%(blocks/(restarts+1)) == 0 && stopped < restarts { // in mid-flow
			require.NoError(t, g.serves.Channel.Ledger().Wait(ctx, at-at%7))
			require.NoError(t, g.swarm.Stop(g.serves))
			require.NoError(t, g.swarm.Start(ctx, g.serves))
			stopped++
		}
	}
	work.Wait()
	require.NoError(t, ctx.Err())
	require.Equal(t, restarts, stopped)
	for i := range streams {
		require.EqualValues(t, blocks, reached[i].Load())
		require.Greater(t, streams[i], 1, "no restart cut a stream")
	}
	t.Logf("%d events each, %d restarts, %v streams", blocks, stopped, streams)
}

// follow reads events up to a number, in order, over as many streams as it
// takes, and returns how many those were.
func follow[T any](ctx context.Context, t *testing.T, conn *grpc.ClientConn, reached *atomic.Uint64, upTo uint64, open func() (<-chan T, error), take func(T) uint64) (streams int) {
	for reached.Load() < upTo && ctx.Err() == nil {
		if state := conn.GetState(); state != connectivity.Ready {
			conn.Connect()
			conn.WaitForStateChange(ctx, state)
			continue
		}
		events, err := open()
		if err != nil {
			continue // it went down meanwhile
		}
		some := false
		for e := range events { // the SDK closes it when the stream breaks
			some = true
			if n := take(e); n != reached.Load() {
				t.Errorf("event of block %d, awaited was %d", n, reached.Load())
				return streams
			}
			if reached.Add(1) == upTo {
				break
			}
		}
		if some {
			streams++
		}
	}
	return streams
}

// Who isn't of the channel's organisations learns nothing, not even by the
// status; private data is refused with a word.
func TestGatewayOutsiders(t *testing.T) {
	g := newGatewayWorld(t, false)
	ctx := patience(t)
	foreign, err := NewWorld(1)
	require.NoError(t, err)
	stranger, err := foreign.Orgs[0].Identity("User1@org1", "client")
	require.NoError(t, err)
	events, err := g.network(t, stranger).BlockEvents(ctx, client.WithStartBlock(0))
	require.NoError(t, err)
	for range events {
		require.Fail(t, "a stranger got a block")
	}
	stream, err := peer.NewDeliverClient(g.dial(t)).DeliverWithPrivateData(ctx)
	require.NoError(t, err)
	_, err = stream.Recv()
	require.ErrorContains(t, err, "private data")
}

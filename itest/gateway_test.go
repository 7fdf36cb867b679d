package itest

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"testing"

	"github.com/hyperledger/fabric-gateway/pkg/client"
	"github.com/hyperledger/fabric-gateway/pkg/hash"
	"github.com/hyperledger/fabric-gateway/pkg/identity"
	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
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
	services := node.ClientServices{Address: g.addr, Certificate: cert}
	if mutual {
		services.ClientRoots = g.roots
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
	conn, err := grpc.NewClient("passthrough:///"+g.addr, grpc.WithTransportCredentials(credentials.NewTLS(conf)))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	return conn
}

// network is what fabric-gateway's SDK makes of the peer for a member.
func (g *gatewayWorld) network(t *testing.T, who msp.Signer, more ...client.ConnectOption) *client.Network {
	id, err := identity.NewX509Identity(who.Identity().MSPID(), who.Identity().Certificate())
	require.NoError(t, err)
	options := append([]client.ConnectOption{
		client.WithSign(who.Sign), client.WithHash(hash.NONE), client.WithClientConnection(g.dial(t)),
	}, more...)
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
}

// Restarts of the peer lose no event and double none, if the application keeps
// a checkpoint.
func TestGatewayCheckpoint(t *testing.T) {
	g := newGatewayWorld(t, true)
	ctx := patience(t)
	const blocks, restarts = 60, 3
	network := g.network(t, g.member(t))
	checkpoint := new(client.InMemoryCheckpointer)
	got := uint64(0)
	for turn := range restarts {
		upTo := uint64((turn + 1) * blocks / restarts)
		for g.Height() <= upTo {
			_, err := g.Order(10)
			require.NoError(t, err)
		}
		events, err := network.BlockEvents(ctx, client.WithStartBlock(0), client.WithCheckpoint(checkpoint))
		require.NoError(t, err)
		for got <= upTo {
			b := next(ctx, t, events)
			require.Equal(t, got, b.Header.Number)
			checkpoint.CheckpointBlock(b.Header.Number)
			got++
		}
		require.NoError(t, g.swarm.Stop(g.serves))
		for range events { // the SDK closes it when the stream breaks
			require.Fail(t, "an event without a block")
		}
		require.NoError(t, g.swarm.Start(ctx, g.serves))
		require.NoError(t, g.serves.Channel.Ledger().Wait(ctx, g.Height()))
	}
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

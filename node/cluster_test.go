package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/stretchr/testify/require"

	"grapevine/block/tx"
	"grapevine/msp"
	"grapevine/orderer"
	"grapevine/wire"
)

// A bench is the orderers of a channel, each on its seat.
type bench struct {
	t       *testing.T
	w       *world
	genesis *common.Block
	configs []OrdererConfig
	nodes   []*Orderer
	stops   []func()
	client  *orderer.Client
}

// newBench has n seats at free ports; nothing runs.
func newBench(t *testing.T, n int) *bench {
	t.Helper()
	b := &bench{t: t, w: newWorld(t), nodes: make([]*Orderer, n), stops: make([]func(), n)}
	b.w.seats = nil
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		b.w.sit(l.Addr().(*net.TCPAddr).Port)
		require.NoError(t, l.Close())
		g, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		b.w.endpoints = append(b.w.endpoints, g.Addr().String())
		require.NoError(t, g.Close())
	}
	b.genesis = b.w.genesis("mychannel", 0)
	for i := range n {
		c := b.w.ordering()
		s, err := b.w.orderer.Identity(fmt.Sprintf("orderer%d", i), "orderer")
		require.NoError(t, err)
		c.Name, c.Signer, c.Certificate, c.Address = fmt.Sprintf("orderer%d", i), s, b.w.seats[i].cert, b.w.endpoints[i]
		c.Listen = []string{fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", b.w.seats[i].port)}
		b.configs = append(b.configs, c)
	}
	user, err := b.w.orgs[0].Identity("User1@org1", "client")
	require.NoError(t, err)
	b.client = orderer.NewClient(orderer.ClientConfig{Channel: "mychannel", Signer: user, Endpoints: func() (all []orderer.Endpoint) {
		for _, e := range b.w.endpoints {
			all = append(all, orderer.Endpoint{Address: e, Roots: b.w.orderer.TLSPool()})
		}
		return all
	}})
	t.Cleanup(func() {
		for i := range b.nodes {
			b.stop(i)
		}
	})
	return b
}

func (b *bench) start(which ...int) {
	b.t.Helper()
	for _, i := range which {
		o, err := OpenOrderer(b.configs[i])
		require.NoError(b.t, err)
		require.NoError(b.t, o.Join(b.genesis))
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- o.Run(ctx) }()
		b.nodes[i] = o
		b.stops[i] = func() {
			cancel()
			require.NoError(b.t, errors.Join(<-ended, o.Close()))
		}
	}
}

func (b *bench) stop(i int) {
	if b.nodes[i] != nil {
		b.stops[i]()
		b.nodes[i] = nil
	}
}

// submit has one envelope ordered by whoever can.
func (b *bench) submit(ctx context.Context) {
	b.t.Helper()
	user, err := b.w.orgs[0].Identity("User1@org1", "client")
	require.NoError(b.t, err)
	env, _, err := tx.Endorse(tx.Proposal{
		Channel: "mychannel", Chaincode: "kv", RWSet: tx.Write("kv", "k", make([]byte, 500)),
		Creator: user, Endorsers: []msp.Signer{user}, Time: time.Now(),
	})
	require.NoError(b.t, err)
	a, err := b.client.Submit(ctx, env)
	require.NoError(b.t, err)
	require.Equal(b.t, common.Status_SUCCESS, a.Status, a.Info)
}

// same waits until the nodes that run are equally high, and returns how high.
func (b *bench) same(ctx context.Context) uint64 {
	b.t.Helper()
	var height uint64
	until(b.t, ctx, func() bool {
		tips := map[[32]byte]bool{}
		for _, o := range b.nodes {
			if o != nil {
				led, _, err := o.Channel("mychannel")
				require.NoError(b.t, err)
				height = led.Height()
				tips[led.Tip().Hash] = true
			}
		}
		return len(tips) == 1
	})
	return height
}

// Three ordering nodes find each other by the host and port of the
// configuration, and agree; one that was away catches up.
func TestOrderersAgree(t *testing.T) {
	ctx := patience(t)
	b := newBench(t, 3)
	b.start(0, 1, 2)
	for range 5 {
		b.submit(ctx)
	}
	require.Equal(t, uint64(6), b.same(ctx))
	for i := range 3 {
		b.stop(i)
		b.submit(ctx)
		b.start(i)
	}
	b.submit(ctx)
	require.GreaterOrEqual(t, b.same(ctx), uint64(10))
	leaders := 0
	for _, o := range b.nodes {
		for _, c := range o.Channels() {
			if c.Leader {
				leaders++
			}
		}
	}
	require.Equal(t, 1, leaders)
}

// Who is an orderer of the organisation, but has no seat, speaks no Raft: he is
// refused, and so is who shows another's claim.
func TestOnlyConsentersSpeakRaft(t *testing.T) {
	ctx := patience(t)
	b := newBench(t, 1)
	b.start(0)
	b.submit(ctx)
	intruder := b.w.ordering()
	other, err := b.w.orderer.TLS("localhost", "localhost", "127.0.0.1")
	require.NoError(t, err)
	intruder.Certificate = other
	o, err := OpenOrderer(intruder)
	require.NoError(t, err)
	defer func() { require.NoError(t, o.Close()) }()
	require.NoError(t, o.Join(b.genesis))
	c := o.find("mychannel")
	seat := c.chain.Consenters()[0]
	_, err = c.links.Dial(ctx, seat)
	require.ErrorIs(t, err, orderer.Stranger)

	t.Run("a stolen claim", func(t *testing.T) {
		// It was made for the host of consenter 1, with its key.
		stolen, err := orderer.Claim(&b.w.seats[0].cert, c.links.tag, b.nodes[0].host.ID(), 1, time.Now())
		require.NoError(t, err)
		p, err := c.links.meet(ctx, seat)
		require.NoError(t, err)
		s, err := c.links.view.Stream(ctx, p, wire.KindRaft)
		require.NoError(t, err)
		raw, err := wire.Marshal(stolen)
		require.NoError(t, err)
		require.NoError(t, wire.WriteFrame(s, raw))
		_, err = wire.ReadFrame(s, wire.MaxRequest)
		require.Error(t, err)
	})
	t.Run("a peer", func(t *testing.T) {
		conf, _ := b.w.config(0, "peer0.org1")
		n, err := Open(conf)
		require.NoError(t, err)
		defer func() { require.NoError(t, n.Close()) }()
		addrs, err := wire.ParseEndpoint(seat.Address())
		require.NoError(t, err)
		_, err = n.probeAddr(ctx, addrs[0])
		require.Error(t, err, "not even a handshake")
	})
}

// Consenters may be asked for certificates, as all clients of gRPC are: those of
// the orderers' own organisations hold.
func TestOrderersWithMutualTLS(t *testing.T) {
	ctx := patience(t)
	b := newBench(t, 3)
	for i := range b.configs {
		b.configs[i].ClientRoots = b.w.orgs[0].TLSPool
	}
	cert, err := b.w.orgs[0].TLS("client", "localhost")
	require.NoError(t, err)
	user, err := b.w.orgs[0].Identity("User1@org1", "client")
	require.NoError(t, err)
	b.client = orderer.NewClient(orderer.ClientConfig{
		Channel: "mychannel", Signer: user, ClientCert: func() *tls.Certificate { return &cert },
		Endpoints: func() []orderer.Endpoint {
			// Always the same one, whoever leads.
			return []orderer.Endpoint{{Address: b.w.endpoints[0], Roots: b.w.orderer.TLSPool()}}
		},
	})
	b.start(0, 1, 2)
	for range 3 {
		b.submit(ctx)
	}
	b.same(ctx)
}

package node

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"grapevine/block/tx"
	"grapevine/election"
	"grapevine/ledger"
	"grapevine/msp"
	"grapevine/orderer"
)

// ordering is the configuration of the world's ordering node.
func (w *world) ordering() OrdererConfig {
	w.t.Helper()
	m, err := msp.New(w.orderer.MSPConfig(), msp.Features{NodeOUs: true, Ed25519: true})
	require.NoError(w.t, err)
	s, err := w.orderer.Identity("orderer0", "orderer")
	require.NoError(w.t, err)
	return OrdererConfig{
		Dir: w.t.TempDir(), Name: "orderer0", NetworkID: "test", Signer: s, MSP: m,
		Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Address: "127.0.0.1:0", Certificate: w.seats[0].cert,
	}
}

// A transaction goes by gRPC to an ordering node, as a block by gRPC to a
// leader, and by libp2p to its follower; and so again after everybody has
// restarted on their folders.
func TestOrderedBlocksArrive(t *testing.T) {
	ctx := patience(t)
	w := newWorld(t)
	g := w.genesis("mychannel", 0, 1)
	oc := w.ordering()
	lead, _ := w.config(0, "peer0.org1")
	lead.Leader = election.Static
	follow, _ := w.config(1, "peer0.org2")
	user, err := w.orgs[0].Identity("User1@org1", "client")
	require.NoError(t, err)
	height := uint64(1)
	for range 2 {
		o, err := OpenOrderer(oc)
		require.NoError(t, err)
		require.NoError(t, o.Join(g))
		ended := make(chan error, 1)
		octx, cancel := context.WithCancel(context.Background())
		go func() { ended <- o.Run(octx) }()
		stopOrderer := func() {
			cancel()
			require.NoError(t, errors.Join(<-ended, o.Close()))
		}
		lead.Orderers.Overrides = map[string]Override{"127.0.0.1:7050": {Address: o.Address()}}

		n, err := Open(lead)
		require.NoError(t, err)
		ch, err := n.Join(ctx, g)
		require.NoError(t, err)
		stopLead := running(t, n)
		f, err := Open(follow)
		require.NoError(t, err)
		fch, err := f.Join(ctx, g)
		require.NoError(t, err)
		stopFollow := running(t, f)
		require.NoError(t, f.host.Connect(ctx, at(t, n, "")))

		led, conf, err := o.Channel("mychannel")
		require.NoError(t, err)
		client := orderer.NewClient(orderer.ClientConfig{Channel: "mychannel", Signer: user, Endpoints: func() []orderer.Endpoint {
			return []orderer.Endpoint{{Address: o.Address(), Roots: conf.Orderers()[0].TLSRoots}}
		}})
		var users errgroup.Group
		for range 25 {
			env, _, err := tx.Endorse(tx.Proposal{
				Channel: "mychannel", Chaincode: "kv", RWSet: tx.Write("kv", "k", make([]byte, 500)),
				Creator: user, Endorsers: []msp.Signer{n.cfg.Signer}, Time: time.Now(),
			})
			require.NoError(t, err)
			users.Go(func() error {
				_, err := client.Submit(ctx, env)
				return err
			})
		}
		require.NoError(t, users.Wait())
		require.NoError(t, led.Wait(ctx, height+1))
		height = led.Height()
		require.NoError(t, ch.ledger.Wait(ctx, height))
		require.NoError(t, fch.ledger.Wait(ctx, height))
		until(t, ctx, func() bool { // the last batch may still be cut
			return led.Tip() == ch.ledger.Tip() && led.Tip() == fch.ledger.Tip()
		})
		require.Equal(t, "127.0.0.1:7050", ch.Status().Orderer)
		require.Len(t, o.Channels(), 1)
		stopFollow()
		stopLead()
		stopOrderer()
		height = led.Height()
	}
}

// An ordering node refuses what a peer refuses, and says which thing it is.
func TestOrdererBadInput(t *testing.T) {
	w := newWorld(t)
	c := w.ordering()
	o, err := OpenOrderer(c)
	require.NoError(t, err)
	require.NoError(t, o.Join(w.genesis("mychannel", 0)))
	require.NoError(t, o.Join(w.genesis("other", 0)))
	require.ErrorIs(t, o.Join(w.genesis("mychannel", 0, 1)), ErrJoined)
	require.Error(t, o.Join(nil))
	_, err = OpenOrderer(c)
	require.ErrorIs(t, err, ledger.ErrLocked)
	taken := w.ordering()
	taken.Address = o.Address()
	_, err = OpenOrderer(taken)
	require.ErrorIs(t, err, syscall.EADDRINUSE)
	require.NoError(t, o.Close(), "without Run")
	require.Error(t, o.Run(t.Context()), "after Close")
	foreign := c
	foreign.NetworkID = "another"
	_, err = OpenOrderer(foreign)
	require.ErrorIs(t, err, ledger.ErrForeign)
	_, err = OpenOrderer(OrdererConfig{})
	require.Error(t, err)
	again, err := OpenOrderer(c)
	require.NoError(t, err)
	require.Len(t, again.Channels(), 2)
	require.NoError(t, again.Close())
}

// T31: who one channel's configuration knows and another's doesn't is connected
// and a member of the one alone; when the node leaves that one, the connection
// ends.
func TestValidityIsPerChannel(t *testing.T) {
	for _, transport := range transports {
		t.Run(transport, func(t *testing.T) {
			ctx := patience(t)
			w := newWorld(t)
			one, two := w.genesis("one", 0, 1), w.genesis("two", 0, 2)
			c, _ := w.config(0, "peer0.org1")
			n := start(t, c, one, two)
			c, _ = w.config(2, "peer0.org3")
			guest := start(t, c, two)
			conns := watch(n.host.Network())
			require.NoError(t, guest.host.Connect(ctx, at(t, n, transport)))
			require.True(t, await(t, ctx, conns, "the connection").open)
			first, err := n.Channel("one")
			require.NoError(t, err)
			second, err := n.Channel("two")
			require.NoError(t, err)
			until(t, ctx, func() bool { return len(second.Connected()) == 1 })
			require.Empty(t, first.Connected())

			require.NoError(t, n.Leave(ctx, "two", false))
			require.False(t, await(t, ctx, conns, "its end: no configuration knows it any more").open)
			_, err = n.Join(ctx, two)
			require.NoError(t, err)
			require.NoError(t, guest.host.Connect(ctx, at(t, n, transport)))
			require.True(t, await(t, ctx, conns, "the connection again").open)
		})
	}
}

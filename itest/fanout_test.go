package itest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/stretchr/testify/require"

	"grapevine/election"
	"grapevine/itest/figures"
	"grapevine/node"
	"grapevine/orderer"
)

// An orderingNode is an ordering service of one real node, for a world's channel.
type orderingNode struct {
	*node.Orderer
	client *orderer.Client
	w      *World
}

// newOrderingNode runs it until the test ends.
func newOrderingNode(t *testing.T, w *World) *orderingNode {
	t.Helper()
	m, err := definition(w.orderers)
	require.NoError(t, err)
	o, err := node.OpenOrderer(node.OrdererConfig{
		Dir: t.TempDir(), Name: "orderer0", NetworkID: "test", Signer: w.Orderer, MSP: m, Log: testLog(),
		Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Address: "127.0.0.1:0", Certificate: w.seat,
	})
	require.NoError(t, err)
	require.NoError(t, o.Join(w.Genesis))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- o.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, errors.Join(<-ended, o.Close()))
	})
	return &orderingNode{o, orderer.NewClient(orderer.ClientConfig{Channel: ChannelName, Signer: w.client, Endpoints: func() []orderer.Endpoint {
		return []orderer.Endpoint{{Address: o.Address(), Roots: w.orderers.TLSPool()}}
	}}), w}
}

// order has a block ordered, and returns how high the chain is then.
func (s *orderingNode) order(ctx context.Context, t *testing.T) uint64 {
	t.Helper()
	led, _, err := s.Channel(ChannelName)
	require.NoError(t, err)
	height := led.Height() + 1
	env, err := s.w.transaction(200)
	require.NoError(t, err)
	a, err := s.client.Submit(ctx, env)
	require.NoError(t, err)
	require.Equal(t, common.Status_SUCCESS, a.Status)
	require.NoError(t, led.Wait(ctx, height))
	return height
}

// The peers of three organisations elect their leaders, and the ordering service
// has three streams that follow: after the start, after a leader has stopped, and
// after one was asked to yield.
func TestOrdererFanOut(t *testing.T) { fanOut(t, 3) }

// TestSimOrdererFanOut is the same with ten peers in each organisation. It runs
// on the real clock, for orderers speak gRPC.
func TestSimOrdererFanOut(t *testing.T) {
	if !figures.Long() {
		t.Skip("thirty nodes on the real clock: make sim")
	}
	fanOut(t, 10)
	var out figures.Records
	out.Add("deliver streams at the orderer", map[string]any{"orgs": 3, "peers": 30}, "streams", 3)
	figures.Save(t, "orderer-fan-out", out)
}

func fanOut(t *testing.T, peers int) {
	const orgs = 3
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	listen, endpoint := loopback(t, orgs*peers)
	w, err := NewWorld(orgs, endpoint(0), endpoint(1), endpoint(2))
	require.NoError(t, err)
	o := newOrderingNode(t, w)
	s, err := NewSwarm(w, SwarmConfig{
		Dir: t.TempDir(), Peers: peers, InMemory: true, Listen: listen, Endpoint: endpoint, Log: testLog(),
		Tune: func(i int, c *node.Config) {
			c.Leader, c.Source = election.Dynamic, nil
			c.Orderers.Overrides = map[string]node.Override{"127.0.0.1:7050": {Address: o.Address(), Roots: w.orderers.TLSPool()}}
			// A busy machine isn't to move leadership: only what the test does.
			c.Election = election.Timing{StartupGrace: 10 * time.Second, LeaderAlive: 20 * time.Second, Yield: 30 * time.Second}
			if i >= orgs {
				c.Bootstrap = []string{endpoint(i % orgs)}
			}
		},
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.StopAll()) })
	require.NoError(t, s.StartAll(ctx))

	leaders := func() []*Peer {
		all := make([]*Peer, 0, orgs)
		for _, p := range s.Peers {
			if p.Node != nil && p.Channel.Election().Leading {
				all = append(all, p)
			}
		}
		slices.SortFunc(all, func(a, b *Peer) int { return a.Org - b.Org })
		return all
	}
	// three waits until each organisation has one leader, and through five blocks
	// in a row, while nobody's leadership moves, three streams follow.
	three := func(when string) []*Peer {
		t.Helper()
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		var before []*Peer
		for blocks := 0; blocks < 5; {
			now := leaders()
			if len(now) != orgs || o.Following() != orgs || !slices.Equal(now, before) {
				before, blocks = now, 0
				select {
				case <-tick.C:
				case <-ctx.Done():
					require.FailNow(t, when, "%d lead, %d streams follow", len(now), o.Following())
				}
				continue
			}
			require.NoError(t, s.Await(ctx, o.order(ctx, t)), when)
			blocks++
		}
		for i, p := range before {
			require.Equal(t, i, p.Org, when)
		}
		t.Logf("%s: %s, %s and %s lead; %d streams follow", when, before[0].Name, before[1].Name, before[2].Name, o.Following())
		return before
	}
	first := three("after the start")
	require.NoError(t, s.Stop(first[1]))
	second := three("after a leader has stopped")
	require.NotEqual(t, first[1].Name, second[1].Name)
	require.NoError(t, second[0].Channel.YieldLeadership(ctx))
	third := three("after one was asked to yield")
	require.NotEqual(t, second[0].Name, third[0].Name)
}

package itest

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"grapevine/itest/figures"
	"grapevine/node"
	"grapevine/orderer"
)

// A toll counts what an orderer sends, on its way over TCP.
type toll struct {
	addr  string
	bytes atomic.Int64
}

// newToll stands before an address until the test ends.
func newToll(t *testing.T, to string) *toll {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	c := &toll{addr: l.Addr().String()}
	var work sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn // owned by mu
	hold := func(v net.Conn) {
		mu.Lock()
		defer mu.Unlock()
		open = append(open, v)
	}
	work.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				_ = in.Close()
				continue
			}
			hold(in)
			hold(out)
			work.Go(func() { _, _ = io.Copy(out, in); _ = out.Close() })
			work.Go(func() { _, _ = io.Copy(io.MultiWriter(in, counter{&c.bytes}), out); _ = in.Close() })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, v := range open {
			_ = v.Close()
		}
		mu.Unlock()
		work.Wait()
	})
	return c
}

type counter struct{ n *atomic.Int64 }

func (c counter) Write(b []byte) (int, error) { c.n.Add(int64(len(b))); return len(b), nil }

// What an ordering service sends to three organisations, of two peers each here
// and of ten in make sim: through Grapevine one stream for each organisation,
// without it one for each peer.
func TestSimOrdererEgress(t *testing.T) {
	peers := 2
	if figures.Long() {
		peers = 10
	}
	const orgs, blocks, size = 3, 20, 10 << 10
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	listen, endpoint := loopback(t, orgs*peers)
	w, err := NewWorld(orgs, endpoint(0), endpoint(1), endpoint(2))
	require.NoError(t, err)
	o := newOrderingNode(t, w)
	c := newToll(t, o.Address())
	to := map[string]node.Override{"127.0.0.1:7050": {Address: c.addr, Roots: w.orderers.TLSPool()}}
	s, err := NewSwarm(w, SwarmConfig{
		Dir: t.TempDir(), Peers: peers, InMemory: true, Listen: listen, Endpoint: endpoint, Log: testLog(),
		Tune: func(i int, c *node.Config) {
			c.Source, c.Orderers.Overrides = nil, to
			if i >= orgs {
				c.Bootstrap = []string{endpoint(i % orgs)}
			}
		},
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.StopAll()) })
	require.NoError(t, s.StartAll(ctx))
	require.NoError(t, s.Await(ctx, o.order(ctx, t)))
	order := func() (height uint64) {
		for range blocks {
			env, err := w.transaction(size)
			require.NoError(t, err)
			_, err = o.client.Submit(ctx, env)
			require.NoError(t, err)
		}
		led, _, err := o.Channel(ChannelName)
		require.NoError(t, err)
		return led.Height()
	}
	before := c.bytes.Load()
	require.NoError(t, s.Await(ctx, order()))
	through := c.bytes.Load() - before
	require.Equal(t, orgs, o.Following())
	require.NoError(t, s.StopAll())
	require.NoError(t, soon(ctx, "the streams' end", func() bool { return o.Following() == 0 }))

	// Each peer by itself, as Fabric's do.
	led, _, err := o.Channel(ChannelName)
	require.NoError(t, err)
	from := led.Height()
	var reached sync.WaitGroup
	var clients sync.WaitGroup
	follows, stop := context.WithCancel(ctx)
	for i := range orgs * peers {
		who, err := w.Orgs[i%orgs].Identity("lone", "peer")
		require.NoError(t, err)
		client := orderer.NewClient(orderer.ClientConfig{Channel: ChannelName, Signer: who, Endpoints: func() []orderer.Endpoint {
			return []orderer.Endpoint{{Address: c.addr, Roots: w.orderers.TLSPool()}}
		}})
		reached.Add(1)
		clients.Go(func() {
			var once sync.Once
			for b, err := range client.Blocks(follows, from) {
				if err == nil && b.Header.Number == from+blocks-1 {
					once.Do(reached.Done)
				}
			}
		})
	}
	require.NoError(t, soon(ctx, "all streams", func() bool { return o.Following() == orgs*peers }))
	before = c.bytes.Load()
	order()
	reached.Wait()
	lone := c.bytes.Load() - before
	streams := o.Following()
	stop()
	clients.Wait()
	require.Equal(t, orgs*peers, streams)
	require.Greater(t, lone, through)
	t.Logf("%d blocks of %d bytes to %d peers: %d bytes over %d streams, %d bytes over %d streams, %.1f times as many",
		blocks, size, orgs*peers, through, orgs, lone, streams, float64(lone)/float64(through))
	var out figures.Records
	of := map[string]any{"orgs": orgs, "peers": orgs * peers, "blocks": blocks, "size": size}
	out.Add("orderer egress through Grapevine", of, "bytes", float64(through))
	out.Add("orderer egress, each peer by itself", of, "bytes", float64(lone))
	figures.Save(t, "orderer-egress", out)
}

package orderer_test

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/stretchr/testify/require"

	"grapevine/orderer"
)

// frozen passes connections on to an address until it is frozen: then it takes
// new ones and passes nothing, as a suspended process does.
func frozen(t *testing.T, to string) (addr string, freeze func()) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var still atomic.Bool
	var all sync.WaitGroup
	over := make(chan struct{})
	pass := func(dst, src net.Conn) {
		buf := make([]byte, 32<<10)
		for {
			n, err := src.Read(buf)
			if still.Load() {
				<-over
			}
			if err != nil {
				return
			}
			if _, err := dst.Write(buf[:n]); err != nil {
				return
			}
		}
	}
	all.Go(func() {
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
			all.Go(func() { pass(out, in); _ = out.Close() })
			all.Go(func() { pass(in, out); _ = in.Close() })
			all.Go(func() {
				<-over
				_, _ = in.Close(), out.Close()
			})
		}
	})
	t.Cleanup(func() {
		close(over)
		_ = l.Close()
		all.Wait()
	})
	return l.Addr().String(), func() { still.Store(true) }
}

// A suspended orderer, whose connections live on, is left: its envelopes go to
// another, and are answered there.
func TestBroadcastLeavesASuspendedOrderer(t *testing.T) {
	w := newWorld(t, batchOf(1), 20*time.Millisecond)
	n := w.start(t.TempDir()).ready()
	defer n.stop()
	addr, freeze := frozen(t, n.addr)
	var second atomic.Bool
	c := w.clientOf(func(c *orderer.ClientConfig) {
		c.Stall = 200 * time.Millisecond
		c.Endpoints = func() []orderer.Endpoint {
			all := []orderer.Endpoint{{Address: addr, Roots: n.roots}}
			if second.Load() {
				all = append(all, orderer.Endpoint{Address: n.addr, Roots: n.roots})
			}
			return all
		}
	})
	envs := make(chan *common.Envelope)
	go func() {
		defer close(envs)
		envs <- w.tx(0, 10)
		if n.ledger.Wait(t.Context(), 2) != nil {
			return
		}
		second.Store(true)
		freeze()
		envs <- w.tx(1, 10)
	}()
	i := 0
	for a, err := range c.Broadcast(ctxFor(t, time.Minute), envs) {
		require.NoError(t, err)
		require.Equal(t, common.Status_SUCCESS, a.Status)
		if i++; i == 2 {
			require.Equal(t, n.addr, a.Via)
		}
	}
	require.Equal(t, 2, i)
}

// A suspended orderer is left by who follows it although no other one has
// anything newer yet: what is ordered next comes at once.
func TestBlocksLeaveASuspendedOrderer(t *testing.T) {
	w := newWorld(t, batchOf(1), 20*time.Millisecond)
	n := w.start(t.TempDir()).ready()
	defer n.stop()
	a, freezeA := frozen(t, n.addr)
	b, freezeB := frozen(t, n.addr)
	freeze := map[string]func(){a: freezeA, b: freezeB}
	followed := make(chan string, 100)
	c := w.clientOf(func(c *orderer.ClientConfig) {
		c.Stall = 400 * time.Millisecond
		c.OnConnect = func(addr string) { followed <- addr }
		c.Endpoints = func() []orderer.Endpoint {
			return []orderer.Endpoint{{Address: a, Roots: n.roots}, {Address: b, Roots: n.roots}}
		}
	}, n)
	ctx := ctxFor(t, time.Minute)
	var left sync.WaitGroup
	defer left.Wait()
	for got, err := range c.Blocks(ctx, 0) {
		require.NoError(t, err)
		if got.Header.Number == 1 {
			break
		}
		left.Go(func() {
			first := <-followed
			freeze[first]()
			for addr := range followed {
				if addr == first {
					continue
				}
				if err := n.chain.Order(ctx, w.tx(0, 10)); err != nil {
					t.Error(err)
				}
				return
			}
		})
	}
}

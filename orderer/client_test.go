package orderer_test

import (
	"context"
	"crypto/tls"
	"errors"
	"iter"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"
	"github.com/stretchr/testify/require"

	"grapevine/block"
	"grapevine/deliver"
	"grapevine/orderer"
)

// waitLimit is when a test that waits for an event gives up.
const waitLimit = 20 * time.Second

// plain is a world for clients of fakes.
func plain(t *testing.T) *world { return newWorld(t, batchOf(1), time.Second) }

// quick is a client configuration that doesn't wait long.
func (w *world) quick(endpoints func() []orderer.Endpoint) orderer.ClientConfig {
	return orderer.ClientConfig{
		Channel: channelName, Signer: w.client, Endpoints: endpoints,
		MinBackoff: time.Millisecond, MaxBackoff: 20 * time.Millisecond, Stall: 100 * time.Millisecond,
	}
}

// expect takes blocks from to to, both included, and leaves the stream.
func expect(t *testing.T, blocks iter.Seq2[*common.Block, error], from, to uint64) {
	t.Helper()
	next := from
	for b, err := range blocks {
		require.NoError(t, err)
		require.Equal(t, next, b.Header.Number)
		if next++; next > to {
			return
		}
	}
	t.Fatalf("ended before block %d", next)
}

func TestClientFollowsAndEnds(t *testing.T) {
	w := plain(t)
	f := newFake(t, w, 5, "")
	c := orderer.NewClient(w.quick(func() []orderer.Endpoint { return w.endpoints(f) }))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var got []uint64
	var last error
	for b, err := range c.Blocks(ctx, 2) {
		if last = err; err != nil {
			continue
		}
		require.Equal(t, f.addr, c.Source())
		got = append(got, b.Header.Number)
		switch b.Header.Number {
		case 4:
			f.set(func(f *fake) { f.height = 6 })
		case 5:
			cancel()
		}
	}
	require.Equal(t, []uint64{2, 3, 4, 5}, got)
	require.ErrorIs(t, last, context.Canceled)
	require.Empty(t, c.Source())
	f.until(t, func(f *fake) bool { return f.open == 0 })
}

func TestClientGoesToAnotherOrderer(t *testing.T) {
	for _, tc := range []struct {
		name   string
		answer *ab.DeliverResponse
	}{
		{"status NOT_FOUND", status(common.Status_NOT_FOUND)},
		{"status SUCCESS", status(common.Status_SUCCESS)},
		{"status SERVICE_UNAVAILABLE", status(common.Status_SERVICE_UNAVAILABLE)},
		{"nothing", &ab.DeliverResponse{}},
		{"nil block", deliverBlock(nil)},
		{"no header", deliverBlock(&common.Block{})},
		{"no data", deliverBlock(&common.Block{Header: blockAt(0).Header, Metadata: blockAt(0).Metadata})},
		{"no metadata", deliverBlock(&common.Block{Header: blockAt(0).Header, Data: blockAt(0).Data})},
		{"a later block", deliverBlock(blockAt(1))},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := plain(t)
			bad, good := newFake(t, w, 3, ""), newFake(t, w, 3, "")
			bad.answer = tc.answer
			c := orderer.NewClient(w.quick(func() []orderer.Endpoint { return w.endpoints(bad, good) }))
			for range 2 { // one of the two begins with the bad one
				expect(t, c.Blocks(ctxFor(t, waitLimit), 0), 0, 2)
			}
			require.NotZero(t, bad.starts)
		})
	}
}

func TestClientSurvivesADeadOrderer(t *testing.T) {
	w := plain(t)
	a, b := newFake(t, w, 3, ""), newFake(t, w, 3, "")
	byAddr := map[string]*fake{a.addr: a, b.addr: b}
	c := orderer.NewClient(w.quick(func() []orderer.Endpoint { return w.endpoints(a, b) }))
	for blk, err := range c.Blocks(ctxFor(t, waitLimit), 0) {
		require.NoError(t, err)
		if blk.Header.Number == 2 {
			byAddr[c.Source()].stop()
			for _, f := range byAddr {
				f.set(func(f *fake) { f.height = 6 })
			}
		}
		if blk.Header.Number == 5 {
			break
		}
	}
}

// L5: an ordering service that is away is waited for, and found when it comes.
func TestClientNeverGivesUp(t *testing.T) {
	w := plain(t)
	gone := newFake(t, w, 1, "")
	gone.stop()
	conf := w.quick(func() []orderer.Endpoint { return w.endpoints(gone) })
	var failures atomic.Int32
	var back sync.Once
	conf.OnFailure = func(addr string, err error, pause time.Duration) {
		require.ErrorIs(t, err, orderer.Unreachable)
		if failures.Add(1) == 5 {
			back.Do(func() { newFake(t, w, 2, gone.addr) })
		}
	}
	expect(t, orderer.NewClient(conf).Blocks(ctxFor(t, waitLimit), 0), 0, 1)
	require.GreaterOrEqual(t, failures.Load(), int32(5))
}

// T27: an orderer that withholds what another one has is left.
func TestClientLeavesAStalledOrderer(t *testing.T) {
	w := plain(t)
	a, b := newFake(t, w, 9, ""), newFake(t, w, 9, "")
	byAddr := map[string]*fake{a.addr: a, b.addr: b}
	conf := w.quick(func() []orderer.Endpoint { return w.endpoints(a, b) })
	var first sync.Once
	conf.OnConnect = func(addr string) { first.Do(func() { byAddr[addr].set(func(f *fake) { f.hold = 5 }) }) }
	var reason error
	conf.OnFailure = func(_ string, err error, _ time.Duration) { reason = err }
	expect(t, orderer.NewClient(conf).Blocks(ctxFor(t, waitLimit), 0), 0, 8)
	require.ErrorIs(t, reason, orderer.Stalled)
}

// One orderer alone, whose stream is dead though it has blocks, is asked anew.
func TestClientLeavesAStalledStream(t *testing.T) {
	w := plain(t)
	f := newFake(t, w, 9, "")
	f.hold = 5
	conf := w.quick(func() []orderer.Endpoint { return w.endpoints(f) })
	conf.OnFailure = func(_ string, err error, _ time.Duration) {
		require.ErrorIs(t, err, orderer.Stalled)
		f.set(func(f *fake) { f.hold = orderer.Newest })
	}
	expect(t, orderer.NewClient(conf).Blocks(ctxFor(t, waitLimit), 0), 0, 8)
	require.Equal(t, 1, f.most, "never two streams")
}

// An idle channel is no stall, and neither is a tip that nobody attests.
func TestClientStaysOnAnIdleChannel(t *testing.T) {
	for _, lying := range []bool{false, true} {
		w := plain(t)
		a, b := newFake(t, w, 3, ""), newFake(t, w, 3, "")
		conf := w.quick(func() []orderer.Endpoint { return w.endpoints(a, b) })
		var connects atomic.Int32
		conf.OnConnect = func(addr string) { connects.Add(1) }
		other := make(chan *fake, 1)
		if lying {
			conf.Attest = func(b *common.Block) error { return orderer.BadAnswer }
		}
		ctx, cancel := context.WithCancel(t.Context())
		c := orderer.NewClient(conf)
		var following sync.WaitGroup
		following.Go(func() {
			for blk, err := range c.Blocks(ctx, 0) {
				if err == nil && blk.Header.Number == 2 {
					f := a
					if c.Source() == a.addr {
						f = b
					}
					if lying {
						f.set(func(f *fake) { f.height = 1000 })
					}
					other <- f
				}
			}
		})
		f := <-other
		f.until(t, func(f *fake) bool { return f.probes >= 6 })
		cancel()
		following.Wait()
		require.Equal(t, int32(1), connects.Load())
	}
}

// An orderer that accuses another, and can't prove it, isn't heard for a while.
func TestClientDoesNotHearALiar(t *testing.T) {
	w := plain(t)
	a, b := newFake(t, w, 3, ""), newFake(t, w, 3, "")
	byAddr := map[string]*fake{a.addr: a, b.addr: b}
	conf := w.quick(func() []orderer.Endpoint { return w.endpoints(a, b) })
	var connects atomic.Int32
	conf.OnConnect = func(string) { connects.Add(1) }
	conf.Prove = func(*common.Block, [32]byte) error { return orderer.BadAnswer }
	unproven := make(chan struct{}, 1)
	conf.OnWatch = func(_ uint64, err error) {
		if errors.Is(err, orderer.BadAnswer) {
			select {
			case unproven <- struct{}{}:
			default:
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	c := orderer.NewClient(conf)
	followed := make(chan *fake, 1)
	var following sync.WaitGroup
	following.Go(func() {
		for blk, err := range c.Blocks(ctx, 0) {
			if err == nil && blk.Header.Number == 2 {
				followed <- byAddr[c.Source()]
			}
		}
	})
	honest := <-followed
	liar := a
	if honest == a {
		liar = b
	}
	liar.set(func(f *fake) { f.height = 1000 })
	select {
	case <-unproven:
	case <-ctxFor(t, waitLimit).Done():
		t.Error("nobody was accused")
	}
	honest.until(t, func(f *fake) bool { return f.probes >= 3 }) // the liar's turn is another's
	cancel()
	following.Wait()
	require.Equal(t, int32(1), connects.Load())
}

// What is known of the others spares asking them, as long as it is fresh; it is no proof.
func TestClientHearsOfOthers(t *testing.T) {
	w := plain(t)
	a, b := newFake(t, w, 9, ""), newFake(t, w, 9, "")
	byAddr := map[string]*fake{a.addr: a, b.addr: b}
	conf := w.quick(func() []orderer.Endpoint { return w.endpoints(a, b) })
	var first sync.Once
	conf.OnConnect = func(addr string) { first.Do(func() { byAddr[addr].set(func(f *fake) { f.hold = 5 }) }) }
	conf.Others = func() (out []orderer.Sighting) {
		for addr := range byAddr {
			out = append(out, orderer.Sighting{Address: addr, Newest: 8, At: time.Now()})
		}
		return out
	}
	var proven atomic.Int32
	conf.Prove = func(b *common.Block, previous [32]byte) error {
		require.Equal(t, uint64(5), b.Header.Number, "the block that is missing")
		require.Equal(t, block.HeaderHash(blockAt(4).Header), previous)
		proven.Add(1)
		return nil
	}
	expect(t, orderer.NewClient(conf).Blocks(ctxFor(t, waitLimit), 0), 0, 8)
	require.EqualValues(t, 1, proven.Load())
	require.LessOrEqual(t, a.probes+b.probes, 2, "the proof, and whether the one that stands still answers")
}

func TestClientReconnectsWhenEndpointsChange(t *testing.T) {
	w := plain(t)
	a, b := newFake(t, w, 3, ""), newFake(t, w, 6, "")
	var now atomic.Pointer[[]orderer.Endpoint]
	set := func(all ...*fake) { e := w.endpoints(all...); now.Store(&e) }
	set(a)
	conf := w.quick(func() []orderer.Endpoint { return *now.Load() })
	conf.OnFailure = func(addr string, err error, _ time.Duration) { t.Errorf("%s: %v", addr, err) }
	for blk, err := range orderer.NewClient(conf).Blocks(ctxFor(t, waitLimit), 0) {
		require.NoError(t, err)
		if blk.Header.Number == 2 {
			set(b)
		}
		if blk.Header.Number == 5 {
			break
		}
	}
	a.until(t, func(f *fake) bool { return f.open == 0 })
}

func TestClientOverride(t *testing.T) {
	w := plain(t)
	f := newFake(t, w, 3, "")
	conf := w.quick(func() []orderer.Endpoint {
		return []orderer.Endpoint{{Address: "orderer.example.com:7050", Override: f.addr, Roots: w.orderers.TLSPool()}}
	})
	c := orderer.NewClient(conf)
	for range c.Blocks(ctxFor(t, waitLimit), 0) {
		require.Equal(t, "orderer.example.com:7050", c.Source())
		break
	}
}

func TestFetch(t *testing.T) {
	w := plain(t)
	a, b := newFake(t, w, 7, ""), newFake(t, w, 7, "")
	conf := w.quick(func() []orderer.Endpoint { return w.endpoints(a, b) })
	c := orderer.NewClient(conf)
	for want, n := range map[uint64]uint64{0: 0, 3: 3, 6: orderer.Newest} {
		got, err := c.Fetch(ctxFor(t, waitLimit), n)
		require.NoError(t, err)
		require.Equal(t, want, got.Header.Number)
		require.NotNil(t, got.Data)
	}
	_, err := c.Fetch(ctxFor(t, waitLimit), 7)
	var st *orderer.StatusError
	require.ErrorAs(t, err, &st)
	require.Equal(t, common.Status_NOT_FOUND, st.Status)
	a.stop()
	for range 2 {
		_, err = c.Fetch(ctxFor(t, waitLimit), 1)
		require.NoError(t, err, "the other one has it")
	}
	_, err = orderer.NewClient(w.quick(func() []orderer.Endpoint { return nil })).Fetch(t.Context(), 0)
	require.ErrorIs(t, err, orderer.NoEndpoint)
}

// A server that requires client certificates takes only requests that are bound to the one presented.
func TestMutualTLS(t *testing.T) {
	w := plain(t)
	cert, _ := w.tls(w.peers)
	n := w.start(t.TempDir(), func(_ *orderer.ChainConfig, s *orderer.ServerConfig, h *deliver.Handler) {
		s.ClientRoots, h.MutualTLS = w.peers.TLSPool, true
	}).ready()
	defer n.stop()
	fetch := func(c *tls.Certificate) error {
		_, err := w.clientOf(func(conf *orderer.ClientConfig) { conf.ClientCert = func() *tls.Certificate { return c } }, n).Fetch(ctxFor(t, waitLimit), 0)
		return err
	}
	require.NoError(t, fetch(&cert))
	require.ErrorIs(t, fetch(nil), orderer.Unreachable)
	stranger, _ := w.tls(w.strangers)
	require.ErrorIs(t, fetch(&stranger), orderer.Unreachable)
}

// A server whose certificate chains to another root isn't spoken to.
func TestClientVerifiesTheServer(t *testing.T) {
	w := plain(t)
	f := newFake(t, w, 3, "")
	c := orderer.NewClient(w.quick(func() []orderer.Endpoint {
		return []orderer.Endpoint{{Address: f.addr, Roots: w.peers.TLSPool()}}
	}))
	_, err := c.Fetch(ctxFor(t, waitLimit), 0)
	require.ErrorIs(t, err, orderer.Unreachable)
	require.Zero(t, f.probes)
}

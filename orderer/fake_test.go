package orderer_test

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"testing"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"grapevine/orderer"
)

// fake is an orderer that tells what it is told to.
type fake struct {
	w    *world
	addr string
	stop func()

	mu      sync.Mutex
	changed chan struct{} // guarded by mu: closed at the next change
	height  uint64        // guarded by mu: blocks that exist
	hold    uint64        // guarded by mu: blocks from here on don't go out on following streams
	answer  *ab.DeliverResponse
	open    int // guarded by mu: following streams
	most    int // guarded by mu: of them at once
	starts  int // guarded by mu: of them ever
	probes  int // guarded by mu: single requests
}

// newFake serves on loopback; addr may say where.
func newFake(t *testing.T, w *world, height uint64, addr string) *fake {
	t.Helper()
	f := &fake{w: w, height: height, hold: orderer.Newest, changed: make(chan struct{})}
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", addr)
	require.NoError(t, err)
	f.addr = l.Addr().String()
	cert, _ := w.tls(w.orderers)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		s := orderer.NewServer(orderer.ServerConfig{
			Certificate: func() *tls.Certificate { return &cert }, Deliver: f.deliver,
			Chains: func(string) (*orderer.Chain, bool) { return nil, false },
		})
		if err := s.Run(ctx, l); err != nil {
			t.Error(err)
		}
	})
	f.stop = func() { cancel(); running.Wait() }
	t.Cleanup(f.stop)
	return f
}

// set changes the fake.
func (f *fake) set(change func(*fake)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
	close(f.changed)
	f.changed = make(chan struct{})
}

// until waits for a state of the fake.
func (f *fake) until(t *testing.T, is func(*fake) bool) {
	t.Helper()
	ctx := ctxFor(t, waitLimit)
	for {
		f.mu.Lock()
		ok, changed := is(f), f.changed
		f.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatal("the fake orderer never came to that")
		}
	}
}

func (f *fake) deliver(stream ab.AtomicBroadcast_DeliverServer) error {
	env, err := stream.Recv()
	if err != nil {
		return err
	}
	var payload common.Payload
	var seek ab.SeekInfo
	if err := proto.Unmarshal(env.Payload, &payload); err != nil {
		return err
	}
	if err := proto.Unmarshal(payload.Data, &seek); err != nil {
		return err
	}
	if seek.Behavior == ab.SeekInfo_FAIL_IF_NOT_READY {
		return f.single(stream, &seek)
	}
	f.set(func(f *fake) { f.open++; f.starts++; f.most = max(f.most, f.open) })
	defer f.set(func(f *fake) { f.open-- })
	for n := seek.Start.GetSpecified().Number; ; n++ {
		for {
			f.mu.Lock()
			ready, changed, answer := n < f.height && n < f.hold, f.changed, f.answer
			f.mu.Unlock()
			if answer != nil {
				return stream.Send(answer)
			}
			if ready {
				break
			}
			select {
			case <-changed:
			case <-stream.Context().Done():
				return nil
			}
		}
		if err := stream.Send(deliverBlock(blockAt(n))); err != nil {
			return err
		}
	}
}

func (f *fake) single(stream ab.AtomicBroadcast_DeliverServer, seek *ab.SeekInfo) error {
	f.set(func(f *fake) { f.probes++ })
	f.mu.Lock()
	n, height := f.height-1, f.height
	f.mu.Unlock()
	if s := seek.Start.GetSpecified(); s != nil {
		n = s.Number
	}
	if n >= height {
		return stream.Send(status(common.Status_NOT_FOUND))
	}
	b := blockAt(n)
	if seek.ContentType == ab.SeekInfo_HEADER_WITH_SIG {
		b.Data = nil
	}
	return stream.Send(deliverBlock(b))
}

// endpoints of some fakes, for a client.
func (w *world) endpoints(all ...*fake) []orderer.Endpoint {
	var out []orderer.Endpoint
	for _, f := range all {
		out = append(out, orderer.Endpoint{Address: f.addr, Roots: w.orderers.TLSPool()})
	}
	return out
}

// blockAt is a block with a number, which is all that a client looks at.
func blockAt(n uint64) *common.Block {
	return &common.Block{
		Header:   &common.BlockHeader{Number: n},
		Data:     &common.BlockData{Data: [][]byte{{1}}},
		Metadata: &common.BlockMetadata{Metadata: [][]byte{{}, {}, {}, {}, {}}},
	}
}

func deliverBlock(b *common.Block) *ab.DeliverResponse {
	return &ab.DeliverResponse{Type: &ab.DeliverResponse_Block{Block: b}}
}

func status(s common.Status) *ab.DeliverResponse {
	return &ab.DeliverResponse{Type: &ab.DeliverResponse_Status{Status: s}}
}

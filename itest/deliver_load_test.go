package itest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math"
	"net"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"

	"grapevine/block/tx"
	"grapevine/itest/figures"
	"grapevine/msp"
	"grapevine/node"
)

// unread takes answers without looking at them, and sends bytes as they are: who
// reads is not to cost what serving costs.
type unread struct{ encoding.CodecV2 }

func newUnread() unread { return unread{encoding.GetCodecV2(proto.Name)} }

type answer struct{ bytes int }

func (u unread) Unmarshal(b mem.BufferSlice, v any) error {
	if a, ok := v.(*answer); ok {
		a.bytes = b.Len()
		return nil
	}
	return u.CodecV2.Unmarshal(b, v)
}

func (u unread) Marshal(v any) (mem.BufferSlice, error) {
	if b, ok := v.([]byte); ok {
		return mem.BufferSlice{mem.SliceBuffer(b)}, nil
	}
	return u.CodecV2.Marshal(v)
}

// Many clients follow one node live, each over a connection of its own, and one
// among them never reads: all others get every block. Beside it a bare gRPC server
// over TLS does nothing but send as many bytes to as many clients at the same
// rate. In make sim they are 500, at one and at ten blocks a second of 100 KiB.
// Clients and servers share this process.
func TestSimDeliverLoad(t *testing.T) {
	if !figures.Long() {
		deliverLoad(t, "deliver-load", load{20, 10, 10 << 10, 20 * time.Millisecond})
		return
	}
	deliverLoad(t, "deliver-load-1", load{500, 15, 100 << 10, time.Second})
	deliverLoad(t, "deliver-load-10", load{500, 100, 100 << 10, 100 * time.Millisecond})
}

type load struct {
	clients, blocks, size int
	every                 time.Duration
}

func deliverLoad(t *testing.T, name string, l load) {
	ours := oursUnderLoad(t, l)
	bare := bareUnderLoad(t, l)
	t.Logf("beside a bare server: lag p99 %.2f, CPU %.2f times", ratio(ours.p99, bare.p99), ratio(ours.cpu, bare.cpu))
	of := map[string]any{"clients": l.clients, "blocks": l.blocks, "size": l.size, "ms": l.every.Milliseconds()}
	var out figures.Records
	out.Spread("deliver lag", of, ours.lags)
	out.Spread("deliver lag of a bare gRPC server", of, bare.lags)
	out.Add("memory of an idle deliver client, both ends", of, "bytes", float64(ours.each))
	out.Add("memory of a bare gRPC server's idle client, both ends", of, "bytes", float64(bare.each))
	out.Add("heap with all clients", of, "bytes", float64(ours.heap))
	out.Add("CPU of a block for a client, both ends", of, "s", ours.cpu.Seconds())
	out.Add("CPU of a bare gRPC server's block for a client, both ends", of, "s", bare.cpu.Seconds())
	figures.Save(t, name, out)
}

func ratio(a, b time.Duration) float64 { return a.Seconds() / max(b.Seconds(), 1e-9) }

// burden is what a load did.
type burden struct {
	lags       []time.Duration
	p99        time.Duration
	cpu        time.Duration // of this process, for each block and client
	each, heap uint64        // bytes: of an idle client; of all at the end
}

// bearLoad opens the clients, of which the first reads no more, and has blocks
// made; order returns when the n-th was.
func bearLoad(t *testing.T, of string, l load, open func() grpc.ClientStream, order func(), ordered func(n int) time.Time) burden {
	inUse := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	used := func() time.Duration {
		var u syscall.Rusage
		require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before := inUse()
	open()
	var streams []grpc.ClientStream
	for range l.clients {
		streams = append(streams, open())
	}
	b := burden{each: (inUse() - before) / uint64(l.clients+1)}

	var mu sync.Mutex // guards b.lags
	var reading sync.WaitGroup
	for _, v := range streams {
		reading.Go(func() {
			own := make([]time.Duration, 0, l.blocks)
			for n := 1; n <= l.blocks; n++ {
				a := new(answer)
				if err := v.RecvMsg(a); err != nil || a.bytes < l.size {
					t.Errorf("block %d: %d bytes: %v", n, a.bytes, err)
					return
				}
				own = append(own, time.Since(ordered(n)))
			}
			mu.Lock()
			defer mu.Unlock()
			b.lags = append(b.lags, own...)
		})
	}
	began, cpu := time.Now(), used()
	beat := time.NewTicker(l.every)
	defer beat.Stop()
	for range l.blocks {
		<-beat.C
		order()
	}
	took := time.Since(began)
	reading.Wait()
	all := time.Since(began)
	require.Len(t, b.lags, l.clients*l.blocks)
	b.cpu = (used() - cpu) / time.Duration(len(b.lags))
	sorted := figures.Sorted(b.lags)
	b.p99, b.heap = figures.At(sorted, .99), inUse()
	t.Logf("%s: %d clients, %d blocks of %d bytes ordered in %v, all read after %v: lag p50 %v, p99 %v, max %v; %d KiB for each idle client, both ends; %d MiB in all at the end; %.0f MB/s; %v of CPU for each block and client",
		of, l.clients, l.blocks, l.size, took.Round(time.Millisecond), all.Round(time.Millisecond), figures.At(sorted, .5), b.p99, figures.At(sorted, 1),
		b.each>>10, b.heap>>20, float64(len(b.lags)*l.size)/all.Seconds()/1e6, b.cpu)
	return b
}

// follower opens streams of blocks as one client of many does.
func follower(ctx context.Context, t *testing.T, addr string, roots *x509.CertPool, who msp.Signer) func() grpc.ClientStream {
	return func() grpc.ClientStream {
		conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots})),
			grpc.WithDefaultCallOptions(grpc.ForceCodecV2(newUnread()), grpc.MaxCallRecvMsgSize(100<<20)))
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, conn.Close()) })
		stream, err := conn.NewStream(ctx, &peer.Deliver_ServiceDesc.Streams[0], peer.Deliver_Deliver_FullMethodName)
		require.NoError(t, err)
		env, err := tx.BoundEnvelope(common.HeaderType_DELIVER_SEEK_INFO, ChannelName, &ab.SeekInfo{
			Start: &ab.SeekPosition{Type: &ab.SeekPosition_Oldest{Oldest: &ab.SeekOldest{}}},
			Stop:  &ab.SeekPosition{Type: &ab.SeekPosition_Specified{Specified: &ab.SeekSpecified{Number: math.MaxUint64}}},
		}, who, time.Now(), nil)
		require.NoError(t, err)
		require.NoError(t, stream.SendMsg(env))
		require.NoError(t, stream.RecvMsg(new(answer))) // block 0
		return stream
	}
}

func oursUnderLoad(t *testing.T, l load) burden {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	w, err := NewWorld(1)
	require.NoError(t, err)
	cert, err := w.Orgs[0].TLS("peer0.org1", "localhost", "127.0.0.1")
	require.NoError(t, err)
	listen, _ := loopback(t, 1)
	s, err := NewSwarm(w, SwarmConfig{Dir: t.TempDir(), Peers: 1, Listen: listen, Log: testLog(), Tune: func(_ int, c *node.Config) {
		c.Clients = node.ClientServices{Address: "127.0.0.1:0", Certificate: func() *tls.Certificate { return &cert }}
	}})
	require.NoError(t, err)
	require.NoError(t, s.StartAll(ctx))
	defer func() { require.NoError(t, s.StopAll()) }()
	roots := x509.NewCertPool()
	roots.AddCert(w.Orgs[0].TLSCA.Certificate())
	who, err := w.Orgs[0].Identity("User1", "client")
	require.NoError(t, err)
	return bearLoad(t, "grapevine", l, follower(ctx, t, s.Peers[0].Node.ClientAddress(), roots, who), func() {
		_, err := w.Order(l.size)
		require.NoError(t, err)
	}, func(n int) time.Time { return w.Ordered(uint64(n)) })
}

// A pump sends the same bytes to all who ask, once for each block that is made.
type pump struct {
	peer.UnimplementedDeliverServer
	raw []byte

	mu   sync.Mutex
	made []time.Time   // owned by mu
	more chan struct{} // closed and replaced at each, owned by mu
}

func (p *pump) order() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.made = append(p.made, time.Now())
	close(p.more)
	p.more = make(chan struct{})
}

func (p *pump) ordered(n int) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.made[n]
}

func (p *pump) Deliver(stream peer.Deliver_DeliverServer) error {
	if _, err := stream.Recv(); err != nil {
		return err
	}
	for n := 0; ; {
		p.mu.Lock()
		have, more := len(p.made), p.more
		p.mu.Unlock()
		for ; n < have; n++ {
			if err := stream.SendMsg(p.raw); err != nil {
				return err
			}
		}
		select {
		case <-more:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

func bareUnderLoad(t *testing.T, l load) burden {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	w, err := NewWorld(1)
	require.NoError(t, err)
	cert, err := w.Orgs[0].TLS("peer0.org1", "localhost", "127.0.0.1")
	require.NoError(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(w.Orgs[0].TLSCA.Certificate())
	who, err := w.Orgs[0].Identity("User1", "client")
	require.NoError(t, err)
	p := &pump{raw: make([]byte, l.size+4<<10), more: make(chan struct{})}
	p.order() // block 0
	g := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{cert}})), grpc.ForceServerCodecV2(newUnread()))
	peer.RegisterDeliverServer(g, p)
	at, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := g.Serve(at); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Error(err)
		}
	})
	defer serving.Wait()
	defer g.Stop()
	return bearLoad(t, "bare gRPC", l, follower(ctx, t, at.Addr().String(), roots, who), p.order, p.ordered)
}

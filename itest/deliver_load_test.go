package itest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"math"
	"runtime"
	"sync"
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
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/mem"

	"grapevine/block/tx"
	"grapevine/itest/figures"
	"grapevine/node"
)

// unread takes answers without looking at them: who reads is not to cost what
// serving costs.
type unread struct{ encoding.CodecV2 }

type answer struct{ bytes int }

func (u unread) Unmarshal(b mem.BufferSlice, v any) error {
	if a, ok := v.(*answer); ok {
		a.bytes = b.Len()
		return nil
	}
	return u.CodecV2.Unmarshal(b, v)
}

// Many clients follow one node live, each over a connection of its own, and one
// among them never reads: all others get every block. In make sim they are 500,
// at one and at ten blocks a second of 100 KiB. Clients and node share this process.
func TestSimDeliverLoad(t *testing.T) {
	if !figures.Long() {
		deliverLoad(t, "deliver-load", 20, 10, 10<<10, 20*time.Millisecond)
		return
	}
	deliverLoad(t, "deliver-load-1", 500, 15, 100<<10, time.Second)
	deliverLoad(t, "deliver-load-10", 500, 50, 100<<10, 100*time.Millisecond)
}

func deliverLoad(t *testing.T, name string, clients, blocks, size int, every time.Duration) {
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
	t.Cleanup(func() { require.NoError(t, s.StopAll()) })
	roots := x509.NewCertPool()
	roots.AddCert(w.Orgs[0].TLSCA.Certificate())
	who, err := w.Orgs[0].Identity("User1", "client")
	require.NoError(t, err)
	codec := unread{encoding.GetCodecV2(proto.Name)}
	open := func() grpc.ClientStream {
		conn, err := grpc.NewClient("passthrough:///"+s.Peers[0].Node.ClientAddress(), grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots})),
			experimental.WithBufferPool(mem.NopBufferPool{}), grpc.WithDefaultCallOptions(grpc.ForceCodecV2(codec), grpc.MaxCallRecvMsgSize(100<<20)))
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
	inUse := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	before := inUse()
	open() // it reads no more
	var streams []grpc.ClientStream
	for range clients {
		streams = append(streams, open())
	}
	each := (inUse() - before) / uint64(clients+1)

	var mu sync.Mutex
	var lags []time.Duration // owned by mu
	var reading sync.WaitGroup
	for _, v := range streams {
		reading.Go(func() {
			own := make([]time.Duration, 0, blocks)
			for n := 1; n <= blocks; n++ {
				a := new(answer)
				if err := v.RecvMsg(a); err != nil || a.bytes < size {
					t.Errorf("block %d: %d bytes: %v", n, a.bytes, err)
					return
				}
				own = append(own, time.Since(w.Ordered(uint64(n))))
			}
			mu.Lock()
			defer mu.Unlock()
			lags = append(lags, own...)
		})
	}
	began := time.Now()
	beat := time.NewTicker(every)
	defer beat.Stop()
	for range blocks {
		<-beat.C
		_, err := w.Order(size)
		require.NoError(t, err)
	}
	ordered := time.Since(began)
	reading.Wait()
	took := time.Since(began)
	require.Len(t, lags, clients*blocks)
	sorted := figures.Sorted(lags)
	full := inUse()
	t.Logf("%d clients, %d blocks of %d bytes ordered in %v, all read after %v: lag p50 %v, p99 %v, max %v; %d KiB for each idle client, both ends; %d MiB in all at the end; %.0f MB/s",
		clients, blocks, size, ordered.Round(time.Millisecond), took.Round(time.Millisecond), figures.At(sorted, .5), figures.At(sorted, .99), figures.At(sorted, 1),
		each>>10, full>>20, float64(clients*blocks*size)/took.Seconds()/1e6)
	var out figures.Records
	of := map[string]any{"clients": clients, "blocks": blocks, "size": size, "ms": every.Milliseconds()}
	out.Spread("deliver lag", of, lags)
	out.Add("memory of an idle deliver client, both ends", of, "bytes", float64(each))
	out.Add("heap with all clients", of, "bytes", float64(full))
	figures.Save(t, name, out)
}

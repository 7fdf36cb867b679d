package blocksync

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/stretchr/testify/require"

	"grapevine/block"
)

// BenchmarkPull compares, in one run on loopback over TCP, TLS and yamux: one
// raw stream; the range protocol alone, one request after the other; and a
// newcomer's whole way, with every signature checked, to a ledger that keeps
// nothing, from one peer and from three. Ratios are to the raw stream.
func BenchmarkPull(b *testing.B) {
	for _, k := range []struct {
		name          string
		blocks, bytes int
	}{
		{"10KiB", 4000, 10 << 10},
		{"1MiB", 64, 1 << 20},
	} {
		b.Run(k.name, func(b *testing.B) {
			c := newChain(b).grow(k.blocks, k.bytes)
			var total int64
			for _, raw := range c.raw[1:] {
				total += int64(len(raw))
			}
			w := loopback(b, 4)
			defer w.close()
			for _, h := range w.hosts[1:] {
				s := newNode(b, h, c, len(c.raw))
				defer s.close()
			}
			w.hosts[1].SetStreamHandler("/test/raw", func(s network.Stream) {
				defer s.Close()
				out := bufio.NewWriterSize(s, 64<<10)
				for _, raw := range c.raw[1:] {
					out.Write(raw)
				}
				out.Flush()
			})
			b.SetBytes(total)
			var raw, protocol, one, three time.Duration
			for b.Loop() {
				raw += clock(func() { pullRaw(b, w, total) })
				protocol += clock(func() { pullRanges(b, w, uint64(len(c.raw))) })
				one += clock(func() { catchUp(b, w, c, 1) })
				three += clock(func() { catchUp(b, w, c, 3) })
			}
			report := func(name string, d time.Duration) {
				b.ReportMetric(float64(total)*float64(b.N)/d.Seconds()/1e6, name+"-MB/s")
				b.ReportMetric(raw.Seconds()/d.Seconds(), name+"/raw")
			}
			b.ReportMetric(float64(total)*float64(b.N)/raw.Seconds()/1e6, "raw-MB/s")
			report("protocol", protocol)
			report("one", one)
			report("three", three)
		})
	}
}

func clock(f func()) time.Duration {
	began := time.Now()
	f()
	return time.Since(began)
}

func pullRaw(b *testing.B, w *net, total int64) {
	s, err := w.hosts[0].NewStream(context.Background(), w.hosts[1].ID(), "/test/raw")
	require.NoError(b, err)
	defer s.Close()
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, s, make([]byte, 64<<10))
	require.NoError(b, err)
	require.Equal(b, total, n)
}

func pullRanges(b *testing.B, w *net, height uint64) {
	for next := uint64(1); next < height; {
		s, err := w.hosts[0].NewStream(context.Background(), w.hosts[1].ID(), testProtocol)
		require.NoError(b, err)
		a := asking{
			first: next, count: min(maxCount, height-next), nonce: next, moved: func(int) {}, free: func(int) {},
			room: func(uint64, int, int) error { return nil }, all: func() error { return nil },
			each: func(n uint64, _ []byte) error { next = n + 1; return nil },
		}
		require.NoError(b, a.run(context.Background(), s), fmt.Sprint(next))
	}
}

// sink is a ledger that keeps nothing but its tip.
type sink struct {
	shelf
	tip  atomic.Pointer[block.Tip]
	full chan struct{}
}

func (s *sink) Tip() block.Tip { return *s.tip.Load() }
func (s *sink) Append(bs ...block.Verified) error {
	last := bs[len(bs)-1]
	s.tip.Store(&block.Tip{Height: last.Number() + 1, Hash: last.Hash()})
	if last.Number()+1 == uint64(len(s.raw)) {
		close(s.full)
	}
	return nil
}

func catchUp(b *testing.B, w *net, c *chain, from int) {
	led := &sink{shelf: shelf{c}, full: make(chan struct{})}
	led.tip.Store(&block.Tip{Height: 1, Hash: c.hash(0)})
	rules := rulesAfter(0, 0)
	s := New(Config{
		Ledger: led, Rules: func() *block.Rules { return rules },
		Open: func(ctx context.Context, p peerID) (network.Stream, error) {
			return w.hosts[0].NewStream(ctx, p, testProtocol)
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan error, 1)
	go func() { over <- s.Run(ctx) }()
	for _, h := range w.hosts[1 : 1+from] {
		s.Height(h.ID(), uint64(len(c.raw)))
	}
	<-led.full
	cancel()
	require.ErrorIs(b, <-over, context.Canceled)
}

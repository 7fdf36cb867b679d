package itest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"golang.org/x/sync/errgroup"

	"grapevine/block"
	"grapevine/channel"
)

const rawProtocol = "/bench/raw"

// rawStream sends the blocks, whole, over one stream between two plain hosts.
func rawStream(ctx context.Context, raw [][]byte, bytes int64) (Pace, error) {
	return streamed(ctx, raw, bytes, func(s io.Reader) error {
		n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, s, make([]byte, 64<<10))
		if err == nil && n != bytes {
			err = fmt.Errorf("%d bytes of %d came", n, bytes)
		}
		return err
	})
}

// streamed measures what a plain host does with the blocks that another sends.
func streamed(ctx context.Context, raw [][]byte, bytes int64, take func(io.Reader) error) (p Pace, err error) {
	var hosts []host.Host
	for range 2 {
		h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.Transport(tcp.NewTCPTransport),
			libp2p.Security(libp2ptls.ID, libp2ptls.New), libp2p.DisableMetrics(), libp2p.DisableRelay(),
			libp2p.ForceReachabilityPublic(), libp2p.DisableIdentifyAddressDiscovery(), libp2p.Ping(false))
		if err != nil {
			return p, err
		}
		defer func() { err = errors.Join(err, h.Close()) }()
		hosts = append(hosts, h)
	}
	hosts[1].SetStreamHandler(rawProtocol, func(s network.Stream) {
		out := bufio.NewWriterSize(s, 64<<10)
		for _, b := range raw[1:] {
			if _, err := out.Write(b); err != nil {
				break
			}
		}
		if err := errors.Join(out.Flush(), s.Close()); err != nil {
			_ = s.Reset() // the reader finds that bytes lack
		}
	})
	if err := hosts[0].Connect(ctx, peer.AddrInfo{ID: hosts[1].ID(), Addrs: hosts[1].Addrs()}); err != nil {
		return p, err
	}
	return measured(bytes, func(func()) error {
		s, err := hosts[0].NewStream(ctx, hosts[1].ID(), rawProtocol)
		if err != nil {
			return err
		}
		return errors.Join(take(s), s.Close())
	})
}

// rawStore opens a Pebble store with the ledger's sizes.
func rawStore(dir string) (*pebble.DB, error) {
	o := &pebble.Options{
		MemTableSize: 16<<20 - rand.Uint64N(4<<20), MemTableStopWritesThreshold: 4, FormatMajorVersion: pebble.FormatValueSeparation,
		CompactionConcurrencyRange: func() (int, int) { return 1, 2 }, Logger: quiet{},
	}
	o.Experimental.ValueSeparationPolicy = func() pebble.ValueSeparationPolicy {
		return pebble.ValueSeparationPolicy{Enabled: true, MinimumSize: 1 << 10, MaxBlobReferenceDepth: 1 << 20, RewriteMinimumAge: time.Hour, TargetGarbageRatio: 1}
	}
	return pebble.Open(dir, o)
}

// Of a batch, as blocksync makes them.
const (
	rawBlocks = 256
	rawBytes  = 16 << 20
)

// rawBatches writes the blocks in synced batches.
func rawBatches(dir string, raw [][]byte, bytes int64) (p Pace, err error) {
	db, err := rawStore(dir)
	if err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return measured(bytes, func(func()) error {
		for i := 1; i < len(raw); {
			b := db.NewBatch()
			size := 0
			for n := 0; i < len(raw) && n < rawBlocks && size < rawBytes; i, n = i+1, n+1 {
				if err := b.Set(fmt.Appendf(nil, "block%012d", i), raw[i], nil); err != nil {
					return err
				}
				size += len(raw[i])
			}
			if err := errors.Join(b.Commit(pebble.Sync), b.Close()); err != nil {
				return err
			}
		}
		return nil
	})
}

// floor is what no newcomer can do without: a raw stream, of which each block is
// checked on all cores, and raw batches of those that were, in order. There are no
// slices, no window and no indexes, and the sender reads from memory.
func floor(ctx context.Context, w *World, dir string, raw [][]byte, bytes int64) (p Pace, err error) {
	conf, err := channel.Parse(w.Genesis)
	if err != nil {
		return p, err
	}
	rules := conf.Rules()
	db, err := rawStore(dir)
	if err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	type job struct {
		raw  []byte
		done chan error
	}
	waiting := max(1, int(64<<20/(bytes/int64(len(raw)-1)))) // as many as the default budget holds
	return streamed(ctx, raw, bytes, func(s io.Reader) error {
		g, ctx := errgroup.WithContext(ctx)
		checks, ordered := make(chan *job, waiting), make(chan *job, waiting)
		g.Go(func() error {
			defer close(checks)
			defer close(ordered)
			r := bufio.NewReaderSize(s, 64<<10)
			for _, b := range raw[1:] {
				j := &job{make([]byte, len(b)), make(chan error, 1)}
				if _, err := io.ReadFull(r, j.raw); err != nil {
					return err
				}
				for _, to := range []chan *job{ordered, checks} {
					select {
					case to <- j:
					case <-ctx.Done():
						return ctx.Err()
					}
				}
			}
			return nil
		})
		for range runtime.GOMAXPROCS(0) {
			g.Go(func() error {
				for j := range checks {
					_, err := block.Check(rules, j.raw)
					j.done <- err
				}
				return nil
			})
		}
		g.Go(func() error {
			b, n, size := db.NewBatch(), 0, 0
			for i := 1; i < len(raw); i++ {
				j, open := <-ordered
				if !open {
					return nil // the reader tells why
				}
				if err := <-j.done; err != nil {
					return err
				}
				if err := b.Set(fmt.Appendf(nil, "block%012d", i), j.raw, nil); err != nil {
					return err
				}
				n, size = n+1, size+len(j.raw)
				if more := len(ordered) > 0 && n < rawBlocks && size < rawBytes; more {
					continue
				}
				if err := errors.Join(b.Commit(pebble.Sync), b.Close()); err != nil {
					return err
				}
				b, n, size = db.NewBatch(), 0, 0
			}
			return b.Close()
		})
		return g.Wait()
	})
}

type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(format string, args ...any) {
	panic(fmt.Sprintf(format, args...))
}

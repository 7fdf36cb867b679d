package itest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"runtime/pprof"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p"
	"golang.org/x/sync/errgroup"

	"grapevine/block"
	"grapevine/channel"
	"grapevine/election"
	"grapevine/ledger"
	"grapevine/node"
)

// A Catchup is a chain that a newcomer has to catch up with.
type Catchup struct {
	Body   int // bytes of a block's data
	Blocks int
	Peers  []int // how many peers serve, by turns
	Buffer int64 // bytes of blocks that may wait at the newcomer; 0: the default
}

// A Pace is how fast a way brought the chain.
type Pace struct {
	Rate float64 // bytes a second
	Heap uint64  // highest live heap while it ran, beyond that before
	CPU  time.Duration
}

// CaughtUp is what a catch-up was measured to take, beside its bare
// counterparts over the same bytes in the same run.
type CaughtUp struct {
	Bytes  int64
	Stream Pace         // one raw TCP, TLS and yamux stream between two plain hosts
	Disk   Pace         // raw synced Pebble batches, of the size that a ledger commits
	Check  Pace         // what must be verified of each block (block.Check), alone, on all cores
	Floor  Pace         // the three joined: a raw stream, verification on all cores, raw batches
	Peers  map[int]Pace // a newcomer that keeps blocks alone, by how many peers it had
	Judged map[int]Pace // a newcomer that judges transactions too
}

// CatchUp measures newcomers of real nodes over TCP on loopback, ledgers on
// disk. progress is told what goes on.
func CatchUp(ctx context.Context, c Catchup, progress func(string)) (_ *CaughtUp, err error) {
	most := 1
	for _, n := range c.Peers {
		most = max(most, n)
	}
	listen, endpoint, err := Loopback(most + 1)
	if err != nil {
		return nil, err
	}
	var anchors []string
	for i := range most + 1 {
		anchors = append(anchors, endpoint(i))
	}
	w, err := NewWorld(most+1, anchors...)
	if err != nil {
		return nil, err
	}
	dir, err := benchFolder()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s, err := NewSwarm(w, SwarmConfig{
		Dir: dir, Peers: 1, Listen: func(i int) []string { return listen(i)[:1] }, Endpoint: endpoint,
		Libp2p: func(int) []libp2p.Option { return []libp2p.Option{libp2p.DisableMetrics()} },
		Tune: func(_ int, conf *node.Config) {
			conf.Leader = election.Standby // nobody pulls from the ordering service
			conf.Judge = false             // servers only serve
			if c.Buffer > 0 {
				conf.BufferBytes = c.Buffer
			}
		},
	})
	if err != nil {
		return nil, err
	}
	progress(fmt.Sprintf("%d blocks of %d KiB: making them", c.Blocks, c.Body>>10))
	for range c.Blocks {
		if _, err := w.OrderBody(c.Body); err != nil {
			return nil, err
		}
	}
	raw, err := w.Raw()
	if err != nil {
		return nil, err
	}
	out := &CaughtUp{Peers: map[int]Pace{}, Judged: map[int]Pace{}}
	for _, b := range raw[1:] {
		out.Bytes += int64(len(b))
	}
	full := filepath.Join(dir, "full")
	if err := fill(full, raw); err != nil {
		return nil, err
	}
	for _, p := range s.Peers[1:] {
		if err := os.CopyFS(filepath.Join(p.cfg.Dir, "ledger"), os.DirFS(full)); err != nil {
			return nil, err
		}
	}
	progress("one raw stream")
	if out.Stream, err = rawStream(ctx, raw, out.Bytes); err != nil {
		return nil, err
	}
	progress("raw batches")
	if out.Disk, err = rawBatches(filepath.Join(dir, "raw"), raw, out.Bytes); err != nil {
		return nil, err
	}
	progress("verification alone")
	if out.Check, err = verification(w, raw, out.Bytes); err != nil {
		return nil, err
	}
	progress("all three, and nothing else")
	if out.Floor, err = floor(ctx, w, filepath.Join(dir, "floor"), raw, out.Bytes); err != nil {
		return nil, err
	}
	raw = nil // not to be counted as the newcomers'
	for _, way := range []struct {
		judge bool
		paces map[int]Pace
	}{{false, out.Peers}, {true, out.Judged}} {
		s.Peers[0].cfg.Judge = way.judge
		for _, n := range c.Peers {
			progress(fmt.Sprintf("a newcomer with %d peers, judging: %v", n, way.judge))
			pprof.Do(ctx, pprof.Labels("part", "newcomer"), func(ctx context.Context) {
				way.paces[n], err = s.newcomer(ctx, n, out.Bytes)
			})
			if err != nil {
				return nil, fmt.Errorf("a newcomer with %d peers: %w", n, err)
			}
		}
	}
	return out, nil
}

// verification checks every block, on all cores, and does nothing else.
func verification(w *World, raw [][]byte, bytes int64) (Pace, error) {
	conf, err := channel.Parse(w.Genesis)
	if err != nil {
		return Pace{}, err
	}
	rules := conf.Rules()
	return measured(bytes, func(func()) error {
		var g errgroup.Group
		var next atomic.Int64
		for range runtime.GOMAXPROCS(0) {
			g.Go(func() error {
				for i := next.Add(1); i < int64(len(raw)); i = next.Add(1) {
					if _, err := block.Check(rules, raw[i]); err != nil {
						return err
					}
				}
				return nil
			})
		}
		return g.Wait()
	})
}

// Raw is the chain so far, each block as it is stored.
func (w *World) Raw() ([][]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := make([][]byte, len(w.blocks))
	for i, b := range w.blocks {
		var err error
		if out[i], err = block.Marshal(b); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// fill makes a ledger folder that holds the chain.
func fill(dir string, raw [][]byte) (err error) {
	db, err := ledger.Open(dir, ledger.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	var led *ledger.Ledger
	var batch []block.Verified
	bytes := 0
	_, err = channel.VerifyChain(raw[0], func(yield func([]byte, error) bool) {
		for _, b := range raw {
			if !yield(b, nil) {
				return
			}
		}
	}, func(v block.Verified, _ *channel.Config) (err error) {
		if v.Number() == 0 {
			led, err = db.Create(ChannelName, v)
			return err
		}
		batch = append(batch, v)
		bytes += len(v.Bytes())
		if bytes < 4<<20 && v.Number() != uint64(len(raw)-1) {
			return nil
		}
		err = led.Append(batch...)
		batch, bytes = nil, 0
		return err
	})
	return err
}

// newcomer starts n peers and one that holds block 0 alone, and measures it.
func (s *Swarm) newcomer(ctx context.Context, n int, bytes int64) (p Pace, err error) {
	defer func() { err = errors.Join(err, s.StopAll()) }()
	for _, q := range s.Peers[1 : 1+n] {
		if err := s.Start(ctx, q); err != nil {
			return p, err
		}
	}
	if err := soon(ctx, "meeting", s.Met); err != nil {
		return p, err
	}
	first := s.Peers[0]
	if err := os.RemoveAll(first.cfg.Dir); err != nil {
		return p, err
	}
	return measured(bytes, func(begin func()) error {
		if err := s.Start(ctx, first); err != nil {
			return err
		}
		if err := first.Channel.Ledger().Wait(ctx, 2); err != nil {
			return err
		}
		begin()
		return first.Channel.Ledger().Wait(ctx, s.World.Height())
	})
}

// own is how much live heap a measured part is taken to have of its own: the
// chain, which the bench holds beside it, must not put off its collections.
const own = 128 << 20

// measured times f from when it calls begin, and watches the heap.
func measured(bytes int64, f func(begin func()) error) (p Pace, err error) {
	runtime.GC()
	defer debug.SetGCPercent(debug.SetGCPercent(int(100 * own / (own + heap()))))
	syscall.Sync() // what earlier parts left to be written isn't this one's
	before, stop, over := heap(), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		t := time.NewTicker(20 * time.Millisecond)
		defer t.Stop()
		for {
			select {
			case <-stop:
				return
			case <-t.C:
				h := heap()
				p.Heap = max(p.Heap, h-min(before, h))
			}
		}
	}()
	began, cpu := time.Now(), processTime()
	err = f(func() { began, cpu = time.Now(), processTime() })
	took := time.Since(began)
	close(stop)
	<-over
	p.Rate, p.CPU = float64(bytes)/took.Seconds(), processTime()-cpu
	return p, err
}

// heap is how many bytes live objects, and dead ones not yet swept, take.
func heap() uint64 {
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

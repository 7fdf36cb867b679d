package itest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/metrics"

	"grapevine/node"
	"grapevine/wire"
)

// startTime bounds how long a network takes to be ready for a measurement. A
// GossipSub mesh that ran out of candidates grows again when its peers' backoff
// ends, after a minute.
const startTime = 150 * time.Second

// grapevine is a network of real nodes on loopback, their ledgers on disk. The
// first node alone pulls from the ordering service.
type grapevine struct {
	*Swarm
	dir   string
	came  *arrivals
	bytes []*metrics.BandwidthCounter
	stop  context.CancelFunc
	watch sync.WaitGroup
}

// newGrapevine starts one. Tune changes the nodes' configurations; may be nil.
func newGrapevine(ctx context.Context, nodes, organisations int, tune func(*node.Config)) (carrier, error) {
	listen, endpoint, err := Loopback(nodes)
	if err != nil {
		return nil, err
	}
	var anchors []string
	for i := range organisations {
		anchors = append(anchors, endpoint(i))
	}
	w, err := NewWorld(organisations, anchors...)
	if err != nil {
		return nil, err
	}
	g := &grapevine{came: newArrivals()}
	if g.dir, err = benchFolder(); err != nil {
		return nil, err
	}
	for range nodes {
		g.bytes = append(g.bytes, metrics.NewBandwidthCounter())
	}
	ctx, g.stop = context.WithCancel(ctx)
	g.Swarm, err = NewSwarm(w, SwarmConfig{
		Dir: g.dir, Peers: nodes / organisations, Leaders: 1, Listen: listen, Endpoint: endpoint,
		Libp2p: func(i int) []libp2p.Option {
			return []libp2p.Option{libp2p.BandwidthReporter(g.bytes[i]), libp2p.DisableMetrics()}
		},
		Tune: func(i int, c *node.Config) {
			c.Judge = false // what that costs isn't dissemination's
			if i > 0 {
				c.Hooks.Held = func(_ string, n uint64) { g.came.note(g.came.held, n) }
			}
			if tune != nil {
				tune(c)
			}
		},
	})
	if err == nil {
		err = g.start(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, g.close())
	}
	return g, nil
}

func (g *grapevine) start(ctx context.Context) error {
	if err := g.StartAll(ctx); err != nil {
		return err
	}
	for _, p := range g.Peers[1:] {
		g.watch.Go(func() {
			p.Commits(ctx, 1, func(n uint64, _ time.Time) { g.came.note(g.came.disk, n) })
		})
	}
	if err := soon(ctx, "meeting", func() bool { return g.Met() && g.Meshed() }); err != nil {
		return err
	}
	return g.circle(ctx, min(len(g.Peers)-1, circleSize)) // as the bare hosts, all of which are connected
}

func (g *grapevine) send(bytes int) (uint64, time.Time, error) {
	b, err := g.World.OrderBody(bytes)
	if err != nil {
		return 0, time.Time{}, err
	}
	n := b.Header.Number
	return n, g.World.Ordered(n), nil
}

func (g *grapevine) whole(bytes int) bool { return bytes <= wire.InlineLimit }

func (g *grapevine) counts() (messages, pulled uint64, bytes int64) {
	for _, p := range g.Peers[1:] {
		t := p.Channel.Traffic()
		pulled += t.Pulled + t.Cast.Received
	}
	for _, c := range g.bytes[1:] {
		bytes += c.GetBandwidthTotals().TotalIn
	}
	return g.Heard(), pulled, bytes
}

func (g *grapevine) durable() bool { return true }

func (g *grapevine) arrivals() *arrivals { return g.came }

func (g *grapevine) close() error {
	g.stop()
	g.watch.Wait()
	var err error
	if g.Swarm != nil {
		err = g.StopAll()
	}
	return errors.Join(err, os.RemoveAll(g.dir))
}

// Outgoing connections take their ports from 32768 on, so that one below stays
// free while the node that has it is down.
const lowestPort, highestPort = 20000, 32767

// Loopback finds n free ports, and returns what nodes listen on, TCP and QUIC,
// and their endpoints.
func Loopback(n int) (listen func(i int) []string, endpoint func(i int) string, err error) {
	var ports []int
	for tries := 0; len(ports) < n; tries++ {
		port := lowestPort + rand.IntN(highestPort-lowestPort+1)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil && tries < 1000 {
			continue
		}
		if err != nil {
			return nil, nil, fmt.Errorf("looking for a free port: %w", err)
		}
		defer func() { _ = l.Close() }() // when all are found, so that none is found twice
		ports = append(ports, port)
	}
	return func(i int) []string {
			return []string{fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", ports[i]), fmt.Sprintf("/ip4/127.0.0.1/udp/%d/quic-v1", ports[i])}
		}, func(i int) string {
			return fmt.Sprintf("127.0.0.1:%d", ports[i])
		}, nil
}

// soon waits, on the real clock, for what nobody tells of. For benchmarks.
func soon(ctx context.Context, what string, ok func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for !ok() {
		select {
		case <-look.C:
		case <-ctx.Done():
			return fmt.Errorf("%s took more than %v: %w", what, startTime, ctx.Err())
		}
	}
	return nil
}

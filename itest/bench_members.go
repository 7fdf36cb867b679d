package itest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/metrics"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"grapevine/election"
	"grapevine/membership"
	"grapevine/node"
)

const (
	// circleTime bounds how long connections are made after the view is full; each
	// node makes circleSize, or as many as there are others.
	circleTime = 8 * time.Minute
	circleSize = 60
	// stirTime is how long a network is left alone then, before its idle cost is
	// measured: those who were told to hurry do so for a while, and a large one
	// still makes connections.
	stirTime, stirLarge = 65 * time.Second, 4 * time.Minute
	// idleTime is how long up to beatSize members are measured; more, half of it times
	// their number by beatSize: all of a signed beat. bareTime is how long
	// bare hosts are.
	idleTime, bareTime = 264 * time.Second, 33 * time.Second
	beatSize           = 64
)

// A Meeting is what it took N nodes that know one of them to know each other.
type Meeting struct {
	Started     time.Duration // until the last was started
	View        time.Duration // from the first's start until the last one saw all alive
	CPU         time.Duration // of all nodes until then
	Connections int           // made until then, each counted once
	Checks      uint64        // of signatures of alive messages, until then, all nodes
	Words       uint64        // sent until then, all nodes
}

// An Idle is what each node costs while nothing happens.
type Idle struct {
	CPU         time.Duration // per second
	Bytes       float64       // of streams, in and out, per second
	Words       float64       // of membership, per second
	Checks      float64       // of signatures, of alive messages and claims, per second
	Connections float64       // held
	Suspicions  uint64        // in all
}

// MeetAndIdle starts n nodes on loopback, in this process, and measures how they
// meet; then, unless short, what they cost while nothing happens. Up to 50 are of
// one organisation, more of organisations of ten; each knows one bootstrap peer,
// its organisation's anchor. phase is told what begins.
func MeetAndIdle(ctx context.Context, n int, short bool, phase func(string) error) (m Meeting, idle Idle, err error) {
	listen, endpoint, err := Loopback(n)
	if err != nil {
		return m, idle, err
	}
	orgs := 1
	if n > 50 {
		orgs = n / 10
	}
	var anchors []string
	for i := range orgs {
		anchors = append(anchors, endpoint(i))
	}
	w, err := NewWorld(orgs, anchors...)
	if err != nil {
		return m, idle, err
	}
	dir, err := benchFolder()
	if err != nil {
		return m, idle, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	counters := make([]*meter, n)
	s, err := NewSwarm(w, SwarmConfig{
		Dir: dir, Peers: n / orgs, InMemory: true, Listen: listen, Endpoint: endpoint,
		Libp2p: func(i int) []libp2p.Option {
			counters[i] = new(meter)
			return []libp2p.Option{libp2p.BandwidthReporter(counters[i])}
		},
		Tune: func(i int, c *node.Config) {
			c.Leader = election.Dynamic // as it comes
			if i >= orgs {
				c.Bootstrap = []string{endpoint(i % orgs)}
			}
		},
	})
	if err != nil {
		return m, idle, err
	}
	defer func() { err = errors.Join(err, s.StopAll()) }()
	if err := phase("meeting"); err != nil {
		return m, idle, err
	}
	var made atomic.Int64
	count := &network.NotifyBundle{ConnectedF: func(_ network.Network, c network.Conn) {
		if c.Stat().Direction == network.DirOutbound {
			made.Add(1)
		}
	}}
	began, cpu := time.Now(), processTime()
	waiting, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	var g sync.WaitGroup
	for _, p := range s.Peers {
		if err := s.Start(ctx, p); err != nil {
			return m, idle, err
		}
		p.Node.Host().Network().Notify(count)
		g.Go(func() {
			look := time.NewTicker(20 * time.Millisecond * time.Duration(1+n/25)) // it costs the more, the more there are
			defer look.Stop()
			for p.living() < n && waiting.Err() == nil {
				<-look.C
			}
		})
	}
	m.Started = time.Since(began)
	g.Wait()
	if waiting.Err() != nil {
		var views []int
		for _, p := range s.Peers {
			views = append(views, p.living())
		}
		return m, idle, fmt.Errorf("of %d nodes, each sees alive %v: %w", n, views, waiting.Err())
	}
	m.View, m.CPU, m.Connections = time.Since(began), processTime()-cpu, int(made.Load())
	for _, p := range s.Peers {
		st := p.Channel.MemberStats()
		m.Checks += st.Checks
		m.Words += st.Words
	}
	if short {
		return m, idle, nil
	}
	if err := phase("settling"); err != nil {
		return m, idle, err
	}
	stir := stirTime
	if n > circleSize {
		stir = stirLarge
	}
	if err := errors.Join(s.circle(ctx, min(n-1, circleSize)), pause(ctx, stir)); err != nil {
		return m, idle, err
	}
	if err := phase("idle"); err != nil {
		return m, idle, err
	}
	idle, err = s.idle(ctx, counters)
	return m, idle, errors.Join(err, phase("stopping"))
}

// circle waits until each node is connected to so many others.
func (s *Swarm) circle(ctx context.Context, size int) error {
	ctx, cancel := context.WithTimeout(ctx, circleTime)
	defer cancel()
	for {
		least := len(s.Peers)
		for _, p := range s.Peers {
			least = min(least, len(p.Node.Host().Network().Peers()))
		}
		if least >= size {
			return nil
		}
		if err := pause(ctx, time.Second); err != nil {
			return fmt.Errorf("a node has met %d of %d others: %w", least, size, err)
		}
	}
}

// living is how many members a peer believes alive, itself included.
func (p *Peer) living() (n int) {
	for _, m := range p.Channel.Members() {
		if m.State == membership.Alive {
			n++
		}
	}
	return n
}

// idle measures what the nodes cost now.
func (s *Swarm) idle(ctx context.Context, counters []*meter) (out Idle, err error) {
	sum := func() (bytes int64, c membership.Stats) {
		for i, p := range s.Peers {
			bytes += counters[i].n.Load()
			m := p.Channel.MemberStats()
			c.Checks += m.Checks + p.Channel.Election().Checks
			c.Words += m.Words
			c.Suspicions += m.Suspicions
		}
		return bytes, c
	}
	runtime.GC() // what meeting left isn't paid for by idling
	began, cpu := time.Now(), processTime()
	b0, m0 := sum()
	whole := idleTime
	if n := len(s.Peers); n > beatSize {
		whole = idleTime / 2 * time.Duration(n) / beatSize
	}
	if err := pause(ctx, whole); err != nil {
		return out, err
	}
	cpu = processTime() - cpu
	b1, m1 := sum()
	n := float64(len(s.Peers)) * time.Since(began).Seconds()
	for _, p := range s.Peers {
		out.Connections += float64(len(p.Node.Host().Network().Conns())) / float64(len(s.Peers))
	}
	out.CPU = time.Duration(float64(cpu) / n)
	out.Bytes, out.Words, out.Checks = float64(b1-b0)/n, float64(m1.Words-m0.Words)/n, float64(m1.Checks-m0.Checks)/n
	out.Suspicions = m1.Suspicions - m0.Suspicions
	return out, nil
}

// IdleBare measures what n bare libp2p hosts cost that are all connected, with
// GossipSub on one topic, and nothing of ours: what no node of ours can be below
// that is made of the same.
func IdleBare(ctx context.Context, n int) (out Idle, err error) {
	c, err := newRaw(ctx, n, rawBelieved)
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	r, ok := c.(*raw)
	if !ok {
		return out, errors.New("no bare hosts")
	}
	if err := pause(ctx, settleTime); err != nil {
		return out, err
	}
	sum := func() (bytes int64) {
		for _, b := range r.bytes {
			t := b.GetBandwidthTotals()
			bytes += t.TotalIn + t.TotalOut
		}
		return bytes
	}
	runtime.GC()
	began, cpu, bytes := time.Now(), processTime(), sum()
	if err := pause(ctx, bareTime); err != nil {
		return out, err
	}
	per := float64(n) * time.Since(began).Seconds()
	out.CPU, out.Bytes = time.Duration(float64(processTime()-cpu)/per), float64(sum()-bytes)/per
	out.Connections = float64(n - 1)
	return out, nil
}

// pause waits on the real clock. For benchmarks.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A meter counts the bytes of all streams, both ways.
type meter struct {
	metrics.Reporter // the rest isn't asked
	n                atomic.Int64
}

func (m *meter) LogSentMessage(int64)                                   {}
func (m *meter) LogRecvMessage(int64)                                   {}
func (m *meter) LogSentMessageStream(n int64, _ protocol.ID, _ peer.ID) { m.n.Add(n) }
func (m *meter) LogRecvMessageStream(n int64, _ protocol.ID, _ peer.ID) { m.n.Add(n) }

package itest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// settleTime is how long a network is left alone when all have met: meshes take
// some heartbeats to shed the members they have too many of.
const settleTime = 3 * time.Second

// warmBlocks and warmBytes are how many blocks of a load go ahead of those that
// count: by then connections carry what they can, a leader of ours knows its
// ways, and the ledgers use the memory they have, rather than ask for more.
const (
	warmBlocks = 4
	warmBytes  = 40 << 20
)

// A Load is a stream of blocks.
type Load struct {
	Body  int // bytes of a block's data
	Every time.Duration
	Count int // blocks in a turn
}

// A Measure is what one network made of one load, all turns together.
type Measure struct {
	Arrival []time.Duration // until a receiver held the block, proven true
	Disk    []time.Duration // until it was in order and durable there; none where nothing is kept
	Copies  float64         // of bodies that came to a receiver
	Bytes   float64         // that came to a receiver for each byte delivered, all protocols
	CPU     time.Duration   // of the whole process, for each MiB delivered
	turns   int
}

// add takes in one turn's figures.
func (m *Measure) add(t Measure) {
	m.Arrival = append(m.Arrival, t.Arrival...)
	m.Disk = append(m.Disk, t.Disk...)
	mean := func(old, now float64) float64 { return (old*float64(m.turns) + now) / float64(m.turns+1) }
	m.Copies, m.Bytes = mean(m.Copies, t.Copies), mean(m.Bytes, t.Bytes)
	m.CPU = time.Duration(mean(float64(m.CPU), float64(t.CPU)))
	m.turns++
}

// A carrier brings blocks from its first node to all others.
type carrier interface {
	// send orders one block and returns its number and when it was sent off.
	send(bytes int) (n uint64, at time.Time, err error)
	// whole says whether messages carry blocks of a size whole.
	whole(bytes int) bool
	// counts are those of the receivers since the start: messages about
	// blocks, bytes of pulled blocks, bytes of everything.
	counts() (messages, pulled uint64, bytes int64)
	// durable says whether its nodes keep blocks on disk.
	durable() bool
	// arrivals is where the network notes what comes.
	arrivals() *arrivals
	close() error
}

// arrivals notes when which block came where.
type arrivals struct {
	mu   sync.Mutex
	held map[uint64][]time.Time // owned by mu
	disk map[uint64][]time.Time // owned by mu
	news chan struct{}          // a token whenever something came
}

func newArrivals() *arrivals {
	return &arrivals{held: map[uint64][]time.Time{}, disk: map[uint64][]time.Time{}, news: make(chan struct{}, 1)}
}

func (a *arrivals) note(m map[uint64][]time.Time, n uint64) {
	now := time.Now()
	a.mu.Lock()
	m[n] = append(m[n], now)
	a.mu.Unlock()
	select {
	case a.news <- struct{}{}:
	default:
	}
}

// wait waits until count receivers have block n in m.
func (a *arrivals) wait(ctx context.Context, m map[uint64][]time.Time, n uint64, count int) error {
	for {
		a.mu.Lock()
		got := len(m[n])
		a.mu.Unlock()
		if got >= count {
			return nil
		}
		select {
		case <-a.news:
		case <-ctx.Done():
			return fmt.Errorf("block %d came to %d of %d: %w", n, got, count, ctx.Err())
		}
	}
}

// A Comparison is what some networks made of the same loads.
type Comparison struct {
	Ours []Measure
	Raw  []Measure // raw GossipSub, which believes and keeps nothing
	// Kept is raw GossipSub whose receivers check what comes as ours do, and
	// commit it to a bare Pebble store: no less can be done by who keeps proven
	// blocks in one.
	Kept []Measure
	// Alone is what our nodes do to bring blocks, on plain hosts: like Raw, it
	// keeps nothing.
	Alone []Measure
	// Least is one stream from the first host to each other, whose receivers do
	// the same: no source can do with less that sends each a copy of its own.
	Least []Measure
}

// Compare runs the loads on a network of ours and on raw GossipSub, with the
// same number of nodes in this process, by turns: rounds of each, and what goes
// first changes. progress is told what goes on.
func Compare(ctx context.Context, nodes, organisations, rounds int, loads []Load, progress func(string)) (c Comparison, err error) {
	for _, m := range []*[]Measure{&c.Ours, &c.Raw, &c.Kept, &c.Alone, &c.Least} {
		*m = make([]Measure, len(loads))
	}
	networks := []struct {
		name  string
		into  []Measure
		start func() (carrier, error)
	}{
		{"grapevine", c.Ours, func() (carrier, error) { return newGrapevine(ctx, nodes, organisations, nil) }},
		{"gossipsub", c.Raw, func() (carrier, error) { return newRaw(ctx, nodes, rawBelieved) }},
		{"gossipsub, checked and synced", c.Kept, func() (carrier, error) { return newRaw(ctx, nodes, rawKept) }},
		{"cast alone", c.Alone, func() (carrier, error) { return newCasting(ctx, nodes) }},
		{"plain streams, checked and synced", c.Least, func() (carrier, error) { return newRaw(ctx, nodes, rawDirect) }},
	}
	for round := range rounds {
		for turn := range networks {
			n := networks[(turn+round)%len(networks)]
			progress(fmt.Sprintf("%d nodes, round %d of %d: %s", nodes, round+1, rounds, n.name))
			if err := play(ctx, n.start, nodes-1, loads, n.into); err != nil {
				return c, fmt.Errorf("%s: %w", n.name, err)
			}
		}
	}
	return c, nil
}

// play runs all loads on one network.
func play(ctx context.Context, start func() (carrier, error), receivers int, loads []Load, into []Measure) (err error) {
	net, err := start()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, net.close()) }()
	select {
	case <-time.After(settleTime):
	case <-ctx.Done():
		return ctx.Err()
	}
	for i, l := range loads {
		m, err := measure(ctx, net, receivers, l)
		if err != nil {
			return fmt.Errorf("blocks of %d KiB: %w", l.Body>>10, err)
		}
		into[i].add(m)
	}
	return nil
}

// measure plays one load once.
func measure(ctx context.Context, net carrier, receivers int, l Load) (m Measure, err error) {
	a := net.arrivals()
	durable := a.held
	if net.durable() {
		durable = a.disk
	}
	whole, cancel := context.WithTimeout(ctx, time.Duration(l.Count)*l.Every+startTime)
	defer cancel()
	for range max(warmBlocks, min(10*warmBlocks, warmBytes/l.Body)) {
		warm, _, err := net.send(l.Body)
		if err == nil {
			err = a.wait(whole, durable, warm, receivers)
		}
		if err != nil {
			return m, err
		}
	}
	runtime.GC()
	sent := map[uint64]time.Time{}
	messages, pulled, bytes := net.counts()
	cpu := processTime()
	tick := time.NewTicker(l.Every)
	defer tick.Stop()
	for range l.Count {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return m, ctx.Err()
		}
		n, at, err := net.send(l.Body)
		if err != nil {
			return m, err
		}
		sent[n] = at
	}
	for n := range sent {
		if err := a.wait(whole, durable, n, receivers); err != nil {
			return m, err
		}
	}
	delivered := float64(l.Count * receivers * l.Body)
	m.CPU = time.Duration(float64(processTime()-cpu) / (delivered / (1 << 20)))
	messages2, pulled2, bytes2 := net.counts()
	m.Bytes = float64(bytes2-bytes) / delivered
	m.Copies = float64(pulled2-pulled) / delivered
	if net.whole(l.Body) {
		m.Copies += float64(messages2-messages) / float64(l.Count*receivers)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for n, at := range sent {
		for _, t := range a.held[n] {
			m.Arrival = append(m.Arrival, t.Sub(at))
		}
		for _, t := range a.disk[n] {
			m.Disk = append(m.Disk, t.Sub(at))
		}
	}
	return m, nil
}

// processTime is the CPU time that this process has used.
func processTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0 // it has no other error than a wrong argument
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// benchFolder makes a folder on a real disk: under $GRAPEVINE_BENCH_DIR, or the
// system's folder for temporary files.
func benchFolder() (string, error) {
	return os.MkdirTemp(cmp.Or(os.Getenv("GRAPEVINE_BENCH_DIR"), os.TempDir()), "grapevine-bench-")
}

package dev

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"golang.org/x/time/rate"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
	"grapevine/cmd/grapevine/admin"
	"grapevine/cmd/grapevine/fault"
	"grapevine/orderer"
)

// A Load is a run of transactions to submit.
type Load struct {
	Count int
	Size  int     // bytes of each value
	Rate  float64 // a second; 0: as fast as they are taken
	Wait  bool    // until every living peer has committed them
}

// tracker follows one load through the network.
type tracker struct {
	net   *Network
	mu    sync.Mutex
	sent  map[string]time.Time // by transaction ID, owned by mu
	open  []string             // sent and not answered, in order, owned by mu
	found map[string]uint64    // block of a transaction, owned by mu
	reach map[string]*reached  // by peer, owned by mu
	moved chan struct{}        // closed and replaced at each change, owned by mu
}

// reached is how far one peer got, and when.
type reached struct {
	alive  bool
	steady bool // it was alive all the time
	height uint64
	at     map[uint64]time.Time // when block n was held
}

// Run submits a load and tells how it went. A transaction that the ordering
// service refuses is counted, not an error.
func (n *Network) Run(ctx context.Context, l Load) (*admin.DevTx, error) {
	ctx, cancel := context.WithCancel(ctx)
	var g sync.WaitGroup
	defer g.Wait()
	defer cancel()
	u, err := n.user()
	if err != nil {
		return nil, err
	}
	client, err := u.orderers()
	if err != nil {
		return nil, err
	}
	run, err := newRun()
	if err != nil {
		return nil, err
	}
	s := n.Status(ctx)
	if !slices.ContainsFunc(s.Orderers, func(o admin.DevOrderer) bool { return o.State == string(Alive) }) {
		return nil, fault.New("DEV011", "no orderer runs: nobody can order transactions").Do(n.verb("up"))
	}
	t := &tracker{
		net: n, sent: map[string]time.Time{}, found: map[string]uint64{},
		reach: map[string]*reached{}, moved: make(chan struct{}),
	}
	if l.Wait {
		from := s.Channels[0].Height
		for _, p := range n.Peers() {
			t.reach[p.Name] = &reached{steady: true, at: map[uint64]time.Time{}}
			g.Go(func() { t.follow(ctx, p, from) })
		}
		g.Go(func() {
			for b, err := range client.Blocks(ctx, from) {
				if err != nil {
					return
				}
				t.block(b)
			}
		})
	}
	out := &admin.DevTx{Channel: n.Shape.Channel}
	start := time.Now()
	accepted, err := t.submit(ctx, u, client.Broadcast, run, l, out)
	if err != nil {
		return out, err
	}
	if l.Wait {
		if err := t.await(ctx, accepted); err != nil {
			return out, err
		}
		t.summary(out, accepted)
	}
	out.ElapsedMs = time.Since(start).Milliseconds()
	out.TxPerSec = float64(out.Accepted) / time.Since(start).Seconds()
	return out, nil
}

// A sender is orderer.Client.Broadcast.
type sender = func(context.Context, <-chan *common.Envelope) iter.Seq2[orderer.Answer, error]

// submit sends the transactions and returns the IDs of those that were taken,
// if they are waited for.
func (t *tracker) submit(ctx context.Context, u *user, send sender, run string, l Load, out *admin.DevTx) ([]string, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	var g sync.WaitGroup
	defer g.Wait()
	defer cancel(nil)
	envs := make(chan *common.Envelope)
	g.Go(func() {
		defer close(envs)
		limit := rate.NewLimiter(rate.Inf, 1)
		if l.Rate > 0 {
			limit = rate.NewLimiter(rate.Limit(l.Rate), 1)
		}
		for i := range l.Count {
			if limit.Wait(ctx) != nil {
				return
			}
			env, id, err := u.write(run, i, l.Size)
			if err != nil {
				cancel(err)
				return
			}
			if l.Wait {
				t.sending(id)
			}
			select {
			case envs <- env:
			case <-ctx.Done():
				return
			}
		}
	})
	var accepted []string
	for a, err := range send(ctx, envs) {
		if err != nil {
			return accepted, context.Cause(ctx)
		}
		id := t.answered() // the order of the answers is that of the transactions
		out.Sent++
		if a.Status != common.Status_SUCCESS {
			out.Failed++
			continue
		}
		out.Accepted++
		if l.Wait {
			accepted = append(accepted, id)
		}
	}
	return accepted, context.Cause(ctx)
}

// sending notes a transaction that is about to be sent.
func (t *tracker) sending(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sent[id] = time.Now()
	t.open = append(t.open, id)
}

// answered is the transaction that the next answer is for; "" unless they are
// waited for.
func (t *tracker) answered() (id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.open) > 0 {
		id, t.open = t.open[0], t.open[1:]
	}
	return id
}

// block notes which of ours a block holds.
func (t *tracker) block(b *common.Block) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, raw := range b.Data.Data {
		var env common.Envelope
		if proto.Unmarshal(raw, &env) != nil {
			continue // another writer's
		}
		h, _, err := block.Header(&env)
		if err != nil {
			continue
		}
		if _, ours := t.sent[h.TxId]; ours {
			t.found[h.TxId] = b.Header.Number
		}
	}
	t.tell()
}

// follow notes when a peer reaches each height, for as long as it lives, and
// again when it comes back.
func (t *tracker) follow(ctx context.Context, p *Node, height uint64) {
	client := admin.Remote{Client: admin.Dial(t.net.Folder(p)), Name: t.net.Shape.Channel}
	defer client.Close()
	above := uint64(0) // the first answer comes at once
	for ctx.Err() == nil {
		v, err := client.Height(ctx, above, 10*time.Second)
		now := time.Now()
		t.mu.Lock()
		r := t.reach[p.Name]
		if r.alive = err == nil; r.alive {
			for n := max(height, r.height); n < v.Height; n++ {
				r.at[n] = now
			}
			r.height, above = v.Height, v.Height
		} else {
			r.steady, above = false, 0
		}
		t.tell()
		t.mu.Unlock()
		if err != nil {
			pause(ctx, lookTime)
		}
	}
}

// tell wakes who waits. mu is held.
func (t *tracker) tell() {
	close(t.moved)
	t.moved = make(chan struct{})
}

// await waits until every living peer holds every transaction that was taken.
func (t *tracker) await(ctx context.Context, accepted []string) error {
	for {
		t.mu.Lock()
		done := t.held(accepted)
		moved := t.moved
		t.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return fault.New(fault.TimedOut, "not every living peer has committed the transactions").Because(t.behind()...)
			}
			return ctx.Err()
		}
	}
}

// held says whether all is everywhere. mu is held.
func (t *tracker) held(accepted []string) bool {
	last := uint64(0)
	for _, id := range accepted {
		n, ok := t.found[id]
		if !ok {
			return false
		}
		last = max(last, n)
	}
	living := 0
	for name, r := range t.reach {
		v, err := t.net.Node(name)
		if err != nil {
			return false
		}
		if !r.alive {
			if s, _ := t.net.Process(v); s == Alive {
				return false // it is coming back
			}
			continue
		}
		if living++; r.height <= last {
			return false
		}
	}
	return living > 0
}

func (t *tracker) behind() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []string
	for name, r := range t.reach {
		out = append(out, fmt.Sprintf("%s: height %d", name, r.height))
	}
	slices.Sort(out)
	return out
}

// summary fills in what became of the load: a transaction's latency is the time
// until the last of the peers that lived throughout held it.
func (t *tracker) summary(out *admin.DevTx, accepted []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	out.Committed = len(accepted)
	var ms []float64
	for i, id := range accepted {
		n := t.found[id]
		if i == 0 {
			out.FirstBlock = n
		}
		out.FirstBlock, out.LastBlock = min(out.FirstBlock, n), max(out.LastBlock, n)
		var at time.Time
		for _, r := range t.reach {
			if r.steady && r.at[n].After(at) {
				at = r.at[n]
			}
		}
		if !at.IsZero() {
			ms = append(ms, float64(at.Sub(t.sent[id]).Microseconds())/1000)
		}
	}
	if len(ms) == 0 {
		return
	}
	slices.Sort(ms)
	at := func(q float64) float64 { return ms[min(len(ms)-1, int(q*float64(len(ms))))] }
	out.LatencyMs = admin.Latency3{P50: at(0.50), P99: at(0.99), Max: ms[len(ms)-1]}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

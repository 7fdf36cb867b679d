package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"

	"grapevine/block"
	"grapevine/blocksync"
	"grapevine/channel/cast"
	"grapevine/membership"
	"grapevine/wire"
)

const (
	tracesKept = 1024            // blocks of which a node remembers how they came
	traceTime  = 2 * time.Second // for one member's answer
	maxTrace   = 1 << 10         // bytes of an answer
	// What all members together may ask of a node: answers are cheap.
	tracesPerSecond, tracesAtOnce = 100, 400
)

var traceFlood = wire.NewReason("trace.rate_limit", wire.Refuse)

// traces remember how the last blocks of a channel came to this node.
type traces struct {
	mu   sync.Mutex
	of   map[uint64]*wire.TraceAnswer // by number; guarded by mu
	last struct {                     // the last that was cast, until it is held; guarded by mu
		hash [32]byte
		cast.Arrival
	}
	limit *rate.Limiter // guarded by mu
}

// cast notes how a block came that is about to be offered.
func (t *traces) cast(b *block.Checked, a cast.Arrival) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last.hash, t.last.Arrival = b.Hash(), a
}

// came notes that a block is here.
func (t *traces) came(a blocksync.Arrival) {
	t.mu.Lock()
	defer t.mu.Unlock()
	v := &wire.TraceAnswer{Hash: slices.Clone(a.Hash[:]), Came: micros(time.Now()), From: []byte(a.From), Path: wire.TraceAnswer_PATH_PULL}
	switch a.Kind {
	case "orderer":
		v.Path, v.From = wire.TraceAnswer_PATH_ORDERER, nil
	case "push":
		v.Path = wire.TraceAnswer_PATH_INLINE
		if t.last.hash == a.Hash {
			v.Bytes, v.Size = uint64(t.last.Bytes), uint64(t.last.Size)
			v.Path = wire.TraceAnswer_PATH_STRIPED
			if t.last.Path == cast.PathDirect {
				v.Path = wire.TraceAnswer_PATH_DIRECT
			}
		}
	}
	if t.of == nil {
		t.of = make(map[uint64]*wire.TraceAnswer)
	}
	if len(t.of) >= 2*tracesKept { // now and then, for it looks at all
		for n := range t.of {
			if n+tracesKept <= a.Number {
				delete(t.of, n)
			}
		}
	}
	if len(t.of) < 2*tracesKept && t.of[a.Number] == nil {
		t.of[a.Number] = v
	}
}

// durable notes that blocks are in the ledger.
func (t *traces) durable(bs []block.Verified) {
	now := micros(time.Now())
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, b := range bs {
		if v := t.of[b.Number()]; v != nil {
			v.Durable = now
		}
	}
}

// tell returns what is known of a block, in an answer of its own.
func (t *traces) tell(number uint64) *wire.TraceAnswer {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := &wire.TraceAnswer{Now: micros(time.Now())}
	if v := t.of[number]; v != nil {
		out.Path, out.Hash, out.Came, out.Durable, out.From = v.Path, v.Hash, v.Came, v.Durable, v.From
		out.Orderer, out.Bytes, out.Size = v.Orderer, v.Bytes, v.Size
	}
	return out
}

// allow says whether one more question may be answered now.
func (t *traces) allow() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.limit == nil {
		t.limit = rate.NewLimiter(tracesPerSecond, tracesAtOnce)
	}
	return t.limit.Allow()
}

func micros(t time.Time) uint64 { return uint64(t.UnixMicro()) }

// serveTrace answers a member's question how a block came here.
func (c *Channel) serveTrace(s network.Stream) {
	defer func() { _ = s.Close() }() // who asked has the answer, or sees the end
	from := s.Conn().RemotePeer()
	err := s.SetDeadline(time.Now().Add(traceTime))
	if err == nil && !c.traces.allow() {
		err = traceFlood
	}
	var raw []byte
	if err == nil {
		raw, err = wire.ReadFrame(s, wire.MaxRequest)
	}
	q := &wire.TraceRequest{}
	if err == nil {
		err = wire.Unmarshal(raw, q)
	}
	if err == nil {
		raw, err = wire.Marshal(c.disclosed(c.traces.tell(q.Number), from))
	}
	if err == nil {
		err = wire.WriteFrame(s, raw)
	}
	if err == nil {
		return
	}
	if r := wire.ReasonOf(err); r != nil {
		c.node.metrics.refused(c.name, r)
	}
	c.log.Debug("a member's question how a block came isn't answered", "peer", from, "err", err)
	_ = s.Reset()
}

// disclosed leaves out of an answer what the asker mayn't know: other
// organisations don't hear of members that have no external endpoint.
func (c *Channel) disclosed(v *wire.TraceAnswer, to peer.ID) *wire.TraceAnswer {
	from := peer.ID(v.From)
	if from == "" || c.orgOf(to) == c.node.Identity().MSPID() || from == to {
		return v
	}
	for _, m := range c.members.List() {
		if m.Peer == from && (m.Endpoint != "" || m.MSPID == c.orgOf(to)) {
			return v
		}
	}
	v.From = nil
	return v
}

// A Sighting is how a block came to one member. Times are by this node's clock,
// as far as half of a question's way tells.
type Sighting struct {
	Member  membership.Member
	Err     error     // why it told nothing
	Path    string    // inline, direct, striped, pull, orderer; empty: it doesn't know (any more)
	Hash    []byte    // of the header
	Came    time.Time // proven true in itself
	Durable time.Time // in its ledger; zero: not yet
	From    peer.ID   // who announced or brought it; empty: not told
	Orderer string    // who, if an orderer did, by its name in the configuration
	Copies  float64   // bytes that had come by then for each of the body
}

// ErrSilent is why a member told nothing of a block.
var ErrSilent = errors.New("it isn't connected")

var tracePaths = map[wire.TraceAnswer_Path]string{
	wire.TraceAnswer_PATH_INLINE: "inline", wire.TraceAnswer_PATH_DIRECT: "direct", wire.TraceAnswer_PATH_STRIPED: "striped",
	wire.TraceAnswer_PATH_PULL: "pull", wire.TraceAnswer_PATH_ORDERER: "orderer",
}

// Trace asks all members how a block came to them, and returns what they say,
// and this node's own part, by the time it came: first those who know.
func (c *Channel) Trace(ctx context.Context, number uint64) []Sighting {
	connected := c.view.Members()
	var out []Sighting
	for _, m := range c.Members() {
		if m.State != membership.Left {
			out = append(out, Sighting{Member: m})
		}
	}
	var asked sync.WaitGroup
	for i := range out {
		v := &out[i]
		switch {
		case v.Member.Self:
			v.take(c.traces.tell(number), 0)
		case !slices.Contains(connected, v.Member.Peer):
			v.Err = ErrSilent
		default:
			asked.Go(func() { v.Err = c.askTrace(ctx, v, number) })
		}
	}
	asked.Wait()
	slices.SortStableFunc(out, func(a, b Sighting) int {
		if (a.Path == "") != (b.Path == "") {
			if a.Path == "" {
				return 1
			}
			return -1
		}
		return a.Came.Compare(b.Came)
	})
	return out
}

// askTrace has one member tell.
func (c *Channel) askTrace(ctx context.Context, v *Sighting, number uint64) error {
	ctx, cancel := context.WithTimeout(ctx, traceTime)
	defer cancel()
	s, err := c.view.Stream(network.WithNoDial(ctx, "members are met by the node"), v.Member.Peer, wire.KindTrace)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = s.Reset() })()
	defer func() { _ = s.Close() }() // all that was wanted came, or an error did
	raw, err := wire.Marshal(&wire.TraceRequest{Number: number})
	if err != nil {
		return err
	}
	began := time.Now()
	if err := wire.WriteFrame(s, raw); err != nil {
		return fmt.Errorf("asking how block %d came: %w", number, err)
	}
	a := &wire.TraceAnswer{}
	if raw, err = wire.ReadFrame(s, maxTrace); err == nil {
		err = wire.Unmarshal(raw, a)
	}
	if err != nil {
		return fmt.Errorf("hearing how block %d came: %w", number, err)
	}
	middle := began.Add(time.Since(began) / 2)
	v.take(a, time.UnixMicro(int64(a.Now)).Sub(middle))
	return nil
}

// take takes an answer in, by a clock that is ahead of this one.
func (v *Sighting) take(a *wire.TraceAnswer, ahead time.Duration) {
	v.Path, v.Hash, v.From, v.Orderer = tracePaths[a.Path], a.Hash, peer.ID(a.From), a.Orderer
	if v.Path == "" {
		return
	}
	v.Came = time.UnixMicro(int64(a.Came)).Add(-ahead)
	if a.Durable > 0 {
		v.Durable = time.UnixMicro(int64(a.Durable)).Add(-ahead)
	}
	v.Copies = 1
	if a.Size > 0 {
		v.Copies = float64(a.Bytes) / float64(a.Size)
	}
}

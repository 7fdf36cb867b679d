package orderer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"
	"google.golang.org/grpc"

	"grapevine/block"
)

// errReconfigured ends a stream because the endpoints have changed. Fabric drops every connection then, so that the load
// spreads.
var errReconfigured = errors.New("endpoints changed")

// follower reads a channel's blocks, from one orderer at a time.
type follower struct {
	client *Client
	next   uint64 // number of the block to come
	yield  func(*common.Block, error) bool
	done   bool // the consumer has had enough

	barred map[string]time.Time // watch's own: orderers whose word doesn't count, until when

	mu      sync.Mutex
	flow    uint64        // guarded by mu: next, for the watch to read
	tip     [32]byte      // guarded by mu: hash of the block before flow; zero: unknown
	since   time.Time     // guarded by mu: when the consumer took the present block; zero while the stream is waited for
	holding time.Duration // guarded by mu: for how long the consumer has held the stream up, before since
}

// once follows one orderer until the stream ends, and says whom and why. When it returns, the stream is gone.
func (f *follower) once(ctx context.Context) (addr string, err error) {
	c := f.client
	known := c.c.Endpoints()
	e, err := c.pick()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	conn, err := c.dial(e)
	if err != nil {
		return e.Address, err
	}
	defer conn.Close()
	stream, end, err := open(ctx, c.c.DialTimeout, ab.NewAtomicBroadcastClient(conn).Deliver)
	if err != nil {
		return e.Address, err
	}
	defer end()
	env, err := c.request(forever(f.next))
	if err != nil {
		return e.Address, err
	}
	if err := stream.Send(env); err != nil {
		return e.Address, fmt.Errorf("send seek request: %w: %w", Unreachable, err)
	}
	c.connected(e.Address)
	defer c.connected("")

	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel(nil)
	f.flowing(f.tip)
	watching.Go(func() { cancel(f.watch(ctx, e, known)) })

	err = f.receive(stream)
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return e.Address, err
}

// receive yields what comes until something is wrong with it.
func (f *follower) receive(stream grpc.ServerStreamingClient[ab.DeliverResponse]) error {
	for {
		r, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("receive block %d: %w: %w", f.next, Unreachable, err)
		}
		b, err := arrived(r, true)
		if err != nil {
			return err
		}
		if b.Header.Number != f.next {
			return fmt.Errorf("block %d for %d: %w", b.Header.Number, f.next, BadAnswer)
		}
		f.held(true)
		more := f.yield(b, nil)
		f.held(false)
		if !more {
			f.done = true
			return nil
		}
		f.next++
		f.flowing(block.HeaderHash(b.Header))
	}
}

// connected notes the orderer that blocks come from; an empty address says that there is none.
func (c *Client) connected(addr string) {
	c.mu.Lock()
	c.source = addr
	c.mu.Unlock()
	if addr != "" && c.c.OnConnect != nil {
		c.c.OnConnect(addr)
	}
}

// position is the number of the block to come.
func (f *follower) position() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.flow
}

// flowing tells the watch how far the stream has come.
func (f *follower) flowing(tip [32]byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.flow, f.tip = f.next, tip
}

// held notes that the consumer takes a block, or comes back for the next one.
func (f *follower) held(yes bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if yes {
		f.since = time.Now()
		return
	}
	f.holding += time.Since(f.since)
	f.since = time.Time{}
}

// busy is for how long the consumer has held the stream up since busy was called last.
func (f *follower) busy() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	d := f.holding
	f.holding = 0
	if !f.since.IsZero() {
		now := time.Now()
		d += now.Sub(f.since)
		f.since = now
	}
	return d
}

// progress is the number of the block to come, and the consumer's share in the interval that now ends.
func (f *follower) progress() (next uint64, busy time.Duration) {
	busy = f.busy()
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.flow, busy
}

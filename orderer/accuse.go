package orderer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"
	"google.golang.org/grpc"
)

// barTime is how long the word of an orderer doesn't count that has accused another and couldn't prove it.
const barTime = time.Minute

// quietTime is for how long after the last block an orderer is asked whether it lives, in times the stall time. A channel
// on which nothing is ordered costs no more than the questions to others.
const quietTime = 10

// watch hears of other orderers' newest blocks, again and again, and returns when this one stalls or the endpoints have
// changed. Who isn't heard of is asked, one after the other. With only one orderer, it asks that one over another
// connection: the stream may be dead in itself.
//
// It returns too when the orderer answers nothing any more: while a suspended process keeps its connections, no block can
// accuse it before the others have elected a leader and ordered one.
//
// An accusation must be proven: the accuser shows the header of the very block that is missing, which follows the block
// that came last. So neither a made-up number nor the header of a sister channel drives anybody from an honest orderer.
func (f *follower) watch(ctx context.Context, current Endpoint, known []Endpoint) error {
	c := f.client
	every := c.c.Stall / 2
	tick := time.NewTicker(every)
	defer tick.Stop()
	conns := make(map[string]*grpc.ClientConn) // by address; at most one per endpoint
	defer func() {
		for _, conn := range conns {
			conn.Close()
		}
	}()
	var w watch
	asked := asking{last: current.Address}
	var flow uint64
	lively := time.Now()
	for {
		f.busy() // begins a new interval
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if !same(c.c.Endpoints(), known) {
			return errReconfigured
		}
		if now := f.position(); now != flow {
			flow, lively = now, time.Now()
		} else if len(known) > 1 && time.Since(lively) < quietTime*c.c.Stall {
			if err := c.deaf(ctx, current, conns, every); err != nil {
				return err
			}
		}
		e, newest, err := f.look(ctx, current, known, conns, &asked, every)
		if ctx.Err() == nil && c.c.OnWatch != nil {
			c.c.OnWatch(newest, err)
		}
		if err != nil {
			continue // says nothing about the one we follow
		}
		next, busy := f.progress()
		if !w.observe(next, newest, busy > every/2) {
			continue
		}
		held, err := f.prove(ctx, e, conns, every)
		if !held {
			w = watch{} // the block has come, or who accuses is away
			if err == nil || ctx.Err() != nil || errors.Is(err, Unreachable) {
				continue
			}
			f.bar(e.Address)
			c.c.Logger.Warn("an orderer accuses another and can't prove it", "channel", c.c.Channel, "accuser", e.Address, "accused", current.Address, "reason", err)
			if c.c.OnWatch != nil {
				c.c.OnWatch(0, err)
			}
			continue
		}
		c.mu.Lock()
		c.prefer = e.Address
		c.mu.Unlock()
		return fmt.Errorf("%s has block %d, no block %d from here: %w", e.Address, newest, next, Stalled)
	}
}

// deaf returns an error when an orderer doesn't even answer what its newest header is, which one that only orders slowly,
// or can't order, has at hand. It is passed over for a while then.
func (c *Client) deaf(ctx context.Context, e Endpoint, conns map[string]*grpc.ClientConn, limit time.Duration) error {
	_, err := c.header(ctx, e, Newest, conns, limit)
	if err == nil || ctx.Err() != nil || errors.Is(err, Answered) {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mute, c.muted = e.Address, time.Now()
	return fmt.Errorf("%s answers nothing any more: %w: %w", e.Address, Stalled, err)
}

// asking is whose turn it is.
type asking struct {
	last   string
	failed int // in a row
}

// look returns an orderer and the number of its newest block: that of the other orderers, heard of lately, which has most,
// or else the next one's that answers.
func (f *follower) look(ctx context.Context, current Endpoint, known []Endpoint, conns map[string]*grpc.ClientConn, asked *asking, every time.Duration) (e Endpoint, newest uint64, err error) {
	c := f.client
	if c.c.Others != nil {
		for _, s := range c.c.Others() {
			i := index(known, s.Address)
			if i < 0 || s.Address == current.Address || time.Since(s.At) > 3*every || f.isBarred(s.Address) {
				continue
			}
			if e.Address == "" || s.Newest > newest {
				e, newest = known[i], s.Newest
			}
		}
		if e.Address != "" {
			return e, newest, nil
		}
	}
	e = known[(index(known, asked.last)+1)%len(known)]
	if e.Address == current.Address && len(known) > 1 && asked.failed < len(known)-1 {
		e = known[(index(known, e.Address)+1)%len(known)]
	}
	asked.last = e.Address
	if f.isBarred(e.Address) {
		err = fmt.Errorf("%s accused without proof: %w", e.Address, BadAnswer)
	} else {
		newest, err = c.newest(ctx, e, conns, every)
	}
	asked.failed++
	if err == nil {
		asked.failed = 0
	}
	return e, newest, err
}

// prove asks the accuser for the header of the block that is missing. True says that the accused holds it back.
func (f *follower) prove(ctx context.Context, accuser Endpoint, conns map[string]*grpc.ClientConn, limit time.Duration) (bool, error) {
	c := f.client
	f.mu.Lock()
	next, tip := f.flow, f.tip
	f.mu.Unlock()
	b, err := c.header(ctx, accuser, next, conns, limit)
	if err != nil {
		return false, err
	}
	if c.c.Prove != nil && next > 0 { // nobody signs block 0
		if err := c.c.Prove(b, tip); err != nil {
			return false, fmt.Errorf("header %d: %w", next, err)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.flow == next, nil
}

func (f *follower) isBarred(addr string) bool { return time.Now().Before(f.barred[addr]) }

func (f *follower) bar(addr string) {
	if f.barred == nil {
		f.barred = make(map[string]time.Time)
	}
	f.barred[addr] = time.Now().Add(barTime)
}

// newest is the number of the newest block that an orderer has.
func (c *Client) newest(ctx context.Context, e Endpoint, conns map[string]*grpc.ClientConn, limit time.Duration) (uint64, error) {
	b, err := c.newestHeader(ctx, e, conns, limit)
	if err != nil {
		return 0, err
	}
	return b.Header.Number, nil
}

// newestHeader is an orderer's newest header, attested.
func (c *Client) newestHeader(ctx context.Context, e Endpoint, conns map[string]*grpc.ClientConn, limit time.Duration) (*common.Block, error) {
	b, err := c.header(ctx, e, Newest, conns, limit)
	if err != nil {
		return nil, err
	}
	if c.c.Attest != nil && b.Header.Number > 0 { // nobody signs block 0, and it accuses nobody
		if err := c.c.Attest(b); err != nil {
			return nil, fmt.Errorf("attest block %d: %w", b.Header.Number, err)
		}
	}
	return b, nil
}

// header asks an orderer for a header with its signatures, over a connection of conns.
func (c *Client) header(ctx context.Context, e Endpoint, n uint64, conns map[string]*grpc.ClientConn, limit time.Duration) (*common.Block, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	conn := conns[e.Address]
	if conn == nil {
		var err error
		if conn, err = c.dial(e); err != nil {
			return nil, err
		}
		conns[e.Address] = conn
	}
	return c.ask(ctx, ab.NewAtomicBroadcastClient(conn), n, ab.SeekInfo_HEADER_WITH_SIG)
}

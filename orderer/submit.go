package orderer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"
	"google.golang.org/grpc"
)

// maxUnanswered bounds the envelopes under way to an orderer.
const maxUnanswered = 1000

// Answer is what the ordering service says to one envelope.
type Answer struct {
	Status common.Status
	Info   string
	Via    string // address, as configured, of the orderer that answered
}

// Submit sends one envelope and returns the answer. An error is ctx's alone.
func (c *Client) Submit(ctx context.Context, env *common.Envelope) (Answer, error) {
	envs := make(chan *common.Envelope, 1)
	envs <- env
	close(envs)
	for a, err := range c.Broadcast(ctx, envs) {
		return a, err
	}
	return Answer{}, fmt.Errorf("submit: %w", BadAnswer)
}

// Broadcast submits the envelopes that come from envs, many under way at once, and yields one answer each, in order,
// until envs is closed and all are answered. Where an orderer is unreachable or answers SERVICE_UNAVAILABLE, it turns to
// another, for as long as ctx lives; the one error that it yields, at its end, is ctx's.
//
// An envelope whose answer was lost on the way is submitted again. Orderers of ours order it once; of Fabric's, a
// committing peer finds the second one invalid by its transaction id.
func (c *Client) Broadcast(ctx context.Context, envs <-chan *common.Envelope) iter.Seq2[Answer, error] {
	return func(yield func(Answer, error) bool) {
		s := &submission{client: c, yield: yield, room: make(chan struct{}, maxUnanswered)}
		pause := backoff{min: c.c.MinBackoff, max: c.c.MaxBackoff}
		var at Endpoint // where to go on; zero: pick one
		for ctx.Err() == nil && s.await(ctx, envs) {
			if at.Address == "" {
				var err error
				if at, err = c.pick(); err != nil {
					c.failed(ctx, "", err, &pause)
					continue
				}
			}
			before := s.answered()
			err := s.once(ctx, at, envs)
			if s.done {
				return
			}
			if s.answered() > before {
				pause.reset()
			}
			if err != nil && ctx.Err() == nil {
				c.failed(ctx, at.Address, err, &pause)
				at = Endpoint{}
			}
		}
		if ctx.Err() != nil {
			yield(Answer{}, ctx.Err())
		}
	}
}

// submission is one Broadcast: a queue of unanswered envelopes that outlives the streams they are sent on.
type submission struct {
	client *Client
	yield  func(Answer, error) bool
	done   bool          // the consumer has had enough
	room   chan struct{} // one token per unanswered envelope

	mu     sync.Mutex
	queue  []*common.Envelope // guarded by mu: unanswered, oldest first
	base   int                // guarded by mu: how many were answered
	closed bool               // guarded by mu: no more will come
}

// await waits until there is an envelope to send, and reports false when there will be none.
func (s *submission) await(ctx context.Context, envs <-chan *common.Envelope) bool {
	for {
		s.mu.Lock()
		have, closed := len(s.queue) > 0, s.closed
		s.mu.Unlock()
		if have || closed {
			return have
		}
		if !s.take(ctx, envs) && ctx.Err() != nil {
			return false
		}
	}
}

// take moves one envelope from envs to the queue. It reports false when ctx ended or no more will come.
func (s *submission) take(ctx context.Context, envs <-chan *common.Envelope) bool {
	select {
	case s.room <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	select {
	case env, ok := <-envs:
		s.mu.Lock()
		defer s.mu.Unlock()
		if ok {
			s.queue = append(s.queue, env)
			return true
		}
		s.closed = true
	case <-ctx.Done():
	}
	<-s.room
	return false
}

// once sends what is unanswered, and what comes, to one orderer. It returns nil if the next stream should go there too.
func (s *submission) once(ctx context.Context, e Endpoint, envs <-chan *common.Envelope) error {
	c := s.client
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	conn, err := c.dial(e)
	if err != nil {
		return err
	}
	defer conn.Close()
	stream, end, err := open(ctx, c.c.DialTimeout, ab.NewAtomicBroadcastClient(conn).Broadcast)
	if err != nil {
		return err
	}
	defer end()
	var sending sync.WaitGroup
	defer sending.Wait()
	defer cancel(nil)
	sending.Go(func() { s.send(ctx, stream, envs) })
	sending.Go(func() { cancel(s.watch(ctx, e)) })

	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) && s.idle() {
			return nil
		}
		if cause := context.Cause(ctx); err != nil && cause != nil {
			return cause
		}
		if err != nil {
			return fmt.Errorf("receive answer: %w: %w", Unreachable, err)
		}
		a := Answer{Status: r.GetStatus(), Info: r.GetInfo(), Via: e.Address}
		if a.Status == common.Status_SERVICE_UNAVAILABLE {
			return fmt.Errorf("%s: %w", a.Info, &StatusError{Status: a.Status})
		}
		if !s.pop() {
			return fmt.Errorf("an answer to nothing: %w", BadAnswer)
		}
		if !s.yield(a, nil) {
			s.done = true
			return nil
		}
		if a.Status != common.Status_SUCCESS {
			return nil // the orderer ends the stream; the rest goes over a new one
		}
	}
}

// watch returns an error when an orderer that owes an answer has stopped: one that answers no envelope for Stall is asked
// for its newest header, which one that only orders slowly, or can't order, has at hand. A process that is suspended keeps
// its connections, so nothing else tells for a minute or more.
func (s *submission) watch(ctx context.Context, e Endpoint) error {
	c := s.client
	conns := make(map[string]*grpc.ClientConn)
	defer func() {
		for _, conn := range conns {
			conn.Close()
		}
	}()
	tick := time.NewTicker(c.c.Stall / 4)
	defer tick.Stop()
	before := -1
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		s.mu.Lock()
		answered, owes := s.base, len(s.queue) > 0
		s.mu.Unlock()
		if stands := owes && answered == before; !stands {
			before = answered
			continue
		}
		if err := c.deaf(ctx, e, conns, c.c.Stall/2); err != nil {
			return err
		}
	}
}

// send puts the queue on the stream, then what comes. A failed Send shows in Recv.
func (s *submission) send(ctx context.Context, stream grpc.BidiStreamingClient[common.Envelope, ab.BroadcastResponse], envs <-chan *common.Envelope) {
	for i := s.answered(); ; {
		env, ok := s.at(i)
		if !ok {
			if s.take(ctx, envs) {
				continue
			}
			if ctx.Err() == nil {
				_ = stream.CloseSend() // its error too shows in Recv
			}
			return
		}
		if stream.Send(env) != nil {
			return
		}
		i++
	}
}

// at is the i-th envelope of all.
func (s *submission) at(i int) (*common.Envelope, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i -= s.base; i < 0 || i >= len(s.queue) {
		return nil, false
	}
	return s.queue[i], true
}

func (s *submission) answered() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.base
}

// pop forgets the oldest envelope, which was answered. It reports false if there is none.
func (s *submission) pop() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		return false
	}
	s.queue[0] = nil
	s.queue = s.queue[1:]
	s.base++
	<-s.room
	return true
}

// idle reports whether everything is answered and nothing more will come.
func (s *submission) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed && len(s.queue) == 0
}

package deliver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"

	"grapevine/msp"
	"grapevine/wire"
)

// session is one stream being served. All but the marked fields belong to the goroutine of run.
type session struct {
	h      *Handler
	stream stream

	name  atomic.Pointer[string] // channel of the present request
	stuck chan struct{}          // closed when a Send took too long
	once  sync.Once              // closes stuck
}

// brokenError is a Send that failed: there is nobody left to answer.
type brokenError struct{ error }

// run answers requests until the stream ends or an answer other than SUCCESS was given.
func (s *session) run(ctx context.Context) error {
	for {
		env, err := s.stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		err = s.answer(ctx, env)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var lost brokenError
		if errors.As(err, &lost) {
			return lost.error
		}
		verdict := statusOf(err)
		if err != nil {
			s.refuse(verdict, err)
		}
		if err := s.send(func() error { return s.stream.Status(verdict) }); err != nil {
			return err
		}
		if verdict != common.Status_SUCCESS {
			return nil
		}
	}
}

// answer serves one request. A nil error is SUCCESS.
func (s *session) answer(ctx context.Context, env *common.Envelope) (err error) {
	r, err := parseRequest(env, s.h.now(), cmpOr(s.h.TimeWindow, defaultTimeWindow))
	if err != nil {
		return err
	}
	s.name.Store(&r.channel)
	filtered := s.stream.filtered()
	if f := s.h.Hooks.Request; f != nil {
		f(r.channel, filtered)
	}
	if f := s.h.Hooks.Done; f != nil {
		defer func() { f(r.channel, filtered, err == nil) }()
	}
	if s.h.MutualTLS {
		if err := bound(ctx, r.tlsHash); err != nil {
			return err
		}
	}
	if len(r.signature) == 0 || len(r.creator) == 0 {
		return Unsigned
	}
	id, err := msp.Deserialize(r.creator)
	if err != nil {
		return fmt.Errorf("%w: %w", Unknown, err)
	}
	// An unknown channel is one without organisations: it costs an outsider what a foreign one does.
	var a Access
	c, ok := s.h.Channels(r.channel)
	if ok {
		c.Access = s.stream.access(c)
		a = c.Access()
	}
	who, err := admit(r, id, a, s.h.now())
	if err != nil {
		return err
	}
	return s.serve(ctx, c, who, r.seek)
}

// serve sends the blocks that are sought to the reader. Whether anything is served now is judged before what is asked
// for, as Fabric does.
func (s *session) serve(ctx context.Context, c Channel, who *reader, seek *ab.SeekInfo) error {
	// The session ends when the certificate does, even while it waits for a block.
	life := who.id.Certificate().NotAfter.Sub(s.h.now())
	ctx, cancel := context.WithTimeoutCause(ctx, life, Expired)
	defer cancel()
	if c.Whole && seek.ContentType == ab.SeekInfo_HEADER_WITH_SIG {
		return Shared
	}
	errored := c.Errored
	if seek.ErrorResponse == ab.SeekInfo_BEST_EFFORT {
		errored = nil
	}
	for _, end := range []struct {
		when func() <-chan struct{}
		why  *wire.Reason
	}{{c.Gone, SourceGone}, {errored, Unavailable}} {
		if end.when == nil {
			continue
		}
		stop, err := endWith(ctx, end.when(), end.why)
		if err != nil {
			return err
		}
		ctx = stop
	}
	sp, err := resolve(seek, c.Source.Height())
	if err != nil {
		return err
	}
	if s.stream.filtered() {
		sp.form = filteredBlock
	}
	if sp.to == math.MaxUint64 {
		s.h.following.Add(1)
		defer s.h.following.Add(-1)
	}
	if sp.failing && sp.from >= c.Source.Height() {
		return fmt.Errorf("block %d: %w", sp.from, NotReady)
	}
	shared, release := s.h.reel(c.Source)
	defer release()
	for p, err := range shared.from(ctx, sp.from) {
		if err != nil {
			if why := wire.ReasonOf(context.Cause(ctx)); why != nil {
				return why
			}
			return fmt.Errorf("reading on: %w", err)
		}
		if err := who.still(c.Access(), s.h.now()); err != nil {
			return err
		}
		m, err := p.as(sp.form)
		if err != nil {
			return err
		}
		if err := s.send(func() error { return s.stream.SendMsg(m) }); err != nil {
			return err
		}
		if f := s.h.Hooks.Sent; f != nil {
			f(s.channelName(), s.stream.filtered())
		}
		n := p.block.GetHeader().GetNumber()
		if n >= sp.to {
			return nil
		}
		if sp.failing && n+1 >= c.Source.Height() {
			return fmt.Errorf("block %d: %w", n+1, NotReady)
		}
	}
	return fmt.Errorf("the source ended: %w", Unavailable)
}

// send passes on one response, or declares the reader stuck and waits for the stream's end.
func (s *session) send(pass func() error) error {
	t := time.AfterFunc(cmpOr(s.h.SlowReader, defaultSlowReader), func() { s.once.Do(func() { close(s.stuck) }) })
	defer t.Stop()
	if err := pass(); err != nil {
		return brokenError{err}
	}
	return nil
}

func (s *session) channelName() string {
	if n := s.name.Load(); n != nil {
		return *n
	}
	return ""
}

// refuse counts and reports why a request ends with another answer than SUCCESS.
func (s *session) refuse(st common.Status, err error) {
	why := wire.ReasonOf(err)
	if why == nil {
		why = Unavailable
	}
	s.h.refused(s.channelName(), why)
	s.h.log().Info("deliver request refused", "channel", s.channelName(), "status", st, "reason", err)
}

// statusOf maps the outcome of a request to Fabric's status.
func statusOf(err error) common.Status {
	if err == nil {
		return common.Status_SUCCESS
	}
	switch wire.ReasonOf(err) {
	case Malformed, Timestamp, BadRange, TLSBinding:
		return common.Status_BAD_REQUEST
	case Unknown, Unsigned, BadSignature, NotReady:
		return common.Status_NOT_FOUND
	case Forbidden, Expired:
		return common.Status_FORBIDDEN
	default:
		return common.Status_SERVICE_UNAVAILABLE
	}
}

// endWith returns a context that ends with why when the channel is closed, or why if it already is.
func endWith(ctx context.Context, closed <-chan struct{}, why *wire.Reason) (context.Context, error) {
	select {
	case <-closed:
		return nil, why
	default:
	}
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-closed:
			cancel(why)
		case <-ctx.Done():
		}
	}()
	return ctx, nil
}

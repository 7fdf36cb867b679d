package orderer

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"

	"grapevine/block"
	"grapevine/wire"
)

// maxUnsettled bounds the envelopes of one stream that wait for their block. A client that sends more is slowed down by
// gRPC's flow control.
const maxUnsettled = 1000

// submitted is one envelope of a stream: refused at once, or on its way into a block.
type submitted struct {
	channel string
	chain   *Chain
	order   *order
	err     error
}

// Broadcast orders the envelopes of one stream and answers each, in order. SUCCESS means that the envelope stands in a
// durable block, which is more than Fabric promises; so a client that wants throughput keeps many under way. After any
// other answer the stream ends, and what had not yet been answered may or may not be ordered.
func (s *Server) Broadcast(stream ab.AtomicBroadcast_BroadcastServer) error {
	refused := false // next's own
	return s.settleAll(stream.Context(), func(ctx context.Context) (submitted, error) {
		if refused {
			return submitted{}, io.EOF
		}
		env, err := stream.Recv()
		if err != nil {
			return submitted{}, err
		}
		e := s.submit(ctx, env)
		refused = e.err != nil
		return e, nil
	}, func(e submitted) (bool, error) {
		return e.err == nil, stream.Send(s.answer(e))
	})
}

// submit finds the envelope's chain and gives it the envelope.
func (s *Server) submit(ctx context.Context, env *common.Envelope) (e submitted) {
	header, _, err := block.Header(env)
	if err != nil {
		e.err = fmt.Errorf("%w: %w", Malformed, err)
		return e
	}
	e.channel = header.ChannelId
	chain, ok := s.c.Chains(header.ChannelId)
	if !ok {
		e.err = fmt.Errorf("%w: %s", UnknownChannel, header.ChannelId)
		return e
	}
	e.chain = chain
	e.order, e.err = chain.submit(ctx, env)
	return e
}

// answer is the response to one envelope.
func (s *Server) answer(e submitted) *ab.BroadcastResponse {
	if e.err == nil {
		return &ab.BroadcastResponse{Status: common.Status_SUCCESS}
	}
	st, why := statusOf(e.err)
	if s.c.Refused != nil {
		s.c.Refused(e.channel, why)
	}
	s.c.Logger.Info("envelope refused", "channel", e.channel, "status", st, "reason", e.err)
	return &ab.BroadcastResponse{Status: st, Info: info(st, why, e.err)}
}

// statusOf maps a refusal to Fabric's status. Trouble without a reason is our own.
func statusOf(err error) (common.Status, *wire.Reason) {
	why := wire.ReasonOf(err)
	if theirs := (*leaderRefusal)(nil); errors.As(err, &theirs) {
		return theirs.status, why
	}
	switch why {
	case Malformed, UnknownChannel, Outsider, BadSignature, NotOrdinary, TooLarge, Expired, BadUpdate:
		return common.Status_BAD_REQUEST, why
	case Forbidden:
		return common.Status_FORBIDDEN, why
	case nil:
		why = Stopped
	}
	return common.Status_SERVICE_UNAVAILABLE, why
}

// info tells the client why. To who isn't proven to be of the channel's organisations, the channel is unknown; what a
// member may not do isn't explained further, and neither is our own trouble.
func info(st common.Status, why *wire.Reason, err error) string {
	theirs := (*leaderRefusal)(nil)
	switch {
	case errors.As(err, &theirs):
		return theirs.info
	case why == UnknownChannel || why == Outsider || why == BadSignature:
		return "unknown channel"
	case st == common.Status_FORBIDDEN:
		return "the envelope's signer may not write to the channel"
	case why == NotLeader:
		return "no Raft leader"
	case st == common.Status_SERVICE_UNAVAILABLE && why != Maintenance:
		return "the channel can't order now"
	}
	return err.Error()
}

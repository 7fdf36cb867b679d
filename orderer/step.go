package orderer

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"grapevine/block"
)

// stepServer is Fabric's orderer.Cluster service, of which one message is served: an envelope that another consenter accepted.
// Raft's own messages go by libp2p.
type stepServer struct {
	ab.UnimplementedClusterServer
	s *Server
}

// Step orders the envelopes of another consenter and answers each, in order. One that is refused doesn't end the stream.
func (t stepServer) Step(stream ab.Cluster_StepServer) error {
	key, ok := shown(stream.Context())
	if !ok {
		return status.Error(codes.Unauthenticated, "show a consenter's TLS certificate")
	}
	return t.s.settleAll(stream.Context(), func(ctx context.Context) (submitted, error) {
		m, err := stream.Recv()
		if err != nil {
			return submitted{}, err
		}
		req := m.GetSubmitRequest()
		if req.GetPayload() == nil {
			return submitted{}, status.Error(codes.InvalidArgument, "an envelope to be ordered is expected")
		}
		chain, ok := t.s.c.Chains(req.Channel)
		if !ok || !chain.consents(key) {
			return submitted{}, status.Error(codes.PermissionDenied, "not a consenter")
		}
		e := submitted{channel: req.Channel, chain: chain}
		e.order, e.err = chain.takeOver(ctx, req)
		return e, nil
	}, func(e submitted) (bool, error) {
		a := t.s.answer(e)
		return true, stream.Send(&ab.StepResponse{Payload: &ab.StepResponse_SubmitRes{SubmitRes: &ab.SubmitResponse{
			Channel: e.channel, Status: a.Status, Info: a.Info,
		}}})
	})
}

// shown is the key of the certificate that a client has shown.
func shown(ctx context.Context) (Key, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return Key{}, false
	}
	t, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(t.State.PeerCertificates) == 0 {
		return Key{}, false
	}
	return KeyOf(t.State.PeerCertificates[0]), true
}

// consents says whether a key is another consenter's.
func (c *Chain) consents(k Key) bool {
	_, ok := c.members.Load().find(k)
	return ok
}

// takeOver puts an envelope of another consenter on its way. A transaction that it judged under the configuration in force
// isn't judged again; of an update of the configuration, only this node's own judgement makes a configuration.
func (c *Chain) takeOver(ctx context.Context, req *ab.SubmitRequest) (*order, error) {
	var o *order
	var err error
	if conf := c.c.Channel(); req.LastValidationSeq == conf.Rules().Sequence && isTransaction(req.Payload) {
		var raw []byte
		if raw, err = canonical(req.Payload); err == nil {
			o = newOrder(req.Payload, raw, req.LastValidationSeq)
		}
	} else {
		o, err = c.admit(req.Payload, time.Now())
	}
	if err != nil {
		return nil, err
	}
	return o, c.dispatch(ctx, o, false)
}

// isTransaction says whether an envelope is an ordinary one.
func isTransaction(env *common.Envelope) bool {
	h, _, err := block.Header(env)
	if err != nil {
		return false
	}
	switch common.HeaderType(h.Type) {
	case common.HeaderType_CONFIG_UPDATE, common.HeaderType_CONFIG, common.HeaderType_ORDERER_TRANSACTION: //nolint:staticcheck // old, and refused
		return false
	}
	return true
}

// settleAll takes what comes by next until it ends, and gives each its result, in order, to answer, which says whether to
// go on. What next refuses outright ends the stream once all before is answered.
func (s *Server) settleAll(ctx context.Context, next func(context.Context) (submitted, error), answer func(submitted) (bool, error)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	queue := make(chan submitted, maxUnsettled)
	var broken error // set before queue is closed
	go func() {
		defer close(queue)
		for {
			e, err := next(ctx)
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				broken = err
				return
			}
			select {
			case queue <- e:
			case <-ctx.Done():
				broken = ctx.Err()
				return
			}
		}
	}()
	for e := range queue {
		if e.err == nil {
			e.err = e.chain.await(ctx, e.order)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if more, err := answer(e); err != nil || !more {
			return err
		}
	}
	return broken
}

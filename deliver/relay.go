package deliver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"sync/atomic"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// maxSubmitters is how many clients may submit through one address at once. Fabric's gateway opens a stream for each
// transaction and closes it when it is answered; its own limit is 500 at a time.
const maxSubmitters = 1000

// maxEnvelope is the largest message that an orderer takes: Fabric's 100 MiB, and what it is wrapped in.
const maxEnvelope = maxMessage + 1<<10

// A Submission is one client's stream of envelopes on its way to the real orderers. It is used by one goroutine.
type Submission interface {
	// Submit hands an envelope on as it is, and returns the orderer's own answer. An error says that no orderer gave one;
	// the envelope may have been ordered all the same.
	Submit(ctx context.Context, env *common.Envelope) (*ab.BroadcastResponse, error)
	Close()
}

// RelayConfig says what one address of a relay serves.
type RelayConfig struct {
	Handler    *Handler // serves blocks
	Submission func() Submission
	// Certificate is asked for at each handshake.
	Certificate func() *tls.Certificate
	ClientRoots func() *x509.CertPool // likewise; not nil: clients must present a certificate that chains to it
}

// Relay is Fabric's AtomicBroadcast as a relay serves it to unmodified Fabric peers: blocks of its own, verified ledger,
// and envelopes handed on to the real orderers. It makes up neither a block nor an orderer's answer.
type Relay struct {
	ab.UnimplementedAtomicBroadcastServer
	c          RelayConfig
	submitters atomic.Int64
}

// NewRelay prepares a relay; it listens to nothing.
func NewRelay(c RelayConfig) *Relay { return &Relay{c: c} }

// Run serves on l until ctx ends, and closes l. When it returns, every stream has ended.
func (r *Relay) Run(ctx context.Context, l net.Listener) error {
	return serve(ctx, l, r.c.Certificate, r.c.ClientRoots, maxEnvelope, func(g *grpc.Server) { ab.RegisterAtomicBroadcastServer(g, r) })
}

// Deliver hands out blocks.
func (r *Relay) Deliver(stream ab.AtomicBroadcast_DeliverServer) error {
	return r.c.Handler.Serve(stream)
}

// Broadcast hands envelopes on, one after the other, and the orderers' answers back, word for word. After any answer but
// SUCCESS the stream ends, as an orderer's does. Where no orderer answers, the stream ends with UNAVAILABLE, which is no
// orderer's status: Fabric's gateway then turns to the next endpoint.
func (r *Relay) Broadcast(stream ab.AtomicBroadcast_BroadcastServer) error {
	defer r.submitters.Add(-1)
	if r.submitters.Add(1) > maxSubmitters {
		r.c.Handler.refused("", Busy)
		return status.Errorf(codes.ResourceExhausted, "%d clients submit at once, which is the limit", maxSubmitters)
	}
	s := r.c.Submission()
	defer s.Close()
	for {
		env, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		a, err := s.Submit(stream.Context(), env)
		if err != nil {
			return status.Error(codes.Unavailable, err.Error())
		}
		if err := stream.Send(a); err != nil {
			return err
		}
		if a.Status != common.Status_SUCCESS {
			return nil
		}
	}
}

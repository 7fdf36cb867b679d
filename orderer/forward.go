package orderer

import (
	"context"
	"errors"
	"fmt"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"
	"google.golang.org/grpc"
)

// Forward hands envelopes on to the ordering service as they are, one at a time, and returns its answers as they are: a
// relay's way, which neither asks twice nor chooses among answers. It is used by one goroutine.
type Forward struct {
	client *Client
	only   string // the one orderer to ask, as configured; "": any
	conn   *grpc.ClientConn
	stream ab.AtomicBroadcast_BroadcastClient // nil: none is open
	end    context.CancelFunc
}

// Forward prepares one; only names the one orderer to ask, as the configuration does, or is empty for any.
func (c *Client) Forward(only string) *Forward { return &Forward{client: c, only: only} }

// Submit hands one envelope on. As long as no orderer has been sent it, the next one is tried; after that the answer is
// the orderer's, or an error, and the envelope may have been ordered. The context of the first Submit on a stream MUST
// outlive the others.
func (f *Forward) Submit(ctx context.Context, env *common.Envelope) (*ab.BroadcastResponse, error) {
	if f.stream == nil {
		if err := f.open(ctx); err != nil {
			return nil, err
		}
	}
	_ = f.stream.Send(env) // why it failed shows in Recv
	a, err := f.stream.Recv()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("receive the orderer's answer: %w: %w", Unreachable, err)
	}
	if a.Status != common.Status_SUCCESS {
		f.Close() // the orderer ends the stream
	}
	return a, nil
}

// open connects to the orderer, or to the first that answers.
func (f *Forward) open(ctx context.Context) error {
	c := f.client
	all := c.c.Endpoints()
	if f.only != "" {
		i := index(all, f.only)
		if i < 0 {
			return fmt.Errorf("%s is no orderer of channel %s: %w", f.only, c.c.Channel, NoEndpoint)
		}
		return f.connect(ctx, all[i])
	}
	var errs error
	for range max(1, len(all)) {
		e, err := c.pick()
		if err != nil {
			return err
		}
		if err = f.connect(ctx, e); err == nil || ctx.Err() != nil {
			return err
		}
		errs = errors.Join(errs, fmt.Errorf("%s: %w", e.Address, err))
	}
	return errs
}

func (f *Forward) connect(ctx context.Context, e Endpoint) error {
	c := f.client
	conn, err := c.dial(e)
	if err != nil {
		return err
	}
	stream, end, err := open(ctx, c.c.DialTimeout, ab.NewAtomicBroadcastClient(conn).Broadcast)
	if err != nil {
		conn.Close()
		return err
	}
	f.conn, f.stream, f.end = conn, stream, end
	return nil
}

// Close ends the stream and the connection.
func (f *Forward) Close() {
	if f.stream == nil {
		return
	}
	f.end()
	f.conn.Close()
	f.stream = nil
}

package orderer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"
)

// lookEvery is how often it is looked who leads.
const lookEvery = 100 * time.Millisecond

// relay hands the envelopes that this node accepted, and can't order itself, to the leader: by Fabric's own call for it,
// orderer.Cluster/Step over gRPC, as a consenter that shows its TLS certificate. The leader doesn't judge again what was
// judged here under the same configuration.
//
// Which of the orderers' endpoints is the leader's, no configuration says. It is found by the key of the certificate that
// it shows.
type relay struct {
	chain *Chain
	queue chan *order

	at    Endpoint // of the consenter last found; run's goroutine's own
	whose uint64
}

func newRelay(c *Chain) *relay { return &relay{chain: c, queue: make(chan *order, maxQueued)} }

// run hands on what comes until ctx ends.
func (r *relay) run(ctx context.Context) {
	defer r.refuse(nil, Stopped)
	for {
		select {
		case <-ctx.Done():
			return
		case o := <-r.queue:
			if err := r.stream(ctx, o); err != nil && ctx.Err() == nil {
				r.chain.c.Logger.Info("the leader can't be handed envelopes", "channel", r.chain.c.Name, "reason", err)
			}
		}
	}
}

// stream hands the first order and all that follow to the present leader, until the stream ends or another leads.
func (r *relay) stream(ctx context.Context, first *order) error {
	c := r.chain
	leader := c.Leader()
	if self, _ := c.self(); leader.ID == 0 || leader.ID == self.ID {
		r.refuse([]*order{first}, NotLeader) // or this node has just become it: the client asks again
		return nil
	}
	e, err := r.find(ctx, leader)
	if err != nil {
		r.refuse([]*order{first}, NotLeader)
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conn, err := dial(e, c.c.Certificate(), rpcTimeout, only(leader))
	if err != nil {
		r.refuse([]*order{first}, NotLeader)
		return err
	}
	defer conn.Close()
	stream, end, err := open(ctx, rpcTimeout, ab.NewClusterClient(conn).Step)
	if err != nil {
		r.whose = 0
		r.refuse([]*order{first}, NotLeader)
		return err
	}
	defer end()
	sent := make(chan *order, maxUnsettled)
	var sending sync.WaitGroup
	sending.Go(func() {
		r.follow(ctx, leader.ID)
		cancel()
	})
	sending.Go(func() {
		defer close(sent)
		r.send(ctx, stream, first, sent)
	})
	err = r.receive(stream, sent)
	cancel()
	sending.Wait()
	var left []*order
	for o := range sent {
		left = append(left, o)
	}
	r.refuse(left, NotLeader)
	return err
}

// follow returns when another leads than a consenter, or nobody, or ctx ends. A leader that is suspended keeps its
// connections: what it was handed would wait for it.
func (r *relay) follow(ctx context.Context, leader uint64) {
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	for r.chain.Leader().ID == leader {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// send puts orders on the stream until ctx ends or nobody leads whom it goes to. Each is in sent before it is on the wire.
func (r *relay) send(ctx context.Context, stream ab.Cluster_StepClient, o *order, sent chan<- *order) {
	for {
		select {
		case sent <- o:
		case <-ctx.Done():
			r.chain.finish(o, NotLeader)
			return
		}
		if stream.Send(&ab.StepRequest{Payload: &ab.StepRequest_SubmitRequest{SubmitRequest: &ab.SubmitRequest{
			Channel: r.chain.c.Name, LastValidationSeq: o.sequence, Payload: o.env,
		}}}) != nil {
			return // the reason shows in Recv
		}
		select {
		case o = <-r.queue:
		case <-ctx.Done():
			return
		}
	}
}

// receive settles the orders that were sent by the leader's answers, which come in the same order.
func (r *relay) receive(stream ab.Cluster_StepClient, sent <-chan *order) error {
	for {
		a, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("receive the leader's answer: %w: %w", Unreachable, err)
		}
		res := a.GetSubmitRes()
		if res == nil {
			return fmt.Errorf("the leader answers something else: %w", BadAnswer)
		}
		select {
		case o := <-sent:
			r.chain.finish(o, relayed(res))
		default:
			return fmt.Errorf("an answer to nothing: %w", BadAnswer)
		}
		if res.Status == common.Status_SERVICE_UNAVAILABLE {
			return fmt.Errorf("%s: %w", res.Info, NotLeader) // another may lead by now
		}
	}
}

// refuse settles orders, and those that wait behind them.
func (r *relay) refuse(orders []*order, why error) {
	for _, o := range orders {
		r.chain.finish(o, why)
	}
	for {
		select {
		case o := <-r.queue:
			r.chain.finish(o, why)
		default:
			return
		}
	}
}

// relayed is the leader's answer as this node's own.
func relayed(a *ab.SubmitResponse) error {
	switch a.Status {
	case common.Status_SUCCESS:
		return nil
	case common.Status_SERVICE_UNAVAILABLE:
		return fmt.Errorf("%s: %w", a.Info, NotLeader)
	}
	return &leaderRefusal{a.Status, a.Info}
}

// leaderRefusal is what the leader refused an envelope with. It goes on to the client word for word.
type leaderRefusal struct {
	status common.Status
	info   string
}

func (r *leaderRefusal) Error() string {
	return fmt.Sprintf("the leader answers %v: %s", r.status, r.info)
}

// Unwrap makes it an Answered.
func (r *leaderRefusal) Unwrap() error { return Answered }

// find looks for the endpoint at which a consenter serves gRPC: it asks all at once who they are.
func (r *relay) find(ctx context.Context, who Consenter) (Endpoint, error) {
	if r.chain.c.Endpoints == nil {
		return Endpoint{}, NoEndpoint
	}
	all := r.chain.c.Endpoints()
	if i := index(all, r.at.Address); r.whose == who.ID && i >= 0 {
		return all[i], nil
	}
	ctx, cancel := context.WithTimeout(ctx, rpcTimeout)
	defer cancel()
	type answer struct {
		e   Endpoint
		err error
	}
	answers := make(chan answer, len(all))
	for _, e := range all {
		go func() { answers <- answer{e, r.greet(ctx, e, who)} }()
	}
	var errs []error
	for range all {
		a := <-answers
		if a.err == nil {
			r.at, r.whose = a.e, who.ID
			return a.e, nil
		}
		errs = append(errs, a.err)
	}
	return Endpoint{}, fmt.Errorf("consenter %d at none of the endpoints: %w", who.ID, errors.Join(errs...))
}

// greet shakes hands with whoever serves at an endpoint and hangs up; nil says that it is who.
func (r *relay) greet(ctx context.Context, e Endpoint, who Consenter) error {
	host, _, err := net.SplitHostPort(e.target())
	if err != nil {
		return fmt.Errorf("endpoint %s: %w", e.target(), err)
	}
	conf := clientTLS(e, r.chain.c.Certificate(), only(who))
	conf.ServerName = host
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: rpcTimeout}, Config: conf}
	c, err := d.DialContext(ctx, "tcp", e.target())
	if err != nil {
		return fmt.Errorf("endpoint %s: %w: %w", e.target(), Unreachable, err)
	}
	return c.Close()
}

// only accepts a consenter's certificate.
func only(who Consenter) func(*x509.Certificate) error {
	return func(c *x509.Certificate) error {
		if !who.Holds(KeyOf(c)) {
			return fmt.Errorf("%s isn't consenter %d: %w", c.Subject.CommonName, who.ID, WrongServer)
		}
		return nil
	}
}

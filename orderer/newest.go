package orderer

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"google.golang.org/grpc"
)

// hedge is how long the next orderer waits for the one before to answer.
const hedge = 300 * time.Millisecond

// Prober asks one orderer for its newest header, again and again, over one connection. It is used by one goroutine.
type Prober struct {
	client *Client
	to     Endpoint
	conns  map[string]*grpc.ClientConn
}

// Prober prepares one for an endpoint.
func (c *Client) Prober(to Endpoint) *Prober {
	return &Prober{client: c, to: to, conns: make(map[string]*grpc.ClientConn, 1)}
}

// Newest returns the orderer's newest header with its signatures, attested; a configuration block comes whole.
func (p *Prober) Newest(ctx context.Context) (*common.Block, error) {
	return p.client.newestHeader(ctx, p.to, p.conns, p.client.c.DialTimeout)
}

// Close ends the connection.
func (p *Prober) Close() {
	for _, c := range p.conns {
		c.Close()
	}
}

// Newest returns the number of the newest block that some orderer has, and that it can prove with a header and its
// signatures. It asks one orderer after another, each a moment after the one before, and takes the first answer; its
// error says why none gave one. It leaves no stream and no connection behind.
func (c *Client) Newest(ctx context.Context) (uint64, error) {
	all := c.c.Endpoints()
	if len(all) == 0 {
		return 0, fmt.Errorf("channel %s: %w", c.c.Channel, NoEndpoint)
	}
	type answer struct {
		number uint64
		err    error
	}
	answers := make(chan answer, len(all))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ask := func(e Endpoint) {
		conns := make(map[string]*grpc.ClientConn, 1)
		n, err := c.newest(ctx, e, conns, c.c.DialTimeout)
		if err != nil {
			err = fmt.Errorf("%s: %w", e.Address, err)
		}
		for _, conn := range conns {
			conn.Close()
		}
		answers <- answer{n, err}
	}
	order := rand.Perm(len(all))
	t := time.NewTimer(0)
	defer t.Stop()
	var errs error
	for asked, failed := 0, 0; ; {
		select {
		case <-t.C:
			if asked < len(all) {
				go ask(all[order[asked]])
				asked++
				t.Reset(hedge)
			}
		case a := <-answers:
			if a.err == nil {
				cancel()
				for range asked - failed - 1 {
					<-answers // they return at once
				}
				return a.number, nil
			}
			errs = errors.Join(errs, a.err)
			if failed++; failed == len(all) {
				return 0, errs
			}
			if failed == asked {
				t.Reset(0)
			}
		}
	}
}

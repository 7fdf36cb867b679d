package orderer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"
	"google.golang.org/grpc"

	"grapevine/msp"
)

// ClientConfig says whom to ask, and in whose name.
type ClientConfig struct {
	Channel    string
	Signer     msp.Signer              // signs the requests
	Endpoints  func() []Endpoint       // of the configuration in force; called often, so it must be cheap
	ClientCert func() *tls.Certificate // the newest, for mutual TLS; nil, or returning nil: none
	// Avoid are keys of TLS certificates: an orderer that shows one is this node itself; nil: none.
	Avoid func() []Key

	// Dial makes a connection to host:port, beneath TLS; nil: over TCP.
	Dial        func(ctx context.Context, addr string) (net.Conn, error)
	DialTimeout time.Duration // 0: 3 s
	MinBackoff  time.Duration // first pause after a failure; 0: 100 ms
	MaxBackoff  time.Duration // longest pause; 0: 2 s; at most 10 s
	Stall       time.Duration // after which an orderer that holds blocks back is left; 0: 3 s

	// Attest judges a header with its signatures, data nil, before its number may accuse an orderer. Nil believes it.
	Attest func(b *common.Block) error
	// Prove judges a header with its signatures by which an orderer is accused: it MUST follow the block of the given hash,
	// which is zero where that isn't known. Nil believes it.
	Prove func(b *common.Block, previous [32]byte) error
	// Others is what is known of the orderers without asking them. What is fresh there spares a question. Nil: nothing.
	Others func() []Sighting
	// OnConnect is told the address (as configured) of the orderer that blocks come from, OnFailure each failure and
	// the pause that follows. Both may be nil and must not block.
	OnConnect func(addr string)
	OnFailure func(addr string, err error, pause time.Duration)
	// OnWatch is told what the watch heard beside the stream: the number of an orderer's newest block, attested, or why it
	// has none. It asks one orderer after another, at last the one that blocks come from. May be nil, must not block.
	OnWatch func(newest uint64, err error)
	Logger  *slog.Logger // nil: silence
}

// Sighting is the newest block that an orderer has shown, by a header with its signatures.
type Sighting struct {
	Address string // as configured
	Newest  uint64
	At      time.Time
}

// muteTime is for how long an orderer that answers nothing is passed over where there are others: a suspended one takes
// connections, and each costs the time that a handshake may take.
const muteTime = 10 * time.Second

// Client speaks to an ordering service, through whichever of its orderers answers. It is safe for concurrent use.
type Client struct {
	c ClientConfig

	mu     sync.Mutex
	last   string    // guarded by mu: address tried last
	prefer string    // guarded by mu: address to try next, if it is still configured
	source string    // guarded by mu: address that blocks come from now
	self   string    // guarded by mu: address that has shown to be this node's own
	mute   string    // guarded by mu: address that answered nothing any more
	muted  time.Time // guarded by mu: when that was found
}

// NewClient prepares a client and connects to nobody.
func NewClient(c ClientConfig) *Client {
	c.DialTimeout = positive(c.DialTimeout, 3*time.Second)
	c.MaxBackoff = min(positive(c.MaxBackoff, maxBackoff), longBackoff)
	c.MinBackoff = min(positive(c.MinBackoff, minBackoff), c.MaxBackoff)
	c.Stall = positive(c.Stall, 3*time.Second)
	c.Logger = logger(c.Logger)
	if c.ClientCert == nil {
		c.ClientCert = func() *tls.Certificate { return nil }
	}
	return &Client{c: c}
}

// Blocks yields the channel's blocks from number from on, in order, each with header, data and metadata; nothing else
// about them is checked. It goes from orderer to orderer and never gives up: the one error that it yields, at its end,
// is ctx's. Who refuses a block ends the loop and calls Blocks anew, which then begins with another orderer.
func (c *Client) Blocks(ctx context.Context, from uint64) iter.Seq2[*common.Block, error] {
	return func(yield func(*common.Block, error) bool) {
		f := &follower{client: c, next: from, yield: yield}
		pause := backoff{min: c.c.MinBackoff, max: c.c.MaxBackoff}
		for ctx.Err() == nil {
			before := f.next
			addr, err := f.once(ctx)
			if f.done {
				return
			}
			if errors.Is(err, errReconfigured) {
				c.c.Logger.Info("orderer endpoints changed, connecting anew", "channel", c.c.Channel)
				continue
			}
			if f.next > before {
				pause.reset()
			}
			if ctx.Err() == nil {
				c.failed(ctx, addr, err, &pause)
			}
		}
		yield(nil, ctx.Err())
	}
}

// Fetch returns one block: n, or the newest one for Newest. It asks each orderer once.
func (c *Client) Fetch(ctx context.Context, n uint64) (*common.Block, error) {
	var all error
	for range max(1, len(c.c.Endpoints())) {
		e, err := c.pick()
		if err != nil {
			return nil, err
		}
		b, err := c.fetchFrom(ctx, e, n)
		if err == nil {
			return b, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		all = errors.Join(all, fmt.Errorf("%s: %w", e.Address, err))
	}
	return nil, all
}

// Source is the address, as configured, of the orderer that blocks come from; empty while there is none.
func (c *Client) Source() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.source
}

func (c *Client) fetchFrom(ctx context.Context, e Endpoint, n uint64) (*common.Block, error) {
	conn, err := c.dial(e)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return c.ask(ctx, ab.NewAtomicBroadcastClient(conn), n, ab.SeekInfo_BLOCK)
}

// ask gets one block over a stream of its own.
func (c *Client) ask(ctx context.Context, to ab.AtomicBroadcastClient, n uint64, content ab.SeekInfo_SeekContentType) (*common.Block, error) {
	stream, cancel, err := open(ctx, c.c.DialTimeout, to.Deliver)
	if err != nil {
		return nil, err
	}
	defer cancel()
	env, err := c.request(single(n, content))
	if err != nil {
		return nil, err
	}
	if err := stream.Send(env); err != nil {
		return nil, fmt.Errorf("send seek request: %w: %w", Unreachable, err)
	}
	r, err := stream.Recv()
	if err != nil {
		return nil, fmt.Errorf("receive block: %w: %w", Unreachable, err)
	}
	b, err := arrived(r, content == ab.SeekInfo_BLOCK)
	if err != nil {
		return nil, err
	}
	if n != Newest && b.Header.Number != n {
		return nil, fmt.Errorf("block %d for %d: %w", b.Header.Number, n, BadAnswer)
	}
	return b, nil
}

// dial prepares a connection to an orderer, which the first call on it will make.
func (c *Client) dial(e Endpoint) (*grpc.ClientConn, error) {
	var more []grpc.DialOption
	if c.c.Dial != nil {
		more = append(more, grpc.WithContextDialer(c.c.Dial))
	}
	return dial(e, c.c.ClientCert(), c.c.DialTimeout, c.avoid(e), more...)
}

// pick chooses the orderer to try: the preferred one, else the one that is configured behind the one tried last, else
// any, so that a network of peers spreads over the orderers.
func (c *Client) pick() (Endpoint, error) {
	all := c.c.Endpoints()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.self != "" {
		all = slices.DeleteFunc(slices.Clone(all), func(e Endpoint) bool { return e.Address == c.self })
	}
	if len(all) == 0 {
		return Endpoint{}, fmt.Errorf("channel %s: %w", c.c.Channel, NoEndpoint)
	}
	if time.Since(c.muted) < muteTime && len(all) > 1 {
		all = slices.DeleteFunc(slices.Clone(all), func(e Endpoint) bool { return e.Address == c.mute })
	}
	i := index(all, c.prefer)
	if i < 0 {
		if i = index(all, c.last); i >= 0 {
			i = (i + 1) % len(all)
		} else {
			i = rand.IntN(len(all))
		}
	}
	c.prefer, c.last = "", all[i].Address
	return all[i], nil
}

// avoid refuses to speak with this node itself, and notes at which endpoint that is.
func (c *Client) avoid(e Endpoint) func(*x509.Certificate) error {
	if c.c.Avoid == nil {
		return nil
	}
	return func(cert *x509.Certificate) error {
		if !slices.Contains(c.c.Avoid(), KeyOf(cert)) {
			return nil
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.self = e.Address
		return fmt.Errorf("%s is this node itself: %w", cert.Subject.CommonName, WrongServer)
	}
}

// failed tells of a failure and makes the pause that follows it.
func (c *Client) failed(ctx context.Context, addr string, err error, b *backoff) {
	c.mu.Lock()
	own := addr != "" && addr == c.self
	c.mu.Unlock()
	if own {
		return // it is passed over from now on
	}
	pause := b.next()
	c.c.Logger.Warn("orderer left", "channel", c.c.Channel, "orderer", addr, "reason", err, "pause", pause)
	if c.c.OnFailure != nil {
		c.c.OnFailure(addr, err, pause)
	}
	sleep(ctx, pause)
}

func index(all []Endpoint, addr string) int {
	return slices.IndexFunc(all, func(e Endpoint) bool { return e.Address == addr })
}

func positive(d, fallback time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return fallback
}

// Package deliver hands out a channel's blocks by Fabric's seek rules to those who may read them.
//
// It knows no ledger and no configuration: it is given a Source of blocks and, at each moment, the Access that the
// configuration in force grants. The ordering service's Deliver stands on it.
package deliver

import (
	"context"
	"iter"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"grapevine/msp"
	"grapevine/wire"
)

// Refusals. A client learns only the status that stands beside each in PROMISES; the code is for our own counters.
var (
	Malformed    = wire.NewReason("deliver.malformed", wire.Refuse)
	Unsigned     = wire.NewReason("deliver.unsigned", wire.Refuse)
	Timestamp    = wire.NewReason("deliver.timestamp", wire.Refuse)
	BadRange     = wire.NewReason("deliver.bad_range", wire.Refuse)
	NotReady     = wire.NewReason("deliver.not_ready", wire.Refuse)
	Unavailable  = wire.NewReason("deliver.unavailable", wire.Refuse)
	SourceGone   = wire.NewReason("deliver.source_gone", wire.Refuse)
	Shared       = wire.NewReason("deliver.shared_address", wire.Refuse)
	SlowReader   = wire.NewReason("deliver.slow_reader", wire.Close)
	Busy         = wire.NewReason("deliver.busy", wire.Refuse)
	Unknown      = wire.NewReason("deliver.unknown_channel", wire.Refuse)
	Forbidden    = wire.NewReason("deliver.forbidden", wire.Refuse)
	BadSignature = wire.NewReason("deliver.bad_signature", wire.Refuse)
	Expired      = wire.NewReason("deliver.expired", wire.Refuse)
	TLSBinding   = wire.NewReason("deliver.tls_binding", wire.Refuse)
)

// Limits. Fabric's sample files say 15 minutes and 2500 streams. A reader that takes half a minute for one block takes
// less than 3.5 MB/s even when the block is of the largest size, and any reader alive takes a usual one in no time.
const (
	defaultTimeWindow = 15 * time.Minute
	defaultSlowReader = 30 * time.Second
	defaultMaxStreams = 2500
)

// Source is a chain of blocks that only grows. It MUST be safe for concurrent use. Equal ones are the same chain, which is
// read once for all who follow it; one that can't be compared is read by each.
type Source interface {
	// Height is the number of blocks held.
	Height() uint64
	// Blocks yields the blocks from number from on, waits at the tip, and ends with ctx's error. What it yields may be
	// shared with others: it is never altered here.
	Blocks(ctx context.Context, from uint64) iter.Seq2[*common.Block, error]
}

// Access is what one configuration of a channel says of its readers. It is treated as immutable.
type Access struct {
	Sequence uint64        // of the configuration; when it rises, open sessions must prove themselves again
	Readers  msp.Policy    // who may read
	MSPs     msp.Directory // the channel's own organisations
}

// Channel is one chain and the access to it.
type Channel struct {
	Source Source
	Access func() Access // of the configuration in force; called before each block, so it must be cheap
	// Filtered is Access for who asks for filtered blocks; nil: the same.
	Filtered func() Access
	// Errored returns a channel that is closed while the consenter is in error. Nil means that it never is.
	Errored func() <-chan struct{}
	// Gone returns a channel that is closed while nobody is answered, not even with BEST_EFFORT: a relay's, whose orderer
	// doesn't answer either. Nil means never.
	Gone func() <-chan struct{}
	// Whole says that headers without data aren't served: one address that stands for several orderers attests nothing.
	Whole bool
}

// Hooks are told what a Handler does, for metrics. Each may be nil.
type Hooks struct {
	Stream func(open bool) // one begins or ends
	// Request begins, and later ends. Filtered says whether filtered blocks are asked for.
	Request func(channel string, filtered bool)
	Done    func(channel string, filtered, success bool)
	Sent    func(channel string, filtered bool) // one block
}

// Handler answers seek requests. Its fields are set before the first Serve and not changed afterwards; Serve is safe for
// concurrent use.
type Handler struct {
	Channels   func(name string) (Channel, bool)
	MutualTLS  bool                                   // requests must carry the hash of the client's TLS certificate
	TimeWindow time.Duration                          // how far a request's timestamp may be off; 0: 15 minutes
	SlowReader time.Duration                          // how long one block may wait for its reader; 0: 30 seconds
	MaxStreams int                                    // streams served at once; 0: 2500
	Now        func() time.Time                       // nil: time.Now
	Refused    func(channel string, why *wire.Reason) // called once per refusal; may be nil
	Hooks      Hooks
	Logger     *slog.Logger // nil: silence

	mu    sync.Mutex
	reels map[Source]*reel // those that are being read; owned by mu

	streams   atomic.Int64 // being served
	following atomic.Int64 // of them, those without an end
}

// Following is how many streams are served now that asked for all blocks to come.
func (h *Handler) Following() int { return int(h.following.Load()) }

// Serve answers the requests of one stream, one after the other, until its client leaves or an answer other than SUCCESS
// was given. It returns nil in both cases, and a gRPC status for a stream that is refused as a whole.
func (h *Handler) Serve(stream ab.AtomicBroadcast_DeliverServer) error {
	return h.serve(ordererStream{stream})
}

func (h *Handler) serve(stream stream) error {
	defer h.streams.Add(-1)
	if most := cmpOr(h.MaxStreams, defaultMaxStreams); h.streams.Add(1) > int64(most) {
		h.refused("", Busy)
		return status.Errorf(codes.ResourceExhausted, "%d deliver streams are open, which is the limit", most)
	}
	if h.Hooks.Stream != nil {
		h.Hooks.Stream(true)
		defer h.Hooks.Stream(false)
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()

	// The session runs beside this goroutine, because a Send that its reader doesn't take can only be ended by
	// returning from here: gRPC then ends the stream under it.
	s := &session{h: h, stream: stream, stuck: make(chan struct{})}
	done := make(chan error, 1)
	go func() { done <- s.run(ctx) }()
	select {
	case err := <-done:
		return err
	case <-s.stuck:
		h.refused(s.channelName(), SlowReader)
		return status.Error(codes.ResourceExhausted, "the reader is too slow")
	}
}

func (h *Handler) refused(channel string, why *wire.Reason) {
	if h.Refused != nil {
		h.Refused(channel, why)
	}
}

func (h *Handler) now() time.Time {
	if h.Now != nil {
		return h.Now()
	}
	return time.Now()
}

func (h *Handler) log() *slog.Logger {
	if h.Logger != nil {
		return h.Logger
	}
	return slog.New(slog.DiscardHandler)
}

// cmpOr is value, or fallback where value is not positive.
func cmpOr[T int | time.Duration](value, fallback T) T {
	if value > 0 {
		return value
	}
	return fallback
}

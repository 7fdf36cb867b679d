package deliver_test

import (
	"context"
	"fmt"
	"io"
	"iter"
	"sync"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"grapevine/channel"
	"grapevine/channel/genesis"
	"grapevine/deliver"
	"grapevine/msp"
	"grapevine/msp/ca"
	"grapevine/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const channelName = "mychannel"

// chain is a source that grows when told to.
type chain struct {
	mu      sync.Mutex
	blocks  []*common.Block // guarded by mu
	changed chan struct{}   // guarded by mu: closed at the next block
	yielded int             // guarded by mu: blocks, to all readers
	size    int             // of the transaction in each block; 0: a few bytes
}

// reads is how many blocks have been read.
func (c *chain) reads() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.yielded
}

func newChain(genesis *common.Block) *chain {
	return &chain{blocks: []*common.Block{genesis}, changed: make(chan struct{})}
}

// grow appends n ordinary blocks.
func (c *chain) grow(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for range n {
		number := uint64(len(c.blocks))
		c.blocks = append(c.blocks, &common.Block{
			Header:   &common.BlockHeader{Number: number, PreviousHash: []byte("p"), DataHash: []byte("d")},
			Data:     &common.BlockData{Data: [][]byte{append(fmt.Appendf(nil, "tx of %d", number), make([]byte, c.size)...)}},
			Metadata: &common.BlockMetadata{Metadata: [][]byte{{1}, {}, {}, {}, {}}},
		})
	}
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *chain) Height() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return uint64(len(c.blocks))
}

func (c *chain) Blocks(ctx context.Context, from uint64) iter.Seq2[*common.Block, error] {
	return func(yield func(*common.Block, error) bool) {
		for n := from; ; {
			c.mu.Lock()
			changed := c.changed
			var b *common.Block
			if n < uint64(len(c.blocks)) {
				b = c.blocks[n]
				c.yielded++
			}
			c.mu.Unlock()
			if b != nil {
				if n++; !yield(b, nil) {
					return
				}
				continue
			}
			select {
			case <-changed:
			case <-ctx.Done():
				yield(nil, ctx.Err())
				return
			}
		}
	}
}

// world is a channel with a reader, and a handler that serves it.
type world struct {
	t             testing.TB
	org, stranger *ca.Org
	reader        msp.Signer
	chain         *chain
	handler       *deliver.Handler

	mu      sync.Mutex
	access  deliver.Access // guarded by mu
	errored chan struct{}  // guarded by mu
	refused []string       // guarded by mu: codes
}

// newWorld has a channel of a genesis block and five more.
func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, errored: make(chan struct{})}
	now := time.Now()
	orderers, err := ca.NewOrg("OrdererMSP", "example.com", now)
	require.NoError(t, err)
	w.org, err = ca.NewOrg("Org1MSP", "org1.example.com", now)
	require.NoError(t, err)
	w.stranger, err = ca.NewOrg("Org9MSP", "org9.example.com", now)
	require.NoError(t, err)
	b, err := genesis.Block(genesis.Profile{
		Channel: channelName, Time: now,
		Orderers:   []genesis.Org{{Name: "Orderer", MSP: orderers.MSPConfig(), Endpoints: []string{"127.0.0.1:7050"}}},
		Orgs:       []genesis.Org{{Name: "Org1", MSP: w.org.MSPConfig()}},
		Consenters: []genesis.Consenter{{Host: "127.0.0.1", Port: 7051, ServerTLS: orderers.TLSCA.PEM()}},
	})
	require.NoError(t, err)
	conf, err := channel.Parse(b)
	require.NoError(t, err)
	w.access = deliver.Access{Sequence: conf.Sequence(), MSPs: conf.MSPs(), Readers: conf.Policy("/Channel/Readers")}
	w.reader = w.identity(w.org, "peer0", "peer")
	w.chain = newChain(b)
	w.chain.grow(5)
	w.handler = &deliver.Handler{
		Channels: func(name string) (deliver.Channel, bool) {
			return deliver.Channel{Source: w.chain, Access: w.accessNow, Errored: w.erroredNow}, name == channelName
		},
		Refused: func(_ string, why *wire.Reason) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.refused = append(w.refused, why.Code())
		},
	}
	return w
}

func (w *world) accessNow() deliver.Access {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.access
}

func (w *world) erroredNow() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.errored
}

// reasons are the refusals counted so far.
func (w *world) reasons() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.refused...)
}

func (w *world) identity(o *ca.Org, cn, ou string) msp.Signer {
	w.t.Helper()
	s, err := o.Identity(cn, ou)
	require.NoError(w.t, err)
	return s
}

// ask is a request, and what may be wrong with it.
type ask struct {
	seek     *ab.SeekInfo
	channel  string        // empty: the world's
	who      msp.Signer    // nil: the reader
	skew     time.Duration // of the timestamp
	timeless bool          // without timestamp
	tlsHash  []byte
	data     []byte                 // instead of seek
	spoil    func(*common.Envelope) // after signing
}

func (w *world) envelope(a ask) *common.Envelope {
	w.t.Helper()
	marshal := func(m proto.Message) []byte {
		b, err := proto.Marshal(m)
		require.NoError(w.t, err)
		return b
	}
	if a.channel == "" {
		a.channel = channelName
	}
	if a.who == nil {
		a.who = w.reader
	}
	if a.data == nil {
		a.data = marshal(a.seek)
	}
	head := &common.ChannelHeader{
		Type: int32(common.HeaderType_DELIVER_SEEK_INFO), ChannelId: a.channel, TlsCertHash: a.tlsHash,
		Timestamp: timestamppb.New(time.Now().Add(a.skew)),
	}
	if a.timeless {
		head.Timestamp = nil
	}
	payload := marshal(&common.Payload{
		Header: &common.Header{
			ChannelHeader:   marshal(head),
			SignatureHeader: marshal(&common.SignatureHeader{Creator: a.who.Identity().Serialized()}),
		},
		Data: a.data,
	})
	sig, err := a.who.Sign(payload)
	require.NoError(w.t, err)
	env := &common.Envelope{Payload: payload, Signature: sig}
	if a.spoil != nil {
		a.spoil(env)
	}
	return env
}

// stream is a client's end of a stream, without a network.
type stream struct {
	grpc.ServerStream
	ctx      context.Context
	cancel   context.CancelFunc
	requests chan *common.Envelope
	replies  chan *ab.DeliverResponse
	done     chan error // what Serve returned
}

// connect opens a stream to the handler.
func (w *world) connect(ctx context.Context) *stream {
	s := &stream{requests: make(chan *common.Envelope), replies: make(chan *ab.DeliverResponse), done: make(chan error, 1)}
	s.ctx, s.cancel = context.WithCancel(ctx)
	go func() {
		s.done <- w.handler.Serve(s)
		s.cancel() // as gRPC does when a handler returns
	}()
	return s
}

func (s *stream) Context() context.Context { return s.ctx }

func (s *stream) Recv() (*common.Envelope, error) {
	select {
	case env, ok := <-s.requests:
		if !ok {
			return nil, io.EOF
		}
		return env, nil
	case <-s.ctx.Done():
		return nil, s.ctx.Err()
	}
}

// SendMsg takes a message as it would be on the wire.
func (s *stream) SendMsg(m any) error {
	bs, err := deliver.Codec().Marshal(m)
	if err != nil {
		return err
	}
	r := new(ab.DeliverResponse)
	if err := deliver.Codec().Unmarshal(bs, r); err != nil {
		return err
	}
	return s.Send(r)
}

func (s *stream) Send(r *ab.DeliverResponse) error {
	select {
	case s.replies <- r:
		return nil
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

// next is the next reply; nil when the stream has ended.
func (s *stream) next() *ab.DeliverResponse {
	select {
	case r := <-s.replies:
		return r
	case <-s.ctx.Done():
		return nil
	}
}

// until reads up to a status.
func (s *stream) until() (blocks []*common.Block, st common.Status) {
	for {
		r := s.next()
		if r == nil {
			return blocks, common.Status_UNKNOWN
		}
		if b := r.GetBlock(); b != nil {
			blocks = append(blocks, b)
			continue
		}
		return blocks, r.GetStatus()
	}
}

// numbers of blocks.
func numbers(blocks []*common.Block) []uint64 {
	ns := []uint64{}
	for _, b := range blocks {
		ns = append(ns, b.Header.Number)
	}
	return ns
}

// Positions.
var (
	oldest = &ab.SeekPosition{Type: &ab.SeekPosition_Oldest{Oldest: &ab.SeekOldest{}}}
	newest = &ab.SeekPosition{Type: &ab.SeekPosition_Newest{Newest: &ab.SeekNewest{}}}
	commit = &ab.SeekPosition{Type: &ab.SeekPosition_NextCommit{NextCommit: &ab.SeekNextCommit{}}}
)

func at(n uint64) *ab.SeekPosition {
	return &ab.SeekPosition{Type: &ab.SeekPosition_Specified{Specified: &ab.SeekSpecified{Number: n}}}
}

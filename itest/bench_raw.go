package itest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/libp2p/go-libp2p"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/metrics"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
	"grapevine/channel"
)

// raw is the same number of plain libp2p hosts, TCP, TLS and yamux as ours,
// fully connected, with GossipSub as it comes (D = 6): whole blocks, believed
// without a look and kept nowhere; or, when they are kept, checked as our nodes
// check them, and committed to a bare Pebble store with our ledger's sizes, all
// after they were forwarded. A third kind keeps them too, and has streams in
// GossipSub's place.
type raw struct {
	world   *World
	came    *arrivals
	hosts   []host.Host
	topics  []*pubsub.Topic
	heard   []*hearer
	kind    rawKind
	streams streams
	dir     string
	rules   *block.Rules
	bytes   []*metrics.BandwidthCounter
	stop    context.CancelFunc
	listen  sync.WaitGroup
	stores  []*pebble.DB
	mu      sync.Mutex
	failed  error // owned by mu
}

type rawKind int

const (
	rawBelieved rawKind = iota // GossipSub; nothing is kept
	rawKept                    // GossipSub
	rawDirect                  // streams; kept too
)

func newRaw(ctx context.Context, nodes int, kind rawKind) (carrier, error) {
	w, err := NewWorld(1)
	if err != nil {
		return nil, err
	}
	conf, err := channel.Parse(w.Genesis)
	if err != nil {
		return nil, err
	}
	r := &raw{world: w, came: newArrivals(), kind: kind, rules: conf.Rules()}
	if r.durable() {
		if r.dir, err = benchFolder(); err != nil {
			return nil, err
		}
	}
	ctx, r.stop = context.WithCancel(ctx)
	for range nodes {
		if err = r.add(ctx); err != nil {
			return nil, errors.Join(err, r.close())
		}
	}
	for i, a := range r.hosts {
		for _, b := range r.hosts[i+1:] {
			if err = a.Connect(ctx, peer.AddrInfo{ID: b.ID(), Addrs: b.Addrs()}); err != nil {
				return nil, errors.Join(err, r.close())
			}
		}
	}
	if kind == rawDirect {
		if err = r.direct(ctx); err != nil {
			return nil, errors.Join(err, r.close())
		}
		return r, nil
	}
	// GossipSub may leave a host below Dlo for minutes, when its candidates are
	// all in backoff: it is enough that they have so many neighbours on average.
	err = soon(ctx, "forming a mesh", func() bool {
		sum, least := int64(0), int64(nodes)
		for _, h := range r.heard {
			sum, least = sum+h.mesh.Load(), min(least, h.mesh.Load())
		}
		return sum >= int64(nodes*min(pubsub.GossipSubDlo, nodes-1)) && least >= int64(min(pubsub.GossipSubDlo/2, nodes-1))
	})
	if err != nil {
		var sizes []int64
		for _, h := range r.heard {
			sizes = append(sizes, h.mesh.Load())
		}
		return nil, errors.Join(fmt.Errorf("neighbours %v: %w", sizes, err), r.close())
	}
	return r, nil
}

// plainHost is one with TCP, TLS and yamux and nothing of ours.
func plainHost(count metrics.Reporter) (host.Host, error) {
	return libp2p.New(
		libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.Transport(tcp.NewTCPTransport),
		libp2p.Security(libp2ptls.ID, libp2ptls.New), libp2p.BandwidthReporter(count), libp2p.DisableMetrics(),
		libp2p.DisableRelay(), libp2p.ForceReachabilityPublic(), libp2p.DisableIdentifyAddressDiscovery(), libp2p.Ping(false))
}

// add adds a node, which listens if it isn't the first.
func (r *raw) add(ctx context.Context) error {
	count := metrics.NewBandwidthCounter()
	h, err := plainHost(count)
	if err != nil {
		return err
	}
	first := len(r.hosts) == 0
	r.hosts, r.bytes = append(r.hosts, h), append(r.bytes, count)
	hear := &hearer{self: h.ID()}
	r.heard = append(r.heard, hear)
	keep := func([]byte) error { return nil }
	if r.durable() {
		db, err := rawStore(filepath.Join(r.dir, strconv.Itoa(len(r.hosts))))
		if err != nil {
			return err
		}
		r.stores = append(r.stores, db)
		keep = func(b []byte) error { return r.keep(db, b) }
	}
	take := func(data []byte) error {
		n := binary.BigEndian.Uint64(data)
		if !first {
			r.came.note(r.came.held, n)
		}
		err := keep(data[8:])
		if err == nil && !first && r.durable() {
			r.came.note(r.came.disk, n)
		}
		return err
	}
	if r.kind == rawDirect {
		hears(h, func(data []byte) error {
			hear.messages.Add(1)
			return take(data)
		}, r.fail)
		return nil
	}
	ps, err := pubsub.NewGossipSub(ctx, h, pubsub.WithMessageSignaturePolicy(pubsub.StrictNoSign), pubsub.WithNoAuthor(),
		pubsub.WithMessageIdFn(number), pubsub.WithMaxMessageSize(16<<20), pubsub.WithRawTracer(hear))
	if err != nil {
		return err
	}
	t, err := ps.Join("blocks")
	if err != nil {
		return err
	}
	r.topics = append(r.topics, t)
	sub, err := t.Subscribe(pubsub.WithBufferSize(256))
	if err != nil {
		return err
	}
	r.listen.Go(func() {
		for {
			m, err := sub.Next(ctx)
			if err != nil {
				return
			}
			if err := take(m.Data); err != nil {
				r.fail(err)
				return
			}
		}
	})
	return nil
}

// keep checks a block and makes it durable.
func (r *raw) keep(db *pebble.DB, raw []byte) error {
	c, err := block.Check(r.rules, raw)
	if err != nil {
		return err
	}
	return db.Set(fmt.Appendf(nil, "block%012d", c.Number()), raw, pebble.Sync)
}

// fail notes what a receiver couldn't keep; close tells.
func (r *raw) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = errors.Join(r.failed, err)
}

// number is a message's id: that of its block, which stands in front.
func number(m *pb.Message) string { return string(m.Data[:8]) }

func (r *raw) send(bytes int) (uint64, time.Time, error) {
	b, err := r.world.OrderBody(bytes)
	if err != nil {
		return 0, time.Time{}, err
	}
	data, err := proto.MarshalOptions{}.MarshalAppend(binary.BigEndian.AppendUint64(nil, b.Header.Number), b)
	if err != nil {
		return 0, time.Time{}, fmt.Errorf("encoding a block: %w", err)
	}
	at := time.Now()
	if r.kind == rawDirect {
		return b.Header.Number, at, r.streams.deliver(data)
	}
	return b.Header.Number, at, r.topics[0].Publish(context.Background(), data)
}

func (r *raw) whole(int) bool { return true }

func (r *raw) counts() (messages, pulled uint64, bytes int64) {
	for i := range r.hosts[1:] {
		messages += r.heard[i+1].messages.Load()
		bytes += r.bytes[i+1].GetBandwidthTotals().TotalIn
	}
	return messages, 0, bytes
}

func (r *raw) durable() bool { return r.kind != rawBelieved }

func (r *raw) arrivals() *arrivals { return r.came }

func (r *raw) close() error {
	r.stop() // and with it the streams' writers
	r.listen.Wait()
	errs := []error{r.failed}
	for _, db := range r.stores {
		errs = append(errs, db.Close())
	}
	if r.durable() {
		errs = append(errs, os.RemoveAll(r.dir))
	}
	for _, h := range r.hosts {
		errs = append(errs, h.Close())
	}
	return errors.Join(errs...)
}

// hearer counts the messages that come to a host, copies included, and the
// peers of its mesh.
type hearer struct {
	self     peer.ID
	messages atomic.Uint64
	mesh     atomic.Int64
}

func (h *hearer) heard(m *pubsub.Message) {
	if m.ReceivedFrom != h.self {
		h.messages.Add(1)
	}
}
func (h *hearer) ValidateMessage(m *pubsub.Message)      { h.heard(m) }
func (h *hearer) DuplicateMessage(m *pubsub.Message)     { h.heard(m) }
func (h *hearer) Graft(peer.ID, string)                  { h.mesh.Add(1) }
func (h *hearer) Prune(peer.ID, string)                  { h.mesh.Add(-1) }
func (*hearer) OnNewOutboundStream(peer.ID, protocol.ID) {}
func (*hearer) OnClosedOutboundStream(peer.ID)           {}
func (*hearer) Join(string)                              {}
func (*hearer) Leave(string)                             {}
func (*hearer) DeliverMessage(*pubsub.Message)           {}
func (*hearer) RejectMessage(*pubsub.Message, string)    {}
func (*hearer) ThrottlePeer(peer.ID)                     {}
func (*hearer) RecvRPC(*pubsub.RPC)                      {}
func (*hearer) SendRPC(*pubsub.RPC, peer.ID)             {}
func (*hearer) DropRPC(*pubsub.RPC, peer.ID)             {}
func (*hearer) UndeliverableMessage(*pubsub.Message)     {}

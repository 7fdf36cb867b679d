package node

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
	"grapevine/orderer"
	"grapevine/wire"
)

// Reasons why a fellow's word about an orderer isn't heard.
var (
	sightingOrg   = wire.NewReason("node.sighting_org", wire.Close)
	sightingFlood = wire.NewReason("node.sighting_flood", wire.Close)
	sightingBad   = wire.NewReason("node.sighting_malformed", wire.Close)
)

const (
	maxWatched    = 64               // of a channel, that are looked after
	sharePatience = time.Second      // for a fellow to take a sighting
	sightingTurn  = 10 * time.Second // in which one fellow may say
	sightingMost  = 200              // so much; two orderers a second are plenty
)

// sources is what a peer knows of a channel's orderers, one by one: the newest
// block that each has shown, and when. Of an organisation's peers each asks some
// of the orderers, for a header with its signatures, and tells its fellows; who
// pulls, or relays, asks those itself that nobody has told of for a while.
type sources struct {
	c     *Channel
	ask   *orderer.Client
	every time.Duration // between two questions to one orderer
	queue chan *wire.Sighting

	mu   sync.Mutex
	seen map[string]orderer.Sighting // by address as configured; owned by mu
}

func (c *Channel) newSources() *sources {
	s := &sources{c: c, every: c.stall() / 2, queue: make(chan *wire.Sighting, maxWatched), seen: map[string]orderer.Sighting{}}
	if c.node.cfg.Source == nil {
		s.ask = orderer.NewClient(c.clientConfig())
	}
	return s
}

// wanted says whether anybody is to be asked: on a BFT channel, where one
// orderer may hold back what the others have, and for a relay, which tells its
// clients when its sources are gone.
func (s *sources) wanted() bool {
	n := s.c.node
	return s.ask != nil && (len(n.cfg.Relay.Fronts) > 0 || !n.cfg.Orderers.Simple && s.c.conf.Load().Consensus() == "BFT")
}

// run asks and tells until ctx ends.
func (s *sources) run(ctx context.Context) error {
	var work sync.WaitGroup
	defer work.Wait()
	work.Go(func() { s.tell(ctx) })
	for ctx.Err() == nil {
		known := s.c.endpoints()
		asking, stop := context.WithCancel(ctx)
		var askers sync.WaitGroup
		if s.wanted() {
			for _, e := range known[:min(len(known), maxWatched)] {
				askers.Go(func() { s.watch(asking, e) })
			}
		}
		conf := s.c.conf.Load()
		_ = s.c.turned.wait(ctx, func() bool { return s.c.conf.Load() != conf }) // its error is ctx's
		stop()
		askers.Wait()
	}
	return ctx.Err()
}

// watch asks one orderer again and again, as far as it is this peer's to ask.
func (s *sources) watch(ctx context.Context, e orderer.Endpoint) {
	p := s.ask.Prober(e)
	defer p.Close()
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		t.Reset(s.every)
		if !s.mine(e.Address) {
			continue
		}
		b, err := p.Newest(ctx)
		if err != nil {
			s.c.log.Debug("an orderer doesn't show its newest block", "orderer", e.Address, "err", err)
			continue
		}
		s.note(e.Address, b.Header.Number)
		s.share(e.Address, b)
	}
}

// mine says whether this peer is to ask an orderer now.
func (s *sources) mine(addr string) bool {
	if s.c.node.stands(addr) || s.chosen(addr) {
		return true
	}
	if !s.c.elect.Leading() && len(s.c.node.cfg.Relay.Fronts) == 0 {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Since(s.seen[addr].At) > 3*s.every
}

// chosen says whether, of the organisation's peers that live, this one is to ask
// an orderer: the one whose hash with the address is highest, so that each peer
// has its share and one that comes or goes changes no more than its own.
func (s *sources) chosen(addr string) bool {
	own := rank(addr, s.c.node.host.ID())
	for _, p := range s.fellows() {
		if r := rank(addr, p); bytes.Compare(r[:], own[:]) > 0 {
			return false
		}
	}
	return true
}

func rank(addr string, p peer.ID) [32]byte { return sha256.Sum256([]byte(addr + "\x00" + string(p))) }

// fellows are the connected members of the own organisation that aren't known to
// be dead.
func (s *sources) fellows() []peer.ID {
	own := s.c.node.Identity().MSPID()
	return slices.DeleteFunc(slices.Clone(s.c.view.Members()), func(p peer.ID) bool {
		return s.c.orgOf(p) != own || s.c.members.Silent(p)
	})
}

// note keeps what an orderer has shown.
func (s *sources) note(addr string, newest uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[addr] = orderer.Sighting{Address: addr, Newest: newest, At: time.Now()}
}

// list is what is known of the orderers that are configured.
func (s *sources) list() []orderer.Sighting {
	known := s.c.endpoints()
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []orderer.Sighting
	for _, e := range known {
		if v, ok := s.seen[e.Address]; ok {
			out = append(out, v)
		}
	}
	return out
}

// share puts a sighting in line for the fellows. One that nobody has told yet is
// dropped: the next says more.
func (s *sources) share(addr string, b *common.Block) {
	raw, err := proto.Marshal(&common.Block{Header: b.Header, Metadata: b.Metadata})
	if err != nil || len(raw) > wire.MaxSighting/2 {
		s.c.log.Debug("a header isn't told to others", "orderer", addr, "bytes", len(raw), "err", err)
		return
	}
	select {
	case s.queue <- &wire.Sighting{Orderer: addr, Block: raw}:
	default:
	}
}

// tell hands what is in line to the fellows, over one stream to each.
func (s *sources) tell(ctx context.Context) {
	streams := map[peer.ID]network.Stream{}
	defer func() {
		for _, v := range streams {
			_ = v.Reset() // nothing on it is awaited
		}
	}()
	for {
		var v *wire.Sighting
		select {
		case v = <-s.queue:
		case <-ctx.Done():
			return
		}
		raw, err := wire.Marshal(v)
		if err != nil {
			s.c.log.Warn("encoding a sighting", "err", err)
			continue
		}
		fellows := s.fellows()
		for p, old := range streams {
			if !slices.Contains(fellows, p) {
				_ = old.Reset()
				delete(streams, p)
			}
		}
		for _, p := range fellows {
			if err := s.put(ctx, streams, p, raw); err != nil {
				s.c.log.Debug("telling a fellow what an orderer has", "peer", p, "err", err)
			}
		}
	}
}

// put writes one frame to a fellow. A stream that fails is forgotten.
func (s *sources) put(ctx context.Context, streams map[peer.ID]network.Stream, p peer.ID, raw []byte) error {
	v := streams[p]
	if v == nil {
		ctx, cancel := context.WithTimeout(network.WithNoDial(ctx, "members are met by the node"), sharePatience)
		defer cancel()
		var err error
		if v, err = s.c.view.Stream(ctx, p, wire.KindSighting); err != nil {
			return err
		}
		streams[p] = v
	}
	err := v.SetWriteDeadline(time.Now().Add(sharePatience))
	if err == nil {
		err = wire.WriteFrame(v, raw)
	}
	if err != nil {
		_ = v.Reset()
		delete(streams, p)
	}
	return err
}

// serve hears what a fellow says, until its stream ends.
func (s *sources) serve(v network.Stream) {
	from := v.Conn().RemotePeer()
	defer func() { _ = v.Reset() }()
	err := s.hear(v, from)
	if r := wire.ReasonOf(err); r != nil && !errors.Is(err, io.EOF) {
		s.c.node.metrics.refused(s.c.name, r)
		s.c.log.Debug("refused a fellow's sighting", "peer", from, "reason", r.Code(), "err", err)
	}
}

func (s *sources) hear(v io.Reader, from peer.ID) error {
	if org := s.c.orgOf(from); org != s.c.node.Identity().MSPID() {
		return fmt.Errorf("sighting of %s: %w", org, sightingOrg)
	}
	var since time.Time
	for said := 0; ; said++ {
		raw, err := wire.ReadFrame(v, wire.MaxSighting)
		if err != nil {
			return err
		}
		if now := time.Now(); now.Sub(since) > sightingTurn {
			said, since = 0, now
		}
		if said > sightingMost {
			return sightingFlood
		}
		if err := s.take(raw); err != nil {
			return err
		}
	}
}

// take judges one sighting. The orderers' signatures prove that the block is
// there; that this orderer has it is the fellow's word.
func (s *sources) take(raw []byte) error {
	var v wire.Sighting
	if err := wire.Unmarshal(raw, &v); err != nil {
		return err
	}
	if !slices.ContainsFunc(s.c.endpoints(), func(e orderer.Endpoint) bool { return e.Address == v.Orderer }) {
		return nil // of another configuration
	}
	var b common.Block
	if err := proto.Unmarshal(v.Block, &b); err != nil || b.Header == nil {
		return fmt.Errorf("the header of a sighting: %w", sightingBad)
	}
	if b.Header.Number > 0 {
		if err := s.c.attest(&b); err != nil {
			return fmt.Errorf("a sighting: %w", err)
		}
	}
	s.note(v.Orderer, b.Header.Number)
	s.c.elect.Attested(b.Header.Number + 1)
	return nil
}

// prove judges a header by which an orderer is accused of holding back a block:
// it must follow the one that came last, under the configuration in force there.
func (c *Channel) prove(b *common.Block, previous [32]byte) error {
	if err := block.Attest(c.conf.Load().Rules(), b); err != nil {
		return err
	}
	if previous != ([32]byte{}) && !bytes.Equal(b.Header.PreviousHash, previous[:]) {
		return fmt.Errorf("header %d: %w", b.Header.Number, block.BadLink)
	}
	return nil
}

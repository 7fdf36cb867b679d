package itest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/metrics"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
	"grapevine/channel"
	"grapevine/channel/cast"
	"grapevine/msp"
	"grapevine/wire"
)

// casting is what a node does to bring blocks, without what it does with them:
// the plain hosts that raw has, each with a channel's door, mesh and cast. Blocks
// are proven and kept nowhere, so beside raw, which keeps none either, it shows
// what the ways themselves cost.
type casting struct {
	world   *World
	rules   *block.Rules
	came    *arrivals
	members []*caster
	ids     map[peer.ID]*msp.Identity // not changed once channels are open
	stop    context.CancelFunc
	running sync.WaitGroup
	mu      sync.Mutex
	failed  error // owned by mu
}

// A caster is one host.
type caster struct {
	host   host.Host
	signer msp.Signer
	door   *channel.Door
	view   *channel.View
	mesh   *channel.Mesh
	cast   *cast.Cast
	bytes  *metrics.BandwidthCounter
	height atomic.Uint64
	coder  cast.Coder
}

func newCasting(ctx context.Context, nodes int) (carrier, error) {
	w, err := NewWorld(1)
	if err != nil {
		return nil, err
	}
	c := &casting{world: w, came: newArrivals(), ids: map[peer.ID]*msp.Identity{}}
	ctx, c.stop = context.WithCancel(ctx)
	if err := c.start(ctx, nodes); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

func (c *casting) start(ctx context.Context, nodes int) error {
	conf, err := channel.Parse(c.world.Genesis)
	if err != nil {
		return err
	}
	c.rules = conf.Rules()
	for i := range nodes {
		m := &caster{bytes: metrics.NewBandwidthCounter()}
		if m.host, err = plainHost(m.bytes); err != nil {
			return err
		}
		c.members = append(c.members, m)
		if m.signer, err = c.world.Orgs[0].Identity(fmt.Sprintf("host%d", i), "peer"); err != nil {
			return err
		}
		c.ids[m.host.ID()] = m.signer.Identity()
	}
	for i, m := range c.members {
		if err := c.open(m, i > 0); err != nil {
			return err
		}
		c.running.Go(func() { c.fail(m.mesh.Run(ctx)) })
		c.running.Go(func() { c.fail(m.cast.Run(ctx)) })
	}
	for i, a := range c.members {
		for _, b := range c.members[i+1:] {
			if err := a.host.Connect(ctx, peer.AddrInfo{ID: b.host.ID(), Addrs: b.host.Addrs()}); err != nil {
				return err
			}
		}
	}
	for _, a := range c.members {
		for _, b := range c.members {
			if a != b {
				a.cast.Arrived(b.host.ID(), c.world.Orgs[0].MSPID)
			}
		}
	}
	return soon(ctx, "forming a mesh", func() bool {
		for _, m := range c.members {
			if len(m.mesh.Stats().Mesh) < min(2, nodes-1) {
				return false
			}
		}
		return true
	})
}

// open makes a member's rooms, wired as a node wires them.
func (c *casting) open(m *caster, counts bool) error {
	m.height.Store(1)
	m.door = channel.NewDoor(m.host)
	genesis := c.world.Tip().Hash
	tag := wire.ChannelTag("bench", genesis[:])
	m.view = m.door.Open(tag, func(p peer.ID) bool { return c.ids[p] != nil })
	hold := func(b *block.Checked) {
		for next := b.Number() + 1; ; {
			h := m.height.Load()
			if h >= next || m.height.CompareAndSwap(h, next) {
				break
			}
		}
		m.cast.Have(b.Number(), b.Hash())
		if counts {
			c.came.note(c.came.held, b.Number())
		}
	}
	rules := func() *block.Rules { return c.rules }
	var err error
	m.cast, err = cast.New(cast.Config{
		Self: m.host.ID(), Org: c.world.Orgs[0].MSPID, Rules: rules, Coder: &m.coder,
		Open: func(ctx context.Context, p peer.ID) (network.Stream, error) {
			return m.view.Stream(ctx, p, wire.KindCast)
		},
		Told: func(from peer.ID, raw []byte) error { return m.mesh.Told(from, raw) },
		Tell: func(ctx context.Context, h *cast.Head) error {
			return m.mesh.Tell(ctx, channel.Announced{Header: h.Block, Raw: h.Raw})
		},
		Deliver: func(b *block.Checked, _ cast.Arrival) { hold(b) },
		Pull:    func(*cast.Head, []peer.ID) {}, // what cast doesn't bring all the same is missed in the end
		Expect:  func(uint64, time.Time) {},
	})
	if err != nil {
		return err
	}
	m.view.Handle(wire.KindCast, func(s network.Stream) { m.cast.Serve(s, s.Conn().RemotePeer()) })
	m.mesh, err = channel.NewMesh(m.view, channel.MeshConfig{
		Channel: ChannelName, Tag: tag, Members: len(c.members), Self: m.signer, Roots: cast.CheckRoots,
		Rules: rules, Height: m.height.Load,
		Identify: func(p peer.ID) (*msp.Identity, bool) { id := c.ids[p]; return id, id != nil },
		Deliver: func(a channel.Announced) {
			if a.Checked != nil {
				hold(a.Checked)
				return
			}
			m.cast.Announced(headOf(a))
		},
	})
	return err
}

func headOf(a channel.Announced) *cast.Head {
	return &cast.Head{
		Number: a.Header.Header.Number, Hash: block.HeaderHash(a.Header.Header), Block: a.Header,
		Size: a.Size, Roots: a.Roots, Announcer: a.Announcer, Raw: a.Raw,
	}
}

// send is what a leader does with a block that an orderer has sent.
func (c *casting) send(bytes int) (uint64, time.Time, error) {
	b, err := c.world.OrderBody(bytes)
	if err != nil {
		return 0, time.Time{}, err
	}
	raw, err := proto.Marshal(b)
	if err != nil {
		return 0, time.Time{}, fmt.Errorf("encoding a block: %w", err)
	}
	at := time.Now()
	return b.Header.Number, at, c.publish(raw)
}

func (c *casting) publish(raw []byte) error {
	b, err := block.Check(c.rules, raw)
	if err != nil {
		return err
	}
	body, err := cast.Body(b)
	if err != nil {
		return err
	}
	m := c.members[0]
	if len(body) <= wire.InlineLimit {
		return m.mesh.Publish(context.Background(), b)
	}
	e, err := m.coder.Encode(body)
	if err != nil {
		return err
	}
	a, err := m.mesh.Sign(b, e.Roots)
	if err != nil {
		return err
	}
	return m.cast.Send(context.Background(), headOf(a), e)
}

func (c *casting) whole(bytes int) bool { return bytes <= wire.InlineLimit }

func (c *casting) counts() (messages, pulled uint64, bytes int64) {
	for _, m := range c.members[1:] {
		messages += m.mesh.Stats().Heard
		pulled += m.cast.Stats().Received
		bytes += m.bytes.GetBandwidthTotals().TotalIn
	}
	return messages, pulled, bytes
}

func (c *casting) durable() bool { return false }

func (c *casting) arrivals() *arrivals { return c.came }

// fail notes what went wrong; close tells.
func (c *casting) fail(err error) {
	if err == nil || errors.Is(err, context.Canceled) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failed = errors.Join(c.failed, err)
}

func (c *casting) close() error {
	c.stop()
	c.running.Wait()
	errs := []error{c.failed}
	for _, m := range c.members {
		if m.view != nil {
			errs = append(errs, m.view.Close())
		}
		if m.door != nil {
			errs = append(errs, m.door.Close())
		}
		if m.host != nil {
			errs = append(errs, m.host.Close())
		}
	}
	return errors.Join(errs...)
}

package node

import (
	"context"
	"errors"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"grapevine/block"
	"grapevine/blocksync"
	"grapevine/channel"
	"grapevine/channel/cast"
	"grapevine/channel/evidence"
	"grapevine/msp"
	"grapevine/wire"
)

// newCast makes what brings large bodies, and what lacks of them to sync.
func (c *Channel) newCast() error {
	n := c.node
	var err error
	c.cast, err = cast.New(cast.Config{
		Self: n.host.ID(), Org: n.Identity().MSPID(), Wide: c.expected() > cast.GroupMost,
		Rules: func() *block.Rules { return c.conf.Load().Rules() },
		Open: func(ctx context.Context, p peer.ID) (network.Stream, error) {
			return c.view.Stream(network.WithNoDial(ctx, "members are met by the node"), p, wire.KindCast)
		},
		Told: func(from peer.ID, raw []byte) error { return c.mesh.Told(from, raw) },
		Tell: func(ctx context.Context, h *cast.Head) error {
			return c.mesh.Tell(ctx, channel.Announced{Header: h.Block, Raw: h.Raw})
		},
		Deliver: func(b *block.Checked, a cast.Arrival) {
			c.traces.cast(b, a)
			c.sync.Offer(b, a.From, "push")
		},
		Pull:   func(h *cast.Head, from []peer.ID) { c.sync.Announced(h.Number, h.Hash, h.Size, from...) },
		Expect: func(number uint64, until time.Time) { c.sync.Expect(number, until) },
		Refused: func(p peer.ID, r *wire.Reason) {
			n.metrics.refused(c.name, r)
			c.log.Debug("refused a part of a block", "peer", p, "reason", r.Code())
			if v := r.Verdict(); v == wire.Reject || v == wire.Close || v == wire.Ban {
				c.mesh.Blame(p)
			}
		},
		Lied: func(p peer.ID, number uint64, frames []byte) {
			c.accuse(p, wire.Evidence_KIND_ENCODING, number, frames)
		},
		Coder: &n.coder, Budget: n.budget, Logger: c.log,
	})
	if err != nil {
		return err
	}
	c.view.Handle(wire.KindCast, func(s network.Stream) { c.cast.Serve(s, s.Conn().RemotePeer()) })
	return nil
}

// announced takes what the mesh accepted.
func (c *Channel) announced(a channel.Announced) {
	if a.Checked != nil {
		how := "push"
		if a.From == c.node.host.ID() {
			how = "orderer" // only a leader publishes
		}
		c.sync.Offer(a.Checked, a.From, how)
		return
	}
	c.large(a)
}

// large takes the announcement of a block that doesn't fit into it.
func (c *Channel) large(a channel.Announced) {
	c.forks.shown(a.Header)
	h := headOf(a)
	c.cast.Announced(h)
	if c.sync.Has(h.Number, h.Hash) {
		c.cast.Have(h.Number, h.Hash)
	}
}

func headOf(a channel.Announced) *cast.Head {
	return &cast.Head{
		Number: a.Header.Header.Number, Hash: block.HeaderHash(a.Header.Header), Block: a.Header,
		Size: a.Size, Roots: a.Roots, Announcer: a.Announcer, Raw: a.Raw,
	}
}

// tell tells the channel's members of a block: whole, if it fits into an
// announcement. A larger one is cast.
func (c *Channel) tell(ctx context.Context, checked *block.Checked) error {
	body, err := cast.Body(checked)
	if err != nil {
		return err
	}
	if len(body) <= wire.InlineLimit {
		return c.mesh.Publish(ctx, checked)
	}
	e, err := c.node.coder.Encode(body)
	if err != nil {
		return err
	}
	a, err := c.mesh.Sign(checked, e.Roots)
	if errors.Is(err, block.Stale) {
		return nil // enough others told of it
	}
	if err != nil {
		return err
	}
	return c.cast.Send(ctx, headOf(a), e)
}

// held is told of each block that came, and how.
func (c *Channel) held(a blocksync.Arrival) {
	c.forks.saw(a.Block.Block())
	c.cast.Have(a.Number, a.Hash)
	c.traces.came(a)
	if f := c.node.cfg.Hooks.Held; f != nil {
		f(c.name, a.Number)
	}
}

// contradicted takes two announcements of one block by one member, of which one
// is false.
func (c *Channel) contradicted(who msp.PKIID, number uint64, one, other []byte) {
	p, _, ok := c.known(who)
	if !ok {
		return
	}
	c.cast.Bar(p)
	c.accuse(p, wire.Evidence_KIND_ENCODINGS, number, one, other)
}

// accuse keeps what a member signed and can't be true.
func (c *Channel) accuse(p peer.ID, kind wire.Evidence_Kind, number uint64, statements ...[]byte) {
	id, intermediates, ok := c.node.guard.identity(p)
	if !ok {
		c.log.Error("a member announced a block falsely and is gone; no evidence is kept", "peer", p)
		return
	}
	configs, err := c.forks.configsBefore(number)
	path := ""
	if err == nil {
		e := evidence.New(kind, c.node.cfg.NetworkID, c.name, number, c.node.guard.now(), configs, statements...)
		path, err = c.node.evidence.keep(evidence.By(e, id.MSPID(), append([][]byte{id.Certificate().Raw}, intermediates...)...))
	}
	c.log.Error("a member announced a block falsely; it is barred for an hour", "peer", p, "evidence", path, "err", err)
}

// orgOf is the organisation of a connected host.
func (c *Channel) orgOf(p peer.ID) string {
	id, _, ok := c.node.guard.identity(p)
	if !ok {
		return ""
	}
	return id.MSPID()
}

package node

import (
	"context"
	"net"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"

	"grapevine/block"
	"grapevine/channel"
	"grapevine/deliver/system"
	"grapevine/ledger"
	"grapevine/membership"
	"grapevine/msp"
	"grapevine/wire"
)

// newSystem answers Fabric's system chaincodes and discovery for the node's
// channels.
func (n *Node) newSystem(mutual bool) *system.Server {
	return system.NewServer(system.Config{
		Signer: n.signer, MSP: n.home.Load, MutualTLS: mutual, Now: n.guard.now,
		Channels: func() (names []string) {
			for _, c := range n.Channels() {
				names = append(names, c.name)
			}
			return names
		},
		Channel: func(name string) (system.Channel, bool) {
			c, err := n.Channel(name)
			if err != nil {
				return system.Channel{}, false
			}
			return c.told(), true
		},
		Join: func(ctx context.Context, raw []byte) error {
			b, err := block.Decode(raw)
			if err == nil {
				_, err = n.Join(ctx, b)
			}
			return err
		},
		Refused: func(ch string, r *wire.Reason) { n.metrics.refused(ch, r) },
	})
}

// told is what a channel's clients may ask.
func (c *Channel) told() system.Channel {
	return system.Channel{
		MSPs:   func() msp.Directory { return c.conf.Load().MSPs() },
		Policy: func(path string) msp.Policy { return c.conf.Load().Policy(path) },
		ACL:    func(resource string) string { return c.conf.Load().ACL(resource, "") },
		Config: func() *common.Config { return c.conf.Load().Content() },
		Orderers: func() map[string][]string {
			out := map[string][]string{}
			conf := c.conf.Load()
			for _, o := range conf.Orderers() {
				out[o.MSPID] = append(out[o.MSPID], o.Endpoint)
			}
			if all := out[""]; all != nil { // global addresses are every ordering organisation's
				delete(out, "")
				for _, id := range ordering(conf) {
					out[id] = all
				}
			}
			return out
		},
		Peers: c.listed,
		Chain: chain{c.ledger, judged{c}},
		ConfigBlock: func() (*common.Block, error) {
			_, number, err := c.ledger.ConfigBlock()
			if err != nil {
				return nil, err
			}
			return chain{c.ledger, judged{c}}.Block(number)
		},
		Find: c.ledger.ByTxID,
	}
}

// ordering are the ordering organisations' MSP IDs.
func ordering(conf *channel.Config) (ids []string) {
	apps := map[string]bool{}
	for _, o := range conf.Orgs() {
		apps[o.MSPID] = true
	}
	for id := range conf.MSPs() {
		if !apps[id] {
			ids = append(ids, id)
		}
	}
	return ids
}

// listed are the channel's members that live and that all organisations may
// hear of: those with an external endpoint.
func (c *Channel) listed() (out []system.Peer) {
	for _, m := range c.members.List() {
		p := system.Peer{Endpoint: m.Endpoint, Height: m.Height, Seen: m.Incarnation, Sequence: m.Sequence}
		if m.Self {
			p.Identity, p.Endpoint, p.Height = c.node.Identity(), c.node.cfg.ExternalEndpoint, c.ledger.Height()
		} else if _, id, ok := c.members.Find(m.PKIID); ok && m.State == membership.Alive {
			p.Identity = id
		}
		if _, _, err := net.SplitHostPort(p.Endpoint); p.Identity != nil && err == nil {
			out = append(out, p)
		}
	}
	return out
}

// chain is a ledger as qscc shows it.
type chain struct {
	*ledger.Ledger
	judged judged
}

// Info returns the height, and the hashes of the newest block and of the one
// before.
func (j chain) Info() (height uint64, tip, previous []byte) {
	t := j.Tip()
	if t.Height == 0 {
		return 0, nil, nil
	}
	if b, err := j.Block(t.Height - 1); err == nil {
		previous = b.Header.PreviousHash
	}
	return t.Height, t.Hash[:], previous
}

// Block returns a block with its validation codes.
func (j chain) Block(n uint64) (*common.Block, error) {
	raw, err := j.Ledger.Block(n)
	if err != nil {
		return nil, err
	}
	b, err := block.Decode(raw)
	if err != nil {
		return nil, err
	}
	return j.judged.withCodes(b)
}

package admin

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"

	"grapevine/block"
	"grapevine/channel"
	"grapevine/cmd/grapevine/fault"
	"grapevine/ledger"
	"grapevine/node"
	"grapevine/wire"
)

// A Chain reads one channel's ledger for those who ask: a node's, or that of a
// data folder which no node has open. It is safe for concurrent use. A Remote
// gives the same answers from afar.
type Chain struct {
	Ledger *ledger.Ledger
	Config *channel.Config // in force at the tip
	Node   *node.Channel   // nil: no node has it open
}

// verdict is how block n was judged, and by whom.
func (c *Chain) verdict(n uint64) (ledger.Verdict, string, error) {
	if c.Node == nil {
		v, err := c.Ledger.Verdict(n)
		return v, ValidityOwn, err
	}
	v, err := c.Node.Verdict(n)
	if addr, _ := c.Node.FabricPeer(); addr != "" {
		return v, ValidityFabricPeer, err
	}
	return v, ValidityOwn, err
}

// validity says who judges the transactions, and the state hash at the height in
// hexadecimal: "" while there is none.
func (c *Chain) validity(s ledger.StateTip) (who, hash string) {
	if c.Node != nil {
		if addr, _ := c.Node.FabricPeer(); addr != "" {
			return ValidityFabricPeer, ""
		}
	}
	return validity(s)
}

// ReadChain returns the chain that a ledger holds.
func ReadChain(l *ledger.Ledger) (*Chain, error) {
	raw, number, err := l.ConfigBlock()
	if err != nil {
		return nil, fmt.Errorf("reading the newest configuration block: %w", err)
	}
	conf, err := parseConfig(raw)
	if err != nil {
		return nil, fmt.Errorf("configuration block %d: %w", number, err)
	}
	return &Chain{Ledger: l, Config: conf}, nil
}

// Item is the channel in short.
func (c *Chain) Item() *ChannelItem {
	s := c.Ledger.State()
	_, hash := validity(s)
	return &ChannelItem{
		Name: c.Ledger.Name(), Height: s.Blocks.Height, TipHash: hex.EncodeToString(s.Blocks.Hash[:]),
		Halted: c.Ledger.Halted() != nil, StateHash: hash,
	}
}

// Info is what the ledger and the configuration in force say of the channel.
func (c *Chain) Info(context.Context) (*ChannelInfo, error) {
	s := c.Ledger.State()
	t := s.Blocks
	first, err := c.decoded(0)
	if err != nil {
		return nil, err
	}
	last, err := c.decoded(t.Height - 1)
	if err != nil {
		return nil, err
	}
	genesis := block.HeaderHash(first.Header)
	out := &ChannelInfo{
		Name: c.Ledger.Name(), Height: t.Height, TipHash: hex.EncodeToString(t.Hash[:]),
		PreviousHash: hex.EncodeToString(last.Header.PreviousHash), GenesisHash: hex.EncodeToString(genesis[:]),
		ConfigSequence: c.Config.Sequence(), ConfigBlock: c.Config.Number(), Consensus: c.Config.Consensus(),
	}
	out.Validity, out.StateHash = c.validity(s)
	if err := c.Ledger.Halted(); err != nil {
		out.Halted, out.HaltCode = true, haltCode(err)
	}
	for _, o := range c.Config.Orgs() {
		out.Orgs = append(out.Orgs, ChannelOrg{Org: o.Name, MSPID: o.MSPID, Anchors: slices.Clone(o.Anchors)})
	}
	for _, o := range c.Config.Orderers() {
		out.Orderers = append(out.Orderers, ChannelOrderer{Endpoint: o.Endpoint, MSPID: o.MSPID})
	}
	return out, nil
}

// JSON is the configuration in force, as configtxlator prints one.
func (c *Chain) JSON(context.Context) ([]byte, error) { return c.Config.JSON() }

// Block is one block: a number, "oldest" or "newest". Its signatures are judged
// by the configuration in force before it.
func (c *Chain) Block(_ context.Context, number string, full bool) (*Block, error) {
	n, err := ParseNumber(number, c.Ledger.Height())
	if err != nil {
		return nil, err
	}
	raw, err := c.raw(n)
	if err != nil {
		return nil, err
	}
	return c.read(raw, n, full)
}

// Raw calls each with the marshalled blocks of a span (FROM..TO, N, or "" for
// all).
func (c *Chain) Raw(ctx context.Context, span string, each func(raw []byte) error) error {
	from, to, err := c.span(span)
	if err != nil {
		return err
	}
	for raw, err := range c.Ledger.Range(from, to+1) {
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			err = each(raw)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Verify recomputes hashes, links and signatures of a span's blocks, as if they
// came now, each under the configuration in force before it.
func (c *Chain) Verify(ctx context.Context, span string) (*BlockVerification, error) {
	from, to, err := c.span(span)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	blocks := func(yield func([]byte, error) bool) {
		for raw, err := range c.Ledger.Range(from, to+1) {
			if err == nil {
				err = ctx.Err()
			}
			if !yield(raw, err) {
				return
			}
		}
	}
	var r channel.Report
	if from == 0 {
		genesis, e := c.raw(0)
		if e != nil {
			return nil, e
		}
		r, err = channel.VerifyChain(genesis, blocks, nil)
	} else {
		conf, e := c.before(from)
		if e != nil {
			return nil, e
		}
		prev, e := c.decoded(from - 1)
		if e != nil {
			return nil, e
		}
		r, err = channel.VerifyFrom(conf, block.Tip{Height: from, Hash: block.HeaderHash(prev.Header)}, blocks, nil)
	}
	if err != nil {
		return nil, err
	}
	return Verification(&r, time.Since(start)), nil
}

// Verification is a report as its JSON object.
func Verification(r *channel.Report, took time.Duration) *BlockVerification {
	out := &BlockVerification{
		Channel: r.Channel, From: r.From, To: r.To, Checked: r.Checked, OK: r.OK(), Policy: r.Policy, ElapsedMs: took.Milliseconds(),
	}
	for _, f := range r.Failures {
		out.Failures = append(out.Failures, BlockFailure(f))
	}
	return out
}

// read makes a block's object.
func (c *Chain) read(raw []byte, n uint64, full bool) (*Block, error) {
	var rules *block.Rules
	switch {
	case n == 0: // nothing is in force before it
	case n > c.Config.Number():
		rules = c.Config.Rules()
	default:
		conf, err := c.before(n)
		if err != nil {
			return nil, err
		}
		rules = conf.Rules()
	}
	b, err := DecodeBlock(raw, rules, full)
	if err != nil {
		return nil, err
	}
	b.Channel = c.Ledger.Name()
	v, who, err := c.verdict(n)
	switch {
	case errors.Is(err, ledger.ErrUnjudged), errors.Is(err, ledger.ErrPruned): // a configuration outlives its verdict
	case err != nil:
		return nil, err
	default:
		b.judged(v, who)
	}
	return b, nil
}

// before is the configuration in force before block n > 0. It follows the
// previous block's own last-configuration index, so it reads two blocks, not
// the chain.
func (c *Chain) before(n uint64) (*channel.Config, error) {
	prev, err := c.decoded(n - 1)
	at := n - 1
	switch {
	case errors.Is(err, ledger.ErrPruned):
		if at, err = c.Ledger.ConfigBefore(n); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	case !block.IsConfig(prev):
		at, _ = decodeSignatures(prev, nil)
	}
	raw, err := c.raw(at)
	if err != nil {
		return nil, err
	}
	conf, err := parseConfig(raw)
	if err != nil {
		return nil, fmt.Errorf("configuration block %d: %w", at, err)
	}
	return conf, nil
}

// span reads FROM..TO, all of which must be held.
func (c *Chain) span(text string) (from, to uint64, err error) {
	height := c.Ledger.Height()
	if from, to, err = ParseRange(text, height); err != nil {
		return 0, 0, err
	}
	if to >= height {
		return 0, 0, fault.Newf(fault.NotFound, "block %d isn't held: channel %s has %d", to, c.Ledger.Name(), height)
	}
	return from, to, nil
}

func (c *Chain) raw(n uint64) ([]byte, error) {
	raw, err := c.Ledger.Block(n)
	if errors.Is(err, ledger.ErrPruned) {
		return nil, fault.Newf("STA020", "block %d isn't kept here", n).Because(fmt.Sprintf("blocks from %d on are", c.Ledger.Lowest())).From(err)
	}
	if errors.Is(err, ledger.ErrNotFound) {
		return nil, fault.Newf(fault.NotFound, "block %d isn't held: channel %s has %d", n, c.Ledger.Name(), c.Ledger.Height()).From(err)
	}
	if err != nil {
		return nil, fmt.Errorf("reading block %d: %w", n, err)
	}
	return raw, nil
}

func (c *Chain) decoded(n uint64) (*common.Block, error) {
	raw, err := c.raw(n)
	if err != nil {
		return nil, err
	}
	b, err := block.Decode(raw)
	if err == nil && b.Header == nil {
		err = block.NoHeader
	}
	if err != nil {
		return nil, fmt.Errorf("block %d: %w", n, err)
	}
	return b, nil
}

func parseConfig(raw []byte) (*channel.Config, error) {
	b, err := block.Decode(raw)
	if err != nil {
		return nil, err
	}
	return channel.Parse(b)
}

func haltCode(err error) string {
	if r := wire.ReasonOf(err); r != nil {
		return r.Code()
	}
	return fault.Of(err).Code
}

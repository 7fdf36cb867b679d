package node

import (
	"fmt"

	"grapevine/channel"
	"grapevine/channel/cast"
	"grapevine/channel/evidence"
	"grapevine/msp"
	"grapevine/wire"
)

// Judges are those of the kinds of evidence that package evidence leaves to
// others.
func Judges() map[wire.Evidence_Kind]evidence.Judge {
	return map[wire.Evidence_Kind]evidence.Judge{wire.Evidence_KIND_ENCODING: judgeEncoding}
}

// judgeEncoding judges an announcement beside the body or the chunks of its block.
func judgeEncoding(c *evidence.Case) ([]*msp.Identity, error) {
	if len(c.Statements) != 1 {
		return nil, fmt.Errorf("%d statements, not 1: %w", len(c.Statements), evidence.BadFile)
	}
	who, err := c.Member()
	if err != nil {
		return nil, err
	}
	tag := wire.ChannelTag(c.Network, c.Genesis[:])
	err = new(cast.Coder).Refute(c.Config.Rules(), c.Statements[0], func(raw []byte) (*cast.Head, error) {
		a, err := channel.Claimed(tag, who, c.Number, raw)
		if err != nil {
			return nil, err
		}
		return headOf(a), nil
	})
	if err != nil {
		return nil, err
	}
	return []*msp.Identity{who}, nil
}

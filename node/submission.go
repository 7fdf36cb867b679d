package node

import (
	"context"
	"fmt"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"

	"grapevine/block"
	"grapevine/deliver"
	"grapevine/msp"
	"grapevine/orderer"
	"grapevine/wire"
)

// submission is one client's envelopes on their way through a front to the real
// orderers. It belongs to its stream's goroutine.
type submission struct {
	node  *Node
	front Front
	to    map[string]*orderer.Forward // by channel
}

// Submit hands an envelope on and returns the orderer's answer as it is. Only
// what no orderer can be asked about is answered here, with an orderer's status:
// an envelope that can't be read, or whose signer isn't of the channel's
// organisations, to whom every channel is unknown.
func (s *submission) Submit(ctx context.Context, env *common.Envelope) (*ab.BroadcastResponse, error) {
	header, signer, err := block.Header(env)
	if err != nil {
		return s.refuse("", orderer.Malformed, err.Error()), nil
	}
	name := header.ChannelId
	c, err := s.node.Channel(name)
	if err != nil || c.sources.ask == nil {
		return s.refuse("", orderer.UnknownChannel, "unknown channel"), nil
	}
	if why := c.writes(env, signer.Creator); why != nil {
		return s.refuse(name, why, "unknown channel"), nil
	}
	if s.front.Orderer == "" && c.conf.Load().Consensus() == "BFT" {
		s.node.metrics.refused(name, deliver.Shared)
		return nil, fmt.Errorf("channel %s is ordered by BFT: the relay needs one address for each orderer (relay.orderers): %w", name, deliver.Shared)
	}
	f := s.to[name]
	if f == nil {
		f = c.sources.ask.Forward(s.front.Orderer)
		if s.to == nil {
			s.to = map[string]*orderer.Forward{}
		}
		s.to[name] = f
	}
	a, err := f.Submit(ctx, env)
	if err != nil {
		if r := wire.ReasonOf(err); r != nil {
			s.node.metrics.refused(name, r)
		}
		return nil, err
	}
	s.node.metrics.forwarded(name, a.Status)
	return a, nil
}

// Close ends the streams to the orderers.
func (s *submission) Close() {
	for _, f := range s.to {
		f.Close()
	}
}

func (s *submission) refuse(channel string, why *wire.Reason, info string) *ab.BroadcastResponse {
	s.node.metrics.refused(channel, why)
	return &ab.BroadcastResponse{Status: common.Status_BAD_REQUEST, Info: info}
}

// writes says why an envelope's signer isn't proven to be of the channel's
// organisations; nil: it is. Whether it may write is the orderers' to judge.
func (c *Channel) writes(env *common.Envelope, creator []byte) *wire.Reason {
	id, err := msp.Deserialize(creator)
	if err != nil {
		return orderer.Outsider
	}
	m := c.conf.Load().MSP(id.MSPID())
	if m == nil {
		return orderer.Outsider
	}
	if m.Verify(id, env.Payload, env.Signature) != nil {
		return orderer.BadSignature
	}
	if m.ValidateLive(id, nil, c.node.guard.now()) != nil {
		return orderer.Outsider
	}
	return nil
}

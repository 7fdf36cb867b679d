package deliver

import (
	"context"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
)

// A stream is one client's: what it asks, and the answers in the form of its service. Recv, and SendMsg and Status, are
// called from one goroutine each.
type stream interface {
	Context() context.Context
	Recv() (*common.Envelope, error)
	SendMsg(m any) error // a block's message
	Status(s common.Status) error
	access(c Channel) func() Access
	filtered() bool
}

// ordererStream is of orderer.AtomicBroadcast.
type ordererStream struct {
	ab.AtomicBroadcast_DeliverServer
}

func (s ordererStream) Status(st common.Status) error {
	return s.Send(&ab.DeliverResponse{Type: &ab.DeliverResponse_Status{Status: st}})
}

func (ordererStream) filtered() bool { return false }

func (ordererStream) access(c Channel) func() Access { return c.Access }

// peerStream is of protos.Deliver/Deliver.
type peerStream struct{ peer.Deliver_DeliverServer }

func (s peerStream) Status(st common.Status) error {
	return s.Send(&peer.DeliverResponse{Type: &peer.DeliverResponse_Status{Status: st}})
}

func (peerStream) filtered() bool { return false }

func (peerStream) access(c Channel) func() Access { return c.Access }

// filteredStream is of protos.Deliver/DeliverFiltered.
type filteredStream struct {
	peer.Deliver_DeliverFilteredServer
}

func (s filteredStream) Status(st common.Status) error {
	return s.Send(&peer.DeliverResponse{Type: &peer.DeliverResponse_Status{Status: st}})
}

func (filteredStream) filtered() bool { return true }

func (filteredStream) access(c Channel) func() Access {
	if c.Filtered != nil {
		return c.Filtered
	}
	return c.Access
}

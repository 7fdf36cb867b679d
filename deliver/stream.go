package deliver

import (
	"context"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
)

// A stream is one client's: what it asks, and the answers in the form of its service. Recv, and Block and Status, are
// called from one goroutine each.
type stream interface {
	Context() context.Context
	Recv() (*common.Envelope, error)
	Block(b *common.Block) error // as the request wants it; not altered
	Status(s common.Status) error
	access(c Channel) func() Access
	filtered() bool
}

// ordererStream is of orderer.AtomicBroadcast.
type ordererStream struct {
	ab.AtomicBroadcast_DeliverServer
}

func (s ordererStream) Block(b *common.Block) error {
	return s.Send(&ab.DeliverResponse{Type: &ab.DeliverResponse_Block{Block: b}})
}

func (s ordererStream) Status(st common.Status) error {
	return s.Send(&ab.DeliverResponse{Type: &ab.DeliverResponse_Status{Status: st}})
}

func (ordererStream) filtered() bool { return false }

func (ordererStream) access(c Channel) func() Access { return c.Access }

// peerStream is of protos.Deliver/Deliver.
type peerStream struct{ peer.Deliver_DeliverServer }

func (s peerStream) Block(b *common.Block) error {
	return s.Send(&peer.DeliverResponse{Type: &peer.DeliverResponse_Block{Block: b}})
}

func (s peerStream) Status(st common.Status) error {
	return s.Send(&peer.DeliverResponse{Type: &peer.DeliverResponse_Status{Status: st}})
}

func (peerStream) filtered() bool { return false }

func (peerStream) access(c Channel) func() Access { return c.Access }

// filteredStream is of protos.Deliver/DeliverFiltered.
type filteredStream struct {
	peer.Deliver_DeliverFilteredServer
}

func (s filteredStream) Block(b *common.Block) error {
	f, err := Filter(b)
	if err != nil {
		return err
	}
	return s.Send(&peer.DeliverResponse{Type: &peer.DeliverResponse_FilteredBlock{FilteredBlock: f}})
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

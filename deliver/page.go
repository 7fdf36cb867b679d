package deliver

import (
	"sync"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
)

// A form is what goes out of a block, in which bytes. An orderer's DeliverResponse and a peer's have the same for a
// block.
type form int

const (
	wholeBlock    form = iota
	bareHeader         // without data, but for config blocks
	filteredBlock      // what [Filter] makes of it
	forms
)

// A page is one block in the forms in which it goes out, of which each is made when it is first asked for. Safe for
// concurrent use.
type page struct {
	block *common.Block // not altered
	bytes int           // about, with its whole form
	made  [forms]func() (*message, error)
}

func newPage(b *common.Block) *page {
	p := &page{block: b, bytes: 2 * proto.Size(b)}
	for f := range forms {
		p.made[f] = sync.OnceValues(func() (*message, error) { return p.make(f) })
	}
	return p
}

// as is the page in a form.
func (p *page) as(f form) (*message, error) { return p.made[f]() }

func (p *page) make(f form) (*message, error) {
	b := p.block
	switch {
	case f == filteredBlock:
		out, err := Filter(b)
		if err != nil {
			return nil, err
		}
		return encoded(&peer.DeliverResponse{Type: &peer.DeliverResponse_FilteredBlock{FilteredBlock: out}})
	case f == bareHeader && !block.IsConfig(b):
		b = &common.Block{Header: b.Header, Metadata: b.Metadata}
	}
	return encoded(&peer.DeliverResponse{Type: &peer.DeliverResponse_Block{Block: b}})
}

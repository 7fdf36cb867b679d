package orderer

import (
	"fmt"
	"math"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"

	"grapevine/block/tx"
)

// Newest is the number under which Fetch returns the newest block.
const Newest uint64 = math.MaxUint64

// position is a seek position for block n.
func position(n uint64) *ab.SeekPosition {
	if n == Newest {
		return &ab.SeekPosition{Type: &ab.SeekPosition_Newest{Newest: &ab.SeekNewest{}}}
	}
	return specified(n)
}

func specified(n uint64) *ab.SeekPosition {
	return &ab.SeekPosition{Type: &ab.SeekPosition_Specified{Specified: &ab.SeekSpecified{Number: n}}}
}

// forever asks for all blocks from n on, for as long as the stream lives. An orderer that has no leader just now may keep
// the stream: what it has is as good as any, and whether others have more is the watch's to say.
func forever(n uint64) *ab.SeekInfo {
	return &ab.SeekInfo{
		Start: specified(n), Stop: specified(math.MaxUint64),
		Behavior: ab.SeekInfo_BLOCK_UNTIL_READY, ErrorResponse: ab.SeekInfo_BEST_EFFORT,
	}
}

// single asks for one block that exists, whole or without its data.
func single(n uint64, content ab.SeekInfo_SeekContentType) *ab.SeekInfo {
	return &ab.SeekInfo{
		Start: position(n), Stop: position(n),
		Behavior: ab.SeekInfo_FAIL_IF_NOT_READY, ErrorResponse: ab.SeekInfo_BEST_EFFORT, ContentType: content,
	}
}

// request signs a seek for the channel, bound to the client's TLS certificate if there is one.
func (c *Client) request(seek *ab.SeekInfo) (*common.Envelope, error) {
	env, err := tx.BoundEnvelope(common.HeaderType_DELIVER_SEEK_INFO, c.c.Channel, seek, c.c.Signer, time.Now(), certHash(c.c.ClientCert()))
	if err != nil {
		return nil, fmt.Errorf("seek request: %w", err)
	}
	return env, nil
}

// arrived takes the block out of a response. Whole says that its data must be there. A status, which ends the stream,
// and anything that isn't a block at all are errors.
func arrived(r *ab.DeliverResponse, whole bool) (*common.Block, error) {
	switch t := r.GetType().(type) {
	case *ab.DeliverResponse_Block:
		b := t.Block
		switch {
		case b == nil || b.Header == nil:
			return nil, fmt.Errorf("block without header: %w", BadAnswer)
		case b.Metadata == nil || len(b.Metadata.Metadata) == 0:
			return nil, fmt.Errorf("block %d without metadata: %w", b.Header.Number, BadAnswer)
		case whole && len(b.GetData().GetData()) == 0:
			return nil, fmt.Errorf("block %d without data: %w", b.Header.Number, BadAnswer)
		}
		return b, nil
	case *ab.DeliverResponse_Status:
		return nil, &StatusError{Status: t.Status}
	default:
		return nil, fmt.Errorf("neither block nor status: %w", BadAnswer)
	}
}

// StatusError is a status that an orderer answered with where a block was asked for.
type StatusError struct{ Status common.Status }

// Error names the status as Fabric does.
func (e *StatusError) Error() string { return "orderer answered " + e.Status.String() }

// Unwrap makes it an Answered.
func (e *StatusError) Unwrap() error { return Answered }

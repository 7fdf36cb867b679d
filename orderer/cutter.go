package orderer

import (
	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"
)

// cutter decides which envelopes share a block, by the rules of Fabric's orderer/common/blockcutter: a batch is cut when
// it has the maximal count, before it would pass the preferred size, and when its owner says that time is up. An
// envelope larger than the preferred size is alone. It is pure; its owner keeps the clock. The zero value is ready.
type cutter[T any] struct {
	pending []T
	bytes   uint32 // of pending
}

// add takes the next envelope, size bytes large, under the limits in force, and returns the batches that are thereby
// complete, in order: none, one or two.
func (c *cutter[T]) add(limit *ab.BatchSize, size uint32, env T) (cut [][]T) {
	if size > limit.PreferredMaxBytes {
		return append(c.rest(), []T{env})
	}
	// No overflow: both are at most PreferredMaxBytes, and the sum is taken in 64 bits.
	if uint64(c.bytes)+uint64(size) > uint64(limit.PreferredMaxBytes) {
		cut = c.rest()
	}
	c.pending = append(c.pending, env)
	c.bytes += size
	if len(c.pending) >= int(limit.MaxMessageCount) {
		cut = append(cut, c.rest()...)
	}
	return cut
}

// alone takes an envelope that must have a block of its own, such as a configuration.
func (c *cutter[T]) alone(env T) [][]T { return append(c.rest(), []T{env}) }

// rest cuts what is pending: one batch, or none.
func (c *cutter[T]) rest() [][]T {
	if len(c.pending) == 0 {
		return nil
	}
	batch := c.pending
	c.pending, c.bytes = nil, 0
	return [][]T{batch}
}

// empty reports whether nothing is pending, so that no time-out need run.
func (c *cutter[T]) empty() bool { return len(c.pending) == 0 }

// size is what the batch rules count of an envelope: payload and signature.
func size(env *common.Envelope) uint32 {
	return uint32(len(env.GetPayload()) + len(env.GetSignature()))
}

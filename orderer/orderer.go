// Package orderer is where blocks come from: a client to any Fabric-compatible ordering service, and an ordering service
// of our own on Raft.
//
// Client follows a channel through whichever orderer answers, and submits transactions. Chain orders one channel: a
// pure cutter makes batches, Raft agrees on them, and each agreed batch becomes one block, the same on every node but
// for its signature. Server speaks Fabric's AtomicBroadcast for any number of chains.
package orderer

import (
	"log/slog"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"

	"grapevine/block"
	"grapevine/msp"
	"grapevine/wire"
)

// Reasons why an envelope isn't ordered, or a connection isn't used.
var (
	Malformed      = wire.NewReason("orderer.malformed", wire.Refuse)
	UnknownChannel = wire.NewReason("orderer.unknown_channel", wire.Refuse)
	Outsider       = wire.NewReason("orderer.outsider", wire.Refuse)
	BadSignature   = wire.NewReason("orderer.bad_signature", wire.Refuse)
	NotOrdinary    = wire.NewReason("orderer.not_ordinary", wire.Refuse)
	BadUpdate      = wire.NewReason("orderer.bad_update", wire.Refuse)
	TooLarge       = wire.NewReason("orderer.too_large", wire.Refuse)
	Expired        = wire.NewReason("orderer.expired", wire.Refuse)
	Forbidden      = wire.NewReason("orderer.forbidden", wire.Refuse)
	Maintenance    = wire.NewReason("orderer.maintenance", wire.Refuse)
	NotConsenter   = wire.NewReason("orderer.not_consenter", wire.Ignore)
	NotLeader      = wire.NewReason("orderer.not_leader", wire.Ignore)
	Stopped        = wire.NewReason("orderer.stopped", wire.Ignore)
	Outdated       = wire.NewReason("orderer.outdated", wire.Ignore)

	NoEndpoint     = wire.NewReason("orderer.no_endpoint", wire.Ignore)
	Unreachable    = wire.NewReason("orderer.unreachable", wire.Ignore)
	Stalled        = wire.NewReason("orderer.stalled", wire.Close)
	BadAnswer      = wire.NewReason("orderer.bad_answer", wire.Close)
	Answered       = wire.NewReason("orderer.status", wire.Ignore)
	BrokenLog      = wire.NewReason("orderer.broken_log", wire.Halt)
	WrongServer    = wire.NewReason("orderer.wrong_server", wire.Ignore)
	WeakKey        = wire.NewReason("orderer.weak_key", wire.Refuse)
	Stranger       = wire.NewReason("orderer.stranger", wire.Close)
	WrongConsensus = wire.NewReason("orderer.wrong_consensus", wire.Refuse)
	LostBlocks     = wire.NewReason("orderer.lost_blocks", wire.Halt)
)

// maxMessage is the size of a gRPC message: that of the largest block, and what it is wrapped in.
const maxMessage = wire.MaxBlock + 1<<10

// Channel is what the ordering service needs of a channel's configuration in force; channel.Config is one. It is
// immutable.
type Channel interface {
	Rules() *block.Rules
	Batch() *ab.BatchSize
	BatchTimeout() time.Duration
	Maintenance() bool
	Policy(path string) msp.Policy
	MSPs() msp.Directory
	// Propose returns the configuration that a signed CONFIG_UPDATE envelope leads to, if its signers may change all
	// that it changes.
	Propose(update *common.Envelope) (*common.ConfigEnvelope, error)
	// Made says whether the configuration is what a CONFIG_UPDATE envelope, this very one, led to.
	Made(update *common.Envelope) bool
}

// Ledger is where the ordering service keeps its blocks; ledger.Ledger is one.
type Ledger interface {
	Tip() block.Tip
	Append(bs ...block.Verified) error // durable when it returns
	Block(n uint64) ([]byte, error)
}

func logger(l *slog.Logger) *slog.Logger {
	if l != nil {
		return l
	}
	return slog.New(slog.DiscardHandler)
}

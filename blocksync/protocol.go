package blocksync

import (
	"errors"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"google.golang.org/protobuf/encoding/protowire"

	"grapevine/wire"
)

// The protocol, kind "blocks": the asker writes one BlocksRequest and closes
// its side; the server answers with a BlocksStatus and, if that is OK, with
// consecutive blocks, each a frame as the ledger holds it. It stops after the
// blocks asked for, when it holds no more, or at its budget, and closes. A
// stream serves one request.

// Limits of one request. An open iterator pins what the database would drop,
// so an answer is bounded and the asker comes again.
const (
	maxCount = 256      // blocks
	maxBytes = 32 << 20 // of blocks; the first passes whatever its size
	maxWait  = 2 * time.Second
)

// Deadlines. A request comes at once or not at all; an answer is judged by its
// progress, since a block may be 100 MiB on a thin line.
const (
	openTime     = 10 * time.Second
	requestTime  = 5 * time.Second
	progressTime = 10 * time.Second
)

// errLacking: the peer says it doesn't hold the first block.
var errLacking = errors.New("the peer doesn't hold it")

// errNoRoom: the window can't take the block now.
var errNoRoom = errors.New("no room in the window")

// errOver: Run has ended.
var errOver = errors.New("the channel's sync has ended")

// numberOf reads a block's number without decoding the block: field 1 of field
// 1. What isn't found is 0, as in protobuf; whether the rest is a block at all
// is block.Check's to say.
func numberOf(raw []byte) (n uint64, ok bool) {
	num, typ, used := protowire.ConsumeTag(raw)
	if used < 0 || num != 1 || typ != protowire.BytesType {
		return 0, false
	}
	header, used := protowire.ConsumeBytes(raw[used:])
	if used < 0 {
		return 0, false
	}
	num, typ, used = protowire.ConsumeTag(header)
	if used < 0 || num != 1 || typ != protowire.VarintType {
		return 0, used >= 0
	}
	n, m := protowire.ConsumeVarint(header[used:])
	return n, m >= 0
}

// resetCode is what a stream's end says to the other side: nothing that
// depends on the channel.
func resetCode(err error) network.StreamErrorCode {
	switch wire.VerdictOf(err) {
	case wire.Refuse:
		return network.StreamRateLimited
	case wire.Reject, wire.Close, wire.Ban:
		return network.StreamProtocolViolation
	}
	return network.StreamNoError
}

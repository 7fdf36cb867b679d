package blocksync

import "grapevine/wire"

// Reasons for which a peer's answer, or its request, is refused (PROMISES
// section 5, group Y).
var (
	WrongRange    = wire.NewReason("blocksync.wrong_range", wire.Ban)       // Y1: the first block isn't the one asked for
	Unasked       = wire.NewReason("blocksync.unasked", wire.Ban)           // Y2: an answer to another question
	WrongPeer     = wire.NewReason("blocksync.wrong_peer", wire.Ban)        // Y3: an answer to what another peer was asked
	OutOfOrder    = wire.NewReason("blocksync.out_of_order", wire.Ban)      // Y4
	Empty         = wire.NewReason("blocksync.empty", wire.Reject)          // Y6: says it serves, and serves nothing
	OverRange     = wire.NewReason("blocksync.over_range", wire.Ban)        // Y7: goes on after the last block asked for
	TooSlow       = wire.NewReason("blocksync.too_slow", wire.Close)        // Y8
	Truncated     = wire.NewReason("blocksync.truncated", wire.Close)       // Y9
	FalseHeight   = wire.NewReason("blocksync.false_height", wire.Reject)   // Y10, Y11
	HeightLowered = wire.NewReason("blocksync.height_lowered", wire.Ignore) // Y12
	BadRange      = wire.NewReason("blocksync.bad_range", wire.Refuse)      // Y13
	Busy          = wire.NewReason("blocksync.busy", wire.Refuse)           // Y14
	Compressed    = wire.NewReason("blocksync.compressed", wire.Close)      // Y15
	OverBudget    = wire.NewReason("blocksync.over_budget", wire.Ban)       // Y18
	BadStatus     = wire.NewReason("blocksync.bad_status", wire.Ban)        // a status frame that says nothing, or contradicts itself
	BadSnapshot   = wire.NewReason("blocksync.bad_snapshot", wire.Ban)      // Y16: what was sent isn't the snapshot that was asked for, or none
	Conflict      = wire.NewReason("blocksync.conflict", wire.Ignore)       // two attested headers for one number: evidence, not the sender's fault
)

package election

import "grapevine/wire"

// ManyStatic says that several static leaders of one organisation are seen: each
// costs the ordering service a stream.
var ManyStatic = wire.NewReason("election.many_static", wire.Ignore)

// Reasons for which a claim isn't taken (PROMISES section 5, group E).
var (
	WrongOrg     = wire.NewReason("election.wrong_org", wire.Reject)        // E1
	NotMember    = wire.NewReason("election.not_member", wire.Reject)       // E2
	BadSignature = wire.NewReason("election.bad_signature", wire.Reject)    // E3, E7
	StaleTerm    = wire.NewReason("election.stale_term", wire.Ignore)       // E3: of a dead term, or told late
	TermJump     = wire.NewReason("election.term_jump", wire.Reject)        // E4
	Lost         = wire.NewReason("election.lost", wire.Ignore)             // E5: somebody better claims the same
	Conflict     = wire.NewReason("election.conflict", wire.Reject)         // E5: the claimant claimed otherwise before
	RateLimit    = wire.NewReason("election.rate_limit", wire.Close)        // E8
	Malformed    = wire.NewReason("election.malformed", wire.Reject)        // a field of the wrong length or without meaning
	WrongChannel = wire.NewReason("election.wrong_channel", wire.Reject)    // another channel's tag
	Unknown      = wire.NewReason("election.unknown_identity", wire.Ignore) // passed on, of somebody not heard of yet
)

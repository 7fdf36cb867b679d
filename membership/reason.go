package membership

import "grapevine/wire"

// Reasons for which an alive message isn't taken (PROMISES section 5, group A).
var (
	BadSignature     = wire.NewReason("membership.bad_signature", wire.Reject)    // A1, A2
	ClashingAlive    = wire.NewReason("membership.conflict", wire.Ignore)         // A3
	NotNewer         = wire.NewReason("membership.not_newer", wire.Ignore)        // A4, A5, A8, A10
	FromFuture       = wire.NewReason("membership.from_future", wire.Ignore)      // A6
	FarFuture        = wire.NewReason("membership.from_future", wire.Reject)      // A7
	Stale            = wire.NewReason("membership.stale", wire.Ignore)            // A9
	UnknownIdentity  = wire.NewReason("membership.unknown_identity", wire.Ignore) // A11
	IDMismatch       = wire.NewReason("membership.id_mismatch", wire.Reject)      // A12
	BadEndpoint      = wire.NewReason("membership.bad_endpoint", wire.Reject)     // A14
	LoopbackEndpoint = wire.NewReason("membership.bad_endpoint", wire.Ignore)     // A14: of the speaker's own machine
	TooLarge         = wire.NewReason("membership.too_large", wire.Reject)        // A15
	Clone            = wire.NewReason("membership.clone", wire.Ignore)            // A16
	Malformed        = wire.NewReason("membership.malformed", wire.Reject)        // a field of the wrong length or without meaning
	WrongChannel     = wire.NewReason("membership.wrong_channel", wire.Reject)    // another channel's tag
	WrongPeer        = wire.NewReason("membership.wrong_peer", wire.Reject)       // claims a host that is bound to another identity
	RefutedLeave     = wire.NewReason("membership.refuted", wire.Ignore)          // A16: said in our name that we are gone
	WrongAudience    = wire.NewReason("membership.wrong_audience", wire.Reject)   // meant for another organisation
	BadWord          = wire.NewReason("membership.bad_word", wire.Close)          // not what members say to each other
	Full             = wire.NewReason("membership.full", wire.Ignore)             // no room to remember one more
)

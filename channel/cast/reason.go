package cast

import "grapevine/wire"

// Reasons for which something that came for a cast is refused, beside those of
// wire and block.
var (
	BadShape     = wire.NewReason("cast.bad_shape", wire.Reject)
	BadFrame     = wire.NewReason("cast.bad_frame", wire.Close)
	BadChunk     = wire.NewReason("cast.bad_chunk", wire.Ban)
	NoPath       = wire.NewReason("cast.no_path", wire.Ignore)
	Duplicate    = wire.NewReason("cast.duplicate", wire.Ignore)
	Unknown      = wire.NewReason("cast.unknown_session", wire.Ignore)
	NotOrigin    = wire.NewReason("cast.not_origin", wire.Ignore)
	OverShare    = wire.NewReason("cast.over_share", wire.Ignore)
	TooMany      = wire.NewReason("cast.too_many_sessions", wire.Ignore)
	NoBudget     = wire.NewReason("cast.no_budget", wire.Ignore)
	Collision    = wire.NewReason("cast.session_collision", wire.Ignore)
	Barred       = wire.NewReason("cast.barred", wire.Ignore)
	BadBody      = wire.NewReason("cast.bad_body", wire.Ban)
	BadEncoding  = wire.NewReason("cast.bad_encoding", wire.Ban)
	TwoEncodings = wire.NewReason("cast.two_encodings", wire.Ban)
	NeedLimit    = wire.NewReason("cast.need_limit", wire.Refuse)
	RateLimit    = wire.NewReason("cast.rate_limit", wire.Close)
)

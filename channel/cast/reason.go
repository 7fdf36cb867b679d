package cast

import "grapevine/wire"

// Reasons for which something that came for a cast is refused, beside those of
// wire and block.
var (
	BadShape = wire.NewReason("cast.bad_shape", wire.Reject)
	BadChunk = wire.NewReason("cast.bad_chunk", wire.Ban)
	NoPath   = wire.NewReason("cast.no_path", wire.Ignore)
)

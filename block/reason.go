package block

import "grapevine/wire"

// Reasons for which a block is refused. Each is its own verdict; where a case
// has two (a broken configuration is a peer's fault until an orderer's
// signature makes it the channel's), each has its variable under one code.
var (
	NoHeader   = wire.NewReason("block.no_header", wire.Reject)
	NoData     = wire.NewReason("block.no_data", wire.Reject)
	NoMetadata = wire.NewReason("block.no_metadata", wire.Reject)
	// Malformed is a block, header or metadata that is not the one encoding
	// of what it says: only the entries are as free as their writers.
	Malformed = wire.NewReason("block.malformed", wire.Reject)

	Stale          = wire.NewReason("block.stale", wire.Ignore)
	TooFar         = wire.NewReason("block.too_far", wire.Ignore)
	Fork           = wire.NewReason("block.fork", wire.Halt)
	NumberMismatch = wire.NewReason("block.number_mismatch", wire.Reject)
	BadLink        = wire.NewReason("block.bad_link", wire.Reject)

	BadDataHash         = wire.NewReason("block.bad_data_hash", wire.Reject)
	NotCanonical        = wire.NewReason("block.not_canonical", wire.Reject)
	Empty               = wire.NewReason("block.empty", wire.Reject)
	TooManyTransactions = wire.NewReason("block.too_many_transactions", wire.Reject)
	TooLarge            = wire.NewReason("block.too_large", wire.Close)
	WrongChannel        = wire.NewReason("block.wrong_channel", wire.Reject)
	ConfigNotAlone      = wire.NewReason("block.config_not_alone", wire.Reject)

	NoSignature       = wire.NewReason("block.no_signature", wire.Reject)
	BadSignature      = wire.NewReason("block.bad_signature", wire.Reject)
	BadSigner         = wire.NewReason("block.bad_signer", wire.Reject)
	SignerRevoked     = wire.NewReason("block.signer_revoked", wire.Reject)
	NoQuorum          = wire.NewReason("block.quorum", wire.Reject)
	TooManySignatures = wire.NewReason("block.too_many_signatures", wire.Reject)
	AmbiguousSigner   = wire.NewReason("block.ambiguous_signer", wire.Reject)

	LastConfig       = wire.NewReason("block.last_config", wire.Reject)
	UnknownConfig    = wire.NewReason("block.unknown_config", wire.Ignore)
	UnsignedMetadata = wire.NewReason("block.unsigned_metadata", wire.Reject)

	// BadConfig is a configuration that no orderer is known to have signed.
	BadConfig = wire.NewReason("block.bad_config", wire.Reject)
	// SignedBadConfig is one that carries valid orderer signatures: the
	// channel can't go on.
	SignedBadConfig       = wire.NewReason("block.bad_config", wire.Halt)
	UnsupportedCapability = wire.NewReason("block.unsupported_capability", wire.Halt)
)

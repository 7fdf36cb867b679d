package msp

import (
	"fmt"

	"grapevine/wire"
)

// Reasons for which a certificate, a signature or an identity is refused.
var (
	NotDER               = wire.NewReason("msp.not_der", wire.Reject)
	BadPEM               = wire.NewReason("msp.bad_pem", wire.Reject)
	BadIdentity          = wire.NewReason("msp.bad_identity", wire.Reject)
	UnknownMSP           = wire.NewReason("msp.unknown_msp", wire.Reject)
	WrongMSP             = wire.NewReason("msp.wrong_msp", wire.Reject)
	Expired              = wire.NewReason("msp.expired", wire.Reject)
	NotYetValid          = wire.NewReason("msp.not_yet_valid", wire.Reject)
	BadValidity          = wire.NewReason("msp.bad_validity", wire.Reject)
	LeafIsCA             = wire.NewReason("msp.leaf_is_ca", wire.Reject)
	BadKeyUsage          = wire.NewReason("msp.key_usage", wire.Reject)
	BadExtKeyUsage       = wire.NewReason("msp.ext_key_usage", wire.Reject)
	CriticalExtension    = wire.NewReason("msp.critical_extension", wire.Reject)
	BadExtension         = wire.NewReason("msp.bad_extension", wire.Reject)
	BadKeyType           = wire.NewReason("msp.key_type", wire.Reject)
	BadCurve             = wire.NewReason("msp.curve", wire.Reject)
	BadKey               = wire.NewReason("msp.bad_key", wire.Reject)
	BadAlgorithm         = wire.NewReason("msp.signature_algorithm", wire.Reject)
	HighS                = wire.NewReason("msp.high_s", wire.Reject)
	BadSignatureEncoding = wire.NewReason("msp.bad_signature_encoding", wire.Reject)
	BadSignature         = wire.NewReason("msp.bad_signature", wire.Reject)
	BadKeyIdentifier     = wire.NewReason("msp.key_identifier", wire.Reject)
	BadChain             = wire.NewReason("msp.bad_chain", wire.Reject)
	ChainTooLong         = wire.NewReason("msp.chain_too_long", wire.Reject)
	BadPathLength        = wire.NewReason("msp.path_length", wire.Reject)
	BadName              = wire.NewReason("msp.name_constraint", wire.Reject)
	Revoked              = wire.NewReason("msp.revoked", wire.Reject)
	RevokedIssuer        = wire.NewReason("msp.revoked_issuer", wire.Reject)
	BadRole              = wire.NewReason("msp.role", wire.Reject)
)

// Reasons for which a definition, a revocation list or a policy is refused.
var (
	BadDefinition = wire.NewReason("msp.bad_definition", wire.Refuse)
	SharedRoot    = wire.NewReason("msp.shared_root", wire.Refuse)
	BadCRL        = wire.NewReason("msp.crl_invalid", wire.Refuse)
	CRLTooLarge   = wire.NewReason("msp.crl_too_large", wire.Refuse)
	BadPolicy     = wire.NewReason("msp.bad_policy", wire.Refuse)
	PolicyMissing = wire.NewReason("msp.policy_missing", wire.Reject)
	PolicyUnmet   = wire.NewReason("msp.policy_unmet", wire.Reject)
)

// Reasons for which a folder of ours does not load.
var (
	BadFolder   = wire.NewReason("config.msp_folder", wire.Refuse)
	KeyMismatch = wire.NewReason("config.key_mismatch", wire.Refuse)
	KeyReadable = wire.NewReason("config.key_readable", wire.Refuse)
)

// staleCRL is the code of the warning about a revocation list whose dates do
// not cover the present. Its revocations apply all the same.
const staleCRL = "msp.crl_stale"

// A Warning is something an operator should know and that stops nothing.
type Warning struct {
	Code    string // such as "msp.crl_stale"
	Message string
}

func warn(code, format string, args ...any) Warning {
	return Warning{code, fmt.Sprintf(format, args...)}
}

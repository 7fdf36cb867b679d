package wire

import "errors"

// A Verdict is what becomes of something that came from the network.
type Verdict int

// The zero Verdict is Accept.
const (
	Accept Verdict = iota
	Ignore         // dropped, no penalty: an honest relay may send it
	Reject         // dropped, and the sender is penalised
	Close          // Reject, and the connection or stream ends
	Ban            // Close, and the peer is left alone for 60 s
	Refuse         // a request, answered by a refusal
	Halt           // the channel stops, and the proof is kept
)

var verdictNames = [...]string{"accept", "ignore", "reject", "close", "ban", "refuse", "halt"}

// String returns the verdict's name in lower case.
func (v Verdict) String() string {
	if v < 0 || int(v) >= len(verdictNames) {
		return "unknown"
	}
	return verdictNames[v]
}

// A Reason is a refusal that is its own verdict. Packages declare theirs as
// variables and wrap them with what they were doing:
//
//	var BadLink = wire.NewReason("block.bad_link", wire.Reject)
//	return fmt.Errorf("block %d: %w", n, BadLink)
//
// The code labels counters and logs; it never goes to the peer.
type Reason struct {
	code    string
	verdict Verdict
}

// NewReason makes a reason. The code is PACKAGE.WORD and never reused.
func NewReason(code string, v Verdict) *Reason { return &Reason{code, v} }

// Error returns the code.
func (r *Reason) Error() string { return r.code }

// Code returns the code, such as "block.bad_link".
func (r *Reason) Code() string { return r.code }

// Verdict returns what becomes of the thing refused.
func (r *Reason) Verdict() Verdict { return r.verdict }

// ReasonOf returns the outermost reason in err's chain, or nil.
func ReasonOf(err error) *Reason {
	var r *Reason
	if errors.As(err, &r) {
		return r
	}
	return nil
}

// VerdictOf maps an error to its verdict. An error without a reason is our own
// trouble, never the peer's: Ignore.
func VerdictOf(err error) Verdict {
	if err == nil {
		return Accept
	}
	if r := ReasonOf(err); r != nil {
		return r.verdict
	}
	return Ignore
}

// Package fault makes errors that a person can act on: what went wrong, why,
// what to do about it, under a code that is never reused.
//
// A coded error is an Entry of the registry (codes.go) with the words of one
// occasion. Anything else becomes one by Of: by its reason code (reasons.go), or
// by what the operating system said.
package fault

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// Exit codes of the program.
const (
	ExitOK          = 0
	ExitFailed      = 1  // anything not below; also "not found"
	ExitUsage       = 2  // wrong usage
	ExitConfig      = 3  // configuration or data folder invalid
	ExitIdentity    = 4  // identity or permission refused
	ExitUnreachable = 5  // no answer, refused, no such network
	ExitCheck       = 6  // a check failed, or the node is unhealthy
	ExitTimeout     = 7  // timed out waiting
	ExitDisk        = 74 // a node stopped because its disk failed it
	ExitInterrupted = 130
)

// An Error is a coded error: one occasion of a registered code.
type Error struct {
	Code    string   // "CFG012"
	Message string   // what happened, one line
	Why     []string // how it came about, a line each; may be empty
	Fix     []string // what to do, a line each; may be empty
	Exit    int      // the program's exit code
	Reason  string   // the reason code it came from, for logs; "" if none
	cause   error
}

// New returns an error of a registered code, with the registry's Why, Fix and
// exit code; message "" takes the registry's title. An unknown code is a mistake of
// the caller's and becomes Internal.
func New(code, message string) *Error {
	e, ok := registry[code]
	if !ok {
		return &Error{Code: Internal, Message: clean(message), Exit: ExitFailed}
	}
	if message == "" {
		message = e.Title
	}
	out := &Error{Code: code, Message: clean(message), Fix: append([]string(nil), e.Fix...), Exit: e.Exit, Reason: e.reason()}
	if e.Why != "" {
		out.Why = []string{e.Why}
	}
	return out
}

// Newf is New with a format.
func Newf(code, format string, args ...any) *Error {
	return New(code, fmt.Sprintf(format, args...))
}

// Because sets the lines of Why and returns e.
func (e *Error) Because(why ...string) *Error {
	e.Why = cleanAll(why)
	return e
}

// Do replaces the lines of Fix and returns e.
func (e *Error) Do(fix ...string) *Error {
	e.Fix = cleanAll(fix)
	return e
}

// From notes the error that this one tells of, and returns e.
func (e *Error) From(err error) *Error {
	e.cause = err
	return e
}

// WithExit replaces the exit code, for a code that means different things to a
// node and to a check, and returns e.
func (e *Error) WithExit(exit int) *Error {
	e.Exit = exit
	return e
}

// Error returns code and message on one line.
func (e *Error) Error() string { return e.Code + ": " + e.Message }

// Unwrap returns the error that this one tells of, if any.
func (e *Error) Unwrap() error { return e.cause }

// Text returns the form for people, ending in a newline:
//
//	error CFG012: peer.gossip.useLeaderElection and peer.gossip.orgLeader are both true
//	  why:  useLeaderElection = true  from env CORE_PEER_GOSSIP_USELEADERELECTION
//	        orgLeader         = true  from env CORE_PEER_GOSSIP_ORGLEADER
//	  fix:  dynamic election: ORGLEADER=false
func (e *Error) Text() string { return e.Form("error") }

// Form is Text with another first word, such as "warning".
func (e *Error) Form(severity string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s: %s\n", severity, e.Code, e.Message)
	section(&b, "why:", e.Why)
	section(&b, "fix:", e.Fix)
	return b.String()
}

// JSON returns the form for programs: one object on one line, without newline.
func (e *Error) JSON() []byte {
	v := struct {
		APIVersion string   `json:"apiVersion"`
		Kind       string   `json:"kind"`
		Code       string   `json:"code"`
		Message    string   `json:"message"`
		Why        []string `json:"why"`
		Fix        []string `json:"fix"`
		ExitCode   int      `json:"exitCode"`
	}{"grapevine/v1", "Error", e.Code, e.Message, e.Why, e.Fix, e.Exit}
	if v.Why == nil {
		v.Why = []string{}
	}
	if v.Fix == nil {
		v.Fix = []string{}
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v) // strings and integers always encode, into memory
	return bytes.TrimRight(b.Bytes(), "\n")
}

// section writes a heading and its lines, the second and later ones below the first.
func section(b *strings.Builder, head string, lines []string) {
	for i, l := range lines {
		if i > 0 {
			head = "    "
		}
		fmt.Fprintf(b, "  %s  %s\n", head, l)
	}
}

package fault

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"

	"grapevine/msp"
	"grapevine/wire"
)

// Of returns the coded error that err is or becomes; nil for nil. A coded error
// inside err is returned as it is; then its reason code decides; then what the
// operating system said. What nothing explains is Internal, exit 1.
func Of(err error) *Error {
	if err == nil {
		return nil
	}
	var coded *Error
	if errors.As(err, &coded) {
		return coded
	}
	if r := wire.ReasonOf(err); r != nil {
		if e, ok := ByReason(r.Code()); ok {
			out := New(e.Code, occasion(err, r.Code())).From(err)
			out.Reason = r.Code()
			var f *msp.FolderError
			if errors.As(err, &f) { // it knows better what to do
				out.Message = e.Title
				out.Because(f.Folder + ": " + f.Problem)
				if f.Fix != "" {
					out.Do(f.Fix)
				}
			}
			return out
		}
	}
	return New(system(err), err.Error()).From(err)
}

// ByReason returns the entry that a reason code becomes: its own, or its
// package's. False: no package here refuses with it.
func ByReason(reason string) (Entry, bool) {
	if e, ok := byReason[reason]; ok {
		return e, true
	}
	if i := strings.IndexByte(reason, '.'); i > 0 {
		e, ok := byReason[reason[:i+1]]
		return e, ok
	}
	return Entry{}, false
}

// occasion is the message of an error that carries a reason: its own words
// without the reason's code, or the title where it has no others.
func occasion(err error, reason string) string {
	text := strings.TrimSuffix(strings.TrimSuffix(err.Error(), reason), ": ")
	if text != "" {
		return text
	}
	e, _ := ByReason(reason)
	return e.Title + " (" + reason + ")"
}

// system returns the code for an error of the standard library.
func system(err error) string {
	var (
		op   *net.OpError
		path *fs.PathError
	)
	switch {
	case errors.Is(err, context.Canceled):
		return Interrupted
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return TimedOut
	case errors.Is(err, syscall.EPIPE):
		return StdoutGone
	case errors.Is(err, syscall.EADDRINUSE), errors.Is(err, syscall.EADDRNOTAVAIL):
		return BadPort
	case errors.As(err, &op):
		if op.Op == "listen" {
			return BadPort
		}
		return Unreachable
	case errors.As(err, &path):
		return BadFile
	}
	return Internal
}

package conf

import (
	"fmt"
	"path/filepath"

	"grapevine/cmd/grapevine/fault"
)

// Severities of a Finding.
const (
	SeverityError   = "error"
	SeverityWarning = "warning"
)

// A Source says where a value comes from.
type Source struct {
	Kind string // "flag", "env", "file" or "default"
	Name string // the flag, the variable, the file's path; "" for a default
	Line int    // in the file; else 0
}

// String returns "env CORE_PEER_ID", "core.yaml:12", "flag --config" or "default".
func (s Source) String() string {
	switch s.Kind {
	case "env", "flag":
		return s.Kind + " " + s.Name
	case "file":
		if s.Line == 0 {
			return filepath.Base(s.Name)
		}
		return fmt.Sprintf("%s:%d", filepath.Base(s.Name), s.Line)
	}
	return "default"
}

// A Finding is what the judge of a configuration says about one of its values.
type Finding struct {
	Code       string
	Reason     string // the reason code of PROMISES, such as "config.duration"
	Severity   string
	Message    string
	Why        []string
	Fix        []string
	Key        string
	Value      string
	Suggestion string
	Source     Source
}

// Err returns the finding as a coded error.
func (f *Finding) Err() *fault.Error {
	e := fault.New(f.Code, f.Message).Because(f.Why...)
	if len(f.Fix) > 0 {
		e.Do(f.Fix...)
	}
	if f.Reason != "" {
		e.Reason = f.Reason
	}
	e.Exit = fault.ExitConfig
	return e
}

// Text returns the finding in the form of a coded error.
func (f *Finding) Text() string { return f.Err().Form(f.Severity) }

// found makes a finding with the registry's words where none are given.
func found(code, severity, key, value string, src Source, message string) *Finding {
	f := &Finding{Code: code, Severity: severity, Key: key, Value: fault.Clean(value), Source: src, Message: message}
	if e, ok := fault.Lookup(code); ok {
		if message == "" {
			f.Message = e.Title
		}
		if e.Why != "" {
			f.Why = []string{e.Why}
		}
		f.Fix = e.Fix
		if len(e.Reasons) > 0 {
			f.Reason = e.Reasons[0]
		}
	}
	return f
}

// wrong is the refusal of a value by its type or range. In the environment it
// has a reason of its own.
func wrong(key *Key, value string, src Source, what string) *Finding {
	if key.Secret {
		value = "[secret]"
	}
	f := found(fault.WrongType, SeverityError, key.Path, value, src, fmt.Sprintf("%s: %s", key.Path, what))
	f.Why = []string{fmt.Sprintf("%s = %s  from %s", key.Path, quote(value), src)}
	f.Fix = []string{"give a " + key.Kind.String()}
	if len(key.Enum) > 0 {
		f.Fix = []string{fmt.Sprintf("one of %v", key.Enum)}
	}
	if src.Kind == "env" {
		f.Reason = "config.environment"
	}
	return f
}

// quote shows a value so that an empty one can be seen, and a long one ends.
func quote(s string) string {
	if s == "" {
		return `""`
	}
	if len(s) > 200 {
		return s[:200] + "..."
	}
	return s
}

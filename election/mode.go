package election

import "fmt"

// A Mode says how a peer comes to lead its organisation on a channel.
type Mode int

// The zero Mode is Standby: who configures nothing never leads by accident.
const (
	Standby Mode = iota // never leads; relies on others
	Static              // always leads; several per organisation are allowed
	Dynamic             // leads when the organisation's peers agree on it
)

// Validate refuses a value that is no mode.
func (m Mode) Validate() error {
	if m < Standby || m > Dynamic {
		return fmt.Errorf("mode %d is none of standby, static, dynamic", int(m))
	}
	return nil
}

// String returns the mode's name in lower case.
func (m Mode) String() string {
	switch m {
	case Standby:
		return "standby"
	case Static:
		return "static"
	case Dynamic:
		return "dynamic"
	}
	return "unknown"
}

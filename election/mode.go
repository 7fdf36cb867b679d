package election

import (
	"errors"
	"fmt"

	"grapevine/wire"
)

// Errors of modes.
var (
	// ErrBothFlags: useLeaderElection and orgLeader are both true.
	ErrBothFlags = wire.NewReason("config.both_leader_flags", wire.Refuse)
	// ErrDynamic: dynamic election isn't part of this build.
	ErrDynamic = wire.NewReason("election.dynamic_not_built", wire.Refuse)
	// ErrRunning: Run was called while it runs.
	ErrRunning = errors.New("election already runs")
)

// A Mode says how a peer comes to lead its organisation on a channel.
type Mode int

// The zero Mode is Standby: who configures nothing never leads by accident.
const (
	Standby Mode = iota // never leads; relies on others
	Static              // always leads; several per organisation are allowed
	Dynamic             // leads when the organisation's peers agree on it
)

// ModeOf maps Fabric's two flags: peer.gossip.useLeaderElection and
// peer.gossip.orgLeader. Both true is [ErrBothFlags]; a Fabric peer with these
// panics at its first channel.
func ModeOf(useLeaderElection, orgLeader bool) (Mode, error) {
	switch {
	case useLeaderElection && orgLeader:
		return Standby, fmt.Errorf("useLeaderElection and orgLeader: %w", ErrBothFlags)
	case useLeaderElection:
		return Dynamic, nil
	case orgLeader:
		return Static, nil
	}
	return Standby, nil
}

// Validate refuses what can't be run: [ErrDynamic], or a value that is no mode.
func (m Mode) Validate() error {
	switch m {
	case Standby, Static:
		return nil
	case Dynamic:
		return fmt.Errorf("mode %s: %w", m, ErrDynamic)
	}
	return fmt.Errorf("mode %d is none of standby, static, dynamic", int(m))
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

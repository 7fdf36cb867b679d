package election

import "time"

const (
	clock     = 100 * time.Millisecond // between ticks
	calmClock = 250 * time.Millisecond // in peace, at the least
)

// due is when the next tick is, after the one at struck, if nothing is heard
// before: a leader's is at its next beat; who follows a leader in peace waits
// until its next beat is late, or a hint or what the leader lacks counts; and who
// never leads and knows no leader waits for the next question. Ask again after each
// step.
func (m *machine) due(struck time.Time) time.Time {
	busy, calm := struck.Add(clock), struck.Add(calmClock)
	var at time.Time
	switch {
	case m.role == leader:
		return sooner(calm, later(m.beatDue(struck), busy))
	case m.role != following || m.relief || struck.Before(m.retellTo):
		return busy
	case m.leads() != nil:
		if m.urgent(struck) {
			return busy
		}
		at = m.direct.Add(m.late())
		if m.hints() {
			at = sooner(at, m.watch.hintAt.Add(hintTime))
		}
		if !m.lacks.IsZero() {
			at = sooner(at, m.lacks.Add(unfitAfter/2))
		}
	case m.candidate || m.top != nil:
		if struck.Sub(m.vacant) > 2*m.alive {
			return calm // nobody can lead, for now
		}
		return busy
	default:
		at = m.askAt
	}
	longest := min(m.missed(), watchEvery) - calmClock // more would be a standstill, or miss a turn to ask
	return later(sooner(at, struck.Add(longest)), calm)
}

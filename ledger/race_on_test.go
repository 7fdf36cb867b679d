//go:build race

package ledger

// raced: the race detector is on. It costs ten to thirty times the time, so tests
// that go by the thousand go by the hundred.
const raced = true

package itest

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestFullView starts ten real nodes that know one of them. How long larger
// networks take, and what they cost when idle, make bench measures.
func TestFullView(t *testing.T) {
	m, _, err := MeetAndIdle(t.Context(), 10, true, func(string) error { return nil })
	require.NoError(t, err)
	t.Logf("%+v", m)
}

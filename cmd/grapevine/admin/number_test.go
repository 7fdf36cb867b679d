package admin

import (
	"testing"

	"github.com/stretchr/testify/require"

	"grapevine/cmd/grapevine/fault"
)

func TestRanges(t *testing.T) {
	for in, want := range map[string][2]uint64{"3": {3, 3}, "0..9": {0, 9}, "oldest..newest": {0, 30}, "newest": {30, 30}, "": {0, 30}, "7..7": {7, 7}} {
		from, to, err := ParseRange(in, 31)
		require.NoError(t, err, in)
		require.Equal(t, want, [2]uint64{from, to}, in)
	}
	for _, in := range []string{"..", "3..", "9..3", "a..b", "1..2..3", "-1..2"} {
		_, _, err := ParseRange(in, 31)
		require.Equal(t, "API003", fault.Of(err).Code, in)
	}
	_, err := ParseNumber("newest", 0)
	require.Equal(t, "API007", fault.Of(err).Code)
}

package conf

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"grapevine/cmd/grapevine/fault"
)

// TestWhatIsNotBuiltIsSaid holds that no value which somebody set is passed over
// in silence.
func TestWhatIsNotBuiltIsSaid(t *testing.T) {
	load := func(yaml string) *Settings {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, "core.yaml"), []byte(yaml), 0o600))
		return Load(Input{Role: RolePeer, Dir: dir, System: dir + "/none"})
	}
	of := func(s *Settings) (out []*Finding) {
		for _, f := range s.Findings() {
			if f.Code == fault.NotBuilt {
				out = append(out, f)
			}
		}
		return out
	}
	t.Run("one warning names all", func(t *testing.T) {
		fs := of(load("peer: {gossip: {pullPeerNum: 7, propagatePeerNum: 5, orgLeader: true}}"))
		require.Len(t, fs, 1)
		require.Equal(t, SeverityWarning, fs[0].Severity)
		require.Equal(t, "peer.gossip.propagatePeerNum peer.gossip.pullPeerNum", strings.Join(fs[0].Why, ""))
	})
	t.Run("what is effective, or the default anyway, isn't named", func(t *testing.T) {
		require.Empty(t, of(load("peer: {id: a, gossip: {orgLeader: true, useLeaderElection: false, pullPeerNum: 3}}")))
	})
	for _, y := range []string{"peer: {BCCSP: {Default: PKCS11}}", "metrics: {provider: statsd}"} {
		t.Run(y, func(t *testing.T) {
			s := load(y)
			fs := of(s)
			require.NotEmpty(t, fs)
			require.Equal(t, SeverityError, fs[0].Severity)
			require.Equal(t, fault.ExitConfig, fault.Of(s.Err()).Exit)
		})
	}
}

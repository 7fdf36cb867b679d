package itest

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"grapevine/block"
	"grapevine/channel"
	"grapevine/ledger"
	"grapevine/node"
)

// verified proves the recorded chain, block by block.
func (r *recording) verified(t *testing.T) (all []block.Verified) {
	t.Helper()
	report, err := channel.VerifyChain(r.files[0], func(yield func([]byte, error) bool) {
		for _, raw := range r.files {
			if !yield(raw, nil) {
				return
			}
		}
	}, func(v block.Verified, _ *channel.Config) error {
		all = append(all, v)
		return nil
	})
	require.NoError(t, err)
	require.True(t, report.OK(), report.Failures)
	return all
}

// The recorded chains are judged as by the real peers, however their blocks came,
// and again when the state was lost.
func TestRecordedChainsAreJudged(t *testing.T) {
	for _, network := range []string{"raft", "bft"} {
		t.Run(network, func(t *testing.T) {
			r := record(t, network)
			all := r.verified(t)
			var hashes [][32]byte
			for _, step := range []int{1, 4, 31} {
				for _, late := range []bool{false, true} {
					t.Run(fmt.Sprintf("%d at once, late %v", step, late), func(t *testing.T) {
						db, err := ledger.Open("ledger", ledger.Options{InMemory: true})
						require.NoError(t, err)
						defer func() { require.NoError(t, db.Close()) }()
						l, err := db.Create(r.conf.Channel(), all[0])
						require.NoError(t, err)
						if !late {
							require.NoError(t, node.Judge(t.Context(), l, nil))
						}
						for bs := range slices.Chunk(all[1:], step) {
							require.NoError(t, l.Append(bs...))
						}
						if late {
							require.NoError(t, node.Judge(t.Context(), l, nil))
						}
						got := r.judged(t, l)
						if hashes == nil {
							hashes = got
						}
						require.Equal(t, hashes, got)
						require.NoError(t, l.ForgetState())
						_, err = l.Verdict(3)
						require.ErrorIs(t, err, ledger.ErrUnjudged)
						require.NoError(t, l.CatchUp(t.Context(), nil))
						require.Equal(t, hashes, r.judged(t, l))
					})
				}
			}
		})
	}
}

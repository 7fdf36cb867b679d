package channel_test

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"grapevine/block"
	"grapevine/channel"
)

func recordedChain(t testing.TB, dir, copies string) [][]byte {
	var raws [][]byte
	for n := range 31 {
		raws = append(raws, readFile(t, dir, copies, fmt.Sprintf("%04d.block", n)))
	}
	return raws
}

func stream(raws [][]byte) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for _, raw := range raws {
			if !yield(raw, nil) {
				return
			}
		}
	}
}

func verifyAll(t testing.TB, raws [][]byte, genesis []byte) channel.Report {
	r, err := channel.VerifyChain(genesis, stream(raws), nil)
	require.NoError(t, err)
	return r
}

// TestRecordedChainWhole verifies both chains, as orderers sent them and as
// peers keep them, against the hashes that real peers reported.
func TestRecordedChainWhole(t *testing.T) {
	for _, network := range []string{"raft", "bft"} {
		for _, copies := range []string{"blocks", "peerblocks"} {
			t.Run(network+" "+copies, func(t *testing.T) {
				dir := recordedNetwork(t, network)
				var summary []struct {
					HeaderHash string `json:"header_hash"`
					LastConfig uint64 `json:"last_config"`
				}
				require.NoError(t, json.Unmarshal(readFile(t, dir, "summary.json"), &summary))
				n := 0
				each := func(v block.Verified, c *channel.Config) error {
					hash := v.Hash()
					require.Equal(t, summary[n].HeaderHash, hex.EncodeToString(hash[:]))
					require.Equal(t, summary[n].LastConfig, c.Number())
					n++
					return nil
				}
				r, err := channel.VerifyChain(readFile(t, dir, "genesis.block"), stream(recordedChain(t, dir, copies)), each)
				require.NoError(t, err)
				require.True(t, r.OK(), "%v", r.Failures)
				require.Equal(t, 31, n)
				require.EqualValues(t, 31, r.Checked)
				require.EqualValues(t, 30, r.To)
				require.Equal(t, "mychannel", r.Channel)
				require.NotEmpty(t, r.Policy)
			})
		}
	}
}

// TestRecordedChainByOrderer puts each orderer's own copies into the chain.
func TestRecordedChainByOrderer(t *testing.T) {
	for network, orderers := range map[string]int{"raft": 3, "bft": 4} {
		dir := recordedNetwork(t, network)
		for i := range orderers {
			raws := recordedChain(t, dir, "blocks")
			for _, n := range []int{1, 9, 30} {
				raws[n] = readFile(t, dir, "by-orderer", fmt.Sprintf("orderer%d", i+1), fmt.Sprintf("%04d.block", n))
			}
			r := verifyAll(t, raws, raws[0])
			require.True(t, r.OK(), "%s orderer%d: %v", network, i+1, r.Failures)
		}
	}
}

// TestBrokenChains breaks the recorded chains at every block.
func TestBrokenChains(t *testing.T) {
	for _, network := range []string{"raft", "bft"} {
		t.Run(network, func(t *testing.T) {
			dir := recordedNetwork(t, network)
			good := recordedChain(t, dir, "blocks")
			first := func(raws [][]byte) channel.Failure {
				r := verifyAll(t, raws, good[0])
				require.False(t, r.OK())
				require.NotEmpty(t, r.Failures[0].Message)
				return r.Failures[0]
			}
			for n := 1; n < len(good)-1; n++ {
				missing := slices.Delete(slices.Clone(good), n, n+1)
				f := first(missing)
				require.EqualValues(t, n, f.Number)
				doubled := slices.Insert(slices.Clone(good), n, good[n])
				f = first(doubled)
				require.Equal(t, "block.stale", f.Code)
				require.Equal(t, channel.CheckPreviousHash, f.Check)
				swapped := slices.Clone(good)
				swapped[n], swapped[n+1] = swapped[n+1], swapped[n]
				require.EqualValues(t, n, first(swapped).Number)
			}
			require.EqualValues(t, 0, first(good[1:]).Number)
			require.EqualValues(t, 0, first(slices.Insert(slices.Clone(good), 0, good[1])).Number)

			other := readFile(t, recordedNetwork(t, map[string]string{"raft": "bft", "bft": "raft"}[network]), "genesis.block")
			r := verifyAll(t, good, other)
			require.Equal(t, "block.bad_link", r.Failures[0].Code)
		})
	}
}

// TestChainFailuresAreOneEach: one broken block in the middle is one failure,
// named by its check.
func TestChainFailuresAreOneEach(t *testing.T) {
	dir := recordedNetwork(t, "raft")
	good := recordedChain(t, dir, "blocks")
	spoil := func(n int, f func(raw []byte) []byte) channel.Report {
		raws := slices.Clone(good)
		raws[n] = f(slices.Clone(raws[n]))
		return verifyAll(t, raws, good[0])
	}
	last := func(raw []byte) []byte { // within the signature, before the empty slots
		raw[len(raw)-20] ^= 1
		return raw
	}
	r := spoil(8, last)
	require.Len(t, r.Failures, 1, "%v", r.Failures)
	require.Equal(t, channel.CheckSignatures, r.Failures[0].Check)
	require.EqualValues(t, 31, r.Checked)

	r = spoil(8, func(raw []byte) []byte { raw[len(raw)/3] ^= 1; return raw })
	require.Equal(t, "block.bad_data_hash", r.Failures[0].Code)
	require.Equal(t, channel.CheckDataHash, r.Failures[0].Check)
	require.Len(t, r.Failures, 1)

	// After a refused configuration nobody knows the rules.
	r = spoil(24, last)
	require.Len(t, r.Failures, 1)
	require.EqualValues(t, 25, r.Checked)
}

func TestChainTroubleIsNoFailure(t *testing.T) {
	dir := recordedNetwork(t, "raft")
	genesis := readFile(t, dir, "genesis.block")
	trouble := errors.New("disk on fire")
	_, err := channel.VerifyChain(genesis, func(yield func([]byte, error) bool) { yield(nil, trouble) }, nil)
	require.ErrorIs(t, err, trouble)
	_, err = channel.VerifyChain(genesis, stream([][]byte{genesis}), func(block.Verified, *channel.Config) error { return trouble })
	require.ErrorIs(t, err, trouble)

	r, err := channel.VerifyChain([]byte{1}, stream(nil), nil)
	require.NoError(t, err)
	require.False(t, r.OK())
}

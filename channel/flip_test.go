package channel_test

import (
	"bytes"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"grapevine/block"
	"grapevine/channel"
)

// TestSoakFlips flips each byte of each recorded block, two ways: none is
// accepted, whatever lies there. Some 1,500,000 verifications, eight minutes;
// package block flips samples in each run.
func TestSoakFlips(t *testing.T) {
	if os.Getenv("GRAPEVINE_SOAK") == "" {
		t.Skip("GRAPEVINE_SOAK isn't set")
	}
	for _, network := range []string{"raft", "bft"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			raws := recordedChain(t, recordedNetwork(t, network), "blocks")
			first, err := block.Genesis(raws[0])
			require.NoError(t, err)
			conf, err := channel.Parse(first.Block())
			require.NoError(t, err)
			refused := func(judge func(raw []byte) (channel.Report, error), raw []byte) {
				for at := range raw {
					for _, flip := range []byte{0x01, 0x80} {
						bent := bytes.Clone(raw)
						bent[at] ^= flip
						r, err := judge(bent)
						require.NoError(t, err)
						require.False(t, r.OK(), "byte %d ^ %x", at, flip)
						require.NotEmpty(t, r.Failures[0].Code)
					}
				}
			}
			refused(func(raw []byte) (channel.Report, error) {
				return channel.VerifyChain(raws[0], stream([][]byte{raw}), nil)
			}, raws[0])
			tip := block.Tip{Height: 1, Hash: first.Hash()}
			for _, raw := range raws[1:] {
				refused(func(raw []byte) (channel.Report, error) {
					return channel.VerifyFrom(conf, tip, stream([][]byte{raw}), nil)
				}, raw)
				r, err := channel.VerifyFrom(conf, tip, stream([][]byte{raw}), func(v block.Verified, c *channel.Config) error {
					tip, conf = block.Tip{Height: v.Number() + 1, Hash: v.Hash()}, c
					return nil
				})
				require.NoError(t, err)
				require.True(t, r.OK())
			}
		})
	}
}

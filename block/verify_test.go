package block

import (
	"fmt"
	"math"
	"reflect"
	"testing"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/stretchr/testify/require"

	"grapevine/wire"
)

func TestVerifyLink(t *testing.T) {
	w := newWorld(t, 1, false)
	c, err := CheckBlock(w.rules, w.signed(endorser(t, "a")))
	require.NoError(t, err)
	at := func(height uint64, hash [32]byte) error {
		_, err := Verify(w.rules, Tip{height, hash}, c)
		return err
	}
	t.Run("B4", func(t *testing.T) { refused(t, Stale, at(2, c.Hash())) })
	t.Run("B6", func(t *testing.T) { refused(t, TooFar, at(0, [32]byte{})) })
	t.Run("B8", func(t *testing.T) { refused(t, Stale, at(math.MaxUint64, [32]byte{9})) })
	t.Run("B10", func(t *testing.T) { refused(t, BadLink, at(1, [32]byte{9})) })
	t.Run("B7", func(t *testing.T) {
		b := w.next(endorser(t, "a"))
		b.Header.Number = math.MaxUint64
		require.NoError(t, Sign(b, w.signers[0], 0, nil))
		c, err := CheckBlock(w.rules, b)
		require.NoError(t, err)
		_, err = Verify(w.rules, w.tip, c)
		refused(t, TooFar, err)
	})
	t.Run("codes", func(t *testing.T) { // raised by those who know the claim, or the other block
		require.Equal(t, "block.fork", Fork.Code()) // B5
		require.Equal(t, wire.Halt, Fork.Verdict())
		require.Equal(t, "block.number_mismatch", NumberMismatch.Code()) // B9
	})

	v, err := Verify(w.rules, w.tip, c)
	require.NoError(t, err)
	require.False(t, v.IsZero())
	require.True(t, Verified{}.IsZero())
	require.Equal(t, c.Hash(), v.Hash())
	require.Equal(t, w.tip.Hash, v.PreviousHash())
	require.Equal(t, []string{"tx-a"}, v.TxIDs())
	require.False(t, v.IsConfig())
	require.Equal(t, c.Bytes(), v.Bytes())
}

func TestLastConfig(t *testing.T) {
	w := newWorld(t, 1, false)
	w.rules.LastConfig = 5
	w.tip.Height = 9
	check := func(number, lastConfig uint64) (*Checked, error) {
		b := w.next(endorser(t, "a"))
		b.Header.Number = number
		require.NoError(t, Sign(b, w.signers[0], lastConfig, nil))
		return CheckBlock(w.rules, b)
	}
	_, err := check(9, 5)
	require.NoError(t, err)
	t.Run("B33 behind", func(t *testing.T) { _, err := check(9, 4); refused(t, LastConfig, err) })
	t.Run("B33 itself", func(t *testing.T) { _, err := check(9, 9); refused(t, LastConfig, err) })
	t.Run("B33 to come", func(t *testing.T) { _, err := check(9, 7); refused(t, UnknownConfig, err) })
	t.Run("B33 ahead of all held", func(t *testing.T) {
		old := w.newRulesLike()
		old.LastConfig = 7
		b := w.next(endorser(t, "a"))
		require.NoError(t, Sign(b, w.signers[0], 7, nil))
		c, err := CheckBlock(old, b) // judged under a configuration that isn't in force
		require.NoError(t, err)
		_, err = Verify(w.rules, w.tip, c)
		refused(t, LastConfig, err)
	})
	t.Run("not after the configuration", func(t *testing.T) { _, err := check(5, 5); refused(t, Stale, err) })
}

func TestConfigBlocks(t *testing.T) {
	w := newWorld(t, 1, false)
	w.rules.Sequence = 3
	build := func(sequence, lastConfig, number uint64) *common.Block {
		b := w.next(configEntry(t, sequence))
		b.Header.Number = number
		require.NoError(t, Sign(b, w.signers[0], lastConfig, nil))
		return b
	}
	verify := func(b *common.Block) error {
		c, err := CheckBlock(w.rules, b)
		require.NoError(t, err)
		_, err = Verify(w.rules, w.tip, c)
		return err
	}
	require.NoError(t, verify(build(4, 1, 1)))
	t.Run("B33 config", func(t *testing.T) {
		_, err := CheckBlock(w.rules, build(4, 0, 1))
		refused(t, LastConfig, err)
	})
	t.Run("B34 signed", func(t *testing.T) {
		refused(t, SignedBadConfig, verify(build(3, 1, 1)))
		refused(t, SignedBadConfig, verify(build(5, 1, 1)))
	})
	t.Run("B34 unsigned", func(t *testing.T) {
		b := build(3, 1, 1)
		other := w.next(configEntry(t, 2))
		require.NoError(t, Sign(other, w.signers[0], 1, nil))
		b.Metadata = other.Metadata
		_, err := CheckBlock(w.rules, b)
		refused(t, BadConfig, err)
	})
	t.Run("two configurations ahead", func(t *testing.T) {
		b := build(5, 8, 8)
		require.NoError(t, Sign(b, w.peer, 8, nil)) // an orderer that the one between may bring
		_, err := CheckBlock(w.rules, b)
		refused(t, UnknownConfig, err)
		b.Data = nil
		refused(t, UnknownConfig, Attest(w.rules, b))
	})
	t.Run("the judge has the last word", func(t *testing.T) {
		w.rules.Judge = func(*common.Block) error { return fmt.Errorf("V9_9: %w", UnsupportedCapability) }
		refused(t, UnsupportedCapability, verify(build(4, 1, 1)))
	})
	t.Run("no configuration inside", func(t *testing.T) {
		b := w.next(transaction(t, common.HeaderType_CONFIG, channelName, "garbage"))
		require.NoError(t, Sign(b, w.signers[0], 1, nil))
		_, err := CheckBlock(w.rules, b)
		refused(t, BadConfig, err)
	})
}

func TestVerifyJudgesAgainUnderOtherRules(t *testing.T) {
	w := newWorld(t, 1, false)
	c, err := CheckBlock(w.rules, w.signed(endorser(t, "a")))
	require.NoError(t, err)

	same := w.newRulesLike()
	v, err := Verify(same, w.tip, c)
	require.NoError(t, err)
	require.Same(t, same, v.c.rules)
	require.Same(t, w.rules, c.Rules(), "the checked block is not changed")

	strict := w.newRulesLike()
	strict.BlockValidation = newWorld(t, 1, false).rules.BlockValidation
	strict.MSPs = newWorld(t, 1, false).rules.MSPs // another CA
	_, err = Verify(strict, w.tip, c)
	refused(t, BadSigner, err)
}

func TestAttest(t *testing.T) {
	for _, bft := range []bool{false, true} {
		w := newWorld(t, 4, bft)
		b := w.signed(endorser(t, "a"))
		data := b.Data
		b.Data = nil
		require.NoError(t, Attest(w.rules, b))
		require.Len(t, w.rules.attested, 1)

		// The body that comes later costs no second verification.
		b.Data = data
		_, err := CheckBlock(w.rules, b)
		require.NoError(t, err)
		require.Len(t, w.rules.attested, 1)

		b.Data = nil
		b.Header.DataHash = append([]byte{}, b.Header.DataHash...)
		b.Header.DataHash[0] ^= 1
		want := BadSignature
		if bft {
			want = NoQuorum
		}
		refused(t, want, Attest(w.rules, b))
		b.Header = nil
		refused(t, NoHeader, Attest(w.rules, b))
	}
}

func TestGenesis(t *testing.T) {
	sum := DataHash(&common.BlockData{Data: [][]byte{configEntry(t, 0)}})
	build := func() *common.Block {
		value := marshal(t, &common.OrdererBlockMetadata{LastConfig: &common.LastConfig{}})
		return &common.Block{
			Header:   &common.BlockHeader{DataHash: sum[:]},
			Data:     &common.BlockData{Data: [][]byte{configEntry(t, 0)}},
			Metadata: &common.BlockMetadata{Metadata: [][]byte{marshal(t, &common.Metadata{Value: value}), nil, nil, nil, nil}},
		}
	}
	v, err := Genesis(marshal(t, build()))
	require.NoError(t, err)
	require.True(t, v.IsConfig())
	require.Zero(t, v.PreviousHash())

	b := build()
	b.Header.Number, b.Header.PreviousHash = 1, make([]byte, 32)
	_, err = Genesis(marshal(t, b))
	refused(t, NumberMismatch, err)
	b = build()
	b.Header.PreviousHash = make([]byte, 32)
	_, err = Genesis(marshal(t, b))
	refused(t, BadLink, err)

	w := newWorld(t, 1, false)
	_, err = CheckBlock(w.rules, build())
	refused(t, Stale, err)
}

// TestVerifiedHasOneMaker: no exported field, and nothing to embed.
func TestVerifiedHasOneMaker(t *testing.T) {
	typ := reflect.TypeOf(Verified{})
	for i := range typ.NumField() {
		require.False(t, typ.Field(i).IsExported())
	}
}

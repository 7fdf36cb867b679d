package block

import (
	"fmt"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
)

// Verified is a block proven to be its chain's next: the only thing a ledger
// takes. Only [Verify] and [Genesis] make one; the zero value is none.
// It is immutable and safe for concurrent use.
type Verified struct{ c *Checked }

// Verify proves that a checked block follows the tip under the rules of the
// configuration in force there. A block checked under other rules is judged
// again; one checked under r costs nothing more. A number that isn't the next
// is [Stale] or [TooFar]: the caller, who holds the blocks, compares hashes.
func Verify(r *Rules, tip Tip, c *Checked) (Verified, error) {
	if err := verify(r, tip, c); err != nil {
		return Verified{}, fmt.Errorf("block %d at height %d: %w", c.Number(), tip.Height, err)
	}
	if c.rules == r {
		return Verified{c}, nil
	}
	own := *c
	own.rules = r
	return Verified{&own}, nil
}

// Genesis takes block 0 as an operator hands it over. Nothing in it can be
// verified but form and data hash; whoever gave it is trusted, and its hash
// may be pinned.
func Genesis(raw []byte) (Verified, error) {
	c, err := form(raw)
	if err != nil {
		return Verified{}, fmt.Errorf("genesis: %w", err)
	}
	if c.Number() != 0 {
		return Verified{}, fmt.Errorf("genesis: block %d given: %w", c.Number(), NumberMismatch)
	}
	if !c.IsConfig() {
		return Verified{}, fmt.Errorf("genesis: no configuration: %w", BadConfig)
	}
	return Verified{c}, nil
}

// IsZero reports whether v is no block at all.
func (v Verified) IsZero() bool { return v.c == nil }

// Number returns the block's number.
func (v Verified) Number() uint64 { return v.c.Number() }

// Hash returns the hash of the block's header.
func (v Verified) Hash() [32]byte { return v.c.hash }

// PreviousHash returns the hash of the header before it; zero for block 0.
func (v Verified) PreviousHash() [32]byte {
	var h [32]byte
	copy(h[:], v.c.block.Header.PreviousHash)
	return h
}

// Block returns the decoded block, to be read only.
func (v Verified) Block() *common.Block { return v.c.block }

// Bytes returns the bytes that came, to be read only.
func (v Verified) Bytes() []byte { return v.c.raw }

// IsConfig reports whether the block holds a configuration.
func (v Verified) IsConfig() bool { return v.c.IsConfig() }

// TxIDs returns the transaction id of each entry, in order, "" where the entry
// tells none; to be read only. Ids are what their writers claim: one may come
// more than once.
func (v Verified) TxIDs() []string { return v.c.txIDs }

func verify(r *Rules, tip Tip, c *Checked) error {
	switch {
	case c.Number() < tip.Height:
		return Stale
	case c.Number() > tip.Height:
		return TooFar
	case [32]byte(c.block.Header.PreviousHash) != tip.Hash:
		return BadLink
	}
	if c.rules != r {
		if err := c.judge(r, true); err != nil {
			return err
		}
	}
	if !c.IsConfig() {
		return nil
	}
	if c.config.Config.Sequence != r.Sequence+1 {
		return fmt.Errorf("configuration %d after %d: %w", c.config.Config.Sequence, r.Sequence, SignedBadConfig)
	}
	if r.Judge == nil {
		return nil
	}
	return r.Judge(c.block)
}

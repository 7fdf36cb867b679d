package block

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
)

// Checked is a block that is true in itself under some rules: its form, cut,
// data hash, channel, sizes, last configuration and orderer signatures hold,
// and only its link to the chain is unproven. It is immutable and safe for
// concurrent use.
type Checked struct {
	raw    []byte
	block  *common.Block
	hash   [32]byte
	meta   metadata
	txIDs  []string
	config *common.ConfigEnvelope // nil unless a config block

	channel string
	total   int // bytes of payload and signature, of all entries

	rules *Rules // under which it holds
}

// Check decodes a block and judges it under the rules. Raw is kept as it is
// and must not change afterwards. Errors carry the reason; those that may
// vanish once a configuration block that lies between has come carry
// [UnknownConfig].
func Check(r *Rules, raw []byte) (*Checked, error) {
	c, err := form(raw)
	if err != nil {
		return nil, err
	}
	if err := c.judge(r, false); err != nil {
		return nil, fmt.Errorf("block %d: %w", c.Number(), err)
	}
	c.rules = r
	return c, nil
}

// CheckBlock is [Check] for a block that came decoded. B isn't kept.
func CheckBlock(r *Rules, b *common.Block) (*Checked, error) {
	raw, err := Marshal(b)
	if err != nil {
		return nil, err
	}
	return Check(r, raw)
}

// Number returns the block's number.
func (c *Checked) Number() uint64 { return c.block.Header.Number }

// Hash returns the hash of its header.
func (c *Checked) Hash() [32]byte { return c.hash }

// Block returns the decoded block, to be read only.
func (c *Checked) Block() *common.Block { return c.block }

// Bytes returns the bytes that came, to be read only.
func (c *Checked) Bytes() []byte { return c.raw }

// Rules returns the rules under which the block holds.
func (c *Checked) Rules() *Rules { return c.rules }

// IsConfig reports whether the block holds a configuration.
func (c *Checked) IsConfig() bool { return c.config != nil }

// form checks all that needs no rules.
func form(raw []byte) (*Checked, error) {
	b, err := Decode(raw)
	if err != nil {
		return nil, err
	}
	if b.Header == nil {
		return nil, fmt.Errorf("block: %w", NoHeader)
	}
	c := &Checked{raw: raw, block: b}
	if err := c.form(); err != nil {
		return nil, fmt.Errorf("block %d: %w", c.Number(), err)
	}
	return c, nil
}

func (c *Checked) form() error {
	b := c.block
	if b.Data == nil {
		return NoData
	}
	if b.Metadata == nil {
		return NoMetadata
	}
	if len(b.Data.Data) == 0 {
		return Empty
	}
	if err := checkPrevious(b.Header); err != nil {
		return err
	}
	if sum := DataHash(b.Data); !bytes.Equal(b.Header.DataHash, sum[:]) {
		return BadDataHash
	}
	if err := c.readEntries(); err != nil {
		return err
	}
	var err error
	if c.meta, err = readMetadata(b.Metadata, len(b.Data.Data)); err != nil {
		return err
	}
	c.hash = HeaderHash(b.Header)
	return nil
}

// readEntries checks that the entries are cut in the only way, each naming
// the same channel, and a configuration being alone.
func (c *Checked) readEntries() error {
	data := c.block.Data.Data
	c.txIDs = make([]string, len(data))
	for i, raw := range data {
		e, err := readEntry(raw)
		if err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		if i > 0 && e.channel != c.channel {
			return fmt.Errorf("entry %d names %q: %w", i, e.channel, WrongChannel)
		}
		switch {
		case e.config() && len(data) > 1:
			return fmt.Errorf("entry %d: %w", i, ConfigNotAlone)
		case e.config():
			// Fabric excuses a lone configuration from the form; there is
			// no other cut of it.
			if c.config, err = e.configEnvelope(); err != nil {
				return err
			}
		case !e.canonical:
			return fmt.Errorf("entry %d: %w", i, NotCanonical)
		}
		c.channel = e.channel
		c.txIDs[i] = e.txID
		c.total += e.size
	}
	return nil
}

// judge checks a well-formed block under the rules: cheap refusals first, the
// signatures last. Unless the block is known to be next, another configuration
// may lie between the rules and it.
func (c *Checked) judge(r *Rules, next bool) error {
	if c.channel != r.Channel {
		return fmt.Errorf("names channel %q: %w", c.channel, WrongChannel)
	}
	if err := checkLastConfig(r, c.Number(), c.meta.lastConfig, c.IsConfig()); err != nil {
		if next && errors.Is(err, UnknownConfig) {
			return fmt.Errorf("%w: %s", LastConfig, err.Error())
		}
		return err
	}
	err := c.judgeContent(r)
	if err == nil || !c.IsConfig() {
		return err
	}
	switch sequence := c.config.Config.Sequence; {
	case sequence <= r.Sequence:
		return fmt.Errorf("configuration %d after %d: %w: %s", sequence, r.Sequence, BadConfig, err.Error())
	case sequence > r.Sequence+1 && !next && c.Number() > r.LastConfig+1:
		return fmt.Errorf("configuration %d after %d: %w", sequence, r.Sequence, UnknownConfig)
	}
	return err
}

func (c *Checked) judgeContent(r *Rules) error {
	if n := len(c.txIDs); r.MaxMessages > 0 && uint64(n) > uint64(r.MaxMessages) {
		return fmt.Errorf("%d transactions, %d allowed: %w", n, r.MaxMessages, TooManyTransactions)
	}
	if limit := uint64(r.AbsoluteMaxBytes); limit > 0 && uint64(c.total) > limit {
		return fmt.Errorf("%d bytes, %d allowed: %w", c.total, limit, TooLarge)
	}
	return attest(r, c.block.Header, c.hash, &c.meta)
}

// checkPrevious checks the form of the link: 32 bytes, but none in block 0.
func checkPrevious(h *common.BlockHeader) error {
	n := len(h.PreviousHash)
	if h.Number == 0 && n == 0 || h.Number > 0 && n == 32 {
		return nil
	}
	return fmt.Errorf("previous hash of %d bytes: %w", n, BadLink)
}

// checkLastConfig checks the signed number of the last configuration block:
// its own in a config block, else that of the rules.
func checkLastConfig(r *Rules, number, lastConfig uint64, config bool) error {
	switch {
	case number <= r.LastConfig:
		return fmt.Errorf("not after configuration block %d: %w", r.LastConfig, Stale)
	case config && lastConfig == number, !config && lastConfig == r.LastConfig:
		return nil
	case !config && lastConfig > r.LastConfig && lastConfig < number:
		return fmt.Errorf("last config %d, %d known: %w", lastConfig, r.LastConfig, UnknownConfig)
	}
	return fmt.Errorf("last config %d, want %d: %w", lastConfig, r.LastConfig, LastConfig)
}

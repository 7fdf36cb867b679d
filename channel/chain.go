package channel

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"strings"

	"grapevine/block"
	"grapevine/wire"
)

// Checks that a block can fail, as `block verify` names them.
const (
	CheckWellFormed   = "wellFormed"
	CheckPreviousHash = "previousHash"
	CheckDataHash     = "dataHash"
	CheckMetadata     = "metadata"
	CheckLastConfig   = "lastConfig"
	CheckSignatures   = "signatures"
	CheckSize         = "size"
)

// maxFailures bounds a report: after so many, a chain is not worth reading on.
const maxFailures = 100

// A Failure is a block that a chain's verification refuses, with the reason's
// code and the check that failed.
type Failure struct {
	Number               uint64
	Code, Check, Message string
}

// A Report is what came of a chain's verification. From and To are the first
// and last block read; To is 0 if there was none.
type Report struct {
	Channel  string
	From, To uint64
	Checked  uint64 // blocks read
	Policy   string // who must sign, under the last configuration
	Failures []Failure
}

// OK reports whether every block was read and none refused.
func (r *Report) OK() bool { return len(r.Failures) == 0 && r.Checked > 0 }

// VerifyChain verifies a whole chain offline: blocks from number 0 on, the
// first of which must be the genesis block given. Each is called with every
// verified block and the configuration in force after it; it may be nil, and
// its error ends the work. A refused block is a Failure in the report, and the
// next is judged as if its link had held; but after a refused configuration
// nobody knows the rules, and the report ends. The error is for trouble with
// reading alone.
func VerifyChain(genesis []byte, blocks iter.Seq2[[]byte, error], each func(block.Verified, *Config) error) (Report, error) {
	v := verifier{each: each}
	if err := v.start(genesis); err != nil {
		v.fail(0, err)
		return v.report, nil
	}
	return v.walk(blocks)
}

// VerifyFrom is [VerifyChain] for the part of a chain behind tip, with the
// configuration in force there.
func VerifyFrom(c *Config, tip block.Tip, blocks iter.Seq2[[]byte, error], each func(block.Verified, *Config) error) (Report, error) {
	v := verifier{each: each, tip: tip, report: Report{From: tip.Height}}
	if err := v.adopt(c, nil); err != nil {
		return v.report, err
	}
	return v.walk(blocks)
}

func (v *verifier) walk(blocks iter.Seq2[[]byte, error]) (Report, error) {
	for raw, err := range blocks {
		if err != nil {
			return v.report, fmt.Errorf("read block %d: %w", v.tip.Height, err)
		}
		goOn, err := v.take(raw)
		if err != nil {
			return v.report, err
		}
		if !goOn || len(v.report.Failures) >= maxFailures {
			break
		}
	}
	return v.report, nil
}

// A verifier walks along a chain.
type verifier struct {
	genesis block.Verified
	config  *Config
	tip     block.Tip
	report  Report
	each    func(block.Verified, *Config) error
}

func (v *verifier) start(genesis []byte) error {
	var err error
	if v.genesis, err = block.Genesis(genesis); err != nil {
		return err
	}
	return v.adopt(Parse(v.genesis.Block()))
}

func (v *verifier) adopt(c *Config, err error) error {
	if err != nil {
		return err
	}
	v.config = c
	v.report.Channel = c.name
	v.report.Policy = c.signers()
	return nil
}

// take judges the next block and reports whether those after it can be judged.
func (v *verifier) take(raw []byte) (goOn bool, err error) {
	number := v.tip.Height
	v.report.Checked++
	v.report.To = max(v.report.To, number)
	verified, err := v.verify(raw)
	if err == nil && verified.IsConfig() && number > 0 {
		err = v.adopt(v.config.Next(verified.Block()))
	}
	if err != nil {
		v.fail(number, err)
		return v.skip(raw), nil
	}
	v.tip = block.Tip{Height: number + 1, Hash: verified.Hash()}
	if v.each == nil {
		return true, nil
	}
	if err := v.each(verified, v.config); err != nil {
		return false, fmt.Errorf("block %d: %w", number, err)
	}
	return true, nil
}

func (v *verifier) verify(raw []byte) (block.Verified, error) {
	if v.tip.Height > 0 {
		c, err := block.Check(v.config.Rules(), raw)
		if err != nil {
			return block.Verified{}, err
		}
		return block.Verify(v.config.Rules(), v.tip, c)
	}
	first, err := block.Genesis(raw)
	if err != nil {
		return block.Verified{}, err
	}
	if first.Hash() != v.genesis.Hash() {
		return block.Verified{}, fmt.Errorf("block 0 is not the genesis block: %w", block.BadLink)
	}
	return first, nil
}

// skip goes over a refused block: what follows is judged as if it had held.
func (v *verifier) skip(raw []byte) bool {
	b, err := block.Decode(raw)
	if err != nil || b.Header == nil || b.Header.Number > v.tip.Height+1 {
		return false
	}
	if b.Header.Number < v.tip.Height {
		return true // one we have: it moves nothing
	}
	sum := block.DataHash(b.Data)
	if block.IsConfig(b) || !bytes.Equal(sum[:], b.Header.DataHash) {
		return false
	}
	v.tip = block.Tip{Height: b.Header.Number + 1, Hash: block.HeaderHash(b.Header)}
	return true
}

func (v *verifier) fail(number uint64, err error) {
	code := block.Malformed.Code()
	if r := wire.ReasonOf(err); r != nil {
		code = r.Code()
	}
	v.report.Failures = append(v.report.Failures, Failure{
		Number: number, Code: code, Check: checkOf(err, code), Message: err.Error(),
	})
}

// checkOf returns which check a refusal belongs to.
func checkOf(err error, code string) string {
	is := func(reasons ...error) bool {
		for _, r := range reasons {
			if errors.Is(err, r) {
				return true
			}
		}
		return false
	}
	switch {
	case is(block.BadConfig, block.SignedBadConfig):
		return CheckWellFormed
	case is(block.BadLink, block.Stale, block.TooFar, block.NumberMismatch):
		return CheckPreviousHash
	case is(block.BadDataHash):
		return CheckDataHash
	case is(block.NoMetadata, block.UnsignedMetadata):
		return CheckMetadata
	case is(block.LastConfig, block.UnknownConfig):
		return CheckLastConfig
	case is(block.TooLarge, block.TooManyTransactions):
		return CheckSize
	case strings.HasPrefix(code, "msp."),
		is(block.NoSignature, block.BadSignature, block.BadSigner, block.SignerRevoked,
			block.NoQuorum, block.TooManySignatures, block.AmbiguousSigner):
		return CheckSignatures
	}
	return CheckWellFormed
}

// signers says in words who must sign a block.
func (c *Config) signers() string {
	if c.rules.BFT {
		return fmt.Sprintf("%d of %d consenters", c.rules.Quorum(), len(c.rules.Consenters))
	}
	return PolicyBlockValidation
}

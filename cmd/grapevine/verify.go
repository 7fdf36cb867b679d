package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/spf13/cobra"

	"grapevine/channel"
	"grapevine/cmd/grapevine/admin"
	"grapevine/cmd/grapevine/fault"
)

func newBlockVerifyCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "verify CH [N|FROM..TO] [--data DIR] | --genesis F --blocks DIR|FILE", Short: "Hashes, links and orderer signatures, recomputed",
		Long: `Verifies blocks: every hash is recomputed, and every block judged by the
configuration in force before it. It exits with 6 unless all hold.

With CH a node verifies what lies in its ledger, as if it came now: one block,
the blocks FROM to TO, or all. With --data this program does so itself, in the
data folder of a node that doesn't run.

With --genesis and --blocks it verifies a whole chain from its files, offline:
the files of DIR in the order of their names, or the blocks of one FILE that
block export wrote, from block 0 on, which must be the genesis block F.

` + whichNode,
		Example: "  grapevine block verify mychannel\n  grapevine block verify mychannel 100..newest -o json\n  grapevine block verify --genesis genesis.block --blocks blocks/",
		Args:    between(0, "CH", "N|FROM..TO"), ValidArgsFunction: a.completeChannels,
	}
	genesis := c.Flags().String("genesis", "", "the channel's genesis block")
	blocks := c.Flags().String("blocks", "", "the folder of block files, or a file of block export")
	data := c.Flags().String("data", "", "read this data folder instead of asking a node")
	c.RunE = func(c *cobra.Command, args []string) error {
		offline := *genesis != "" || *blocks != ""
		switch {
		case offline && (len(args) > 0 || *data != ""):
			return usage(c, "--genesis and --blocks go without CH and --data")
		case offline && (*genesis == "" || *blocks == ""):
			return usage(c, "--genesis and --blocks are both needed")
		case offline:
			return a.verifyFiles(c.Context(), *genesis, *blocks)
		case len(args) == 0:
			return usage(c, "CH is missing, or --genesis and --blocks")
		}
		span := ""
		if len(args) == 2 {
			if span = args[1]; span == "" {
				span = ".." // no range either
			}
			if _, _, err := admin.ParseRange(span, 1<<63); err != nil {
				return err
			}
		}
		src, err := a.chain(args[0], *data)
		if err != nil {
			return err
		}
		ctx, cancel := a.within(c.Context(), verifyTime)
		defer cancel()
		out, err := src.Verify(ctx, span)
		if err = errors.Join(err, src.Close()); err != nil {
			return err
		}
		return a.verdict(out)
	}
	return c
}

// verifyTime is enough for a node to verify a long chain.
const verifyTime = time.Hour

// verifyFiles verifies a whole chain from its files.
func (a *app) verifyFiles(ctx context.Context, genesis, blocks string) error {
	start := a.now()
	first, err := readFile(a.path(genesis), maxBlockFile)
	if err != nil {
		return err
	}
	files, err := blockFiles(a.path(blocks))
	if err != nil {
		return err
	}
	report, err := channel.VerifyChain(first, until(ctx, files), nil)
	if err != nil {
		return err
	}
	return a.verdict(admin.Verification(&report, a.now().Sub(start)))
}

// until ends a sequence when the context does.
func until(ctx context.Context, seq iter.Seq2[[]byte, error]) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for b, err := range seq {
			if ctx.Err() != nil {
				yield(nil, ctx.Err())
				return
			}
			if !yield(b, err) {
				return
			}
		}
	}
}

// verdict prints a verification; exit 6 unless all held.
func (a *app) verdict(v *admin.BlockVerification) error {
	err := a.emit(v, func(t *table) {
		if v.OK {
			t.row(fmt.Sprintf("ok: blocks %d to %d of %s hold, signed by %s", v.From, v.To, v.Channel, v.Policy))
		}
		for _, f := range v.Failures {
			t.row("FAIL", fmt.Sprintf("block %d", f.Number), f.Check, f.Code, f.Message)
		}
		if !v.OK {
			t.row(fmt.Sprintf("refused: %s of %s read", plural(int(v.Checked), "block"), orDash(v.Channel)))
		}
	}, nil)
	if err == nil && !v.OK {
		err = exitCode(fault.ExitCheck)
	}
	return err
}

// errStop ends an import at the first block that doesn't hold.
var errStop = errors.New("stop")

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

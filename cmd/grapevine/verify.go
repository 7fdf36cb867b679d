package main

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/spf13/cobra"

	"grapevine/channel"
	"grapevine/cmd/grapevine/admin"
	"grapevine/cmd/grapevine/fault"
)

func newBlockVerifyCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "verify --genesis F --blocks DIR", Short: "Hashes, links and orderer signatures, recomputed",
		Long: `Verifies a whole chain from its files, offline: the files of DIR in the order of
their names, from block 0 on, which must be the genesis block F. Every hash is
recomputed, and every block judged by the configuration in force before it. It
exits with 6 unless all hold.`,
		Example: "  grapevine block verify --genesis genesis.block --blocks blocks/\n  grapevine block verify --genesis genesis.block --blocks blocks/ -o json",
		Args:    exactly(),
	}
	genesis := c.Flags().String("genesis", "", "the channel's genesis block")
	blocks := c.Flags().String("blocks", "", "the folder of block files")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if *genesis == "" || *blocks == "" {
			return usage(c, "--genesis and --blocks are both needed")
		}
		start := a.now()
		first, err := readFile(a.path(*genesis), maxBlockFile)
		if err != nil {
			return err
		}
		files, err := blockFiles(a.path(*blocks))
		if err != nil {
			return err
		}
		report, err := channel.VerifyChain(first, until(c.Context(), files), nil)
		if err != nil {
			return err
		}
		out := verification(&report)
		out.ElapsedMs = a.now().Sub(start).Milliseconds()
		return a.verdict(out)
	}
	return c
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

func verification(r *channel.Report) *admin.BlockVerification {
	out := &admin.BlockVerification{Channel: r.Channel, From: r.From, To: r.To, Checked: r.Checked, OK: r.OK(), Policy: r.Policy}
	for _, f := range r.Failures {
		out.Failures = append(out.Failures, admin.BlockFailure(f))
	}
	return out
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

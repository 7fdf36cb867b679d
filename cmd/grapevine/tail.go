package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"grapevine/cmd/grapevine/admin"
	"grapevine/cmd/grapevine/fault"
	"grapevine/wire"
)

func newBlockTailCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "tail CH [--from N]", Short: "Follow new blocks",
		Long: `Shows each block of channel CH as the node takes it, a line each, until it is
interrupted: with -o json a Block. It begins with what comes next, or with block
N: a number, oldest or newest.

` + whichNode,
		Example: "  grapevine block tail mychannel\n  grapevine block tail mychannel --from oldest -o json",
		Args:    exactly("CH"), ValidArgsFunction: a.completeChannels,
	}
	from := c.Flags().String("from", "", "the first block to show (default: what comes next)")
	c.RunE = func(c *cobra.Command, args []string) error {
		err := admin.CheckChannel(args[0])
		if *from != "" {
			err = errors.Join(err, checkNumber(*from))
		}
		if err != nil {
			return err
		}
		t, err := a.node()
		if err != nil {
			return err
		}
		defer t.Close()
		a.long.Store(true)
		err = admin.Remote{Client: t.Client, Name: args[0]}.Tail(c.Context(), *from, a.tailed)
		if errors.Is(err, context.Canceled) {
			return nil
		}
		return err
	}
	return c
}

// tailed prints one block on a line, or, in YAML, as a document.
func (a *app) tailed(b *admin.Block) error {
	if a.flags.output == "yaml" {
		if err := a.write([]byte("---\n")); err != nil {
			return err
		}
	}
	return a.emit(b, func(t *table) {
		kind := "tx"
		if b.Config {
			kind = "config"
		}
		signed := 0
		for _, s := range b.Signatures {
			if s.Valid {
				signed++
			}
		}
		fmt.Fprintf(t, "%8d  %s  %5d %-6s  %8d bytes  %d of %d signatures\n", b.Number, b.Hash, b.TxCount, kind, b.Size, signed, len(b.Signatures))
	}, func() []string { return []string{b.Hash} })
}

func newBlockExportCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "export CH FROM..TO FILE [--data DIR]", Short: "Write blocks to one file",
		Long: `Writes the blocks FROM to TO, both included, to one file, as they came from the
ordering service: each block's protobuf bytes behind their length as a varint,
which is protobuf's delimited form (writeDelimitedTo, protodelim). Such files can
be joined with cat, and block verify --blocks and ledger import --blocks read
them. The file is put in place whole, or not at all.

` + whichNode,
		Example:     "  grapevine block export mychannel oldest..newest chain.blocks\n  grapevine block export mychannel 100..199 part.blocks --data DIR",
		Args:        exactly("CH", "FROM..TO", "FILE"),
		Annotations: next("grapevine block verify --genesis F --blocks FILE", "grapevine ledger import --genesis F --blocks FILE --data DIR"), ValidArgsFunction: a.completeChannels,
	}
	data := c.Flags().String("data", "", "read this data folder instead of asking a node")
	c.RunE = func(c *cobra.Command, args []string) error {
		err := admin.CheckChannel(args[0])
		if _, _, e := admin.ParseRange(args[1], 1<<63); e != nil || args[1] == "" {
			err = errors.Join(err, e)
		}
		if err != nil {
			return err
		}
		src, err := a.chain(args[0], *data)
		if err != nil {
			return err
		}
		n, size, err := a.export(c.Context(), src, args[1], args[2])
		if err = errors.Join(err, src.Close()); err != nil {
			return err
		}
		out := &admin.BlockExport{Channel: args[0], File: a.path(args[2]), Blocks: n, Size: size}
		return a.emit(out, func(t *table) {
			t.row(fmt.Sprintf("wrote %s, %d bytes, to %s", plural(int(n), "block"), size, args[2]))
		}, func() []string { return []string{out.File} })
	}
	return c
}

// export writes a span's blocks to a file.
func (a *app) export(ctx context.Context, src chain, span, file string) (blocks, size uint64, err error) {
	ctx, cancel := a.within(ctx, verifyTime)
	defer cancel()
	bad := func(err error) error {
		return fault.Newf(fault.BadFile, "cannot write %s", file).Because(bare(err)).Do("name a file in a folder that you may write, on a disk with room").From(err)
	}
	f, err := renameio.NewPendingFile(a.path(file), renameio.WithPermissions(0o644), renameio.WithExistingPermissions())
	if err != nil {
		return 0, 0, bad(err)
	}
	defer func() { err = errors.Join(err, f.Cleanup()) }()
	count := &counter{Writer: f}
	err = src.Raw(ctx, span, func(raw []byte) error {
		blocks++
		if err := wire.WriteFrame(count, raw); err != nil {
			return bad(err)
		}
		return nil
	})
	if err != nil {
		return 0, 0, err
	}
	if err := f.CloseAtomicallyReplace(); err != nil {
		return 0, 0, bad(err)
	}
	return blocks, count.n, nil
}

// A counter counts what is written through it.
type counter struct {
	io.Writer
	n uint64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.Writer.Write(b)
	c.n += uint64(n)
	return n, err
}

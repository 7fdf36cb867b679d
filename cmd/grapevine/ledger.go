package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"grapevine/block"
	"grapevine/blocksync"
	"grapevine/channel"
	"grapevine/cmd/grapevine/admin"
	"grapevine/cmd/grapevine/fault"
	"grapevine/ledger"
	"grapevine/node"
)

// Blocks that share a synced batch during an import.
const (
	batchBlocks = 256
	batchBytes  = 16 << 20
)

func newLedgerCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "ledger", Short: "Work on a ledger's files", GroupID: groupChannels,
		Example: "  grapevine ledger import --genesis genesis.block --blocks blocks/ --data DIR",
	}
	c.AddCommand(newLedgerImportCmd(a), newLedgerVerifyCmd(a), newLedgerScrubCmd(a), newLedgerRebuildCmd(a))
	return c
}

func newLedgerImportCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "import --genesis F --blocks DIR|FILE --data DIR", Short: "Verify and append blocks to a (new) data folder, offline",
		Long: `Verifies the files of --blocks as block verify does, in the order of their names
from block 0 on, or the blocks of one file that block export wrote, judges their
transactions by Fabric's rules, and appends them to the data folder, with the world
state that they lead to. The folder may be new, or
hold a beginning of the same chain. How it goes is shown on a terminal, and told
every ten seconds elsewhere. At the first block that doesn't hold it stops
and exits with 6; what came before stays.`,
		Example:     "  grapevine ledger import --genesis genesis.block --blocks blocks/ --data DIR\n  grapevine ledger import --genesis genesis.block --blocks more/ --data DIR -o json",
		Args:        exactly(),
		Annotations: next("grapevine channel info CH --data DIR", "grapevine block get CH newest --data DIR"),
	}
	genesis := c.Flags().String("genesis", "", "the channel's genesis block")
	blocks := c.Flags().String("blocks", "", "the folder of block files, or a file of block export")
	data := c.Flags().String("data", "", "the data folder")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if *genesis == "" || *blocks == "" || *data == "" {
			return usage(c, "--genesis, --blocks and --data are all needed")
		}
		start := a.now()
		out, err := a.importChain(c.Context(), *genesis, *blocks, *data)
		if err != nil {
			return err
		}
		out.ElapsedMs = a.now().Sub(start).Milliseconds()
		return a.emit(out, func(t *table) {
			t.row("channel", out.Channel)
			t.row("imported", plural(int(out.Imported), "block"))
			t.row("height", out.Height)
			t.row("tip", out.TipHash)
			t.row("state", orDash(out.StateHash))
		}, func() []string { return []string{out.Channel} })
	}
	return c
}

// importChain verifies blocks from files and appends them to a data folder.
func (a *app) importChain(ctx context.Context, genesis, blocks, data string) (_ *admin.LedgerImport, err error) {
	first, err := readFile(a.path(genesis), maxBlockFile)
	if err != nil {
		return nil, err
	}
	if _, err := block.Genesis(first); err != nil {
		return nil, fmt.Errorf("genesis block %s: %w", genesis, err)
	}
	files, err := blockFiles(a.path(blocks))
	if err != nil {
		return nil, err
	}
	total, count, err := sizeOf(a.path(blocks))
	if err != nil {
		return nil, err
	}
	db, err := ledger.Open(ledgerDir(a.path(data)), ledger.Options{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	b := a.newBar("importing")
	defer b.done()
	im := importer{ctx: ctx, db: db, told: func(im *importer) {
		p := im.meter.Told(im.height, count, a.now())
		b.show(admin.ProgressOf(p, nil), float64(p.Bytes)/float64(max(total, 1)))
	}}
	im.meter.Start(0, a.now())
	report, err := channel.VerifyChain(first, until(ctx, files), im.take)
	if flushed := im.flush(); flushed != nil && err == nil {
		err = flushed
	}
	switch {
	case len(report.Failures) > 0:
		f := report.Failures[0]
		return nil, fault.Newf("BLK001", "block %d does not hold (%s)", f.Number, f.Code).Because(f.Message, fmt.Sprintf("%s kept", plural(int(im.height), "block")))
	case err != nil:
		return nil, err
	case im.ledger == nil:
		return nil, fault.Newf(fault.BadFile, "%s holds no block", blocks)
	}
	item := (&admin.Chain{Ledger: im.ledger}).Item()
	return &admin.LedgerImport{
		Channel: item.Name, Dir: a.path(data), Imported: im.added, Height: item.Height, TipHash: item.TipHash, StateHash: item.StateHash,
	}, nil
}

// An importer appends verified blocks in batches.
type importer struct {
	ctx    context.Context // of the one import that it is made for
	db     *ledger.DB
	ledger *ledger.Ledger
	height uint64 // blocks taken, appended or pending
	added  uint64 // that weren't held before
	held   uint64 // the ledger's height at the start
	batch  []block.Verified
	bytes  int
	meter  blocksync.Meter
	told   func(*importer) // after each block
}

func (im *importer) take(v block.Verified, c *channel.Config) error {
	if v.Number() != im.height {
		return errStop // a block before this one was refused
	}
	im.height++
	if v.Number() == 0 {
		l, err := im.db.Channel(c.Channel())
		if err == nil {
			im.held = l.Height()
		}
		if im.ledger, err = im.db.Create(c.Channel(), v); err != nil {
			return err
		}
		if err := node.Judge(im.ctx, im.ledger, nil); err != nil {
			return err
		}
	}
	if v.Number() >= im.held {
		im.added++
	}
	im.meter.Add(1, int64(len(v.Bytes())), time.Now())
	im.told(im)
	if v.Number() == 0 {
		return nil
	}
	im.batch = append(im.batch, v)
	im.bytes += len(v.Bytes())
	if len(im.batch) < batchBlocks && im.bytes < batchBytes {
		return nil
	}
	return im.flush()
}

func (im *importer) flush() error {
	if len(im.batch) == 0 {
		return nil
	}
	batch := im.batch
	im.batch, im.bytes = nil, 0
	return im.ledger.Append(batch...)
}

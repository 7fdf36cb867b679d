package main

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"grapevine/block"
	"grapevine/cmd/grapevine/admin"
	"grapevine/cmd/grapevine/fault"
	"grapevine/ledger"
	"grapevine/node"
	"grapevine/wire"
)

// snapshotTime is enough to make, copy or check a large snapshot, unless --timeout.
const snapshotTime = time.Hour

func newSnapshotCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "snapshot", Short: "Snapshots of ledger and state", GroupID: groupChannels,
		Example: "  grapevine snapshot create mychannel\n  grapevine snapshot export mychannel mychannel.snapshot\n  grapevine snapshot import mychannel mychannel.snapshot --genesis genesis.block --data DIR",
	}
	c.AddCommand(newSnapshotCreateCmd(a), newSnapshotLsCmd(a), newSnapshotExportCmd(a), newSnapshotImportCmd(a), newSnapshotVerifyCmd(a))
	return c
}

func newSnapshotCreateCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "create CH", Short: "Make a snapshot at the present height",
		Long: `Makes the node write a snapshot of channel CH's world state as it is now, with what
a newcomer needs to go on from there, and attest it. Commits go on meanwhile. Other
organisations can attest it only if their peers make one at the same height: for
that, set p2p.snapshots.every on all.

` + whichNode,
		Example: "  grapevine snapshot create mychannel\n  grapevine snapshot create mychannel -o json",
		Args:    exactly("CH"), Annotations: next("grapevine snapshot ls CH", "grapevine snapshot export CH FILE"), ValidArgsFunction: a.completeChannels,
		RunE: func(c *cobra.Command, args []string) error {
			t, err := a.node()
			if err != nil {
				return err
			}
			defer t.Close()
			ctx, cancel := a.within(c.Context(), snapshotTime)
			defer cancel()
			s, err := admin.Remote{Client: t.Client, Name: args[0]}.CreateSnapshot(ctx)
			if err != nil {
				return err
			}
			return a.emit(s, func(t *table) { showSnapshot(t, s) }, func() []string { return []string{fmt.Sprint(s.Height)} })
		},
	}
}

func showSnapshot(t *table, s *admin.Snapshot) {
	t.row("channel", s.Channel)
	t.row("height", s.Height)
	t.row("tip", s.TipHash)
	t.row("state", s.StateHash)
	t.row("name", s.Name)
	t.row("size", fmt.Sprintf("%s, %s in %d chunks", plural(int(s.Records), "record"), size(float64(s.Bytes)), s.Chunks))
	t.row("attested by", orDash(strings.Join(s.AttestedBy, " ")))
}

func newSnapshotLsCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "ls CH [--data DIR]", Short: "Snapshots that the node holds",
		Long:    "Lists the snapshots of channel CH that the node holds and gives to members, or that\nlie in a data folder that no node has open.\n\n" + whichNode,
		Example: "  grapevine snapshot ls mychannel\n  grapevine snapshot ls mychannel --data DIR",
		Args:    exactly("CH"), Annotations: next("grapevine snapshot export CH FILE"), ValidArgsFunction: a.completeChannels,
	}
	data := c.Flags().String("data", "", "read this data folder instead of asking a node")
	c.RunE = func(c *cobra.Command, args []string) error {
		src, err := a.chain(args[0], *data)
		if err != nil {
			return err
		}
		ctx, cancel := a.within(c.Context(), askTime)
		defer cancel()
		l, err := src.Snapshots(ctx)
		if err = errors.Join(err, src.Close()); err != nil {
			return err
		}
		return a.emit(l, func(t *table) {
			if len(l.Items) == 0 {
				t.row("there is no snapshot")
				return
			}
			t.row("HEIGHT", "SIZE", "CHUNKS", "ATTESTED BY", "STATE")
			for _, s := range l.Items {
				t.row(s.Height, size(float64(s.Bytes)), s.Chunks, orDash(strings.Join(s.AttestedBy, " ")), s.StateHash)
			}
		}, func() (names []string) {
			for _, s := range l.Items {
				names = append(names, fmt.Sprint(s.Height))
			}
			return names
		})
	}
	return c
}

func newSnapshotExportCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "export CH FILE [--height N] [--data DIR]", Short: "Write a snapshot to a file",
		Long: `Writes the newest snapshot of channel CH, or that of --height, to FILE, with the
attestations that the node knows of or gets from other members.

` + whichNode,
		Example: "  grapevine snapshot export mychannel mychannel.snapshot\n  grapevine snapshot export mychannel old.snapshot --height 5000 --data DIR",
		Args:    exactly("CH", "FILE"), Annotations: next("grapevine snapshot verify CH FILE --genesis F"), ValidArgsFunction: a.completeChannels,
	}
	data := c.Flags().String("data", "", "read this data folder instead of asking a node")
	height := c.Flags().String("height", "", "the snapshot's height; the newest by default")
	c.RunE = func(c *cobra.Command, args []string) error {
		src, err := a.chain(args[0], *data)
		if err != nil {
			return err
		}
		ctx, cancel := a.within(c.Context(), snapshotTime)
		defer cancel()
		out, err := a.exportSnapshot(ctx, src, a.path(args[1]), *height)
		if err = errors.Join(err, src.Close()); err != nil {
			return err
		}
		return a.emit(out, func(t *table) {
			showSnapshot(t, &out.Snapshot)
			t.row("file", out.File)
		}, func() []string { return []string{out.File} })
	}
	return c
}

// exportSnapshot writes the file whole or not at all.
func (a *app) exportSnapshot(ctx context.Context, src chain, path, height string) (_ *admin.SnapshotFile, err error) {
	f, err := renameio.NewPendingFile(path, renameio.WithPermissions(0o644))
	if err != nil {
		return nil, fault.Newf(fault.BadFile, "cannot write %s", path).From(err)
	}
	defer func() { err = errors.Join(err, f.Cleanup()) }()
	if err := src.Export(ctx, height, f); err != nil {
		return nil, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	h, err := node.ReadSnapshot(f)
	if err != nil {
		return nil, err
	}
	if err := f.CloseAtomicallyReplace(); err != nil {
		return nil, err
	}
	return &admin.SnapshotFile{Snapshot: admin.SnapshotOf(h.Manifest, h.Name, claimed(h)), File: path}, nil
}

// claimed are the organisations that a file's attestations name; nobody has verified
// them.
func claimed(h *node.SnapshotHead) (orgs []string) {
	for _, raw := range h.Attestations {
		a := new(wire.SnapshotAttestation)
		if wire.Unmarshal(raw, a) == nil {
			orgs = append(orgs, a.MspId)
		}
	}
	return orgs
}

// A trusting says what of a snapshot file is taken for granted.
type trusting struct {
	genesis, hash *string
	attested      *int
}

func (g *trusting) flags(c *cobra.Command) {
	g.genesis = c.Flags().String("genesis", "", "the channel's genesis block, which is trusted")
	g.hash = c.Flags().String("hash", "", "or its header hash")
	g.attested = c.Flags().Int("attested", 0, "how many organisations must attest it; 0: most of the channel's")
}

// root is the header hash of block 0.
func (g *trusting) root(c *cobra.Command, a *app) (root [32]byte, err error) {
	if (*g.genesis == "") == (*g.hash == "") {
		return root, usage(c, "one of --genesis and --hash is needed: which block 0 is trusted?")
	}
	if *g.hash != "" {
		b, err := hex.DecodeString(*g.hash)
		if err != nil || len(b) != 32 {
			return root, usage(c, "--hash is no header hash: 64 hexadecimal digits")
		}
		return [32]byte(b), nil
	}
	raw, err := readFile(a.path(*g.genesis), maxBlockFile)
	if err != nil {
		return root, err
	}
	v, err := block.Genesis(raw)
	if err != nil {
		return root, fmt.Errorf("genesis block %s: %w", *g.genesis, err)
	}
	return v.Hash(), nil
}

func newSnapshotImportCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "import CH FILE --genesis F|--hash HEX --data DIR [--attested N]", Short: "Begin a (new) data folder with a snapshot, offline",
		Long: `Verifies a snapshot that snapshot export wrote and begins channel CH in the data
folder with it: the configuration blocks from block 0 on, the orderers' signatures on
the block before its height, the organisations that attest it, each chunk, and the
hash of the state that they lead to. The folder may be new, or hold less of the same
channel; no node may have it open. At the first thing that doesn't hold it stops
and exits with 6, and the folder is as it was.`,
		Example: "  grapevine snapshot import mychannel mychannel.snapshot --genesis genesis.block --data DIR",
		Args:    exactly("CH", "FILE"), Annotations: next("grapevine channel info CH --data DIR", "grapevine state hash CH --data DIR"),
	}
	data := c.Flags().String("data", "", "the data folder")
	var g trusting
	g.flags(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		if *data == "" {
			return usage(c, "--data is needed: the data folder to begin")
		}
		root, err := g.root(c, a)
		if err != nil {
			return err
		}
		s, _, err := a.takeSnapshot(c.Context(), args[0], a.path(args[1]), ledgerDir(a.path(*data)), root, *g.attested)
		if err != nil {
			return err
		}
		out := &admin.SnapshotFile{Snapshot: s, File: a.path(args[1]), Dir: a.path(*data)}
		return a.emit(out, func(t *table) {
			showSnapshot(t, &out.Snapshot)
			t.row("folder", out.Dir)
		}, func() []string { return []string{s.Channel} })
	}
	return c
}

func newSnapshotVerifyCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "verify CH FILE --genesis F|--hash HEX [--attested N]", Short: "Check a snapshot file",
		Long: `Checks all that snapshot import checks, in a temporary folder beside FILE that is
deleted in the end, and exits with 6 if something doesn't hold.`,
		Example: "  grapevine snapshot verify mychannel mychannel.snapshot --genesis genesis.block\n  grapevine snapshot verify mychannel mychannel.snapshot --hash 51ab... --attested 1",
		Args:    exactly("CH", "FILE"), Annotations: next("grapevine snapshot import CH FILE --genesis F --data DIR"),
	}
	var g trusting
	g.flags(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		root, err := g.root(c, a)
		if err != nil {
			return err
		}
		start, path := a.now(), a.path(args[1])
		dir, err := os.MkdirTemp(filepath.Dir(path), ".grapevine-verify-")
		if err != nil {
			return fault.Newf(fault.BadFile, "no temporary folder can be made beside %s", path).From(err)
		}
		s, needed, err := a.takeSnapshot(c.Context(), args[0], path, filepath.Join(dir, "ledger"), root, *g.attested)
		if e := os.RemoveAll(dir); err == nil {
			err = e
		}
		out := &admin.SnapshotVerification{Snapshot: s, File: path, OK: err == nil, Needed: needed}
		if err != nil {
			f := fault.Of(err)
			if f.Exit != fault.ExitCheck {
				return err
			}
			out.Code, out.Problem = cmp.Or(f.Reason, f.Code), f.Error()
		}
		out.ElapsedMs = a.now().Sub(start).Milliseconds()
		err = a.emit(out, func(t *table) {
			showSnapshot(t, &out.Snapshot)
			if out.OK {
				t.row("holds", fmt.Sprintf("attested by %d of %d needed", len(s.AttestedBy), needed))
			} else {
				t.row("DOESN'T HOLD", out.Problem)
			}
		}, func() []string { return []string{path} })
		if err == nil && !out.OK {
			err = exitCode(fault.ExitCheck)
		}
		return err
	}
	return c
}

// takeSnapshot verifies a file and begins a ledger with it.
func (a *app) takeSnapshot(ctx context.Context, name, path, dir string, root [32]byte, attested int) (s admin.Snapshot, needed int, err error) {
	if err := admin.CheckChannel(name); err != nil {
		return s, 0, err
	}
	f, err := os.Open(path)
	if err != nil {
		return s, 0, fault.Newf(fault.BadFile, "cannot read %s", path).From(err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h, err := node.ReadSnapshot(f)
	if err != nil {
		return s, 0, err
	}
	s = admin.SnapshotOf(h.Manifest, h.Name, nil)
	if h.Manifest.Channel != name {
		return s, 0, fault.Newf("CHN001", "the snapshot is of channel %s, not %s", h.Manifest.Channel, name)
	}
	blocks, conf, orgs, err := h.Verify(root, a.now())
	if err != nil {
		return s, 0, err
	}
	s.AttestedBy = orgs
	if needed = node.Enough(conf, attested); len(orgs) < needed {
		return s, needed, fault.Newf("STA022", "%d of the %d organisations that it takes attest the snapshot", len(orgs), needed).
			Because("attested by " + orDash(strings.Join(orgs, " ")))
	}
	db, err := ledger.Open(dir, ledger.Options{})
	if err != nil {
		return s, needed, err
	}
	b := a.newBar("taking the snapshot")
	defer b.done()
	began, done := a.now(), uint64(0)
	_, err = h.Import(ctx, db, blocks, func(chunk, chunks int) {
		done = h.Manifest.Bytes * uint64(chunk) / uint64(chunks)
		b.show(admin.Progress{Active: true, Since: admin.Time{Time: began}, Bytes: done}, float64(chunk)/float64(chunks))
	})
	return s, needed, errors.Join(err, db.Close())
}

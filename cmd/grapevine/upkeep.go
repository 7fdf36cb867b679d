package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"grapevine/cmd/grapevine/admin"
	"grapevine/cmd/grapevine/fault"
	"grapevine/ledger"
)

// scrubTime is how long somebody waits for a ledger to be read through, unless
// --timeout.
const scrubTime = 24 * time.Hour

func newLedgerVerifyCmd(a *app) *cobra.Command {
	return a.newCheckCmd("verify [CH] [--data DIR]", "Read all that is kept, and hold it against itself", `Reads the whole ledger of channel CH, or of every channel: each block's hashes,
link and orderer signatures, the indexes, the verdicts, and the world state against
its hash. It repairs nothing itself; a running node repairs at once what is found.
It exits with 6 unless all holds.`, false)
}

func newLedgerScrubCmd(a *app) *cobra.Command {
	return a.newCheckCmd("scrub [CH] [--data DIR]", "Read all that is kept, and repair what is damaged", `Reads the whole ledger of channel CH, or of every channel, and makes good what is
damaged: files of the store are replaced, indexes and world state made anew from the
blocks. A running node fetches damaged blocks from other peers, or from the ordering
service, and goes on meanwhile; so it does by itself with what its reads find, and
once a day it reads everything. In a folder (--data) of a node that doesn't run,
damaged blocks stay so until it does. A store that can't be opened any more is moved
aside there, and its channels begin anew. It exits with 6 if something is left.`, true)
}

// newCheckCmd makes the two that read a ledger through.
func (a *app) newCheckCmd(use, short, long string, repair bool) *cobra.Command {
	verb, _, _ := strings.Cut(use, " ")
	c := &cobra.Command{
		Use: use, Short: short, Long: long + "\n\n" + whichNode,
		Example: fmt.Sprintf("  grapevine ledger %s mychannel\n  grapevine ledger %s --data DIR -o json", verb, verb),
		Args:    between(0, "CH"), ValidArgsFunction: a.completeChannels,
		Annotations: next("grapevine state repair CH", "grapevine ledger rebuild-state CH"),
	}
	data := c.Flags().String("data", "", "read this data folder instead of asking a node")
	c.RunE = func(c *cobra.Command, args []string) error {
		ctx, cancel := a.within(c.Context(), scrubTime)
		defer cancel()
		var out *admin.LedgerChecks
		var err error
		if *data != "" {
			out, err = a.checkFolder(ctx, *data, args, repair)
		} else {
			out, err = a.checkNode(ctx, args, repair)
		}
		if err != nil {
			return err
		}
		return a.checked(out)
	}
	return c
}

func newStateRepairCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "repair CH", Short: "Scrub, refetch and replace damaged blocks",
		Long: `Makes the node read the whole ledger of channel CH and repair what is damaged, as
grapevine ledger scrub does. It exits with 6 if something is left.

` + whichNode,
		Example: "  grapevine state repair mychannel",
		Args:    exactly("CH"), ValidArgsFunction: a.completeChannels, Annotations: next("grapevine ledger verify CH"),
		RunE: func(c *cobra.Command, args []string) error {
			ctx, cancel := a.within(c.Context(), scrubTime)
			defer cancel()
			out, err := a.checkNode(ctx, args, true)
			if err != nil {
				return err
			}
			return a.checked(out)
		},
	}
}

// checked prints what was found; what is left is an error.
func (a *app) checked(out *admin.LedgerChecks) error {
	if err := a.emit(out, func(t *table) {
		t.row("CHANNEL", "BLOCKS", "SIZE", "STATE ENTRIES", "DAMAGED", "REPAIRED", "")
		for _, c := range out.Items {
			verdict := "ok"
			if !c.OK {
				verdict = "DAMAGED"
			}
			t.row(c.Channel, grouped(c.Blocks), size(float64(c.Bytes)), grouped(c.Entries), damageText(c.Damage), repairText(c.Repaired), verdict)
		}
		t.flush()
		for _, c := range out.Items {
			for _, f := range c.Failures {
				t.row("  " + c.Channel + fmt.Sprintf(" block %d: %s: %s", f.Number, f.Code, f.Message))
			}
			for _, why := range c.Findings {
				t.row("  " + c.Channel + " " + why)
			}
		}
	}, func() (names []string) {
		for _, c := range out.Items {
			names = append(names, c.Channel)
		}
		return names
	}); err != nil {
		return err
	}
	if out.OK {
		return nil
	}
	f := fault.New("STA030", "")
	for _, c := range out.Items {
		if !c.OK {
			f = f.Because(fmt.Sprintf("channel %s: %s", c.Channel, damageText(c.Damage)))
		}
	}
	return f
}

func damageText(d admin.LedgerDamage) string {
	var parts []string
	if n := len(d.Blocks); n > 0 {
		parts = append(parts, plural(n, "block"))
	}
	for _, v := range []struct {
		what string
		is   bool
	}{{"index", d.Index}, {"state", d.State}, {"tip", d.Tip}} {
		if v.is {
			parts = append(parts, v.what)
		}
	}
	if d.Lost > 0 {
		parts = append(parts, plural(int(d.Lost), "block")+" lost at the end")
	}
	if len(parts) == 0 {
		return "-"
	}
	return strings.Join(parts, ", ")
}

func repairText(r admin.LedgerRepair) string {
	var parts []string
	if r.Tables > 0 {
		parts = append(parts, plural(r.Tables, "file"))
	}
	if r.Blocks > 0 {
		parts = append(parts, plural(int(r.Blocks), "block"))
	}
	if r.Index > 0 {
		parts = append(parts, plural(r.Index, "entry"))
	}
	if r.State {
		parts = append(parts, "state")
	}
	if len(parts) == 0 {
		return "-"
	}
	return strings.Join(parts, ", ")
}

// checkNode has a node read one channel's ledger through, or all.
func (a *app) checkNode(ctx context.Context, args []string, repair bool) (*admin.LedgerChecks, error) {
	t, err := a.node()
	if err != nil {
		return nil, err
	}
	defer t.Close()
	names, err := a.namesOf(ctx, t, args)
	if err != nil {
		return nil, err
	}
	out := &admin.LedgerChecks{OK: true}
	for _, name := range names {
		r := admin.Remote{Client: t.Client, Name: name}
		one, err := beside(ctx, a, "reading "+name, func() (done, target, bytes uint64) {
			if u, err := r.Upkeep(ctx); err == nil && u.Scrubbing {
				return u.Blocks, u.Height, u.Bytes
			}
			return 0, 0, 0
		}, func() (*admin.LedgerChecks, error) { return r.Scrub(ctx, repair) })
		if err != nil {
			return nil, err
		}
		if !repair {
			v, err := r.Verify(ctx, "")
			if err != nil {
				return nil, err
			}
			failed(one, v)
		}
		out.OK = out.OK && one.OK
		out.Items = append(out.Items, one.Items...)
	}
	return out, nil
}

// failed adds the blocks that don't hold.
func failed(to *admin.LedgerChecks, v *admin.BlockVerification) {
	for i := range to.Items {
		to.Items[i].Failures = v.Failures
		to.Items[i].OK = to.Items[i].OK && v.OK
	}
	to.OK = to.OK && v.OK
}

// beside shows how work that a node does goes while it runs: how many blocks of how
// many are done, as look tells.
func beside[T any](ctx context.Context, a *app, what string, look func() (done, target, bytes uint64), run func() (T, error)) (out T, err error) {
	b := a.newBar(what)
	defer b.done()
	over := make(chan struct{})
	go func() {
		defer close(over)
		out, err = run()
	}()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	since := a.now()
	for {
		select {
		case <-over:
			return out, err
		case <-tick.C:
			if n, target, bytes := look(); target > 0 {
				b.show(a.soFar(since, n, target, bytes))
			}
		case <-ctx.Done():
			<-over
			return out, err
		}
	}
}

// namesOf are the channels that are meant: the one named, or all of the node's.
func (a *app) namesOf(ctx context.Context, t *target, args []string) (names []string, err error) {
	if len(args) == 1 {
		return args, admin.CheckChannel(args[0])
	}
	list, err := t.Channels(ctx)
	if err != nil {
		return nil, err
	}
	for _, c := range list.Items {
		names = append(names, c.Name)
	}
	return names, nil
}

// folder opens a data folder's ledger and calls each with the channels meant.
func (a *app) folder(data string, args []string, rescue bool, each func(*admin.Chain) error) (err error) {
	dir := ledgerDir(a.path(data))
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return fault.Newf(fault.BadFile, "%s holds no ledger", data).Because("there is no folder " + dir)
	}
	db, err := ledger.Open(dir, ledger.Options{Rescue: rescue})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	names := db.Channels()
	if len(args) == 1 {
		names = args
	}
	for _, name := range names {
		l, err := db.Channel(name)
		if err != nil {
			return fault.Newf(fault.NotFound, "%s holds no channel %s", data, name).Because(held(db)).From(err)
		}
		c, err := admin.ReadChain(l)
		if err != nil {
			return err
		}
		if err := each(c); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) checkFolder(ctx context.Context, data string, args []string, repair bool) (*admin.LedgerChecks, error) {
	out := &admin.LedgerChecks{OK: true}
	return out, a.folder(data, args, repair, func(c *admin.Chain) error {
		b := a.newBar("reading " + c.Ledger.Name())
		defer b.done()
		since := a.now()
		one, err := c.Check(ctx, repair, func(s ledger.Scrubbed) {
			b.show(a.soFar(since, s.Blocks, s.Height, s.Bytes))
		})
		if err != nil {
			return err
		}
		checks := &admin.LedgerChecks{OK: one.OK, Items: []admin.LedgerCheck{one}}
		if !repair && one.OK && c.Ledger.Lowest() == 0 {
			v, err := c.Verify(ctx, "")
			if err != nil {
				return err
			}
			failed(checks, v)
		}
		out.OK = out.OK && checks.OK
		out.Items = append(out.Items, checks.Items...)
		return nil
	})
}

func newLedgerRebuildCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "rebuild-state [CH] [--data DIR]", Short: "Make the world state anew from the blocks",
		Long: `Drops the world state of channel CH, or of every channel, with all validity codes,
and judges the transactions of all its blocks again. Blocks stay. A running node
takes new blocks meanwhile.

` + whichNode,
		Example: "  grapevine ledger rebuild-state mychannel\n  grapevine ledger rebuild-state --data DIR -o json",
		Args:    between(0, "CH"), ValidArgsFunction: a.completeChannels, Annotations: next("grapevine state hash CH"),
	}
	data := c.Flags().String("data", "", "work on this data folder instead of asking a node")
	c.RunE = func(c *cobra.Command, args []string) error {
		ctx, cancel := a.within(c.Context(), scrubTime)
		defer cancel()
		out := &admin.LedgerRebuild{}
		if *data != "" {
			if err := a.folder(*data, args, false, func(c *admin.Chain) error {
				b, since := a.newBar("judging "+c.Ledger.Name()), a.now()
				defer b.done()
				one, err := c.Rebuild(ctx, func(state, height uint64) { b.show(a.soFar(since, state, height, 0)) })
				out.Items = append(out.Items, one)
				return err
			}); err != nil {
				return err
			}
		} else if err := a.rebuildNode(ctx, args, out); err != nil {
			return err
		}
		return a.emit(out, func(t *table) {
			t.row("CHANNEL", "HEIGHT", "STATE HASH", "BEFORE")
			for _, s := range out.Items {
				before := "the same"
				if !s.Same {
					before = orDash(s.Before)
				}
				t.row(s.Channel, grouped(s.Height), orDash(s.StateHash), before)
			}
		}, func() (names []string) {
			for _, s := range out.Items {
				names = append(names, s.Channel)
			}
			return names
		})
	}
	return c
}

func (a *app) rebuildNode(ctx context.Context, args []string, out *admin.LedgerRebuild) error {
	t, err := a.node()
	if err != nil {
		return err
	}
	defer t.Close()
	names, err := a.namesOf(ctx, t, args)
	if err != nil {
		return err
	}
	for _, name := range names {
		r := admin.Remote{Client: t.Client, Name: name}
		one, err := beside(ctx, a, "judging "+name, func() (done, target, bytes uint64) {
			state, err := r.StateHash(ctx, "")
			if err != nil {
				return 0, 0, 0 // there is none yet
			}
			if info, err := r.Info(ctx); err == nil {
				target = info.Height
			}
			return state.Height, target, 0
		}, func() (*admin.LedgerRebuild, error) { return r.Rebuild(ctx) })
		if err != nil {
			return err
		}
		out.Items = append(out.Items, one.Items...)
	}
	return nil
}

package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"grapevine/cmd/grapevine/admin"
)

// reading runs a verb that reads a channel's world state, of a node or a folder.
func (a *app) reading(c *cobra.Command, ch, data string, do func(ctx context.Context, src chain) error) (err error) {
	src, err := a.chain(ch, data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	ctx, cancel := a.within(c.Context(), askTime)
	defer cancel()
	return do(ctx, src)
}

// stateFlags are those of the verbs that read the world state.
func stateFlags(c *cobra.Command) (namespace, data *string) {
	return c.Flags().String("namespace", "", "the chaincode whose key it is"),
		c.Flags().String("data", "", "read this data folder instead of asking a node")
}

func newStateGetCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "get CH KEY --namespace NS [--data DIR]", Short: "One key of the world state, with its version",
		Long: `Shows what the committed, valid transactions of channel CH left under a key, and
which transaction of which block wrote it last. Of an absent key it says so and
exits with 1.

` + whichNode,
		Example: "  grapevine state get mychannel asset1 --namespace basic\n  grapevine state get mychannel asset1 --namespace basic --data DIR -o json",
		Args:    exactly("CH", "KEY"), Annotations: next("grapevine state history CH KEY --namespace NS"), ValidArgsFunction: a.completeChannels,
	}
	namespace, data := stateFlags(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		return a.reading(c, args[0], *data, func(ctx context.Context, src chain) error {
			e, err := src.State(ctx, *namespace, args[1])
			if err != nil {
				return err
			}
			return a.emit(e, func(t *table) {
				t.row("key", e.Key)
				t.row("value", shown(e.Value, e.Text))
				t.row("version", fmt.Sprintf("block %d, transaction %d", e.Version.Block, e.Version.Tx))
				t.row("height", e.Height)
			}, func() []string { return []string{e.Value} })
		})
	}
	return c
}

// shown is a value for people: its text, or its base64.
func shown(value, text string) string {
	if text == "" && value != "" {
		return value
	}
	return fmt.Sprintf("%q", text)
}

func newStateDumpCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "dump CH [--namespace NS] [--hashes] [--data DIR]", Short: "All keys of the world state",
		Long: `Writes every public key of channel CH's world state at one height, sorted by
namespace and key: with -o json a StateEntry on each line. With --hashes also what
is known of private data: the hashes of keys and values.

` + whichNode,
		Example: "  grapevine state dump mychannel -o json\n  grapevine state dump mychannel --namespace basic --data DIR -o json",
		Args:    exactly("CH"), Annotations: next("grapevine state hash CH"), ValidArgsFunction: a.completeChannels,
	}
	namespace, data := stateFlags(c)
	hashes := c.Flags().Bool("hashes", false, "the hashes of private data too")
	c.RunE = func(c *cobra.Command, args []string) (err error) {
		src, err := a.chain(args[0], *data)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, src.Close()) }()
		q := admin.DumpQuery{Namespace: *namespace, Only: c.Flags().Changed("namespace"), Hashes: *hashes}
		return src.Dump(c.Context(), q, func(e *admin.StateEntry) error {
			if a.flags.output == "yaml" {
				if err := a.write([]byte("---\n")); err != nil {
					return err
				}
			}
			return a.emit(e, func(t *table) {
				name := e.Namespace
				if e.Collection != "" {
					name += "/" + e.Collection
				}
				fmt.Fprintf(t, "%s  %q  %d:%d  %s\n", orDash(name), e.Key, e.Version.Block, e.Version.Tx, shown(e.Value, e.Text))
			}, func() []string { return []string{e.Key} })
		})
	}
	return c
}

func newStateHistoryCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "history CH KEY --namespace NS [--data DIR]", Short: "The versions that a key had",
		Long: `Lists the valid transactions that wrote or deleted a public key of channel CH, the
oldest first, with what they wrote.

` + whichNode,
		Example: "  grapevine state history mychannel asset1 --namespace basic\n  grapevine state history mychannel asset1 --namespace basic -o json",
		Args:    exactly("CH", "KEY"), Annotations: next("grapevine block get CH N"), ValidArgsFunction: a.completeChannels,
	}
	namespace, data := stateFlags(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		return a.reading(c, args[0], *data, func(ctx context.Context, src chain) error {
			h, err := src.History(ctx, *namespace, args[1])
			if err != nil {
				return err
			}
			return a.emit(h, func(t *table) {
				t.row("BLOCK", "TX", "ID", "VALUE")
				for _, x := range h.Items {
					value := shown(x.Value, x.Text)
					if x.Deleted {
						value = "(deleted)"
					}
					t.row(x.Version.Block, x.Version.Tx, x.TxID, value)
				}
			}, func() []string {
				var ids []string
				for _, x := range h.Items {
					ids = append(ids, x.TxID)
				}
				return ids
			})
		})
	}
	return c
}

func newStateHashCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "hash CH [--at HEIGHT] [--data DIR]", Short: "Digest of the world state",
		Long: `Shows the hash of channel CH's world state: behind the newest block judged, or
behind the first HEIGHT blocks. On every peer whose state is right, equal heights
give equal hashes.

` + whichNode,
		Example: "  grapevine state hash mychannel\n  grapevine state hash mychannel --at 31 --data DIR -o json",
		Args:    exactly("CH"), Annotations: next("grapevine state dump CH"), ValidArgsFunction: a.completeChannels,
	}
	at := c.Flags().String("at", "", "the height (default: the present one)")
	data := c.Flags().String("data", "", "read this data folder instead of asking a node")
	c.RunE = func(c *cobra.Command, args []string) error {
		return a.reading(c, args[0], *data, func(ctx context.Context, src chain) error {
			h, err := src.StateHash(ctx, *at)
			if err != nil {
				return err
			}
			return a.emit(h, func(t *table) {
				t.row("channel", h.Channel)
				t.row("height", h.Height)
				t.row("tip", h.TipHash)
				t.row("state", h.StateHash)
				t.row("algorithm", h.Algorithm)
			}, func() []string { return []string{h.StateHash} })
		})
	}
	return c
}

package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"grapevine/cmd/grapevine/admin"
)

func newBlockTraceCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "trace CH N", Short: "How a block came to the channel's peers",
		Long: `Asks all members of channel CH that the node is connected to how block N came to
them: when, from whom, and by which way: from an orderer, inline (in its
announcement), direct (whole, from who announced it), striped (in chunks, by
relays), or pull (asked for). A peer remembers that of its last 1024 blocks.
Times are by the asked node's clock, to about half of a round trip.

` + whichNode,
		Example: "  grapevine block trace mychannel newest\n  grapevine block trace mychannel 8123 -o json",
		Args:    exactly("CH", "N"), ValidArgsFunction: a.completeChannels,
		RunE: func(c *cobra.Command, args []string) error {
			if err := errors.Join(admin.CheckChannel(args[0]), checkNumber(args[1])); err != nil {
				return err
			}
			t, err := a.node()
			if err != nil {
				return err
			}
			defer t.Close()
			ctx, cancel := a.within(c.Context(), askTime)
			defer cancel()
			b, err := admin.Remote{Client: t.Client, Name: args[0]}.Trace(ctx, args[1])
			if err != nil {
				return err
			}
			return a.emit(b, func(t *table) { showTrace(t, b) }, func() (names []string) {
				for _, v := range b.Items {
					names = append(names, v.Name)
				}
				return names
			})
		},
	}
}

// showTrace writes a trace for people.
func showTrace(t *table, b *admin.BlockTrace) {
	t.row("PEER", "PATH", "FROM", "AFTER", "DURABLE", "COPIES")
	for _, v := range b.Items {
		if v.Path == "" {
			t.row(v.Name, "-", v.Message, "-", "-", "-")
			continue
		}
		from := v.From
		if from == "" && v.Path == "orderer" {
			from = "the ordering service"
		}
		t.row(v.Name, v.Path, orDash(from), fmt.Sprintf("%.1fms", v.AfterMs), fmt.Sprintf("+%.1fms", v.DurableMs), fmt.Sprintf("%.2f", v.Copies))
	}
	t.row(fmt.Sprintf("%d of %d in %.1f ms", b.Known, b.Asked, b.SpreadMs))
}

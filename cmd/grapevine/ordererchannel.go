package main

import (
	"strings"

	"github.com/spf13/cobra"

	"grapevine/cmd/grapevine/admin"
	"grapevine/cmd/grapevine/conf"
	"grapevine/cmd/grapevine/dev"
)

const firstOrderer = "orderer0" // of a development network

const whichOrderer = `The ordering node is the one of --target (a node's name in the development network,
its data folder or its admin socket), or the one whose data folder the
configuration names (FileLedger.Location), or orderer0 of the development network.
Over the network, with a client certificate: grapevine osnadmin channel.`

func newOrdererChannelCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "channel", Short: "Have an ordering node join, list and remove channels",
		Example: "  grapevine orderer channel list\n  grapevine orderer channel join mychannel -b mychannel.block --target orderer1",
	}
	c.AddCommand(newOrdererChannelJoinCmd(a), newOrdererChannelListCmd(a), newOrdererChannelRemoveCmd(a))
	return c
}

// orderer finds the ordering node that a verb speaks to.
func (a *app) orderer() (*target, error) {
	if a.flags.target != "" || (a.flags.context != "" && a.flags.context != dev.ContextName) {
		return a.node()
	}
	if s := a.settings(conf.RoleOrderer); a.flags.context == "" {
		if dir, named := s.OrdererDir(); named {
			return &target{Client: admin.Dial(dir).StartWith("grapevine orderer start")}, nil
		}
	}
	return a.devNode(firstOrderer)
}

func newOrdererChannelJoinCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "join CH --config-block FILE", Short: "Join a channel by its genesis block or a later configuration block",
		Long: `Makes the ordering node take part in channel CH: as a consenter, if the
configuration names it among them by its TLS certificate, else as a follower, which
has the blocks and becomes a consenter when a configuration says so. By a later
configuration block it first takes the blocks before from the orderers that the
block names, and they must lead to it. Joining again changes nothing.

` + whichOrderer,
		Example: "  grapevine orderer channel join mychannel --config-block mychannel.block\n  grapevine orderer channel join mychannel -b newest.block --target /var/lib/orderer3",
		Args:    exactly("CH"), Annotations: next("grapevine orderer channel list"),
	}
	file := c.Flags().StringP("config-block", "b", "", "the block's file")
	c.RunE = func(c *cobra.Command, args []string) error {
		if *file == "" {
			return usage(c, "--config-block is missing")
		}
		if err := admin.CheckChannel(args[0]); err != nil {
			return err
		}
		raw, err := readFile(a.path(*file), maxBlockFile)
		if err != nil {
			return err
		}
		t, err := a.orderer()
		if err != nil {
			return err
		}
		defer t.Close()
		ctx, cancel := a.within(c.Context(), changeTime)
		defer cancel()
		if _, err := t.Join(ctx, args[0], raw, ""); err != nil {
			return err
		}
		l, err := t.Ordered(ctx, args[0])
		if err != nil {
			return err
		}
		return a.emit(&l.Items[0], func(t *table) { showOrdered(t, l) }, func() []string { return args })
	}
	return c
}

func newOrdererChannelListCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list [CH]", Short: "The channels of an ordering node, and what it is to them",
		Long:    "Lists the channels that the ordering node takes part in, or tells of CH alone.\n\n" + whichOrderer,
		Example: "  grapevine orderer channel list\n  grapevine orderer channel list mychannel -o json",
		Args:    between(0, "CH"), Annotations: next("grapevine orderer channel join CH --config-block FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			t, err := a.orderer()
			if err != nil {
				return err
			}
			defer t.Close()
			ctx, cancel := a.within(c.Context(), askTime)
			defer cancel()
			l, err := t.Ordered(ctx, strings.Join(args, ""))
			if err != nil {
				return err
			}
			return a.emit(l, func(t *table) { showOrdered(t, l) }, func() (names []string) {
				for _, i := range l.Items {
					names = append(names, i.Name)
				}
				return names
			})
		},
	}
}

func showOrdered(t *table, l *admin.OrderedChannelList) {
	if len(l.Items) == 0 {
		t.row("no channel is joined")
		return
	}
	t.row("CHANNEL", "RELATION", "STATUS", "HEIGHT", "")
	for _, i := range l.Items {
		t.row(i.Name, i.ConsensusRelation, i.Status, i.Height, i.Reason)
	}
}

func newOrdererChannelRemoveCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "remove CH [--yes]", Short: "Remove a channel from an ordering node, with its blocks",
		Long: `Ends what the ordering node does for channel CH and deletes its blocks and its part
of the consensus log there. It asks on a terminal; elsewhere it needs --yes. A
consenter should be taken out of the channel's configuration before: one that is
removed first is an orderer that doesn't answer any more.

` + whichOrderer,
		Example: "  grapevine orderer channel remove mychannel --yes --target orderer2",
		Args:    exactly("CH"), Annotations: next("grapevine orderer channel list"),
	}
	yes := c.Flags().Bool("yes", false, "don't ask")
	c.RunE = func(c *cobra.Command, args []string) error {
		if !*yes {
			if err := a.confirm("delete all that this ordering node has of " + args[0] + "?"); err != nil {
				return err
			}
		}
		t, err := a.orderer()
		if err != nil {
			return err
		}
		defer t.Close()
		ctx, cancel := a.within(c.Context(), changeTime)
		defer cancel()
		r, err := t.RemoveOrdered(ctx, args[0])
		if err != nil {
			return err
		}
		return a.emit(r, func(t *table) { t.row("removed " + r.Name) }, func() []string { return []string{r.Name} })
	}
	return c
}

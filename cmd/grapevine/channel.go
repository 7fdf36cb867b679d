package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"grapevine/cmd/grapevine/admin"
)

func newChannelCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "channel", Short: "Join, leave and look at channels", GroupID: groupChannels,
		Example: "  grapevine channel join mychannel --block genesis.block\n  grapevine channel ls\n  grapevine channel info mychannel",
	}
	c.AddCommand(newChannelJoinCmd(a), newChannelLeaveCmd(a), newChannelLsCmd(a), newChannelInfoCmd(a), newChannelMembersCmd(a), newChannelLeaderCmd(a), newChannelConfigCmd(a))
	return c
}

func newChannelLsCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "ls [--watch]", Short: "Channels of this node",
		Long:    "Lists the channels that the node has joined.\n\n" + whichNode,
		Example: "  grapevine channel ls\n  grapevine channel ls -o name",
		Args:    exactly(), Annotations: watched(next("grapevine channel info CH")),
		RunE: func(c *cobra.Command, _ []string) error {
			t, err := a.node()
			if err != nil {
				return err
			}
			defer t.Close()
			return a.watch(c.Context(), func(ctx context.Context) (*screen, error) {
				l, err := t.Channels(ctx)
				if err != nil {
					return nil, err
				}
				return &screen{obj: l, show: func(t *table) { showChannels(t, l) }, names: func() (names []string) {
					for _, i := range l.Items {
						names = append(names, i.Name)
					}
					return names
				}}, nil
			})
		},
	}
}

func showChannels(t *table, l *admin.ChannelList) {
	if len(l.Items) == 0 {
		t.row("no channel is joined")
		return
	}
	t.row("CHANNEL", "HEIGHT", "STATE", "TIP")
	for _, i := range l.Items {
		state := "running"
		if i.Halted {
			state = "HALTED"
		}
		t.row(i.Name, i.Height, state, i.TipHash)
	}
}

func newChannelInfoCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "info CH [--watch] [--data DIR]", Short: "Height, hashes, organisations, orderers, config sequence",
		Long:    "Tells of channel CH as the node holds it, or as a data folder does that no node\nhas open.\n\n" + whichNode,
		Example: "  grapevine channel info mychannel\n  grapevine channel info mychannel -o json\n  grapevine channel info mychannel --data DIR",
		Args:    exactly("CH"), Annotations: watched(nil), ValidArgsFunction: a.completeChannels,
	}
	data := c.Flags().String("data", "", "read this data folder instead of asking a node")
	c.RunE = func(c *cobra.Command, args []string) error {
		src, err := a.chain(args[0], *data)
		if err != nil {
			return err
		}
		err = a.watch(c.Context(), func(ctx context.Context) (*screen, error) {
			i, err := src.Info(ctx)
			if err != nil {
				return nil, err
			}
			return &screen{obj: i, show: func(t *table) { showInfo(t, i) }, names: func() []string { return []string{i.Name} }}, nil
		})
		return errors.Join(err, src.Close())
	}
	return c
}

func newChannelConfigCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "config CH [--data DIR]", Short: "The current channel configuration as JSON",
		Long:    "Prints the configuration in force on channel CH as configtxlator prints a\ncommon.Config: certificates, policies and values opened.\n\n" + whichNode,
		Example: "  grapevine channel config mychannel\n  grapevine channel config mychannel | jq .channel_group.groups.Application",
		Args:    exactly("CH"), ValidArgsFunction: a.completeChannels,
	}
	c.AddCommand(newConfigDiffCmd(a), newSetAnchorCmd(a), newAddOrgCmd(a), newRemoveOrgCmd(a), newRevokeCmd(a), newConfigSignCmd(a), newConfigSubmitCmd(a))
	data := c.Flags().String("data", "", "read this data folder instead of asking a node")
	c.RunE = func(c *cobra.Command, args []string) error {
		src, err := a.chain(args[0], *data)
		if err != nil {
			return err
		}
		ctx, cancel := a.within(c.Context(), askTime)
		defer cancel()
		text, err := src.JSON(ctx)
		if err = errors.Join(err, src.Close()); err != nil {
			return err
		}
		if a.flags.output == "yaml" {
			if text, err = toYAML(text); err != nil {
				return err
			}
		}
		return a.write(append(bytes.TrimRight(text, "\n"), '\n'))
	}
	return c
}

func showInfo(t *table, i *admin.ChannelInfo) {
	t.row("channel", i.Name)
	t.row("height", fmt.Sprintf("%d, %d behind", i.Height, i.Lag))
	t.row("tip", i.TipHash)
	t.row("genesis", i.GenesisHash)
	t.row("config", fmt.Sprintf("sequence %d, in block %d", i.ConfigSequence, i.ConfigBlock))
	t.row("consensus", i.Consensus)
	for _, o := range i.Orgs {
		t.row("org", fmt.Sprintf("%s (%s) anchors %s, %d alive", o.Org, o.MSPID, orDash(strings.Join(o.Anchors, " ")), o.Alive))
	}
	for _, o := range i.Orderers {
		t.row("orderer", fmt.Sprintf("%s (%s)", o.Endpoint, o.MSPID))
	}
	if i.Halted {
		t.row("HALTED", i.HaltCode)
	}
}

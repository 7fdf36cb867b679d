package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
	"grapevine/channel"
	"grapevine/cmd/grapevine/admin"
	"grapevine/cmd/grapevine/fault"
	"grapevine/orderer"
)

// newPeerChannelCmd is what operators know from Fabric's peer, with its flags.
func newPeerChannelCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "channel", Short: "List, look at, fetch of and join channels, with Fabric's flags",
		Long: `What Fabric's peer channel does that a node of ours can answer, with its flags.
More is done by "grapevine channel".`,
		Example: "  grapevine peer channel list\n  grapevine peer channel getinfo -c mychannel\n  grapevine peer channel join -b mychannel.block",
	}
	c.AddCommand(newPeerListCmd(a), newPeerGetInfoCmd(a), newPeerFetchCmd(a), newPeerJoinCmd(a))
	return c
}

func newPeerListCmd(a *app) *cobra.Command {
	c := newChannelLsCmd(a)
	c.Use, c.Example = "list", "  grapevine peer channel list"
	return c
}

func newPeerGetInfoCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "getinfo -c CH", Short: "Height and hashes of a channel",
		Long:    "Tells of a channel as the node holds it, as grapevine channel info does.\n\n" + whichNode,
		Example: "  grapevine peer channel getinfo -c mychannel",
		Args:    exactly(), Annotations: next("grapevine channel info CH"),
	}
	ch := channelFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error { return instead(c, newChannelInfoCmd(a), *ch) }
	return c
}

func newPeerJoinCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "join -b FILE", Short: "Join the channel of a genesis or configuration block",
		Long:    "Makes the node join the channel that a block names, as grapevine channel join does.\n\n" + whichNode,
		Example: "  grapevine peer channel join -b mychannel.block",
		Args:    exactly(), Annotations: next("grapevine peer channel list", "grapevine channel info CH"),
	}
	file := c.Flags().StringP("blockpath", "b", "", "the block's file")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if *file == "" {
			return usage(c, "-b is missing: which block?")
		}
		raw, err := readFile(a.path(*file), maxBlockFile)
		if err != nil {
			return err
		}
		b, err := block.Decode(raw)
		if err != nil {
			return fmt.Errorf("%s: %w", *file, err)
		}
		conf, err := channel.Parse(b)
		if err != nil {
			return fmt.Errorf("%s: %w", *file, err)
		}
		join := newChannelJoinCmd(a)
		if err := join.Flags().Set("block", *file); err != nil {
			return err
		}
		return instead(c, join, conf.Channel())
	}
	return c
}

func newPeerFetchCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "fetch newest|oldest|config|N [FILE] -c CH [-o ADDR --cafile FILE]", Short: "Write one block to a file",
		Long: `Writes a block's bytes to FILE, or to CH_newest.block and the like: of the node, or
of an orderer, whose gRPC address -o names and whose TLS certificate --cafile must
have signed. config is the newest configuration block. As with Fabric's peer, -o names
the orderer here, and not the form of the output. It is asked in the name of the
development node that --target names, or of the configuration's peer.localMspId and
peer.mspConfigPath.

` + whichNode,
		Example: "  grapevine peer channel fetch config -c mychannel\n  grapevine peer channel fetch 0 genesis.block -c mychannel -o orderer.example.com:7050 --cafile tlsca.pem",
		Args:    cobra.RangeArgs(1, 2), Annotations: next("grapevine block decode FILE"),
	}
	f := c.Flags()
	ch := channelFlag(c)
	from := f.StringP("orderer", "o", "", "an orderer's gRPC address, HOST:PORT")
	cafile := f.String("cafile", "", "the PEM file of the CA that signed the orderer's TLS certificate")
	f.Bool("tls", true, "always so; taken because Fabric's peer needs it")
	_ = f.MarkHidden("tls") // it was defined a line above
	f.String("output", "", "")
	_ = f.MarkHidden("output") // likewise
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := admin.CheckChannel(*ch); err != nil {
			return err
		}
		if args[0] != "config" {
			if err := checkNumber(args[0]); err != nil {
				return err
			}
		}
		if (*from == "") != (*cafile == "") {
			return usage(c, "-o and --cafile go together")
		}
		to := fmt.Sprintf("%s_%s.block", *ch, args[0])
		if len(args) > 1 {
			to = args[1]
		}
		ctx, cancel := a.within(c.Context(), changeTime)
		defer cancel()
		var raw []byte
		var err error
		if *from == "" {
			raw, err = a.held(ctx, *ch, args[0])
		} else {
			raw, err = a.ordered(ctx, *ch, args[0], *from, *cafile)
		}
		if err != nil {
			return err
		}
		return a.writeFile(to, raw)
	}
	return c
}

// held is a block as the node has it.
func (a *app) held(ctx context.Context, ch, which string) (raw []byte, err error) {
	src, err := a.chain(ch, "")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	if which == "config" {
		i, err := src.Info(ctx)
		if err != nil {
			return nil, err
		}
		which = fmt.Sprint(i.ConfigBlock)
	}
	err = src.Raw(ctx, which, func(b []byte) error { raw = b; return nil })
	return raw, err
}

// ordered is a block as an orderer has it.
func (a *app) ordered(ctx context.Context, ch, which, from, cafile string) ([]byte, error) {
	t, err := a.node()
	if err != nil {
		return nil, err
	}
	defer t.Close()
	client, err := a.ordering(t, ch, from, cafile)
	if err != nil {
		return nil, err
	}
	number := orderer.Newest
	switch which {
	case "newest", "config":
	case "oldest":
		number = 0
	default:
		if number, err = strconv.ParseUint(which, 10, 64); err != nil {
			return nil, fault.Newf(fault.Usage, "%q is no block number", which)
		}
	}
	b, err := client.Fetch(ctx, number)
	if err == nil && which == "config" && !block.IsConfig(b) {
		b, err = configOf(ctx, client, b)
	}
	if err != nil {
		return nil, unfetched(from, err)
	}
	return proto.Marshal(b)
}

// configOf fetches the configuration block that a block names as the last.
func configOf(ctx context.Context, client *orderer.Client, b *common.Block) (*common.Block, error) {
	n, err := block.LastConfigOf(b)
	if err != nil {
		return nil, err
	}
	return client.Fetch(ctx, n)
}

func channelFlag(c *cobra.Command) *string {
	return c.Flags().StringP("channelID", "c", "", "the channel")
}

// instead runs another command in this one's place.
func instead(c, other *cobra.Command, args ...string) error {
	other.SetContext(c.Context())
	return other.RunE(other, args)
}

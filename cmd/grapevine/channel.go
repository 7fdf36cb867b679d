package main

import (
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"grapevine/block"
	"grapevine/channel"
	"grapevine/cmd/grapevine/admin"
	"grapevine/wire"
)

func newChannelCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "channel", Short: "Channels and their configuration", GroupID: groupChannels,
		Example: "  grapevine channel info mychannel --data DIR",
	}
	c.AddCommand(newChannelInfoCmd(a))
	return c
}

func newChannelInfoCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "info CH [--data DIR]", Short: "Height, hashes, organisations, orderers, config sequence",
		Example: "  grapevine channel info mychannel --data DIR\n  grapevine channel info mychannel --data DIR -o json",
		Args:    exactly("CH"),
	}
	data := c.Flags().String("data", "", "read this data folder instead of asking a node")
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := checkChannel(args[0]); err != nil {
			return err
		}
		if *data == "" {
			_, err := a.chain(c, args[0], "")
			return err
		}
		s, err := a.openChain(args[0], *data)
		if err != nil {
			return err
		}
		defer s.Close()
		info, err := storedInfo(s)
		if err != nil {
			return err
		}
		return a.emit(info, func(t *table) { showInfo(t, info) }, func() []string { return []string{info.Name} })
	}
	return c
}

// storedInfo tells of a channel in a data folder that no node has open.
func storedInfo(s *stored) (*admin.ChannelInfo, error) {
	raw, number, err := s.ConfigBlock()
	if err != nil {
		return nil, err
	}
	b, err := block.Decode(raw)
	if err != nil {
		return nil, err
	}
	cfg, err := channel.Parse(b)
	if err != nil {
		return nil, fmt.Errorf("configuration in block %d: %w", number, err)
	}
	tip := s.Tip()
	out := &admin.ChannelInfo{
		Name: s.Name(), Height: tip.Height, TipHash: hex.EncodeToString(tip.Hash[:]),
		ConfigSequence: cfg.Sequence(), ConfigBlock: number, Consensus: cfg.Consensus(), Validity: admin.ValidityNone,
	}
	if out.GenesisHash, _, err = hashes(s, 0); err != nil {
		return nil, err
	}
	if _, out.PreviousHash, err = hashes(s, tip.Height-1); err != nil {
		return nil, err
	}
	for _, o := range cfg.Orgs() {
		out.Orgs = append(out.Orgs, admin.ChannelOrg{Org: o.Name, MSPID: o.MSPID, Anchors: o.Anchors})
	}
	for _, o := range cfg.Orderers() {
		out.Orderers = append(out.Orderers, admin.ChannelOrderer{Endpoint: o.Endpoint, MSPID: o.MSPID})
	}
	if err := s.Halted(); err != nil {
		out.Halted, out.HaltCode = true, "ledger.halted"
		if r := wire.ReasonOf(err); r != nil {
			out.HaltCode = r.Code()
		}
	}
	return out, nil
}

// hashes returns a block's hash and its previous one's, in hexadecimal.
func hashes(s chain, n uint64) (hash, previous string, err error) {
	raw, err := s.Block(n)
	if err != nil {
		return "", "", err
	}
	b, err := block.Decode(raw)
	if err != nil {
		return "", "", err
	}
	h := block.HeaderHash(b.Header)
	return hex.EncodeToString(h[:]), hex.EncodeToString(b.Header.PreviousHash), nil
}

func showInfo(t *table, i *admin.ChannelInfo) {
	t.row("channel", i.Name)
	t.row("height", i.Height)
	t.row("tip", i.TipHash)
	t.row("genesis", i.GenesisHash)
	t.row("config", fmt.Sprintf("sequence %d, in block %d", i.ConfigSequence, i.ConfigBlock))
	t.row("consensus", i.Consensus)
	for _, o := range i.Orgs {
		t.row("org", fmt.Sprintf("%s (%s) anchors %s", o.Org, o.MSPID, orDash(strings.Join(o.Anchors, " "))))
	}
	for _, o := range i.Orderers {
		t.row("orderer", fmt.Sprintf("%s (%s)", o.Endpoint, o.MSPID))
	}
	if i.Halted {
		t.row("HALTED", i.HaltCode)
	}
}

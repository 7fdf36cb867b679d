package main

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/google/renameio/v2"
	"github.com/hyperledger/fabric-config/protolator"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"

	"grapevine/cmd/grapevine/admin"
	"grapevine/cmd/grapevine/fault"
)

func newBlockCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "block", Short: "Read, follow, verify and export blocks", GroupID: groupChannels,
		Example: "  grapevine block get mychannel newest\n  grapevine block tail mychannel --from 0\n  grapevine block verify --genesis genesis.block --blocks blocks/",
	}
	c.AddCommand(newBlockGetCmd(a), newBlockTailCmd(a), newBlockVerifyCmd(a), newBlockDecodeCmd(a), newBlockExportCmd(a), newBlockTraceCmd(a))
	return c
}

func newBlockGetCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "get CH N [--full] [--raw FILE] [--data DIR]", Short: "One block, decoded, or its protobuf bytes",
		Long: `Shows block N of channel CH; N is a number, oldest or newest. Each signature is
judged by the configuration in force before the block. With --raw the block's
bytes go to a file instead.

` + whichNode,
		Example: "  grapevine block get mychannel newest\n  grapevine block get mychannel 7 --full -o json\n  grapevine block get mychannel 0 --raw genesis.block --data DIR",
		Args:    exactly("CH", "N"), ValidArgsFunction: a.completeChannels,
	}
	full := c.Flags().Bool("full", false, "payloads too")
	raw := c.Flags().String("raw", "", "write the block's bytes to this file")
	data := c.Flags().String("data", "", "read this data folder instead of asking a node")
	c.RunE = func(c *cobra.Command, args []string) (err error) {
		if err := errors.Join(admin.CheckChannel(args[0]), checkNumber(args[1])); err != nil {
			return err
		}
		src, err := a.chain(args[0], *data)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, src.Close()) }()
		ctx, cancel := a.within(c.Context(), askTime)
		defer cancel()
		if *raw != "" {
			return src.Raw(ctx, args[1], func(b []byte) error { return a.writeFile(*raw, b) })
		}
		b, err := src.Block(ctx, args[1], *full)
		if err != nil {
			return err
		}
		return a.emit(b, func(t *table) { showBlock(t, b) }, func() []string { return []string{b.Hash} })
	}
	return c
}

// checkNumber refuses what can't be a block's number, before anybody is asked.
func checkNumber(text string) error {
	_, err := admin.ParseNumber(text, 1)
	return err
}

// writeFile puts a file in place whole or not at all.
func (a *app) writeFile(path string, b []byte) error {
	if err := renameio.WriteFile(a.path(path), b, 0o644); err != nil {
		return fault.Newf(fault.BadFile, "cannot write %s", path).Because(err.Error()).Do("name a file in a folder that you may write").From(err)
	}
	a.say("wrote %s, %d bytes\n", path, len(b))
	return nil
}

// showBlock writes a block for people.
func showBlock(t *table, b *admin.Block) {
	t.row("channel", b.Channel)
	t.row("number", b.Number)
	t.row("hash", b.Hash)
	t.row("previous", orDash(b.PreviousHash))
	t.row("data hash", b.DataHash)
	t.row("size", b.Size)
	t.row("config", fmt.Sprintf("%v, last %d", b.Config, b.LastConfig))
	for _, s := range b.Signatures {
		who := s.MSPID + " " + s.Subject
		if s.ConsenterID != 0 {
			who = fmt.Sprintf("consenter %d %s", s.ConsenterID, who)
		}
		verdict := "NOT VALID"
		if s.Valid {
			verdict = "valid"
		}
		t.row("signed by", who+" ("+verdict+")")
	}
	for _, x := range b.Txs {
		id := x.ID
		if len(id) > 16 && !t.wide {
			id = id[:16] + "…"
		}
		t.row(fmt.Sprintf("tx %d", x.Index), fmt.Sprintf("%s %s %s %s %d bytes", orDash(id), orDash(x.Type), orDash(x.MSPID), x.Validity, x.Size))
	}
}

func newBlockDecodeCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "decode FILE", Short: "Block file to JSON, offline, as configtxlator prints it",
		Example: "  grapevine block decode genesis.block\n  grapevine block decode 0007.block | jq .header",
		Args:    exactly("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			raw, err := readFile(a.path(args[0]), maxBlockFile)
			if err != nil {
				return err
			}
			text, err := decodeJSON(raw)
			if err != nil {
				return fault.Newf("BLK003", "%s cannot be decoded", args[0]).Because(err.Error()).From(err)
			}
			return a.write(text)
		},
	}
}

// decodeJSON prints a block as Fabric's tools do, opaque bytes opened. They
// refuse a block with an entry that doesn't parse; so does this.
func decodeJSON(raw []byte) ([]byte, error) {
	b := &common.Block{}
	if err := proto.Unmarshal(raw, b); err != nil {
		return nil, err
	}
	if b.Header == nil {
		return nil, errors.New("it has no header")
	}
	var out bytes.Buffer
	if err := protolator.DeepMarshalJSON(&out, b); err != nil {
		return nil, err
	}
	if !bytes.HasSuffix(out.Bytes(), []byte("\n")) {
		out.WriteByte('\n')
	}
	return out.Bytes(), nil
}

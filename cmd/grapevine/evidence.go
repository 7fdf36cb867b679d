package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"grapevine/block"
	"grapevine/cmd/grapevine/admin"
	"grapevine/cmd/grapevine/fault"
)

func newEvidenceCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "evidence", Short: "Proofs of what orderers and members signed and can't be true", GroupID: groupOperate,
		Example: "  grapevine evidence ls\n  grapevine evidence verify FILE",
	}
	c.AddCommand(newEvidenceLsCmd(a), newEvidenceVerifyCmd(a))
	return c
}

func newEvidenceLsCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "ls [--data DIR]", Short: "The evidence that a node keeps",
		Long: `Lists the evidence that a node keeps in the folder evidence/ of its data, each
proven again from what is in its file. A fork (two validly signed blocks for one
place) stops its channel, also after a restart, until an operator has found out
with those of the ordering service which block is true, and moved the file to
evidence/settled/. Members that announced a block falsely are only barred.

` + whichNode,
		Example: "  grapevine evidence ls\n  grapevine evidence ls --data DIR -o json",
		Args:    exactly(), Annotations: next("grapevine evidence verify FILE"),
	}
	data := c.Flags().String("data", "", "read this data folder instead of asking a node")
	c.RunE = func(c *cobra.Command, _ []string) error {
		l, err := a.evidence(c.Context(), *data)
		if err != nil {
			return err
		}
		return a.emit(l, func(t *table) { showEvidence(t, l) }, func() (names []string) {
			for _, i := range l.Items {
				names = append(names, i.File)
			}
			return names
		})
	}
	return c
}

// evidence is what a node keeps, or a data folder.
func (a *app) evidence(ctx context.Context, data string) (*admin.EvidenceList, error) {
	if data != "" {
		if !a.exists(data) {
			return nil, fault.Newf(fault.BadFile, "there is no folder %s", data).Do("name a node's data folder")
		}
		return admin.ListEvidence(a.path(data))
	}
	t, err := a.node()
	if err != nil {
		return nil, err
	}
	defer t.Close()
	ctx, cancel := a.within(ctx, askTime)
	defer cancel()
	return t.Evidence(ctx)
}

func showEvidence(t *table, l *admin.EvidenceList) {
	if len(l.Items) == 0 {
		t.row("no evidence")
		return
	}
	t.row("FOUND", "CHANNEL", "BLOCK", "KIND", "STATE", "FILE")
	for _, i := range l.Items {
		state := "proven"
		if !i.OK {
			state = i.Code
		}
		if i.Settled {
			state += ", settled"
		}
		t.row(i.Found.UTC().Format("2006-01-02 15:04:05"), i.Channel, i.Number, i.Type, state, i.File)
	}
}

func newEvidenceVerifyCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "verify FILE [--genesis F]", Short: "Prove a file of evidence, offline",
		Long: `Proves what FILE says from its own bytes alone, without a node or a network: the
configurations in it lead from the channel's genesis block, each signed as the one
before demands, to the rules in force at the block in question; by these the
statements must be validly signed, and contradict each other. It exits with 6
unless they do.

Whose genesis block it is FILE can't say: give the channel's own with --genesis, or
compare the hash that is shown (grapevine channel info CH has it). Accused is only
who signed what contradicts itself. A fork may accuse nobody by name: where one
orderer signed one block and another the other, either may be right.`,
		Example: "  grapevine evidence verify mychannel-42-fork-1a2b3c4d.evidence --genesis genesis.block\n  grapevine evidence verify FILE -o json",
		Args:    exactly("FILE"), Annotations: next("grapevine channel info CH"),
	}
	genesis := c.Flags().String("genesis", "", "the channel's genesis block")
	c.RunE = func(_ *cobra.Command, args []string) error {
		raw, err := readFile(a.path(args[0]), maxBlockFile)
		if err != nil {
			return err
		}
		var own []byte
		if *genesis != "" {
			if own, err = readFile(a.path(*genesis), maxBlockFile); err != nil {
				return err
			}
			if _, err := block.Genesis(own); err != nil {
				return fault.Newf("BLK003", "%s is no genesis block", *genesis).Because(err.Error()).From(err)
			}
		}
		v, err := admin.VerifyEvidence(filepath.Base(args[0]), raw, own)
		if err != nil {
			return err
		}
		err = a.emit(v, func(t *table) { showProof(t, v) }, nil)
		if err == nil && !v.OK {
			err = exitCode(fault.ExitCheck)
		}
		return err
	}
	return c
}

func showProof(t *table, v *admin.EvidenceVerification) {
	if !v.OK {
		t.row("FAIL", v.Code, v.Message)
		return
	}
	t.row("proven", fmt.Sprintf("%s at block %d of %s", v.Type, v.Number, v.Channel))
	pinned := "compare it: it is the file's own"
	if v.Pinned {
		pinned = "as given"
	}
	t.row("genesis", v.GenesisHash, pinned)
	t.row("rules", fmt.Sprintf("of configuration block %d", v.ConfigBlock))
	for _, h := range v.Headers {
		t.row("header", h.Hash)
		for _, s := range h.Signers {
			t.row("  signed by", s.Subject+" of "+s.MSPID)
		}
	}
	for _, s := range v.Accused {
		t.row("accused", s.Subject+" of "+s.MSPID, s.PKIID)
	}
	if len(v.Accused) == 0 {
		t.row("accused", "nobody by name: no key signed both")
	}
}

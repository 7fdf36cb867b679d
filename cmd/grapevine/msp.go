package main

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	mspproto "github.com/hyperledger/fabric-protos-go-apiv2/msp"

	"grapevine/cmd/grapevine/admin"
	"grapevine/cmd/grapevine/fault"
	"grapevine/msp"
	"grapevine/wire"
)

func newMSPCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "msp", Short: "What an MSP folder holds and accepts", GroupID: groupIdentity,
		Example: "  grapevine msp inspect msp/\n  grapevine msp verify msp/ --cert cert.pem",
	}
	c.AddCommand(newMSPInspectCmd(a), newMSPVerifyCmd(a))
	return c
}

// features are a present channel's: the newest capabilities.
var features = msp.Features{NodeOUs: true, Ed25519: true}

// mspFlag adds --mspid. A folder doesn't name its MSP.
func mspFlag(c *cobra.Command) *string {
	return c.Flags().String("mspid", "MSP", "the MSP ID under which to read the folder")
}

// definition loads a folder and builds its MSP.
func (a *app) definition(mspID, dir string) (*msp.MSP, *mspproto.FabricMSPConfig, []admin.Problem, error) {
	conf, warnings, err := msp.LoadConfig(mspID, dir)
	if err != nil {
		return nil, nil, nil, err
	}
	m, err := msp.New(conf, features)
	if err != nil {
		return nil, nil, nil, fault.Newf("MSP001", "the definition in %s cannot be used", dir).Because(err.Error()).From(err)
	}
	var problems []admin.Problem
	for _, w := range append(warnings, m.WarningsAt(a.now())...) {
		p := admin.Problem{Code: "MSP001", Severity: "warning", Message: w.Message}
		if e, ok := fault.ByReason(w.Code); ok {
			p.Code = e.Code
			if len(e.Fix) > 0 {
				p.Fix = e.Fix[0]
			}
		}
		problems = append(problems, p)
	}
	return m, conf, problems, nil
}

func newMSPInspectCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "inspect DIR", Short: "What an MSP folder holds and means",
		Example:     "  grapevine msp inspect peers/peer0.org1.example.com/msp\n  grapevine msp inspect msp -o json --mspid Org1MSP",
		Args:        exactly("DIR"),
		Annotations: next("grapevine msp verify DIR --cert FILE"),
	}
	mspID := mspFlag(c)
	c.RunE = func(_ *cobra.Command, args []string) error {
		dir := a.path(args[0])
		_, conf, problems, err := a.definition(*mspID, dir)
		if err != nil {
			return err
		}
		out := &admin.MSPInfo{Dir: dir, MSPID: *mspID, OK: true, Problems: problems}
		out.NodeOUs = conf.FabricNodeOus.GetEnable()
		for kind, list := range map[string][][]byte{"cacerts": conf.RootCerts, "intermediatecerts": conf.IntermediateCerts, "admincerts": conf.Admins, "tlscacerts": conf.TlsRootCerts} {
			for _, b := range list {
				if p, _ := pem.Decode(b); p != nil {
					if cert, err := x509.ParseCertificate(p.Bytes); err == nil { // the definition has loaded them all
						out.Certs = append(out.Certs, certificateInfo(kind, cert, a.now()))
					}
				}
			}
		}
		sortCertificates(out.Certs)
		for _, b := range conf.RevocationList {
			if list, err := parseCRL(b); err == nil { // what can't be read is among the warnings
				out.Revoked += len(list.RevokedCertificateEntries)
			}
		}
		signer, err := msp.Load(*mspID, dir)
		switch {
		case err == nil:
			id := signer.Identity()
			out.Signer = id.Certificate().Subject.String()
			info := certificateInfo("signcerts", id.Certificate(), a.now())
			info.PKIID = id.PKIID().String()
			out.Certs = append(out.Certs, info)
		case exists(filepath.Join(dir, "signcerts")):
			return err
		}
		return a.emit(out, func(t *table) {
			t.row("folder", out.Dir)
			t.row("signer", orDash(out.Signer))
			t.row("NodeOUs", out.NodeOUs)
			t.row("revoked", out.Revoked)
			for _, p := range out.Problems {
				t.row(p.Severity+" "+p.Code, p.Message)
			}
			t.row()
			showCertificates(t, out.Certs)
		}, nil)
	}
	return c
}

func newMSPVerifyCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "verify DIR [--cert FILE]", Short: "Would this MSP accept this certificate, and why not",
		Long: `Asks the MSP in DIR about a certificate: the file's, or its own signing one. Two
judges answer. The live judge decides whether the holder may connect now; it looks
at the clock and is strict. The ledger judge decides about signatures in blocks; it
knows no clock and is as lenient as Fabric. It exits with 4 unless both accept.`,
		Example: "  grapevine msp verify msp --cert cert.pem\n  grapevine msp verify peers/peer0.org1.example.com/msp\n  grapevine msp verify msp --cert cert.pem -o json",
		Args:    exactly("DIR"),
	}
	mspID := mspFlag(c)
	file := c.Flags().String("cert", "", "the certificate; those after the first in the file are its intermediates")
	c.RunE = func(_ *cobra.Command, args []string) error {
		dir := a.path(args[0])
		m, _, problems, err := a.definition(*mspID, dir)
		if err != nil {
			return err
		}
		id, intermediates, err := a.subject(*mspID, dir, *file)
		if err != nil {
			return err
		}
		live, ledger := m.ValidateLive(id, intermediates, a.now()), m.Validate(id)
		out := &admin.MSPVerification{
			Dir: dir, MSPID: *mspID, Subject: id.Certificate().Subject.String(), OK: live == nil && ledger == nil,
			Live: judgement(live), Ledger: judgement(ledger), Problems: problems,
		}
		err = a.emit(out, func(t *table) {
			t.row("certificate", out.Subject)
			t.row("live judge", verdictWord(out.Live))
			t.row("ledger judge", verdictWord(out.Ledger))
			for _, p := range out.Problems {
				t.row(p.Severity+" "+p.Code, p.Message)
			}
		}, nil)
		if err == nil && !out.OK {
			refusal := live
			if refusal == nil {
				refusal = ledger
			}
			e := fault.Of(refusal)
			err = fault.New(e.Code, "the MSP refuses "+id.Name()).Because(append([]string{refusal.Error()}, e.Why...)...).WithExit(fault.ExitIdentity)
		}
		return err
	}
	return c
}

// subject is the identity to judge: a file's, or the folder's own.
func (a *app) subject(mspID, dir, file string) (*msp.Identity, [][]byte, error) {
	if file == "" {
		signer, err := msp.Load(mspID, dir)
		if err != nil {
			return nil, nil, err
		}
		chain, err := msp.LoadChain(dir)
		return signer.Identity(), chain, err
	}
	ders, err := readCertificates(a.path(file))
	if err != nil {
		return nil, nil, err
	}
	id, err := msp.FromDER(mspID, ders[0])
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", file, err)
	}
	return id, ders[1:], nil
}

func judgement(err error) admin.Judgement {
	if err == nil {
		return admin.Judgement{OK: true}
	}
	j := admin.Judgement{Message: err.Error()}
	if r := wire.ReasonOf(err); r != nil {
		j.Code = r.Code()
	}
	return j
}

func verdictWord(j admin.Judgement) string {
	if j.OK {
		return "accepts"
	}
	return "refuses: " + j.Message
}

func parseCRL(b []byte) (*x509.RevocationList, error) {
	p, _ := pem.Decode(b)
	if p == nil {
		return nil, errors.New("no PEM block")
	}
	return x509.ParseRevocationList(p.Bytes)
}

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"

	"github.com/google/renameio/v2"
	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
	"grapevine/channel"
	"grapevine/channel/genesis"
	change "grapevine/channel/update"
	"grapevine/cmd/grapevine/admin"
	"grapevine/cmd/grapevine/fault"
	"grapevine/msp"
	"grapevine/orderer"
)

// updateFile is what the verbs that make an update share: where it is written,
// and whose configuration it starts from.
type updateFile struct{ out, data *string }

const updateLong = `The update is written to a file, as Fabric's tools keep one; nothing is changed
until it is signed by the administrators that the channel's policies ask for
(grapevine channel config sign) and submitted (grapevine channel config submit).
It starts from the configuration that the node, or --data, has now.

` + whichNode

func (a *app) updateCmd(use, short, long string, args cobra.PositionalArgs, edit func(args []string) (change.Edit, error)) *cobra.Command {
	c := &cobra.Command{
		Use: use + " [--out FILE] [--data DIR]", Short: short, Long: long + "\n\n" + updateLong, Args: args,
		Annotations: next("grapevine channel config sign FILE --msp DIR --mspid ID", "grapevine channel config submit FILE"),
	}
	u := updateFile{
		out:  c.Flags().String("out", "", "the file to write; CH.update.pb if it isn't named"),
		data: c.Flags().String("data", "", "read this data folder instead of asking a node"),
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		e, err := edit(args)
		if err != nil {
			return err
		}
		return a.makeUpdate(c.Context(), args[0], u, e)
	}
	return c
}

// makeUpdate writes the update that an edit makes of a channel's configuration.
func (a *app) makeUpdate(ctx context.Context, ch string, u updateFile, edit change.Edit) error {
	now, err := a.configNow(ctx, ch, *u.data)
	if err != nil {
		return err
	}
	env, err := change.Make(ch, now.Content(), edit)
	if errors.Is(err, change.ErrNoChange) {
		return fault.Newf("CHN009", "channel %s has that configuration already", ch)
	}
	if err != nil {
		return fault.New("CHN008", err.Error()).From(err)
	}
	out := *u.out
	if out == "" {
		out = ch + ".update.pb"
	}
	return a.writeUpdate(out, env, false)
}

// configNow is the configuration in force.
func (a *app) configNow(ctx context.Context, ch, data string) (_ *channel.Config, err error) {
	src, err := a.chain(ch, data)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	ctx, cancel := a.within(ctx, askTime)
	defer cancel()
	info, err := src.Info(ctx)
	if err != nil {
		return nil, err
	}
	var conf *channel.Config
	err = src.Raw(ctx, fmt.Sprint(info.ConfigBlock), func(raw []byte) error {
		b, err := block.Decode(raw)
		if err == nil {
			conf, err = channel.Parse(b)
		}
		return err
	})
	if err == nil && conf == nil {
		err = fault.Newf(fault.NotFound, "block %d, the configuration of %s, isn't held", info.ConfigBlock, ch)
	}
	return conf, err
}

// writeUpdate puts an update in a file, whole or not at all, and shows it. Only
// with again another file may be there.
func (a *app) writeUpdate(file string, env *common.Envelope, again bool) error {
	u, err := describeUpdate(env)
	if err != nil {
		return err
	}
	raw, err := proto.Marshal(env)
	if err != nil {
		return fmt.Errorf("encoding the update: %w", err)
	}
	if !again && a.exists(file) {
		return fault.Newf(fault.BadFile, "%s exists", file).Do("name another file with --out, or move that one away")
	}
	if err := renameio.WriteFile(a.path(file), raw, 0o644); err != nil {
		return fault.Newf(fault.BadFile, "cannot write %s", file).Because(bare(err)).From(err)
	}
	u.File = file
	return a.emit(u, func(t *table) { showUpdate(t, u) }, func() []string { return []string{file} })
}

func describeUpdate(env *common.Envelope) (*admin.ConfigUpdate, error) {
	u, err := change.Read(env)
	if err != nil {
		return nil, fault.New("CHN008", err.Error()).From(err)
	}
	out := &admin.ConfigUpdate{Channel: u.Channel}
	for _, c := range u.Changes {
		out.Changes = append(out.Changes, admin.ConfigChange(c))
	}
	for _, s := range u.Signers {
		out.Signers = append(out.Signers, admin.ConfigSigner{MSPID: s.MSPID(), Name: s.Name()})
	}
	return out, nil
}

func showUpdate(t *table, u *admin.ConfigUpdate) {
	t.row("channel", u.Channel)
	for _, c := range u.Changes {
		t.row("changes", fmt.Sprintf("%s to version %d", c.Path, c.Version))
	}
	for _, s := range u.Signers {
		t.row("signed by", s.Name+" of "+s.MSPID)
	}
	if u.File != "" {
		t.row("file", u.File)
	}
	if u.Submitted != "" {
		t.row("submitted to", u.Submitted)
	}
}

// readUpdate reads an update's file.
func (a *app) readUpdate(file string) (*common.Envelope, error) {
	raw, err := readFile(a.path(file), maxBlockFile)
	if err != nil {
		return nil, err
	}
	env := &common.Envelope{}
	if err := proto.Unmarshal(raw, env); err != nil {
		return nil, fault.Newf("CHN008", "%s is not a configuration update", file).Because(err.Error()).From(err)
	}
	return env, nil
}

func newConfigDiffCmd(a *app) *cobra.Command {
	c := a.updateCmd("diff CH FILE", "The update to an edited configuration",
		"Computes the update that leads channel CH to the configuration of FILE: JSON as\nchannel config prints it, and as configtxlator does, edited.",
		exactly("CH", "FILE"), func(args []string) (change.Edit, error) {
			text, err := readFile(a.path(args[1]), maxTextFile)
			if err != nil {
				return nil, err
			}
			next, err := channel.ParseJSON(text)
			if err != nil {
				return nil, fault.Newf("CHN008", "%s is no channel configuration", args[1]).Because(err.Error()).From(err).
					Do("edit what grapevine channel config CH prints")
			}
			return change.To(next), nil
		})
	c.Example = "  grapevine channel config mychannel > now.json\n  grapevine channel config diff mychannel edited.json --out update.pb"
	return c
}

func newSetAnchorCmd(a *app) *cobra.Command {
	c := a.updateCmd("set-anchor CH ORG HOST:PORT", "The update that names an anchor peer",
		"Makes HOST:PORT the anchor peer of organisation ORG, named by its group or its\nMSP ID, in place of those it has.",
		exactly("CH", "ORG", "HOST:PORT"), func(args []string) (change.Edit, error) { return change.SetAnchors(args[1], args[2]), nil })
	c.Example = "  grapevine channel config set-anchor mychannel org3 peer0.org3.example.com:7051"
	return c
}

func newAddOrgCmd(a *app) *cobra.Command {
	var dir, mspID string
	var anchors []string
	c := a.updateCmd("add-org CH NAME --msp DIR --mspid ID", "The update that adds an organisation",
		"Adds organisation NAME of the application, defined by the MSP folder --msp (that\nof the organisation, without keys, or of one of its nodes).",
		exactly("CH", "NAME"), func(args []string) (change.Edit, error) {
			if dir == "" || mspID == "" {
				return nil, fault.New(fault.Usage, "--msp and --mspid are both needed").Do("grapevine channel config add-org --help")
			}
			_, def, _, err := a.definition(mspID, a.path(dir))
			if err != nil {
				return nil, err
			}
			def.SigningIdentity = nil
			return change.AddOrg(genesis.Org{Name: args[1], MSPID: mspID, MSP: def, Anchors: anchors}), nil
		})
	c.Flags().StringVar(&dir, "msp", "", "the organisation's MSP folder")
	c.Flags().StringVar(&mspID, "mspid", "", "its MSP ID")
	c.Flags().StringArrayVar(&anchors, "anchor", nil, "an anchor peer, HOST:PORT; may be repeated")
	c.Example = "  grapevine channel config add-org mychannel org4 --msp org4/msp --mspid Org4MSP --anchor peer0.org4:7051"
	return c
}

func newRemoveOrgCmd(a *app) *cobra.Command {
	c := a.updateCmd("remove-org CH ORG", "The update that removes an organisation",
		"Removes the application's organisation ORG, named by its group or its MSP ID.",
		exactly("CH", "ORG"), func(args []string) (change.Edit, error) { return change.RemoveOrg(args[1]), nil })
	c.Example = "  grapevine channel config remove-org mychannel org3"
	return c
}

func newRevokeCmd(a *app) *cobra.Command {
	var crl string
	c := a.updateCmd("revoke CH ORG --crl FILE", "The update that carries a revocation list",
		"Gives organisation ORG, named by its group or its MSP ID, the certificate\nrevocation list of --crl, in place of the one it has of the same issuer.",
		exactly("CH", "ORG"), func(args []string) (change.Edit, error) {
			if crl == "" {
				return nil, fault.New(fault.Usage, "--crl is missing").Do("grapevine channel config revoke --help")
			}
			list, err := readFile(a.path(crl), maxTextFile)
			if err != nil {
				return nil, err
			}
			return change.Revoke(args[1], list), nil
		})
	c.Flags().StringVar(&crl, "crl", "", "the list, PEM, as grapevine ca revoke writes it")
	c.Example = "  grapevine ca revoke peer1.org1\n  grapevine channel config revoke mychannel org1 --crl crypto/peerOrganizations/org1/msp/crls/crl.pem"
	return c
}

// adminFlags name the identity in whose name an update is signed.
type adminFlags struct{ dir, mspID *string }

func (a *app) adminFlags(c *cobra.Command) adminFlags {
	return adminFlags{
		c.Flags().String("msp", "", "the administrator's MSP folder; the configuration's peer.mspConfigPath if it isn't named"),
		c.Flags().String("mspid", "", "the MSP ID of --msp"),
	}
}

func (a *app) administrator(f adminFlags) (msp.Signer, error) {
	switch {
	case (*f.dir == "") != (*f.mspID == ""):
		return nil, fault.New(fault.Usage, "--msp and --mspid go together")
	case *f.dir == "":
		return a.signer(&target{})
	}
	return msp.Load(*f.mspID, a.path(*f.dir))
}

func newConfigSignCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "sign FILE [--msp DIR --mspid ID] [--out FILE]", Short: "Sign a configuration update",
		Long: `Adds a signature to the update in FILE, as peer channel signconfigtx does. The
signer is that of --msp, or of the configuration's peer.localMspId and
peer.mspConfigPath. Nobody signs twice.`,
		Example: "  grapevine channel config sign mychannel.update.pb --msp crypto/peerOrganizations/org1/users/Admin@org1/msp --mspid Org1MSP",
		Args:    exactly("FILE"), Annotations: next("grapevine channel config submit FILE"),
	}
	who := a.adminFlags(c)
	out := c.Flags().String("out", "", "write here and leave FILE as it is")
	c.RunE = func(_ *cobra.Command, args []string) error {
		env, err := a.readUpdate(args[0])
		if err != nil {
			return err
		}
		s, err := a.administrator(who)
		if err != nil {
			return err
		}
		signed, err := change.Sign(env, s)
		if err != nil {
			return fault.New("CHN008", err.Error()).From(err)
		}
		if *out != "" {
			return a.writeUpdate(*out, signed, false)
		}
		return a.writeUpdate(args[0], signed, true)
	}
	return c
}

func newConfigSubmitCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "submit FILE [--msp DIR --mspid ID] [--orderer ADDR --cafile FILE]", Short: "Submit a configuration update to the ordering service",
		Long: `Submits the update in FILE, as peer channel update does: to an orderer that the
channel's configuration names, or to --orderer. Who submits, that of --msp or of
the configuration, must be one who may write to the channel, and signs the update
too, unless he has. It returns when the update stands in a block.

` + whichNode,
		Example: "  grapevine channel config submit mychannel.update.pb --msp crypto/peerOrganizations/org1/users/Admin@org1/msp --mspid Org1MSP",
		Args:    exactly("FILE"), Annotations: next("grapevine channel config CH", "grapevine channel info CH"),
	}
	who := a.adminFlags(c)
	addr := c.Flags().String("orderer", "", "an orderer's gRPC address, HOST:PORT")
	cafile := c.Flags().String("cafile", "", "the PEM file of the CA that signed its TLS certificate")
	c.RunE = func(c *cobra.Command, args []string) error {
		if (*addr == "") != (*cafile == "") {
			return usage(c, "--orderer and --cafile go together")
		}
		env, err := a.readUpdate(args[0])
		if err != nil {
			return err
		}
		s, err := a.administrator(who)
		if err != nil {
			return err
		}
		signed, err := change.Sign(env, s)
		switch {
		case errors.Is(err, change.ErrSigned):
			signed = env
		case err != nil:
			return fault.New("CHN008", err.Error()).From(err)
		}
		u, err := describeUpdate(signed)
		if err != nil {
			return err
		}
		ctx, cancel := a.within(c.Context(), changeTime)
		defer cancel()
		ends, err := a.orderers(ctx, u.Channel, *addr, *cafile)
		if err != nil {
			return err
		}
		if u.Submitted, err = a.submit(ctx, u.Channel, signed, s, ends); err != nil {
			return err
		}
		return a.emit(u, func(t *table) { showUpdate(t, u) }, func() []string { return []string{u.Channel} })
	}
	return c
}

// orderers are those a flag names, or the channel's.
func (a *app) orderers(ctx context.Context, ch, addr, cafile string) ([]orderer.Endpoint, error) {
	if addr != "" {
		roots, err := readPool(a.path(cafile))
		if err != nil {
			return nil, err
		}
		return []orderer.Endpoint{{Address: addr, Roots: roots}}, nil
	}
	conf, err := a.configNow(ctx, ch, "")
	if err != nil {
		return nil, err
	}
	var out []orderer.Endpoint
	for _, o := range conf.Orderers() {
		out = append(out, orderer.Endpoint{Address: o.Endpoint, Roots: o.TLSRoots})
	}
	return out, nil
}

// submit has an update ordered, and returns who took it.
func (a *app) submit(ctx context.Context, ch string, env *common.Envelope, s msp.Signer, ends []orderer.Endpoint) (string, error) {
	sealed, err := change.Seal(env, s, a.now())
	if err != nil {
		return "", err
	}
	own, err := a.clientTLS()
	if err != nil {
		return "", err
	}
	conf := orderer.ClientConfig{Channel: ch, Signer: s, Endpoints: func() []orderer.Endpoint { return ends }}
	if len(own.Certificates) > 0 {
		conf.ClientCert = func() *tls.Certificate { return &own.Certificates[0] }
	}
	answer, err := orderer.NewClient(conf).Submit(ctx, sealed)
	if err != nil {
		return "", fault.Newf(fault.TimedOut, "no orderer took the update in time").From(err).Because("the last word: " + err.Error())
	}
	if answer.Status != common.Status_SUCCESS {
		return "", fault.Newf("CHN010", "%s refused the update: %v", answer.Via, answer.Status).Because(answer.Info)
	}
	return answer.Via, nil
}

package main

import (
	"errors"
	"os"

	"github.com/spf13/cobra"

	"grapevine/cmd/grapevine/admin"
	"grapevine/cmd/grapevine/fault"
	"grapevine/msp/ca"
)

func newCACmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "ca", Short: "A small certificate authority", GroupID: groupIdentity,
		Example: "  grapevine ca generate -f crypto-config.yaml -o crypto-config\n  grapevine ca issue peer3.org1.example.com\n  grapevine ca inspect crypto-config",
	}
	c.AddCommand(newCAGenerateCmd(a), newCAIssueCmd(a), newCARevokeCmd(a), newCAInspectCmd(a))
	return c
}

func newCAGenerateCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "generate -f crypto-config.yaml -o DIR", Short: "The exact tree that cryptogen writes",
		Long: `Makes certificate authorities, nodes and users of every organisation that the
file names, in the tree that Fabric's cryptogen writes. An organisation's folder
that exists already is left alone, and then nothing is written.`,
		Example:     "  grapevine ca generate -f crypto-config.yaml -o crypto-config",
		Args:        exactly(),
		Annotations: next("grapevine ca inspect DIR", "grapevine ca issue NAME --dir DIR"),
	}
	file := c.Flags().StringP("file", "f", "crypto-config.yaml", "the organisations to make")
	// -o is the folder here, as it is cryptogen's --output.
	dir := c.Flags().StringP("output", "o", "crypto-config", "the folder to write to")
	c.RunE = func(*cobra.Command, []string) error {
		raw, err := readFile(a.path(*file), maxTextFile)
		if err != nil {
			return err
		}
		spec, err := ca.ParseSpec(raw)
		if err != nil {
			return fault.Newf(fault.BadYAML, "%s cannot be used", *file).Because(err.Error()).Do("correct the line named").From(err)
		}
		if err := ca.Generate(spec, a.path(*dir), a.now()); err != nil {
			return fault.Newf(fault.BadFile, "cannot write to %s", *dir).Because(err.Error()).
				Do("name a folder without these organisations, or remove them first").From(err)
		}
		for _, o := range append(spec.OrdererOrgs, spec.PeerOrgs...) {
			a.say("made %s\n", o.Domain)
		}
		return nil
	}
	return c
}

func newCAInspectCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "inspect FILE|DIR", Short: "Who, by whom, until when, for what",
		Example: "  grapevine ca inspect signcerts/cert.pem\n  grapevine ca inspect crypto-config -o wide",
		Args:    exactly("FILE or DIR"),
		RunE: func(_ *cobra.Command, args []string) error {
			path := a.path(args[0])
			read := a.inspectFile
			if info, err := os.Stat(path); err == nil && info.IsDir() {
				read = a.inspectFolder
			}
			infos, err := read(path)
			if err != nil {
				return err
			}
			list := &admin.CertificateList{Items: infos}
			return a.emit(list, func(t *table) { showCertificates(t, infos) }, func() []string {
				var names []string
				for _, i := range infos {
					names = append(names, commonName(i.Subject))
				}
				return names
			})
		},
	}
}

func newCAIssueCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "issue NAME [--tls]", Short: "One certificate and key",
		Long: `Issues a certificate from the CA of the organisation whose domain NAME ends in,
within a tree that ca generate or cryptogen made: peer3.org1.example.com is a node,
User2@org1.example.com a user. It writes the msp folder of that node or user, or
with --tls its tls folder. What exists already is never replaced.`,
		Example:     "  grapevine ca issue peer3.org1.example.com\n  grapevine ca issue peer3.org1.example.com --tls --san localhost --san 127.0.0.1\n  grapevine ca issue User2@org1.example.com --dir crypto-config",
		Args:        exactly("NAME"),
		Annotations: next("grapevine ca inspect DIR", "grapevine msp verify DIR"),
	}
	var r issue
	c.Flags().StringVar(&r.tree, "dir", "crypto-config", "the tree of organisations")
	c.Flags().BoolVar(&r.tls, "tls", false, "a TLS certificate instead of a signing one")
	c.Flags().StringVar(&r.role, "role", "", "client, peer, admin or orderer (by the name's form unless given)")
	c.Flags().StringArrayVar(&r.sans, "san", nil, "a host name or IP address in a TLS certificate; may be repeated")
	c.Flags().StringVar(&r.algorithm, "algorithm", "ecdsa", "ecdsa, p384 or ed25519")
	c.RunE = func(_ *cobra.Command, args []string) error {
		r.tree, r.name = a.path(r.tree), args[0]
		dir, info, err := r.write(a.now())
		if err != nil {
			return err
		}
		a.say("wrote %s\n", dir)
		return a.emit(&admin.CertificateList{Items: []admin.CertificateInfo{*info}},
			func(t *table) { showCertificates(t, []admin.CertificateInfo{*info}) }, func() []string { return []string{r.name} })
	}
	return c
}

func newCARevokeCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "revoke NAME|SERIAL", Short: "Revoke and rewrite the CRL",
		Long: `Revokes the signing certificate of a node or user, by its name or by its serial
number in hexadecimal, and writes the new revocation list into every MSP folder of
its organisation. A channel learns of it by a configuration update.`,
		Example:     "  grapevine ca revoke peer3.org1.example.com\n  grapevine ca revoke 5f07b2b234bb4a89ad83b67bf7bfaffd --dir crypto-config",
		Args:        exactly("NAME or SERIAL"),
		Annotations: next("grapevine msp verify DIR --cert FILE"),
	}
	dir := c.Flags().String("dir", "crypto-config", "the tree of organisations")
	c.RunE = func(_ *cobra.Command, args []string) error {
		infos, err := revoke(a.path(*dir), args[0], a.now())
		if err != nil {
			return err
		}
		return a.emit(&admin.CertificateList{Items: infos}, func(t *table) {
			for _, i := range infos {
				t.row("revoked", commonName(i.Subject), i.Serial)
			}
		}, func() []string {
			var names []string
			for _, i := range infos {
				names = append(names, i.Serial)
			}
			return names
		})
	}
	return c
}

// exists reports whether something stands at a path.
func exists(p string) bool {
	_, err := os.Lstat(p)
	return !errors.Is(err, os.ErrNotExist)
}

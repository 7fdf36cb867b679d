package main

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"grapevine/cmd/grapevine/conf"
	"grapevine/cmd/grapevine/fault"
)

// Groups of verbs, in the order of the help.
const (
	groupStart    = "start"
	groupNetwork  = "network"
	groupChannels = "channels"
	groupIdentity = "identity"
	groupOperate  = "operate"
	groupTools    = "tools"
)

// verbs lists the constructors of all verb groups.
var verbs = []func(a *app) *cobra.Command{
	newDevCmd,
	newStatusCmd,
	newPeerCmd,
	newPeersCmd,
	newOrdererCmd, newOSNAdminCmd, newRelayCmd,
	newChannelCmd,
	newLeaderCmd,
	newBlockCmd,
	newLedgerCmd,
	newStateCmd,
	newSnapshotCmd,
	newCACmd,
	newMSPCmd,
	newConfigCmd,
	newDoctorCmd,
	newEvidenceCmd,
	newCompletionCmd,
	newVersionCmd,
}

// outputs are the values of -o.
var outputs = []string{"table", "wide", "json", "yaml", "name"}

// newRoot builds the command tree.
func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "grapevine",
		Short: "Bring the blocks of an ordering service to every peer of a channel",
		Long: `Grapevine brings the signed blocks of an ordering service to every peer of
their channel, over a libp2p network in which every host proves who it is by an
X.509 (MSP) identity. It verifies each block before it keeps it or passes it on.`,
		Example: `  grapevine config check core.yaml
  grapevine block verify --genesis genesis.block --blocks blocks/
  grapevine version -o json`,
		SilenceErrors: true, SilenceUsage: true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		PersistentPreRunE: func(c *cobra.Command, _ []string) error { return a.checkFlags(c) },
	}
	root.SetHelpCommand(&cobra.Command{Use: "no-help", Hidden: true, RunE: func(*cobra.Command, []string) error { return nil }})
	root.AddGroup(
		&cobra.Group{ID: groupStart, Title: "Start here"}, &cobra.Group{ID: groupNetwork, Title: "Network"},
		&cobra.Group{ID: groupChannels, Title: "Channels and blocks"}, &cobra.Group{ID: groupIdentity, Title: "Identity"},
		&cobra.Group{ID: groupOperate, Title: "Operate"}, &cobra.Group{ID: groupTools, Title: "Tools"},
	)
	f := root.PersistentFlags()
	f.StringVarP(&a.flags.output, "output", "o", "table", "output: "+strings.Join(outputs, ", "))
	f.BoolVarP(&a.flags.watch, "watch", "w", false, "go on and show changes")
	f.StringVar(&a.flags.context, "context", "", "the cluster to speak to")
	f.StringVar(&a.flags.target, "target", "", "the node to speak to: its admin address, or its name in the context")
	f.DurationVar(&a.flags.timeout, "timeout", 0, "how long to wait for an answer")
	f.BoolVarP(&a.flags.quiet, "quiet", "q", false, "no talk on stderr")
	f.BoolVarP(&a.flags.verbose, "verbose", "v", false, "more talk on stderr")
	f.BoolVar(&a.flags.noColor, "no-color", false, "no colour")
	f.BoolVar(&a.flags.noInput, "no-input", false, "never ask")
	f.BoolVar(&a.flags.noProgress, "no-progress", false, "no progress")
	f.StringArrayVar(&a.flags.configs, "config", nil, "a configuration file; may be repeated")
	for _, v := range verbs {
		root.AddCommand(v(a))
	}
	if err := a.completeFlags(root); err != nil {
		panic("grapevine: " + err.Error()) // a flag misspelt in this package
	}
	tidy(a, root)
	return root
}

// tidy gives every command the house's manners.
func tidy(a *app, c *cobra.Command) {
	c.SetFlagErrorFunc(flagError)
	c.SetHelpFunc(func(c *cobra.Command, _ []string) { a.help(c) })
	c.DisableFlagsInUseLine = true
	if c.RunE == nil {
		c.Args, c.RunE = cobra.ArbitraryArgs, func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				a.help(c)
				return nil
			}
			return unknownVerb(c, args[0])
		}
	}
	for _, sub := range c.Commands() {
		tidy(a, sub)
	}
}

// execute runs the command line.
func (a *app) execute(ctx context.Context) error {
	root := newRoot(a)
	args := a.args
	if len(args) > 0 && args[0] == "help" { // help VERB is VERB --help
		args = append(slices.Clone(args[1:]), "--help")
	}
	a.args = args
	root.SetArgs(args)
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	err := root.ExecuteContext(ctx)
	if err != nil && strings.HasPrefix(err.Error(), "unknown command ") { // cobra's own words
		return usage(root, err.Error())
	}
	return err
}

func (a *app) checkFlags(c *cobra.Command) error {
	if !slices.Contains(outputs, a.flags.output) {
		return fault.Newf(fault.Usage, "-o %s is none of %s", a.flags.output, strings.Join(outputs, ", ")).
			Do(c.CommandPath() + " -o " + nearest(a.flags.output, outputs, "json"))
	}
	if a.flags.watch && c.Annotations[watchKey] == "" {
		return usage(c, c.CommandPath()+" can't be watched")
	}
	if a.flags.timeout < 0 {
		return usage(c, "--timeout is negative")
	}
	return nil
}

// usage is wrong use of a command.
func usage(c *cobra.Command, message string) error {
	return fault.New(fault.Usage, message).Do(c.CommandPath() + " --help")
}

// unknownVerb names the verb that was probably meant.
func unknownVerb(c *cobra.Command, name string) error {
	e := fault.Newf(fault.Usage, "unknown command %q for %q", name, c.CommandPath())
	var names []string
	for _, sub := range c.Commands() {
		if !sub.Hidden {
			names = append(names, sub.Name())
		}
	}
	if n := nearest(name, names, ""); n != "" {
		return e.Because("did you mean " + n + "?").Do(c.CommandPath() + " " + n)
	}
	return e.Do(c.CommandPath() + " --help")
}

// negative matches what pflag says of a number below zero, which looks like a flag.
var negative = regexp.MustCompile(`unknown shorthand flag: '\d' in (-\d+)`)

// flagError names the flag that was probably meant.
func flagError(c *cobra.Command, err error) error {
	if m := negative.FindStringSubmatch(err.Error()); m != nil {
		return fault.Newf(fault.BadNumber, "%q is not a block number", m[1]).From(err)
	}
	e := fault.New(fault.Usage, err.Error()).From(err)
	if name, ok := strings.CutPrefix(err.Error(), "unknown flag: --"); ok {
		var names []string
		c.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
		if n := nearest(name, names, ""); n != "" {
			return e.Because("did you mean --" + n + "?").Do(c.CommandPath() + " --" + n)
		}
	}
	return e.Do(c.CommandPath() + " --help")
}

// nearest returns the name most like a misspelt one, or def.
func nearest(name string, names []string, def string) string {
	best, found := len(name)/2+1, def
	for _, n := range slices.Sorted(slices.Values(names)) {
		d := conf.Distance(name, n, best)
		if strings.HasPrefix(n, name) && len(name) > 1 {
			d = 0
		}
		if d < best {
			best, found = d, n
		}
	}
	return found
}

// exactly wants that many arguments, named for the message.
func exactly(names ...string) cobra.PositionalArgs {
	return between(len(names), names...)
}

// between wants at least that many of the named arguments.
func between(least int, names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return usage(c, fmt.Sprintf("%s is missing", strings.Join(names[len(args):least], ", ")))
		case len(args) > len(names):
			return usage(c, fmt.Sprintf("%q is one argument too many", args[len(names)]))
		}
		return nil
	}
}

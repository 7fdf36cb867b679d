package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"grapevine/cmd/grapevine/admin"
	"grapevine/cmd/grapevine/conf"
)

func newConfigConvertCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "convert FILE [--enable-dissemination]", Short: "Fabric's core.yaml to a good Grapevine one",
		Long: `Prints what FILE says to a Grapevine node, and only that: keys that have a meaning
for Fabric alone and values that are the default are left out. What the original
says of dissemination stays, unless --enable-dissemination drops it: Fabric's own
samples switch it off. What was dropped, and why, is said on stderr. Paths stay as
they are: keep the result in the folder of FILE.`,
		Example: "  grapevine config convert /etc/hyperledger/fabric/core.yaml --enable-dissemination > core.yaml\n  grapevine config convert core.yaml -o json",
		Args:    exactly("FILE"), Annotations: next("grapevine config check FILE", "grapevine doctor --from-fabric DIR"),
	}
	enable := c.Flags().Bool("enable-dissemination", false, "drop the keys that switch dissemination off")
	c.RunE = func(_ *cobra.Command, args []string) error {
		s := conf.Load(conf.Input{Role: conf.AnyRole, Files: []string{a.path(args[0])}, Dir: a.path(".")})
		if len(s.Files) == 0 {
			return s.Err()
		}
		text, dropped, err := s.Convert(*enable)
		if err != nil {
			return err
		}
		out := &admin.ConfigConversion{YAML: string(text)}
		for _, d := range dropped {
			out.Dropped = append(out.Dropped, admin.DroppedKey(d))
		}
		for _, f := range s.Findings() {
			if f.Severity == conf.SeverityError {
				a.say("%s %s: %s\n", f.Severity, f.Code, f.Err().Message)
			}
		}
		if a.flags.output == "json" || a.flags.output == "yaml" {
			return a.emit(out, nil, nil)
		}
		for _, d := range dropped {
			a.say("dropped %s: %s\n", d.Key, d.Why)
		}
		return a.write([]byte(fmt.Sprintf("# Made by grapevine config convert from %s.\n%s", args[0], text)))
	}
	return c
}

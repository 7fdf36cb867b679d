package main

import (
	"strings"

	"github.com/spf13/cobra"

	"grapevine/cmd/grapevine/admin"
	"grapevine/cmd/grapevine/conf"
	"grapevine/cmd/grapevine/fault"
)

func newConfigCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "config", Short: "Judge, show and explain a node's configuration", GroupID: groupTools,
		Example: "  grapevine config check core.yaml\n  grapevine config show --sources peer.gossip\n  grapevine config explain peer.gossip.orgLeader",
	}
	c.AddCommand(newConfigCheckCmd(a), newConfigShowCmd(a), newConfigExplainCmd(a), newConfigConvertCmd(a))
	return c
}

// ordererFlag adds --orderer, which chooses orderer.yaml and its variables where
// no file says so by itself.
func ordererFlag(c *cobra.Command) func() conf.Role {
	orderer := c.Flags().Bool("orderer", false, "an orderer's configuration (orderer.yaml, ORDERER_ variables)")
	return func() conf.Role {
		if *orderer {
			return conf.RoleOrderer
		}
		return conf.AnyRole
	}
}

func newConfigCheckCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "check [FILE...] [--strict]", Short: "Judge a configuration without starting",
		Long: `Judges the configuration that a node would start with here: the files named,
or core.yaml where a node looks for it, and the environment. It exits with 3 if
a node would refuse it; with --strict also if there is anything to warn of.`,
		Example: "  grapevine config check\n  grapevine config check core.yaml grapevine.yaml\n  grapevine config check --strict -o json",
	}
	strict := c.Flags().Bool("strict", false, "count warnings as errors")
	role := ordererFlag(c)
	c.RunE = func(_ *cobra.Command, args []string) error {
		s := a.settings(role(), args...)
		out := configCheck(s, *strict)
		err := a.emit(out, func(t *table) {
			for _, f := range s.Findings() {
				t.row(strings.TrimRight(f.Text(), "\n"))
			}
			verdict := "ok"
			if !out.OK {
				verdict = "refused"
			}
			t.row(verdict+":", plural(out.Errors, "error")+",", plural(out.Warnings, "warning"))
			for _, f := range out.Files {
				t.row("read", f)
			}
		}, func() []string { return out.Files })
		if err == nil && !out.OK {
			err = exitCode(fault.ExitConfig)
		}
		return err
	}
	return c
}

// configCheck is the verdict as scripts read it.
func configCheck(s *conf.Settings, strict bool) *admin.ConfigCheck {
	errors, warnings := s.Count()
	out := &admin.ConfigCheck{
		OK: errors == 0 && (!strict || warnings == 0), Strict: strict, Files: s.Files, Errors: errors, Warnings: warnings,
	}
	for _, f := range s.Findings() {
		e := f.Err() // its lines are clean
		out.Findings = append(out.Findings, admin.Finding{
			Problem: admin.Problem{Code: f.Code, Severity: f.Severity, Message: e.Message, Fix: strings.Join(e.Fix, " · ")},
			Key:     f.Key, Value: f.Value, Why: strings.Join(e.Why, " · "), Suggestion: f.Suggestion, Source: source(f.Source),
		})
	}
	return out
}

func source(s conf.Source) admin.Source {
	if s.Kind == "" {
		s.Kind = "default"
	}
	return admin.Source{Kind: s.Kind, Name: s.Name, Line: s.Line}
}

func newConfigShowCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "show [--sources] [KEY]", Short: "Show effective values and where each comes from",
		Long: `Shows the value that each key has for a node that would start here, for one key
or all below it. What a key that is honoured by meaning becomes stands behind an
arrow. Secrets are not shown.`,
		Example: "  grapevine config show peer.gossip\n  grapevine config show --sources\n  grapevine config show -o json peer.deliveryclient",
		Args:    between(0, "KEY"),
	}
	c.ValidArgsFunction = completeKeys
	sources := c.Flags().Bool("sources", false, "show where each value comes from")
	role := ordererFlag(c)
	c.RunE = func(_ *cobra.Command, args []string) error {
		s := a.settings(role())
		key := ""
		if len(args) > 0 {
			key = args[0]
		}
		values := s.Values(key)
		if len(values) == 0 {
			return unknownKey(key)
		}
		out := &admin.ConfigValueList{}
		for _, v := range values {
			text := v.Text
			if v.Parsed == nil && !v.Set {
				text = ""
			}
			out.Items = append(out.Items, admin.ConfigValue{Key: v.Key.Path, Value: text, Mapped: v.Mapped, Source: source(v.Source)})
		}
		for _, f := range s.Findings() {
			a.say("%s %s: %s\n", f.Severity, f.Code, f.Err().Message)
		}
		return a.emit(out, func(t *table) {
			for _, v := range values {
				text := v.Text
				if v.Parsed == nil && !v.Set {
					text = "(" + v.Text + ")"
				}
				if v.Mapped != "" {
					text += " → " + v.Mapped
				}
				if *sources {
					t.row(v.Key.Path, text, v.Source)
				} else {
					t.row(v.Key.Path, text)
				}
			}
		}, func() []string {
			var names []string
			for _, v := range values {
				names = append(names, v.Key.Path)
			}
			return names
		})
	}
	return c
}

func newConfigExplainCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "explain KEY", Short: "Tell a key's meaning, default, Fabric's default and treatment",
		Example: "  grapevine config explain peer.gossip.orgLeader\n  grapevine config explain CORE_PEER_GOSSIP_BOOTSTRAP\n  grapevine config explain General.ListenPort -o json",
		Args:    exactly("KEY"), ValidArgsFunction: completeKeys,
		RunE: func(_ *cobra.Command, args []string) error {
			k, _ := conf.Explain(args[0])
			if k == nil {
				return unknownKey(args[0])
			}
			out := &admin.ConfigKey{
				Key: k.Path, Env: k.Env(), Type: k.Kind.String(), Treatment: string(k.Treatment), Default: k.Default,
				FabricDefault: k.Fabric, Values: k.Enum, Meaning: k.Meaning,
			}
			return a.emit(out, func(t *table) {
				t.row("key", out.Key)
				t.row("variable", out.Env)
				t.row("meaning", out.Meaning)
				t.row("type", out.Type)
				if len(out.Values) > 0 {
					t.row("values", strings.Join(out.Values, ", "))
				}
				def := out.Default
				if def == "" {
					def = orDash(k.Absent)
				}
				t.row("default", def)
				t.row("Fabric's", orDash(out.FabricDefault))
				t.row("treatment", out.Treatment)
			}, func() []string { return []string{out.Key} })
		},
	}
}

// completeKeys offers a shell every key of a peer and an orderer.
func completeKeys(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	var out []string
	for _, role := range []conf.Role{conf.RolePeer, conf.RoleOrderer} {
		for _, k := range conf.Keys(role) {
			if !strings.HasSuffix(k.Path, ".*") {
				out = append(out, k.Path)
			}
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// unknownKey says that there is no such key, and which was probably meant.
func unknownKey(name string) error {
	e := fault.Newf(fault.UnknownKey, "there is no key %q", name).WithExit(fault.ExitFailed)
	if _, near := conf.Explain(name); near != "" {
		return e.Because("did you mean " + near + "?").Do("grapevine config explain " + near)
	}
	return e.Because().Do("grapevine config show")
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

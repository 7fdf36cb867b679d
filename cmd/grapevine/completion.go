package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"grapevine/cmd/grapevine/dev"
)

func newCompletionCmd(a *app) *cobra.Command {
	shells := []string{"bash", "zsh", "fish", "powershell"}
	return &cobra.Command{
		Use: "completion bash|zsh|fish|powershell", Short: "Print a shell's completion script", GroupID: groupTools,
		Example:   "  source <(grapevine completion bash)\n  grapevine completion zsh > ~/.zfunc/_grapevine\n  grapevine completion fish | source",
		ValidArgs: shells,
		Args:      exactly("the shell"),
		RunE: func(c *cobra.Command, args []string) error {
			var (
				b    bytes.Buffer
				err  error
				root = c.Root()
			)
			switch args[0] {
			case "bash":
				err = root.GenBashCompletionV2(&b, true)
			case "zsh":
				err = root.GenZshCompletion(&b)
			case "fish":
				err = root.GenFishCompletion(&b, true)
			case "powershell":
				err = root.GenPowerShellCompletionWithDesc(&b)
			default:
				return usage(c, fmt.Sprintf("%q is none of bash, zsh, fish, powershell", args[0]))
			}
			if err != nil {
				return fmt.Errorf("write completion: %w", err)
			}
			return a.write(b.Bytes())
		},
	}
}

// completeTime is how long a shell waits for a node, at most.
const completeTime = time.Second

// completeChannels completes the first argument with the channels that the node
// of the flags has joined.
func (a *app) completeChannels(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	t, err := a.node()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer t.Close()
	ctx, cancel := context.WithTimeout(c.Context(), completeTime)
	defer cancel()
	l, err := t.Channels(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, i := range l.Items {
		out = append(out, i.Name)
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// completePeers completes the first argument with the names of the peers that
// the node of the flags knows.
func (a *app) completePeers(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	t, err := a.node()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer t.Close()
	ctx, cancel := context.WithTimeout(c.Context(), completeTime)
	defer cancel()
	l, err := t.Peers(ctx, "", "")
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, p := range l.Items {
		if !p.Self {
			out = append(out, p.Name)
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// completeFlags completes the values of the flags that every verb takes.
func (a *app) completeFlags(root *cobra.Command) error {
	fixed := func(values ...string) cobra.CompletionFunc {
		return cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)
	}
	return errors.Join(
		root.RegisterFlagCompletionFunc("output", fixed(outputs...)),
		root.RegisterFlagCompletionFunc("context", fixed(dev.ContextName)),
		root.RegisterFlagCompletionFunc("target", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			n, err := a.devNetwork()
			if err != nil {
				return nil, cobra.ShellCompDirectiveDefault // a folder, perhaps
			}
			return n.Names(), cobra.ShellCompDirectiveDefault
		}),
	)
}

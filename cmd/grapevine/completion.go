package main

import (
	"bytes"
	"fmt"

	"github.com/spf13/cobra"
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

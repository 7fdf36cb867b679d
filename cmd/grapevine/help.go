package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// nextKey annotates a command with the commands that usually follow, separated
// by newlines.
const nextKey = "next"

// next is the annotation of nextKey.
func next(commands ...string) map[string]string {
	return map[string]string{nextKey: strings.Join(commands, "\n")}
}

// help prints a command's help on stdout: for -h a screenful, for --help the
// whole text.
func (a *app) help(c *cobra.Command) {
	full := slices.Contains(a.args, "--help")
	var b strings.Builder
	if full && c.Long != "" {
		b.WriteString(strings.TrimSpace(c.Long) + "\n")
	} else {
		b.WriteString(c.Short + "\n")
	}
	if c.HasAvailableSubCommands() {
		writeVerbs(&b, c)
	} else {
		fmt.Fprintf(&b, "\nUsage\n  %s\n", c.UseLine())
	}
	if c.Example != "" {
		examples := strings.Split(strings.Trim(c.Example, "\n"), "\n")
		if !full && len(examples) > 3 {
			examples = examples[:3]
		}
		fmt.Fprintf(&b, "\nExamples\n%s\n", strings.Join(examples, "\n"))
	}
	if own := strings.TrimRight(c.LocalNonPersistentFlags().FlagUsages(), "\n"); own != "" {
		fmt.Fprintf(&b, "\nFlags\n%s\n", own)
	}
	if full || !c.HasParent() {
		fmt.Fprintf(&b, "\nFlags of every command\n%s\n", strings.TrimRight(c.Root().PersistentFlags().FlagUsages(), "\n"))
	}
	if n := c.Annotations[nextKey]; n != "" {
		fmt.Fprintf(&b, "\nNext\n  %s\n", strings.ReplaceAll(n, "\n", "\n  "))
	}
	if !full {
		fmt.Fprintf(&b, "\n%s --help says more.\n", c.CommandPath())
	}
	_, _ = fmt.Fprint(a.out, b.String()) // help has no exit code to tell by
}

// writeVerbs lists a command's verbs, the root's by group.
func writeVerbs(b *strings.Builder, c *cobra.Command) {
	width := 0
	for _, sub := range c.Commands() {
		width = max(width, len(sub.Name()))
	}
	write := func(title, group string) {
		first := true
		for _, sub := range c.Commands() {
			if sub.Hidden || (group != "*" && sub.GroupID != group) {
				continue
			}
			if first {
				fmt.Fprintf(b, "\n%s\n", title)
			}
			first = false
			fmt.Fprintf(b, "  %-*s  %s\n", width, sub.Name(), sub.Short)
		}
	}
	if len(c.Groups()) == 0 {
		write("Commands", "*")
		return
	}
	for _, g := range c.Groups() {
		write(g.Title, g.ID)
	}
	write("Others", "")
}

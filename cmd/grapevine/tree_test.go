package main

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"grapevine/cmd/grapevine/fault"
)

// commands lists the whole tree, below and including c.
func commands(c *cobra.Command) []*cobra.Command {
	out := []*cobra.Command{c}
	for _, sub := range c.Commands() {
		if !sub.Hidden {
			out = append(out, commands(sub)...)
		}
	}
	return out
}

func TestEveryVerbHasHelp(t *testing.T) {
	for _, c := range commands(newRoot(&app{})) {
		path := c.CommandPath()
		require.NotEmpty(t, c.Short, path)
		require.NotEmpty(t, c.Example, "%s has no example", path)
		require.NotContains(t, c.Short, "\n", path)
		if c.HasParent() && c.Parent() == c.Root() {
			require.NotEmpty(t, c.GroupID, "%s belongs to no group", path)
		}
		for _, l := range strings.Split(c.Example, "\n") {
			require.True(t, strings.HasPrefix(l, "  "), "%s: %q", path, l)
		}
		args := strings.Fields(path)[1:]
		for _, h := range []string{"-h", "--help"} {
			r := play{}.run(append(args, h)...)
			require.Equal(t, 0, r.code, path)
			require.Contains(t, r.out, "Examples", path)
			require.Empty(t, r.err, path)
		}
		require.Equal(t, play{}.run(append(args, "--help")...).out, play{}.run(append([]string{"help"}, args...)...).out)
	}
}

// mentioned returns the commands that a text names: "grapevine" and the words
// after it that are lower-case letters.
func mentioned(text string) [][]string {
	var out [][]string
	for i, part := range strings.Split(text, "grapevine ") {
		if i == 0 {
			continue
		}
		var words []string
		for _, w := range strings.Fields(part) {
			if strings.Trim(w, "abcdefghijklmnopqrstuvwxyz") != "" {
				break
			}
			words = append(words, w)
		}
		out = append(out, words)
	}
	return out
}

// reaches reports whether the words lead to a command; behind a verb without
// sub-commands, or with arguments of its own, they are arguments.
func reaches(root *cobra.Command, words []string) bool {
	c := root
	for _, w := range words {
		var sub *cobra.Command
		for _, s := range c.Commands() {
			if s.Name() == w {
				sub = s
			}
		}
		if sub == nil {
			// the rest are arguments of a verb that takes some
			return c != root && (!c.HasAvailableSubCommands() || strings.Contains(c.Use, " "))
		}
		c = sub
	}
	return true
}

// What an error tells to do, and what help names next, can be done.
func TestFixesNameVerbsThatExist(t *testing.T) {
	root := newRoot(&app{})
	check := func(where, text string) {
		for _, words := range mentioned(text) {
			if len(words) > 0 {
				require.True(t, reaches(root, words), "%s names grapevine %s", where, strings.Join(words, " "))
			}
		}
	}
	for _, e := range fault.Entries() {
		check(e.Code, strings.Join(e.Fix, "\n")+"\n"+e.Why)
	}
	for _, c := range commands(root) {
		check(c.CommandPath(), c.Example+"\n"+c.Long+"\n"+c.Annotations[nextKey])
	}
}

func TestMentioned(t *testing.T) {
	require.Equal(t, [][]string{{"ca", "issue"}, {"status"}}, mentioned("do: grapevine ca issue NAME or grapevine status"))
	root := newRoot(&app{})
	require.True(t, reaches(root, []string{"ca", "issue"}))
	require.False(t, reaches(root, []string{"ca", "nothing"}))
	require.False(t, reaches(root, []string{"nothing"}))
}

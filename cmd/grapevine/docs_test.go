package main

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"grapevine/cmd/grapevine/conf"
	"grapevine/cmd/grapevine/fault"
)

var update = flag.Bool("update", false, "write the generated parts of docs/ anew")

const regenerate = "go test ./cmd/grapevine -run TestReference -update"

// TestReference holds that the reference says what the program does: what is
// generated from the code is compared with what is committed.
func TestReference(t *testing.T) {
	for name, made := range map[string]string{
		"reference/cli.md":           cliPage(),
		"reference/configuration.md": configurationPage(t),
		"reference/errors.md":        errorsPage(),
		"spec.md":                    "",
	} {
		file := filepath.Join("..", "..", "docs", filepath.FromSlash(name))
		have, err := os.ReadFile(file)
		if *update && os.IsNotExist(err) {
			err = os.MkdirAll(filepath.Dir(file), 0o755)
		}
		require.NoError(t, err)
		if name == "spec.md" { // one section of it
			const begin, end = "<!-- reasons: generated -->\n", "<!-- /reasons -->"
			head, rest, ok := strings.Cut(string(have), begin)
			require.True(t, ok, name)
			_, tail, ok := strings.Cut(rest, end)
			require.True(t, ok, name)
			made = head + begin + "\n" + reasonsSection(t) + "\n" + end + tail
		}
		if *update {
			require.NoError(t, os.WriteFile(file, []byte(made), 0o644))
			continue
		}
		for i, line := range strings.Split(made, "\n") { // a line says more than two whole pages
			old := strings.Split(string(have), "\n")
			require.Less(t, i, len(old), "docs/%s ends early: %s", name, regenerate)
			require.Equal(t, old[i], line, "docs/%s is not what the code says: %s", name, regenerate)
		}
		require.Len(t, made, len(have), "docs/%s: %s", name, regenerate)
	}
}

func generated(title, text string) string {
	return "<!-- Generated: " + regenerate + " -->\n# " + title + "\n\n" + text + "\n"
}

// cell makes a text fit a table.
func cell(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "|", "\\|"), "\n", " ")
}

func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + cell(s) + "`"
}

func cliPage() string {
	root := newRoot(&app{})
	var b strings.Builder
	b.WriteString(generated("Command line", "Every verb of this build. `grapevine VERB --help` says the same. Data goes to stdout, talk to stderr; exit codes are in [errors.md](errors.md)."))
	fmt.Fprintf(&b, "\nFlags of every verb:\n\n```\n%s\n```\n", strings.TrimRight(root.PersistentFlags().FlagUsages(), "\n"))
	for _, c := range commands(root) {
		if c.HasAvailableSubCommands() {
			continue
		}
		fmt.Fprintf(&b, "\n## %s\n\n%s.\n", c.CommandPath(), strings.TrimSuffix(c.Short, "."))
		if c.Long != "" {
			b.WriteString("\n" + strings.TrimSpace(c.Long) + "\n")
		}
		fmt.Fprintf(&b, "\n```\n%s\n```\n", usageOf(c))
		if own := strings.TrimRight(c.NonInheritedFlags().FlagUsages(), "\n"); own != "" {
			fmt.Fprintf(&b, "\n```\n%s\n```\n", own)
		}
		fmt.Fprintf(&b, "\nExamples:\n\n```\n%s\n```\n", strings.ReplaceAll("\n"+strings.Trim(c.Example, "\n"), "\n  ", "\n")[1:])
	}
	return b.String()
}

func usageOf(c *cobra.Command) string {
	return strings.TrimSuffix(c.CommandPath(), c.Name()) + c.Use
}

// exits are the program's exit codes.
var exits = []struct {
	code int
	what string
}{
	{fault.ExitOK, "ok"},
	{fault.ExitFailed, "failed: anything not below; also \"not found\""},
	{fault.ExitUsage, "wrong usage"},
	{fault.ExitConfig, "configuration or data folder invalid"},
	{fault.ExitIdentity, "identity or permission refused"},
	{fault.ExitUnreachable, "unreachable: no answer, refused, no such network"},
	{fault.ExitCheck, "a check failed, or the node is unhealthy"},
	{fault.ExitTimeout, "timed out waiting"},
	{fault.ExitDisk, "a node stopped because its disk failed it"},
	{fault.ExitInterrupted, "interrupted"},
}

func errorsPage() string {
	var b strings.Builder
	b.WriteString(generated("Exit codes and errors", "An error says what, why, what to do, and a code that is never reused; with `-o json` it is one line of JSON on stderr. A reason code (right column) labels counters and logs; one that ends in `.` stands for all of its package that aren't named elsewhere. [spec.md](../spec.md#7-reasons-and-verdicts) lists them."))
	b.WriteString("\n| exit | meaning |\n|---|---|\n")
	for _, e := range exits {
		fmt.Fprintf(&b, "| %d | %s |\n", e.code, e.what)
	}
	family := ""
	for _, e := range fault.Entries() {
		if f := strings.TrimRight(e.Code, "0123456789"); f != family {
			family = f
			fmt.Fprintf(&b, "\n## %s\n\n| code | what | why, usually | what to do | exit | reasons |\n|---|---|---|---|---|---|\n", family)
		}
		var reasons []string
		for _, r := range e.Reasons {
			reasons = append(reasons, code(r))
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %d | %s |\n", e.Code, cell(e.Title), cell(e.Why), cell(strings.Join(e.Fix, " · ")), e.Exit, strings.Join(reasons, " "))
	}
	return b.String()
}

func configurationPage(t *testing.T) string {
	var b strings.Builder
	b.WriteString(generated("Configuration keys", `A peer reads `+"`core.yaml`"+`, an ordering node `+"`orderer.yaml`"+`, with the names that Fabric gives them; `+"`grapevine.yaml`"+` beside them holds Grapevine's own keys. A flag goes before a variable, that before the files, a later file before an earlier one, and those before the defaults. Keys match without regard to case. `+"`grapevine config explain KEY`"+` tells one, `+"`grapevine config show --sources`"+` what is in force and why.

Without --config: `+"`$FABRIC_CFG_PATH`"+` alone if it is set, else the working folder, else `+"`/etc/hyperledger/fabric`"+`. Relative paths are relative to the file that names them.

*No effect yet*: the key is read and judged, what it asks for isn't built, and `+"`CFG033`"+` says so. *Mapped*: honoured by meaning. *Accepted*: read, without effect, as in Fabric.`))
	for _, r := range []struct {
		role  conf.Role
		title string
	}{{conf.RolePeer, "Peer"}, {conf.RoleOrderer, "Ordering node"}} {
		fmt.Fprintf(&b, "\n## %s\n\n| key, variable | type | default | Fabric's | meaning |\n|---|---|---|---|---|\n", r.title)
		var ignored []string
		for _, k := range conf.Keys(r.role) {
			if k.Treatment == conf.Ignored {
				ignored = append(ignored, code(k.Path))
				continue
			}
			def := code(k.Default)
			if def == "" {
				def = cell(k.Absent)
			}
			note := effect(t, r.role, k)
			if note == "" && (k.Treatment == conf.Mapped || k.Treatment == conf.Accepted) {
				note = " *" + strings.ToUpper(string(k.Treatment[:1])) + string(k.Treatment[1:]) + ".*"
			}
			if len(k.Enum) > 0 {
				note = " One of " + strings.Join(k.Enum, ", ") + "." + note
			}
			fmt.Fprintf(&b, "| %s<br>%s | %s | %s | %s | %s%s |\n", code(k.Path), code(k.Env()), cell(k.Kind.String()), def, code(k.Fabric), cell(k.Meaning), note)
		}
		fmt.Fprintf(&b, "\nKnown of Fabric and without meaning here (`CFG032`, said once): %s.\n", strings.Join(ignored, ", "))
	}
	return b.String()
}

// effect is what the program says of a key's effect in this build, when the key
// is set to values other than its default.
func effect(t *testing.T, role conf.Role, k *conf.Key) string {
	if strings.HasSuffix(k.Path, ".*") || (k.Treatment != conf.Honoured && k.Treatment != conf.Mapped) {
		return ""
	}
	try := map[conf.Kind][]string{
		conf.String: {"other"}, conf.Bool: {"true", "false"}, conf.Int: {"7"}, conf.Bytes: {"4096"}, conf.Duration: {"17s"}, conf.List: {"one"},
		conf.Dial: {"127.0.0.1:1234"}, conf.Endpoint: {"127.0.0.1:1234"}, conf.Listen: {"127.0.0.1:1234"}, conf.Dials: {"127.0.0.1:1234"}, conf.Multi: {"/ip4/127.0.0.1/tcp/1234"},
		conf.Path: {"."}, conf.Paths: {"."}, conf.Overrides: {"[{from: 'a:1', to: 'b:2'}]"}, conf.Fronts: {"[{from: 'a:1', listenAddress: 'b:2'}]"},
	}[k.Kind]
	if len(k.Enum) > 0 {
		try = k.Enum
	}
	require.NotEmpty(t, try, k.Path)
	var idle bool
	var refused []string
	for _, v := range try {
		s := conf.Load(conf.Input{Role: role, Dir: t.TempDir(), System: t.TempDir(), Env: []string{k.Env() + "=" + v}})
		for _, f := range s.Findings() {
			switch {
			case f.Code != "CFG033":
			case f.Severity == conf.SeverityError && f.Key == k.Path:
				refused = append(refused, v)
			case slices.Contains(strings.Fields(strings.Join(f.Why, " ")), k.Path):
				idle = true
			}
		}
	}
	switch {
	case len(refused) == len(try):
		return " *Refused: not built yet.*"
	case len(refused) > 0:
		return " *Refused, not built yet: " + strings.Join(refused, ", ") + ".*"
	case idle:
		return " *No effect yet.*"
	}
	return ""
}

// reasonsSection lists every reason that the code declares, by package.
func reasonsSection(t *testing.T) string {
	found := map[string]map[string]string{} // package → code → verdicts
	root := filepath.Join("..", "..")
	require.NoError(t, filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && len(d.Name()) > 2 || slices.Contains([]string{"testdata", "build", "bin", "dist"}, d.Name())) {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(p, ".go") || strings.HasSuffix(p, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), p, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			c, verdict := declared(n)
			if c == "" {
				return true
			}
			pkg := f.Name.Name
			if found[pkg] == nil {
				found[pkg] = map[string]string{}
			}
			if was := found[pkg][c]; was != "" && was != verdict {
				both := []string{was, verdict}
				slices.Sort(both)
				verdict = strings.Join(both, ", ")
			}
			found[pkg][c] = verdict
			return true
		})
		return nil
	}))
	var b strings.Builder
	b.WriteString("| declared in | reason | verdict | error |\n|---|---|---|---|\n")
	for _, pkg := range sorted(found) {
		for _, c := range sorted(found[pkg]) {
			e, ok := fault.ByReason(c)
			require.True(t, ok, "reason %s becomes no coded error", c)
			fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", pkg, code(c), found[pkg][c], e.Code)
		}
	}
	return b.String()
}

// declared returns the code and verdict of a call of NewReason with constants.
func declared(n ast.Node) (c, verdict string) {
	call, ok := n.(*ast.CallExpr)
	if !ok || len(call.Args) != 2 {
		return "", ""
	}
	name := func(e ast.Expr) string {
		switch e := e.(type) {
		case *ast.Ident:
			return e.Name
		case *ast.SelectorExpr:
			return e.Sel.Name
		}
		return ""
	}
	lit, ok := call.Args[0].(*ast.BasicLit)
	if !ok || name(call.Fun) != "NewReason" {
		return "", ""
	}
	c, err := strconv.Unquote(lit.Value)
	if err != nil {
		return "", ""
	}
	return c, name(call.Args[1])
}

func sorted[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

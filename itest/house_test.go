package itest

import (
	"bufio"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// floors says on which floor each package stands. Imports go strictly down, and
// rooms of one floor never import one another. A package that isn't named here
// stands on its parent's floor and may be imported by it and its siblings only.
var floors = map[string]int{
	"wire": 0,
	"msp":  1, "msp/ca": 1,
	"block": 2, "block/tx": 2,
	"ledger": 3, "ledger/state": 3, "channel": 3, "channel/cast": 3, "channel/genesis": 3, "channel/update": 3, "channel/evidence": 3, "membership": 3,
	"election": 3, "orderer": 3, "blocksync": 3, "deliver": 3,
	"node":          4,
	"cmd/grapevine": 5, "itest": 5, "examples": 5,
}

// within allows a wing to stand on its own room, or a room on its wing.
var within = map[string]string{"msp/ca": "msp", "block/tx": "block", "channel/genesis": "channel", "channel/update": "channel/genesis", "channel/evidence": "channel", "ledger": "ledger/state"}

// owners names dependencies that one package alone may import, tests aside.
var owners = map[string][]string{
	"github.com/cockroachdb/pebble":           {"ledger"},
	"github.com/libp2p/go-libp2p-pubsub":      {"channel"},
	"github.com/hashicorp/raft":               {"orderer"},
	"github.com/libp2p/go-libp2p-raft":        {"orderer"},
	"google.golang.org/grpc":                  {"orderer", "deliver"},
	"github.com/spf13/cobra":                  {"cmd/grapevine"},
	"github.com/klauspost/reedsolomon":        {"channel/cast"},
	"github.com/prometheus/client_golang":     {"node", "cmd/grapevine"},
	"github.com/libp2p/go-libp2p/p2p":         {"node", "channel"},
	"github.com/libp2p/go-libp2p/x/simlibp2p": {"itest"},
}

type file struct {
	path, pkg string // relative file path and package folder
	test      bool
	imports   []string
	comment   bool // it carries the package's comment
}

func sources(t *testing.T) []file {
	root, err := filepath.Abs("..")
	require.NoError(t, err)
	var out []file
	require.NoError(t, filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if rel != "." && (strings.HasPrefix(d.Name(), ".") || slices.Contains([]string{"testdata", "build", "bin", "dist"}, d.Name())) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		s := file{path: filepath.ToSlash(rel), pkg: path.Dir(filepath.ToSlash(rel)), test: strings.HasSuffix(p, "_test.go"), comment: f.Doc != nil}
		for _, i := range f.Imports {
			s.imports = append(s.imports, strings.Trim(i.Path.Value, `"`))
		}
		out = append(out, s)
		return nil
	}))
	require.NotEmpty(t, out)
	return out
}

// room returns the named package that p is or lies in.
func room(p string) string {
	for ; p != "."; p = path.Dir(p) {
		if _, ok := floors[p]; ok {
			return p
		}
	}
	return ""
}

func TestFloors(t *testing.T) {
	for _, s := range sources(t) {
		from := room(s.pkg)
		require.NotEmpty(t, from, "%s: package %s has no floor: give it one here and a line in docs/design.md", s.path, s.pkg)
		if s.test {
			continue // tests may look down and sideways to build real worlds
		}
		for _, i := range s.imports {
			p, ours := strings.CutPrefix(i, "grapevine/")
			if !ours {
				continue
			}
			to := room(p)
			if to == from || within[from] == to {
				continue
			}
			require.Less(t, floors[to], floors[from], "%s imports %s: imports go strictly down", s.path, i)
		}
	}
}

func TestDependenciesHaveOwners(t *testing.T) {
	for _, s := range sources(t) {
		if s.test || room(s.pkg) == "itest" {
			continue
		}
		for _, i := range s.imports {
			for dep, who := range owners {
				if i == dep || strings.HasPrefix(i, dep+"/") {
					require.Contains(t, who, room(s.pkg), "%s imports %s", s.path, i)
				}
			}
		}
	}
}

func TestFilesAreShort(t *testing.T) {
	const most = 500
	for _, s := range sources(t) {
		if strings.HasSuffix(s.path, ".pb.go") {
			continue
		}
		f, err := os.Open(filepath.Join("..", filepath.FromSlash(s.path)))
		require.NoError(t, err)
		n := 0
		for sc := bufio.NewScanner(f); sc.Scan(); {
			n++
		}
		require.NoError(t, f.Close())
		require.LessOrEqual(t, n, most, "%s has %d lines", s.path, n)
	}
}

func TestPackagesHaveComments(t *testing.T) {
	commented := map[string]bool{}
	all := map[string]bool{}
	for _, s := range sources(t) {
		if !s.test {
			all[s.pkg] = true
			commented[s.pkg] = commented[s.pkg] || s.comment
		}
	}
	for pkg := range all {
		require.True(t, commented[pkg], "package %s has no comment", pkg)
	}
}

// TestPureCores holds that the protocol cores have no clock, goroutine, disk or
// network of their own.
func TestPureCores(t *testing.T) {
	for _, core := range []string{
		"blocksync/window.go", "blocksync/scheduler.go", "membership/view.go", "membership/detector.go", "membership/circle.go", "membership/probe.go", "orderer/cutter.go",
		"election/machine.go", "election/clock.go", "election/roles.go", "election/hear.go", "election/watch.go", "election/claim.go",
		"channel/cast/core.go", "channel/cast/usual.go", "channel/cast/session.go", "channel/cast/plan.go", "channel/cast/repair.go", "channel/cast/park.go", "channel/cast/tree.go",
	} {
		b, err := os.ReadFile(filepath.Join("..", filepath.FromSlash(core)))
		require.NoError(t, err, "a core was moved: name its file here")
		for _, no := range []string{"time.Now(", "time.Since(", "time.After", "time.NewT", "go func", "\tgo ", "\"os\"", "\"net\"", "math/rand", "select {", "sync.Mutex"} {
			require.NotContains(t, string(b), no, "%s is a pure core", core)
		}
	}
}

// Command runfuzz runs every fuzz target of the tree for a while, one after the
// other, and fails when one crashes or makes no executions: a target that can't
// start would otherwise look like one that found nothing.
//
//	go run ./itest/runfuzz -time 30s            # all
//	go run ./itest/runfuzz -only wire/FuzzFrame # those whose PACKAGE/NAME begins so
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// target is one fuzz function.
type target struct{ pkg, name string } // pkg is a folder relative to the root

func (t target) String() string { return t.pkg + "/" + t.name }

// result is what one run of a target came to.
type result struct {
	execs uint64
	found int // inputs that reach something new, the seeds included
	err   error
}

func main() {
	each := flag.Duration("time", 30*time.Second, "how long each target runs")
	only := flag.String("only", "", "run only targets whose PACKAGE/NAME begins with this, such as wire/FuzzUnmarshal")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, ".", *each, *only); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, root string, each time.Duration, only string) error {
	all, err := find(root)
	if err != nil {
		return fmt.Errorf("looking for fuzz targets: %w", err)
	}
	all = slices.DeleteFunc(all, func(t target) bool { return !strings.HasPrefix(t.String(), only) })
	if len(all) == 0 {
		return fmt.Errorf("no fuzz target matches %q", only)
	}
	fmt.Printf("%d targets, %v each\n%-44s %12s %8s\n", len(all), each, "target", "executions", "inputs")
	var bad []string
	for _, t := range all {
		r := t.fuzz(ctx, root, each)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		fmt.Printf("%-44s %12d %8d\n", t, r.execs, r.found)
		if r.err != nil {
			fmt.Printf("%v\n", r.err)
			bad = append(bad, t.String())
		}
	}
	if len(bad) > 0 {
		return fmt.Errorf("%d of %d targets failed: %s", len(bad), len(all), strings.Join(bad, ", "))
	}
	return nil
}

// find lists the targets of the tree under root, sorted.
func find(root string) ([]target, error) {
	var out []target
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && p != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata"):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(p, "_test.go"):
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, filepath.Dir(p))
		if err != nil {
			return err
		}
		for _, decl := range f.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil && strings.HasPrefix(fn.Name.Name, "Fuzz") {
				out = append(out, target{path.Clean(filepath.ToSlash(rel)), fn.Name.Name})
			}
		}
		return nil
	})
	slices.SortFunc(out, func(a, b target) int { return strings.Compare(a.String(), b.String()) })
	return out, err
}

// fuzz runs a target. Minimising is bounded by executions: where keys are
// random in each process an input behaves differently in every worker, and a
// minimisation by time stalls the whole run.
func (t target) fuzz(ctx context.Context, root string, each time.Duration) result {
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-fuzz", "^"+t.name+"$",
		"-fuzztime", each.String(), "-fuzzminimizetime", "10x", "-parallel", "2", "./"+t.pkg)
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	return read(out, err)
}

var (
	execs = regexp.MustCompile(`execs: (\d+)`)
	total = regexp.MustCompile(`total: (\d+)`)
)

// read takes the figures out of what go test said.
func read(out []byte, err error) result {
	r := result{execs: last(execs, out), found: int(last(total, out))}
	switch {
	case err != nil && !overtime(out):
		r.err = fmt.Errorf("%s%w", out, err)
	case r.execs == 0:
		r.err = errors.New("it made no executions")
	}
	return r
}

// overtime tells of a run that failed only because a worker was busy when the
// time was up, which go test reports as a failure of the target (golang/go#75804).
func overtime(out []byte) bool {
	return bytes.Contains(out, []byte("context deadline exceeded")) &&
		!bytes.Contains(out, []byte("Failing input written to")) && !bytes.Contains(out, []byte("panic:"))
}

func last(re *regexp.Regexp, out []byte) uint64 {
	all := re.FindAllSubmatch(out, -1)
	if len(all) == 0 {
		return 0
	}
	n, err := strconv.ParseUint(string(all[len(all)-1][1]), 10, 64)
	if err != nil {
		return 0 // more digits than a count has
	}
	return n
}

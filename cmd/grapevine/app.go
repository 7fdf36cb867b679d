package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/mattn/go-isatty"

	"grapevine/cmd/grapevine/conf"
	"grapevine/cmd/grapevine/fault"
)

// grace is how long a command that was interrupted may tidy up.
const grace = 3 * time.Second

// A world is all that a command may see of its surroundings.
type world struct {
	args    []string
	env     []string // "NAME=value"
	dir     string   // working folder; "" is the process's
	in      io.Reader
	out     io.Writer
	err     io.Writer
	signals <-chan os.Signal
	now     func() time.Time
}

// An app is one run of the program.
type app struct {
	world
	flags flags
	// long is set by a verb that runs until it is told to stop: the first signal
	// then ends it cleanly.
	long atomic.Bool
}

// flags are the ones that every verb takes.
type flags struct {
	output     string
	watch      bool
	context    string
	target     string
	timeout    time.Duration
	quiet      bool
	verbose    bool
	noColor    bool
	noInput    bool
	noProgress bool
	configs    []string
}

// An exitCode ends the program without a word: the verb has said it all.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit %d", int(e)) }

// run runs one command and returns the program's exit code.
func run(w world) int {
	a := &app{world: w}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		defer func() {
			if r := recover(); r != nil {
				done <- fault.Newf(fault.Internal, "a mistake in grapevine: %v", r)
			}
		}()
		done <- a.execute(ctx)
	}()
	err, interrupted := a.await(done, cancel)
	switch {
	case interrupted && (!a.long.Load() || errors.Is(err, errTwice)):
		err = fault.New(fault.Interrupted, "")
	case interrupted && err != nil && fault.Of(err).Code == fault.Interrupted:
		err = nil // it ended because it was told to
	}
	return a.report(err)
}

// errTwice tells that a second signal came.
var errTwice = errors.New("interrupted twice")

// await waits for the command, and for signals meanwhile: the first cancels it,
// the second leaves it behind.
func (a *app) await(done <-chan error, cancel func()) (err error, interrupted bool) {
	select {
	case err := <-done:
		return err, false
	case <-a.signals:
		cancel()
	}
	var late <-chan time.Time
	if !a.long.Load() {
		t := time.NewTimer(grace)
		defer t.Stop()
		late = t.C
	}
	select {
	case err := <-done:
		return err, true
	case <-late:
		return context.Canceled, true
	case <-a.signals:
		return errTwice, true
	}
}

// report prints an error where errors go and returns the exit code.
func (a *app) report(err error) int {
	var code exitCode
	switch {
	case err == nil:
		return fault.ExitOK
	case errors.As(err, &code):
		return int(code)
	}
	e := fault.Of(err)
	if a.jsonErrors() {
		fmt.Fprintf(a.err, "%s\n", e.JSON()) // if stderr is gone, so is everyone to tell
	} else {
		fmt.Fprint(a.err, e.Text())
	}
	return e.Exit
}

// jsonErrors reports whether the user asked for JSON, also where the command
// line couldn't be read to its end.
func (a *app) jsonErrors() bool {
	if a.flags.output != "" && a.flags.output != "table" {
		return a.flags.output == "json"
	}
	for i, arg := range a.args {
		switch {
		case arg == "--":
			return false
		case arg == "-o" || arg == "--output":
			return i+1 < len(a.args) && a.args[i+1] == "json"
		case arg == "-ojson" || arg == "-o=json" || arg == "--output=json":
			return true
		}
	}
	return false
}

// say prints talk on stderr, unless -q.
func (a *app) say(format string, args ...any) {
	if !a.flags.quiet {
		fmt.Fprintf(a.err, format, args...)
	}
}

// path makes a path of the command line absolute.
func (a *app) path(p string) string {
	if p == "" || filepath.IsAbs(p) || a.dir == "" {
		return p
	}
	return filepath.Join(a.dir, p)
}

// getenv returns a variable of the command's world.
func (a *app) getenv(name string) string {
	for _, e := range slices.Backward(a.env) {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			return v
		}
	}
	return ""
}

// terminal reports whether a stream is one that a person looks at.
func terminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}

// color reports whether stdout may be coloured.
func (a *app) color() bool {
	return !a.flags.noColor && a.getenv("NO_COLOR") == "" && a.getenv("TERM") != "dumb" && terminal(a.out)
}

// settings loads the configuration as a node would: the usual places or
// --config, and the environment.
func (a *app) settings(role conf.Role, files ...string) *conf.Settings {
	in := conf.Input{Role: role, Env: a.env, Dir: a.dir}
	for _, f := range append(slices.Clone(a.flags.configs), files...) {
		in.Files = append(in.Files, a.path(f))
	}
	return conf.Load(in)
}

// within gives a context the time that --timeout allows; 0 is def.
func (a *app) within(ctx context.Context, def time.Duration) (context.Context, context.CancelFunc) {
	if a.flags.timeout > 0 {
		def = a.flags.timeout
	}
	return context.WithTimeout(ctx, def)
}

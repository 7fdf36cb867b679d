// Command runsim runs every package's simulations in full, one package after
// the other, and gathers what they measured in one file. It fails when one
// fails, or when a package saved nothing: a simulation that is skipped would
// otherwise look like one that passed.
//
//	go run ./itest/runsim -o build/sim.json
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"time"

	"grapevine/itest/figures"
)

// rooms are the packages that have simulations: functions named TestSim….
var rooms = []string{"itest", "membership", "blocksync", "election", "channel/cast"}

func main() {
	out := flag.String("o", "", "write the records to this file as JSON")
	only := flag.String("only", "", "run only this package")
	run := flag.String("run", "^TestSim", "run only simulations whose names match")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := simulate(ctx, *out, *only, *run); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func simulate(ctx context.Context, out, only, run string) error {
	if only != "" && !slices.Contains(rooms, only) {
		return fmt.Errorf("no simulations in %q: they are in %s", only, strings.Join(rooms, ", "))
	}
	dir, err := os.MkdirTemp("", "grapevine-sim")
	if err != nil {
		return err
	}
	defer func() {
		if err := os.RemoveAll(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}()
	var bad error
	known := 0
	for _, room := range rooms {
		if only != "" && room != only {
			continue
		}
		began := time.Now()
		c := exec.CommandContext(ctx, "go", "test", "-count=1", "-timeout", "40m", "-run", run, "-v", "./"+room)
		c.Env = append(os.Environ(), figures.Dir+"="+dir)
		c.Stdout, c.Stderr = os.Stdout, os.Stderr
		if err := c.Run(); err != nil {
			bad = errors.Join(bad, fmt.Errorf("the simulations of %s: %w", room, err))
		}
		all, err := figures.Gather(dir)
		if err != nil {
			return err
		}
		if len(all) == known {
			bad = errors.Join(bad, fmt.Errorf("the simulations of %s saved no figure", room))
		}
		known = len(all)
		fmt.Printf("%s: %v\n", room, time.Since(began).Round(time.Second))
		if out != "" {
			if err := all.Write(out); err != nil {
				return err
			}
		}
	}
	return bad
}

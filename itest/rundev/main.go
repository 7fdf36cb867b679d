// Command rundev shows Grapevine's main job with the program that was built: a
// local network of three organisations with an ordering service, and blocks
// flowing.
//
// In a terminal it shows the live view while transactions are ordered, until it
// is left. Without one it orders 500 transactions, kills a peer with SIGKILL and
// restarts it meanwhile, prints every peer's height and hash, and fails unless
// they are equal.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/mattn/go-isatty"
)

const (
	count  = 500
	rate   = 100 // transactions a second: enough time to kill and restart
	limit  = time.Minute
	victim = "peer1.org2"
)

func main() {
	bin := flag.String("bin", "bin/grapevine", "the program")
	dir := flag.String("dir", "build/dev", "the network's folder; made anew")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	r := runner{*bin, *dir}
	err := r.fresh(ctx)
	switch {
	case err != nil:
	case isatty.IsTerminal(os.Stdin.Fd()) && isatty.IsTerminal(os.Stdout.Fd()):
		err = r.watch(ctx)
	default:
		err = r.play(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "make dev:", err)
		os.Exit(1)
	}
}

type runner struct{ bin, dir string }

// run runs a dev verb; its words go to stderr, what it says on stdout is
// returned.
func (r runner) run(ctx context.Context, args ...string) ([]byte, error) {
	args = append([]string{"dev", args[0], "--dir", r.dir}, args[1:]...)
	c := exec.CommandContext(ctx, r.bin, args...)
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	c.WaitDelay = 10 * time.Second
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, os.Stderr
	if err := c.Run(); err != nil {
		return out.Bytes(), fmt.Errorf("grapevine %v: %w", args, err)
	}
	return out.Bytes(), nil
}

// fresh removes a network of an earlier run.
func (r runner) fresh(ctx context.Context) error {
	if _, err := os.Stat(r.dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	_, err := r.run(ctx, "clean", "--yes")
	return err
}

// watch shows the live view, and orders a few transactions a second behind it.
func (r runner) watch(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if _, err := r.run(ctx, "up", "--detach"); err != nil {
		return err
	}
	flow := make(chan struct{})
	go func() {
		defer close(flow)
		c := exec.CommandContext(ctx, r.bin, "dev", "tx", "--dir", r.dir, "--count", strconv.Itoa(1<<30), "--rate", "5", "--no-wait", "--quiet")
		_ = c.Run() // it ends with the view
	}()
	// The terminal sends Ctrl-C to both programs; the view decides what it means.
	view := exec.CommandContext(context.WithoutCancel(ctx), r.bin, "dev", "up", "--dir", r.dir)
	view.Stdin, view.Stdout, view.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := view.Run()
	cancel()
	<-flow
	fmt.Printf("\nThe network lies in %s. If you left it with q, its nodes go on:\n  %s dev status --dir %s\n  %s dev down --dir %s\n", r.dir, r.bin, r.dir, r.bin, r.dir)
	return err
}

// play is the scenario for those who can't watch.
func (r runner) play(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
		defer cancel()
		_, e := r.run(end, "down")
		err = errors.Join(err, e)
	}()
	start := time.Now()
	if _, err := r.run(ctx, "up", "--detach"); err != nil {
		return err
	}
	fmt.Printf("ready after %.1fs; ordering %d transactions of 1 KiB, with a SIGKILL for %s meanwhile\n", time.Since(start).Seconds(), count, victim)
	type result struct {
		out []byte
		err error
	}
	load := make(chan result, 1)
	go func() {
		out, err := r.run(ctx, "tx", "--count", strconv.Itoa(count), "--rate", strconv.Itoa(rate), "-o", "json")
		load <- result{out, err}
	}()
	if err := r.flowing(ctx); err != nil {
		return err
	}
	for _, verb := range []string{"kill", "restart"} {
		if _, err := r.run(ctx, verb, victim); err != nil {
			return err
		}
		fmt.Println(verb, victim)
	}
	done := <-load
	if done.err != nil {
		return done.err
	}
	fmt.Printf("%s", done.out)
	if _, err := r.run(ctx, "status", "--wait", "20s"); err != nil {
		return err
	}
	return r.compare(ctx)
}

// flowing waits until blocks of the load have reached the peers.
func (r runner) flowing(ctx context.Context) error {
	for first := uint64(0); ; {
		s, err := r.status(ctx)
		if err != nil {
			return err
		}
		h := s.Channels[0].Height
		if first == 0 {
			first = h
		}
		if h >= first+2 {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return errors.New("no blocks came in time")
		}
	}
}

type status struct {
	Ready    bool
	Channels []struct{ Height uint64 }
	Peers    []struct {
		Name, Org, State, TipHash string
		Height                    uint64
	}
}

func (r runner) status(ctx context.Context) (*status, error) {
	out, err := r.run(ctx, "status", "-o", "json")
	if err != nil {
		return nil, err
	}
	s := new(status)
	return s, json.Unmarshal(out, s)
}

func (r runner) compare(ctx context.Context) error {
	s, err := r.status(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("\n%-12s %8s  %s\n", "PEER", "HEIGHT", "TIP")
	for _, p := range s.Peers {
		fmt.Printf("%-12s %8d  %s\n", p.Name, p.Height, p.TipHash)
	}
	for _, p := range s.Peers {
		if p.State != "alive" || p.Height != s.Peers[0].Height || p.TipHash != s.Peers[0].TipHash {
			return fmt.Errorf("%s is %s with height %d and tip %s, not as %s", p.Name, p.State, p.Height, p.TipHash, s.Peers[0].Name)
		}
	}
	fmt.Printf("\nall %d peers hold the same %d blocks\n", len(s.Peers), s.Peers[0].Height)
	return nil
}

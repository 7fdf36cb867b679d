package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"grapevine/cmd/grapevine/admin"
	"grapevine/cmd/grapevine/dev"
	"grapevine/cmd/grapevine/fault"
)

func (d *devCmd) tx() *cobra.Command {
	l := dev.Load{Size: 1024}
	var noWait bool
	c := &cobra.Command{
		Use: "tx --count N", Short: "Submit transactions, wait until every living peer has them", Args: exactly(),
		Example: "  grapevine dev tx --count 100\n  grapevine dev tx --count 1000 --rate 50 --size 4096 -o json",
	}
	f := c.Flags()
	f.IntVar(&l.Count, "count", 0, "how many")
	f.IntVar(&l.Size, "size", l.Size, "bytes of each value")
	f.Float64Var(&l.Rate, "rate", 0, "transactions a second; 0 is as many as are taken")
	f.BoolVar(&noWait, "no-wait", false, "return once they are ordered")
	c.RunE = func(c *cobra.Command, _ []string) error {
		switch {
		case l.Count <= 0:
			return usage(c, "--count must be 1 or more")
		case l.Size < 0 || l.Size > 8<<20:
			return usage(c, "--size must be 0 to 8388608")
		case l.Rate < 0:
			return usage(c, "--rate is negative")
		}
		n, err := d.find()
		if err != nil {
			return err
		}
		l.Wait = !noWait
		limit := doneTime
		if l.Rate > 0 {
			limit += time.Duration(float64(l.Count) / l.Rate * float64(time.Second))
		}
		ctx, cancel := d.within(c.Context(), limit)
		defer cancel()
		out, err := n.Run(ctx, l)
		if errors.Is(err, context.DeadlineExceeded) {
			err = fault.New(fault.TimedOut, "the transactions were not ordered in time").Do("grapevine dev status --dir " + dev.Quote(n.Dir()))
		}
		if err != nil {
			return err
		}
		err = d.emit(out, func(t *table) {
			t.row("sent", out.Sent)
			t.row("accepted", out.Accepted)
			t.row("committed", out.Committed)
			t.row("failed", out.Failed)
			t.row("blocks", fmt.Sprintf("%d to %d", out.FirstBlock, out.LastBlock))
			t.row("rate", fmt.Sprintf("%.0f tx/s", out.TxPerSec))
			t.row("latency", fmt.Sprintf("p50 %.0f ms, p99 %.0f ms, max %.0f ms", out.LatencyMs.P50, out.LatencyMs.P99, out.LatencyMs.Max))
		}, nil)
		if err == nil && out.Failed > 0 {
			err = exitCode(fault.ExitFailed)
		}
		return err
	}
	return c
}

func (d *devCmd) env() *cobra.Command {
	c := &cobra.Command{
		Use: "env ORG|NAME", Short: "Print export CORE_... lines for eval", Args: exactly("ORG|NAME"),
		Example: "  eval \"$(grapevine dev env org1)\"\n  grapevine dev env peer1.org2",
	}
	c.RunE = func(_ *cobra.Command, args []string) error {
		n, err := d.find()
		if err != nil {
			return err
		}
		v, err := n.Node(args[0])
		for _, p := range n.Peers() {
			if err != nil && p.Org == args[0] {
				v, err = p, nil // its first peer
			}
		}
		if err != nil {
			return err
		}
		var text strings.Builder
		for _, e := range n.Env(v) {
			name, value, _ := strings.Cut(e, "=")
			fmt.Fprintf(&text, "export %s=%s\n", name, dev.Quote(value))
		}
		return d.write([]byte(text.String()))
	}
	return c
}

func (d *devCmd) logs() *cobra.Command {
	c := &cobra.Command{
		Use: "logs [NAME]", Short: "Logs of one node or all, prefixed by name", Args: between(0, "NAME"),
		Example: "  grapevine dev logs peer0.org1\n  grapevine dev logs -f --grep refused", ValidArgsFunction: d.names,
	}
	follow := c.Flags().BoolP("follow", "f", false, "go on with what comes")
	grep := c.Flags().String("grep", "", "only lines that match this regular expression")
	c.RunE = func(c *cobra.Command, args []string) error {
		n, err := d.find()
		if err != nil {
			return err
		}
		re, err := regexp.Compile(*grep)
		if err != nil {
			return usage(c, "--grep: "+err.Error())
		}
		nodes := n.Nodes
		if len(args) == 1 {
			v, err := n.Node(args[0])
			if err != nil {
				return err
			}
			nodes = []dev.Node{*v}
		}
		t := &tails{app: d.app, re: re, files: map[string]*bufio.Reader{}, rest: map[string]string{}}
		defer t.close()
		d.long.Store(*follow)
		for {
			for i := range nodes {
				if err := t.show(nodes[i].Name, n.LogFile(&nodes[i])); err != nil {
					return err
				}
			}
			if !*follow {
				return nil
			}
			select {
			case <-c.Context().Done():
				return nil
			case <-time.After(200 * time.Millisecond):
			}
		}
	}
	return c
}

// tails reads several growing files line by line.
type tails struct {
	*app
	re    *regexp.Regexp
	files map[string]*bufio.Reader
	rest  map[string]string // of a line whose end hasn't come
	open  []io.Closer
}

func (t *tails) show(name, path string) error {
	r := t.files[name]
	if r == nil {
		f, err := os.Open(filepath.Clean(path))
		if errors.Is(err, os.ErrNotExist) {
			return nil // it hasn't run yet
		}
		if err != nil {
			return fault.Newf(fault.BadFile, "cannot read %s", path).From(err)
		}
		t.open = append(t.open, f)
		r = bufio.NewReader(f)
		t.files[name] = r
	}
	for {
		line, err := r.ReadString('\n')
		t.rest[name] += line
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if t.re.MatchString(t.rest[name]) {
			if err := t.line(name, t.rest[name]); err != nil {
				return err
			}
		}
		t.rest[name] = ""
	}
}

func (t *tails) line(name, text string) error {
	if t.flags.output == "json" {
		raw, err := admin.Marshal(&admin.LogLine{Node: name, Line: text[:len(text)-1]})
		if err != nil {
			return err
		}
		return t.write(append(raw, '\n'))
	}
	return t.write([]byte(fmt.Sprintf("%-12s ", name) + text))
}

func (t *tails) close() {
	for _, f := range t.open {
		_ = f.Close() // only read
	}
}

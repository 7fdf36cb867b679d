// Command runbench measures Grapevine beside its bare counterparts, in one run,
// and prints figures and ratios: dissemination beside GossipSub and plain
// streams, where neither keeps the blocks and where both do (ADR 39), the
// ledger's append beside bare Pebble batches, range pull beside one raw libp2p
// stream. Beside them, how networks meet and what they cost while nothing
// happens. Trust the ratios and CPU times: the rest is the machine's.
//
//	go run ./itest/runbench -o build/bench.json
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"time"

	"grapevine/itest"
	"grapevine/itest/figures"
)

// loads are what DESIGN asks for. 8 KiB travel inline.
var loads = []itest.Load{
	{Body: 8 << 10, Every: 100 * time.Millisecond, Count: 100},
	{Body: 10 << 10, Every: 100 * time.Millisecond, Count: 100},
	{Body: 100 << 10, Every: 200 * time.Millisecond, Count: 15},
	{Body: 1 << 20, Every: time.Second, Count: 16},
}

// groups are how many nodes there are, in how many organisations.
var groups = []struct{ nodes, organisations int }{{10, 2}, {25, 5}}

// The longer variant adds larger blocks, and a group that takes them alone.
var (
	largeLoad = itest.Load{Body: 8 << 20, Every: 4 * time.Second, Count: 4}
	longGroup = struct{ nodes, organisations int }{50, 10}
)

func main() {
	out := flag.String("o", "", "write the records to this file as JSON")
	only := flag.String("only", "", "run only this part: dissemination, membership, catchup, ledger or pull")
	nodes := flag.Int("nodes", 0, "run only the group of so many nodes; of membership, as many as you like")
	body := flag.Int("body", 0, "run only the load of so many KiB")
	rounds := flag.Int("rounds", 2, "how many turns each network has")
	full := flag.Bool("full", false, "catch-up with 20,000 blocks of 10 KiB and 500 of 1 MiB; dissemination of 8 MiB too, and of that and 1 MiB to 50 nodes; 100 nodes that meet and idle")
	profile := flag.String("cpuprofile", "", "write a CPU profile to this file; with -only membership, of the idle time alone")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var r figures.Records
	err := func() (err error) {
		whole, idle := *profile, ""
		if *only == "membership" {
			whole, idle = "", *profile
		}
		done, err := profiled(whole)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, done()) }()
		parts := []part{
			{"dissemination", func() error { return dissemination(ctx, &r, *rounds, *nodes, *body, *full) }},
			{"membership", func() error { return members(ctx, &r, *nodes, *full, idle) }},
			{"catchup", func() error { return catchUp(ctx, &r, *body, *full) }},
		}
		for _, b := range benches {
			parts = append(parts, part{b.part, func() error { return b.run(ctx, &r) }})
		}
		for _, p := range parts {
			if *only != "" && *only != p.name || ctx.Err() != nil {
				continue
			}
			if e := p.run(); e != nil {
				err = errors.Join(err, fmt.Errorf("%s: %w", p.name, e))
			}
		}
		if *out != "" {
			err = errors.Join(err, r.Write(*out)) // what was measured, also where a part didn't end
		}
		return err
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// A part is one comparison. One that doesn't end spoils no other.
type part struct {
	name string
	run  func() error
}

func profiled(path string) (done func() error, err error) {
	if path == "" {
		return func() error { return nil }, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, err
	}
	return func() error {
		pprof.StopCPUProfile()
		return f.Close()
	}, nil
}

func dissemination(ctx context.Context, r *figures.Records, rounds, nodes, body int, full bool) error {
	groups, loads := groups, loads
	if full {
		groups, loads = append(slices.Clone(groups), longGroup), append(slices.Clone(loads), largeLoad)
	}
	for _, g := range groups {
		if nodes != 0 && g.nodes != nodes {
			continue
		}
		run := loads
		if g == longGroup {
			run = loads[len(loads)-2:]
		}
		for _, l := range run {
			if l.Body>>10 == body {
				run = []itest.Load{l}
			}
		}
		c, err := itest.Compare(ctx, g.nodes, g.organisations, rounds, run, func(s string) { fmt.Fprintln(os.Stderr, s) })
		if err != nil {
			return err
		}
		fmt.Printf("\n%d nodes, milliseconds     p50     p95     p99     max   copies  bytes   CPU ms/MiB\n", g.nodes)
		for i, l := range run {
			p := map[string]any{"nodes": g.nodes, "block_kib": l.Body >> 10, "per_second": float64(time.Second) / float64(l.Every)}
			row := func(name string, m itest.Measure, ds []time.Duration, tail bool) {
				s := figures.Sorted(ds)
				fmt.Printf("%5d KiB  %-14s", l.Body>>10, name)
				for _, at := range []float64{.5, .95, .99, 1} {
					fmt.Printf(" %7.1f", figures.Millis(figures.At(s, at)))
				}
				if tail {
					fmt.Printf("  %7.2f %6.2f %12.1f", m.Copies, m.Bytes, figures.Millis(m.CPU))
				}
				fmt.Println()
				r.Spread("dissemination."+strings.ReplaceAll(name, " ", "."), p, ds)
			}
			o, w, k, alone, least := c.Ours[i], c.Raw[i], c.Kept[i], c.Alone[i], c.Least[i]
			row("arrival", o, o.Arrival, false)
			row("disk", o, o.Disk, true)
			row("raw arrival", w, w.Arrival, true)
			row("alone arrival", alone, alone.Arrival, true)
			row("raw kept disk", k, k.Disk, true)
			row("streams arrival", least, least.Arrival, false)
			row("streams disk", least, least.Disk, true)
			ratio := func(a, b []time.Duration, at float64) float64 {
				return float64(figures.At(figures.Sorted(a), at)) / float64(figures.At(figures.Sorted(b), at))
			}
			against := func(name string, o itest.Measure, ours []time.Duration, w itest.Measure, ds []time.Duration) {
				fmt.Printf("%5d KiB  %-14s", l.Body>>10, name)
				for _, at := range []float64{.5, .95, .99, 1} {
					fmt.Printf(" %7.2f", ratio(ours, ds, at))
				}
				fmt.Printf("  %7.2f %6.2f %12.2f\n", o.Copies/w.Copies, o.Bytes/w.Bytes, float64(o.CPU)/float64(w.CPU))
			}
			against("alone / raw", alone, alone.Arrival, w, w.Arrival)
			against("arrival / raw", o, o.Arrival, w, w.Arrival)
			against("disk / raw", o, o.Disk, w, w.Arrival)
			against("disk / kept", o, o.Disk, k, k.Disk)
			against("disk / streams", o, o.Disk, least, least.Disk)
			fmt.Println()
			r.Add("dissemination.disk_to_raw.p50", p, "ratio", ratio(o.Disk, w.Arrival, .5))
			r.Add("dissemination.disk_to_raw.p99", p, "ratio", ratio(o.Disk, w.Arrival, .99))
			r.Add("dissemination.disk_to_kept.p99", p, "ratio", ratio(o.Disk, k.Disk, .99))
			r.Add("dissemination.disk_to_streams.p99", p, "ratio", ratio(o.Disk, least.Disk, .99))
			r.Add("dissemination.alone_to_raw.p99", p, "ratio", ratio(alone.Arrival, w.Arrival, .99))
			r.Add("dissemination.arrival_to_raw.p99", p, "ratio", ratio(o.Arrival, w.Arrival, .99))
			for name, m := range map[string]itest.Measure{"dissemination": o, "dissemination.raw": w, "dissemination.kept": k, "dissemination.alone": alone, "dissemination.streams": least} {
				r.Add(name+".copies", p, "copies per receiver", m.Copies)
				r.Add(name+".bytes", p, "bytes received per byte delivered", m.Bytes)
				r.Add(name+".cpu", p, "ms per MiB delivered", figures.Millis(m.CPU))
			}
		}
	}
	return nil
}

// A bench is a package's own benchmark, which compares in one run too.
type bench struct {
	part, pkg, match, time string
}

var benches = []bench{
	{"ledger", "./ledger", "^BenchmarkAppend$/^size=(10|1024)KiB$", "1s"},
	{"pull", "./blocksync", "^BenchmarkPull$", "3x"},
}

// run runs the benchmark with go test and takes up each figure it reports.
func (b bench) run(ctx context.Context, r *figures.Records) error {
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", b.match, "-benchtime", b.time, b.pkg)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%s%w", out, err)
	}
	fmt.Printf("\n%s\n", b.part)
	found := false
	for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
		f := strings.Fields(s.Text())
		if len(f) < 4 || !strings.HasPrefix(f[0], "Benchmark") {
			continue
		}
		found = true
		fmt.Println(" ", strings.Join(f, "  "))
		params := map[string]any{}
		for _, p := range strings.Split(f[0], "/")[1:] {
			if i := strings.LastIndex(p, "-"); i > 0 {
				p = p[:i] // how many processors
			}
			k, v, ok := strings.Cut(p, "=")
			if !ok {
				k, v = "size", p
			}
			params[k] = v
		}
		for i := 2; i+1 < len(f); i += 2 {
			if v, err := strconv.ParseFloat(f[i], 64); err == nil {
				r.Add(b.part+"."+f[i+1], params, f[i+1], v)
			}
		}
	}
	if !found {
		return fmt.Errorf("no benchmark matches %s:\n%s", b.match, out)
	}
	return nil
}

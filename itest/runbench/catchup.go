package main

import (
	"context"
	"fmt"
	"os"

	"grapevine/itest"
	"grapevine/itest/figures"
)

// catchUp measures newcomers, beside a raw stream and raw batches.
func catchUp(ctx context.Context, r *figures.Records, body int, full bool) error {
	chains := []itest.Catchup{{Body: 10 << 10, Blocks: 4000}, {Body: 1 << 20, Blocks: 100}}
	if full {
		chains[0].Blocks, chains[1].Blocks = 20_000, 500
	}
	for _, c := range chains {
		if body != 0 && c.Body>>10 != body {
			continue
		}
		c.Peers = []int{1, 3, 6}
		m, err := itest.CatchUp(ctx, c, func(s string) { fmt.Fprintln(os.Stderr, s) })
		if err != nil {
			return err
		}
		slower := min(m.Stream.Rate, m.Disk.Rate)
		params := func(more ...any) map[string]any {
			p := map[string]any{"block_kib": c.Body >> 10, "blocks": c.Blocks}
			for i := 0; i < len(more); i += 2 {
				p[more[i].(string)] = more[i+1]
			}
			return p
		}
		fmt.Printf("\ncatch-up, %d blocks of %d KiB     MB/s   of the slower   CPU µs/block   heap MiB\n", c.Blocks, c.Body>>10)
		row := func(name string, p itest.Pace) {
			fmt.Printf("  %-34s %7.1f %15.2f %14.1f %10.1f\n", name, p.Rate/1e6, p.Rate/slower, float64(p.CPU.Microseconds())/float64(c.Blocks), float64(p.Heap)/(1<<20))
		}
		row("raw stream", m.Stream)
		row("raw synced batches", m.Disk)
		r.Add("catchup.stream", params(), "bytes/s", m.Stream.Rate)
		r.Add("catchup.batches", params(), "bytes/s", m.Disk.Rate)
		row("verification alone", m.Check)
		r.Add("catchup.verification", params(), "bytes/s", m.Check.Rate)
		r.Add("catchup.verification_of_slower", params(), "ratio", m.Check.Rate/slower)
		row("the three together", m.Floor)
		r.Add("catchup.floor", params(), "bytes/s", m.Floor.Rate)
		r.Add("catchup.floor_of_slower", params(), "ratio", m.Floor.Rate/slower)
		for _, n := range c.Peers {
			row(fmt.Sprintf("newcomer, %d peers", n), m.Peers[n])
			r.Add("catchup.of_floor", params("peers", n), "ratio", m.Peers[n].Rate/m.Floor.Rate)
			r.Add("catchup.newcomer", params("peers", n), "bytes/s", m.Peers[n].Rate)
			r.Add("catchup.of_slower", params("peers", n), "ratio", m.Peers[n].Rate/slower)
			r.Add("catchup.cpu", params("peers", n), "µs/block", float64(m.Peers[n].CPU.Microseconds())/float64(c.Blocks))
			r.Add("catchup.heap", params("peers", n), "bytes", float64(m.Peers[n].Heap))
		}
		for _, n := range c.Peers {
			row(fmt.Sprintf("newcomer, %d peers, judging", n), m.Judged[n])
			r.Add("catchup.judging", params("peers", n), "bytes/s", m.Judged[n].Rate)
			r.Add("catchup.judging_of_slower", params("peers", n), "ratio", m.Judged[n].Rate/slower)
			cost := float64((m.Judged[n].CPU - m.Peers[n].CPU).Microseconds()) / float64(c.Blocks)
			r.Add("catchup.judging_cpu", params("peers", n), "µs/block", cost)
		}
	}
	return nil
}

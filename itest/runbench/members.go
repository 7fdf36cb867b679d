package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"grapevine/itest"
	"grapevine/itest/figures"
)

// members measures how networks of several sizes meet, and what they cost while
// nothing happens, beside bare libp2p hosts with as many connections. All nodes
// share this machine: View is bounded from below by CPU, divided by the cores.
// profile is a file for a CPU profile of the idle time, or empty. A hundred nodes
// belong to the full run: their handshakes alone take minutes of CPU.
func members(ctx context.Context, r *figures.Records, nodes int, full bool, profile string) error {
	sizes := []int{10, 25, 50}
	if full {
		sizes = append(sizes, 100)
	}
	if nodes != 0 {
		sizes = []int{nodes}
	}
	fmt.Printf("\nmembership     full view: ms  CPU ms  connections  checks  words   idle, each second and node: CPU ms  bare CPU ms  ratio  bytes  bare bytes  words  checks  connections\n")
	for _, n := range sizes {
		done := func() error { return nil }
		m, idle, err := itest.MeetAndIdle(ctx, n, false, func(phase string) (err error) {
			fmt.Fprintf(os.Stderr, "%d nodes: %s\n", n, phase)
			switch phase {
			case "idle":
				done, err = profiled(profile)
			case "stopping":
				err = done()
				done = func() error { return nil }
			}
			return err
		})
		if err = errors.Join(err, done()); err != nil {
			return fmt.Errorf("%d nodes: %w", n, err)
		}
		fmt.Fprintf(os.Stderr, "%d nodes: %.2f ms of CPU a second each; %d bare hosts: idle\n", n, figures.Millis(idle.CPU), n)
		bare, err := itest.IdleBare(ctx, n)
		if err != nil {
			return fmt.Errorf("%d bare hosts: %w", n, err)
		}
		ratio := float64(idle.CPU) / float64(bare.CPU)
		fmt.Printf("%4d nodes      %13.0f %7.0f %12d %7d %6d %35.2f %12.2f %6.2f %6.0f %11.0f %6.1f %7.2f %12.1f\n", n, figures.Millis(m.View), figures.Millis(m.CPU),
			m.Connections, m.Checks, m.Words, figures.Millis(idle.CPU), figures.Millis(bare.CPU), ratio, idle.Bytes, bare.Bytes, idle.Words, idle.Checks, idle.Connections)
		p := map[string]any{"nodes": n}
		r.Add("membership.full_view", p, "ms", figures.Millis(m.View))
		r.Add("membership.full_view.cpu", p, "ms, all nodes", figures.Millis(m.CPU))
		r.Add("membership.full_view.connections", p, "connections, all nodes", float64(m.Connections))
		r.Add("membership.full_view.checks", p, "signatures, all nodes", float64(m.Checks))
		r.Add("membership.idle.cpu", p, "ms per second and node", figures.Millis(idle.CPU))
		r.Add("membership.idle.bare.cpu", p, "ms per second and host", figures.Millis(bare.CPU))
		r.Add("membership.idle.cpu_to_bare", p, "ratio", ratio)
		r.Add("membership.idle.bytes", p, "bytes of streams in and out per second and node", idle.Bytes)
		r.Add("membership.idle.bare.bytes", p, "bytes of streams in and out per second and host", bare.Bytes)
		r.Add("membership.idle.words", p, "words per second and node", idle.Words)
		r.Add("membership.idle.checks", p, "signatures per second and node", idle.Checks)
		r.Add("membership.idle.suspicions", p, "in all", float64(idle.Suspicions))
	}
	return nil
}

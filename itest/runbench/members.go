package main

import (
	"context"
	"fmt"
	"os"

	"grapevine/itest"
	"grapevine/itest/figures"
)

// members measures how networks of several sizes meet, and what they cost while
// nothing happens. All nodes share this machine: View is bounded from below by
// CPU, divided by the cores.
func members(ctx context.Context, r *figures.Records, nodes int) error {
	sizes := []int{10, 25, 50, 100}
	if nodes != 0 {
		sizes = []int{nodes}
	}
	fmt.Printf("\nmembership     full view: ms  CPU ms  connections  checks  words   idle, each second and node: CPU ms  bytes  words  checks  connections\n")
	for _, n := range sizes {
		m, idle, err := itest.MeetAndIdle(ctx, n, false, func(phase string) { fmt.Fprintf(os.Stderr, "%d nodes: %s\n", n, phase) })
		if err != nil {
			return fmt.Errorf("membership of %d nodes: %w", n, err)
		}
		fmt.Printf("%4d nodes      %13.0f %7.0f %12d %7d %6d %35.2f %6.0f %6.1f %7.2f %12.1f\n", n, figures.Millis(m.View), figures.Millis(m.CPU),
			m.Connections, m.Checks, m.Words, figures.Millis(idle.CPU), idle.Bytes, idle.Words, idle.Checks, idle.Connections)
		p := map[string]any{"nodes": n}
		r.Add("membership.full_view", p, "ms", figures.Millis(m.View))
		r.Add("membership.full_view.cpu", p, "ms, all nodes", figures.Millis(m.CPU))
		r.Add("membership.full_view.connections", p, "connections, all nodes", float64(m.Connections))
		r.Add("membership.full_view.checks", p, "signatures, all nodes", float64(m.Checks))
		r.Add("membership.idle.cpu", p, "ms per second and node", figures.Millis(idle.CPU))
		r.Add("membership.idle.bytes", p, "bytes of streams in and out per second and node", idle.Bytes)
		r.Add("membership.idle.words", p, "words per second and node", idle.Words)
		r.Add("membership.idle.checks", p, "signatures per second and node", idle.Checks)
		r.Add("membership.idle.suspicions", p, "in all", float64(idle.Suspicions))
	}
	return nil
}

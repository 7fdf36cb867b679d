package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"grapevine/cmd/grapevine/admin"
	"grapevine/cmd/grapevine/fault"
	"grapevine/node"
)

// syncTime is how long somebody waits for a channel to catch up, unless
// --timeout; lookEvery how often it is looked at meanwhile.
const (
	syncTime  = time.Hour
	lookEvery = 200 * time.Millisecond
)

// A channel just joined has caught up when its height has stood still for
// settleTime and nothing is missing; or, while no other peer is known, for
// aloneTime.
const (
	settleTime = 2 * time.Second
	aloneTime  = 15 * time.Second
)

func newStateCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "state", Short: "World state, and its transfer", GroupID: groupChannels,
		Example: "  grapevine state get mychannel asset1 --namespace basic\n  grapevine state hash mychannel\n  grapevine state sync mychannel --wait",
	}
	c.AddCommand(newStateGetCmd(a), newStateDumpCmd(a), newStateHistoryCmd(a), newStateHashCmd(a), newStateStatusCmd(a), newStateSyncCmd(a), newStateRepairCmd(a))
	return c
}

func newStateStatusCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "status CH [--watch]", Short: "Gaps, requests and sources of state transfer",
		Long: `Tells which blocks of channel CH the node lacks, what it asks of whom at the
moment, how fast that goes, and what it knows of each peer as a source: the height
that it claims (a hint), what it holds no longer, how fast it is, and why it is
left alone for a while, if it is.

` + whichNode,
		Example: "  grapevine state status mychannel\n  grapevine state status mychannel --watch",
		Args:    exactly("CH"), Annotations: watched(next("grapevine state sync CH --wait", "grapevine channel info CH")), ValidArgsFunction: a.completeChannels,
		RunE: func(c *cobra.Command, args []string) error {
			t, err := a.node()
			if err != nil {
				return err
			}
			defer t.Close()
			return a.watch(c.Context(), func(ctx context.Context) (*screen, error) {
				s, err := admin.Remote{Client: t.Client, Name: args[0]}.Transfer(ctx)
				if err != nil {
					return nil, err
				}
				return &screen{obj: s, show: func(t *table) { showTransfer(t, s) }, names: func() []string { return []string{s.Channel} }}, nil
			})
		},
	}
}

// showTransfer writes how fetching goes for people.
func showTransfer(t *table, s *admin.StateStatus) {
	t.row("channel", s.Channel)
	t.row("height", fmt.Sprintf("%s of %s, %s behind", grouped(s.Height), grouped(s.Target), grouped(s.Lag)))
	if s.Paused != "" {
		t.row("PAUSED", s.Paused)
	}
	switch n := s.Snapshot; {
	case n.Height > 0 && n.Mode != string(node.SyncGenesis):
		t.row("snapshot", fmt.Sprintf("at height %s, %d of %d chunks here, %s came", grouped(n.Height), n.Chunks-n.Left, n.Chunks, size(float64(n.Bytes))))
	case n.Mode == string(node.SyncSnapshot):
		t.row("snapshot", "waiting for one: "+n.Waiting)
	}
	if p := s.Progress; p.Active {
		t.row("catching up", progressLine("since "+p.Since.UTC().Format(time.TimeOnly), p, shareOf(p)))
	}
	t.row("buffer", fmt.Sprintf("%s, %s of %s, at most %s so far", plural(s.Buffer.Blocks, "block"),
		size(float64(s.Buffer.Bytes)), size(float64(s.Buffer.MaxBytes)), size(float64(s.Buffer.PeakBytes))))
	t.flush()
	if len(s.Gaps) > 0 {
		t.row("\nGAP", "BLOCKS")
	}
	for _, g := range s.Gaps {
		t.row(fmt.Sprintf("%d..%d", g.From, g.To), g.Blocks)
	}
	t.flush()
	if len(s.Requests) > 0 {
		t.row("\nREQUEST", "PEER", "CAME", "SIZE", "AGE", "")
	}
	for _, r := range s.Requests {
		note := ""
		if r.Waiting {
			note = "waits for a configuration block"
		}
		t.row(fmt.Sprintf("%d..%d", r.From, r.To), r.Peer, r.Came, size(float64(r.Bytes)), (time.Duration(r.AgeMs) * time.Millisecond).String(), note)
	}
	t.flush()
	if len(s.Sources) > 0 {
		t.row("\nSOURCE", "HEIGHT", "FROM", "RATE", "ASKED", "BROUGHT", "SIZE", "STATE")
	}
	for _, p := range s.Sources {
		state := p.State
		if p.Why != "" && p.State != "ready" {
			state += ": " + p.Why + ", until " + p.Until.UTC().Format(time.TimeOnly)
		}
		rate := "-"
		if p.BytesPerSec > 0 {
			rate = size(p.BytesPerSec) + "/s"
		}
		t.row(p.Peer, p.Height, p.Lowest, rate, p.Requests, plural(int(p.Blocks), "block"), size(float64(p.Bytes)), state)
	}
}

func newStateSyncCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "sync CH [--wait]", Short: "Fetch what is missing now",
		Long: `Makes the node ask at once for every block of channel CH that it lacks, of every
peer that wasn't found to send wrong bytes; it would do so by itself a little later.
With --wait it returns when the node holds what was known to be there, and shows
meanwhile how that goes.

` + whichNode,
		Example: "  grapevine state sync mychannel\n  grapevine state sync mychannel --wait --timeout 10m",
		Args:    exactly("CH"), Annotations: next("grapevine state status CH"), ValidArgsFunction: a.completeChannels,
	}
	wait := c.Flags().Bool("wait", false, "return when nothing is missing any more")
	c.RunE = func(c *cobra.Command, args []string) error {
		t, err := a.node()
		if err != nil {
			return err
		}
		defer t.Close()
		limit := askTime
		if *wait {
			limit = syncTime
		}
		ctx, cancel := a.within(c.Context(), limit)
		defer cancel()
		r := admin.Remote{Client: t.Client, Name: args[0]}
		s, err := r.Fetch(ctx)
		if err != nil {
			return err
		}
		if *wait {
			if s, err = a.caughtUp(ctx, r, s.Target, 0); err != nil {
				return err
			}
		}
		return a.emit(s, func(t *table) {
			if s.Done {
				t.row(fmt.Sprintf("%s holds %s blocks; nothing is missing", s.Channel, grouped(s.Height)))
			} else {
				t.row(fmt.Sprintf("%s holds %s of %s blocks; the rest is asked for", s.Channel, grouped(s.Height), grouped(s.Target)))
			}
		}, func() []string { return []string{s.Channel} })
	}
	return c
}

// caughtUp waits until a channel has at least target blocks, nothing is known to
// be missing, and its height has stood still for a time.
func (a *app) caughtUp(ctx context.Context, r admin.Remote, target uint64, still time.Duration) (*admin.StateSync, error) {
	b := a.newBar(r.Name)
	defer b.done()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	since, height := a.now(), uint64(0)
	for {
		s, err := r.Transfer(ctx)
		if err == nil {
			if s.Height != height {
				since, height = a.now(), s.Height
			}
			stood := a.now().Sub(since) >= still
			if len(s.Sources) == 0 && still > 0 {
				stood = a.now().Sub(since) >= aloneTime
			}
			// A channel on its way by a snapshot takes no blocks, and so lacks none.
			arriving := s.Snapshot.Mode == string(node.SyncSnapshot) || s.Snapshot.Height > 0 && s.Snapshot.Mode == string(node.SyncAuto)
			if s.Height >= target && s.Lag == 0 && stood && !arriving {
				return &admin.StateSync{Channel: s.Channel, Height: s.Height, Target: s.Target, Done: true}, nil
			}
			b.show(s.Progress, shareOf(s.Progress))
			select {
			case <-tick.C:
				continue
			case <-ctx.Done():
				err = late(ctx, s)
			}
		}
		return nil, err
	}
}

// late says how far it came when the time was over.
func late(ctx context.Context, s *admin.StateStatus) error {
	if context.Cause(ctx) != context.DeadlineExceeded { //nolint:errorlint // it is never wrapped
		return ctx.Err()
	}
	why := []string{fmt.Sprintf("%s of %s blocks are there", grouped(s.Height), grouped(s.Target))}
	if s.Paused != "" {
		why = append(why, s.Paused)
	}
	for _, p := range s.Sources {
		if p.State != "ready" {
			why = append(why, strings.Join([]string{p.Peer, p.State, p.Why}, " "))
		}
	}
	if len(s.Sources) == 0 {
		why = append(why, "no other peer of the channel is known")
	}
	return fault.Newf(fault.TimedOut, "channel %s has not caught up", s.Channel).Because(why...).
		Do("wait longer with --timeout", "see what it waits for: grapevine state status "+s.Channel)
}

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"grapevine/cmd/grapevine/admin"
	"grapevine/cmd/grapevine/fault"
)

func newStatusCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "status [--watch]", Short: "This node on one screen, problems first", GroupID: groupStart,
		Long:    "Shows one node: its problems, its channels, and with -o wide its certificates and\naddresses. It exits with 6 unless the node is healthy.\n\n" + whichNode,
		Example: "  grapevine status\n  grapevine status --target peer1.org2 -o json\n  grapevine status --watch",
		Args:    exactly(), Annotations: watched(next("grapevine channel ls", "grapevine dev status")),
		RunE: func(c *cobra.Command, _ []string) error {
			t, err := a.node()
			if err != nil {
				return err
			}
			defer t.Close()
			return a.watch(c.Context(), func(ctx context.Context) (*screen, error) {
				s, err := t.Status(ctx)
				if err != nil {
					return nil, err
				}
				out := &screen{obj: s, show: func(t *table) { showStatus(t, s) }, names: func() []string { return []string{s.Name} }}
				if out.key, err = steady(*s); err == nil && !s.Healthy {
					out.exit = exitCode(fault.ExitCheck)
				}
				return out, err
			})
		},
	}
}

// steady is a status without what changes by itself as time passes.
func steady(s admin.Status) (string, error) {
	s.UptimeSec, s.Certificates = 0, slices.Clone(s.Certificates)
	for i := range s.Certificates {
		s.Certificates[i].ExpiresInSec = 0
	}
	raw, err := admin.Marshal(&s)
	return string(raw), err
}

// showStatus writes a node's status for people, problems first.
func showStatus(t *table, s *admin.Status) {
	for _, p := range s.Problems {
		mark := "!"
		if p.Severity == "info" {
			mark = "·"
		}
		fix := ""
		if p.Fix != "" {
			fix = "fix: " + p.Fix
		}
		t.row(mark+" "+p.Code, p.Message, fix)
	}
	t.flush()
	t.row(fmt.Sprintf("%-8s %s (%s)", "node", s.Name, s.MSPID), s.Role, short(s.PeerID, 12, t.wide), "up "+span(s.UptimeSec), s.Version)
	t.flush()
	if len(s.Channels) == 0 {
		t.row("no channel is joined")
	} else {
		t.row("channel", "HEIGHT", "LAG", "LEADER", "SOURCE", "MEMBERS")
	}
	for _, c := range s.Channels {
		source := c.Source.Kind
		if c.Source.Name != "" {
			source = c.Source.Name + "/" + c.Source.Kind
		}
		members := fmt.Sprintf("%d alive, %d suspect, %d dead", c.Alive, c.Suspect, c.Dead)
		if s.Role == "orderer" {
			members = "-"
		}
		t.row(c.Name, c.Height, c.Lag, orDash(c.Leader), source, members)
	}
	if !t.wide {
		return
	}
	t.flush()
	for _, l := range s.Listen {
		t.row("listens", l)
	}
	t.row("listens", orDash(s.Operations), "operations")
	for _, c := range s.Certificates {
		t.row("certificate", c.Use, c.Subject, "until "+c.NotAfter.UTC().Format(time.DateOnly), "by "+c.Issuer)
	}
}

// short is the beginning of an id, unless all of it is asked for.
func short(id string, n int, whole bool) string {
	if whole || len(id) <= n {
		return id
	}
	return id[:n] + "…"
}

// span is a number of seconds for people.
func span(sec int64) string {
	d := time.Duration(sec) * time.Second
	if d >= time.Hour {
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	}
	return d.String()
}

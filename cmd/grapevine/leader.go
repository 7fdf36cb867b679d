package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"grapevine/cmd/grapevine/admin"
)

func newLeaderCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "leader", Short: "Look at the election of a node's organisation, and hand leadership over", GroupID: groupNetwork,
		Example: "  grapevine leader show mychannel\n  grapevine leader history mychannel\n  grapevine leader yield mychannel --target peer0.org1",
	}
	c.AddCommand(newLeaderShowCmd(a), newLeaderHistoryCmd(a), newLeaderYieldCmd(a))
	return c
}

// lookAt makes a verb that asks the node of one channel, and may be watched.
func lookAt[T any](a *app, c *cobra.Command, ask func(admin.Remote, context.Context) (*T, error), screenOf func(*T) *screen) *cobra.Command {
	c.Args, c.ValidArgsFunction = exactly("CH"), a.completeChannels
	c.RunE = func(c *cobra.Command, args []string) error {
		t, err := a.node()
		if err != nil {
			return err
		}
		defer t.Close()
		return a.watch(c.Context(), func(ctx context.Context) (*screen, error) {
			v, err := ask(admin.Remote{Client: t.Client, Name: args[0]}, ctx)
			if err != nil {
				return nil, err
			}
			s := screenOf(v)
			s.obj = v
			return s, nil
		})
	}
	return c
}

func newChannelLeaderCmd(a *app) *cobra.Command {
	return lookAt(a, &cobra.Command{
		Use: "leader CH [--watch]", Short: "Leader per organisation and how it was chosen",
		Long: `Lists for every organisation of channel CH who pulls its blocks from the ordering
service, as the node knows it: of its own organisation by the election, of others
by what their leaders tell the channel's members. An organisation whose peers tell
nothing, or are invisible to this node, is "unknown". With --watch it goes on as
leaders change.

` + whichNode,
		Example:     "  grapevine channel leader mychannel\n  grapevine channel leader mychannel --watch\n  grapevine channel leader mychannel -o json | jq -r '.items[].leader'",
		Annotations: watched(next("grapevine leader history CH", "grapevine leader yield CH")),
	}, admin.Remote.Leaders, func(l *admin.ChannelLeaderList) *screen {
		s := &screen{show: func(t *table) { showLeaders(t, l) }, names: func() (names []string) {
			for _, i := range l.Items {
				names = append(names, i.Leaders...)
			}
			return names
		}}
		for _, i := range l.Items { // not by ages, which always differ
			s.key += fmt.Sprintln(i.Org, i.Mode, i.Leaders, i.Since, i.Term, i.Orderer, i.Problems)
		}
		return s
	})
}

func showLeaders(t *table, l *admin.ChannelLeaderList) {
	head := []any{"ORG", "MODE", "LEADER", "SINCE", "TERM", "LAST HEARTBEAT", "ORDERER"}
	if t.wide {
		head = append(head, "PEER ID")
	}
	t.row(head...)
	for _, i := range l.Items {
		who, term, heard := strings.Join(i.Leaders, " "), "-", "-"
		if who == "" {
			who = "(none)"
		}
		if i.Term > 0 {
			term, heard = fmt.Sprint(i.Term), tenths(time.Duration(i.HeartbeatAgeMs)*time.Millisecond)
		}
		cells := []any{i.Org, i.Mode, who, since(i.Since), term, heard, orDash(i.Orderer)}
		if t.wide {
			cells = append(cells, orDash(i.PeerID))
		}
		for _, p := range i.Problems {
			cells = append(cells, "! "+p.Code+" "+p.Message)
		}
		t.row(cells...)
	}
}

// since is for how long something lasts, for people.
func since(t admin.Time) string {
	if t.IsZero() {
		return "-"
	}
	return span(max(0, int64(time.Since(t.Time).Seconds())))
}

// tenths is a short time for people.
func tenths(d time.Duration) string { return fmt.Sprintf("%.1fs", d.Seconds()) }

func newLeaderShowCmd(a *app) *cobra.Command {
	return lookAt(a, &cobra.Command{
		Use: "show CH [--watch]", Short: "This node's election state",
		Long: `Shows the node's part in the election of its organisation's leader on channel CH:
its mode and role, whom it follows, whether an orderer answers it, and why it may
not lead.

` + whichNode,
		Example:     "  grapevine leader show mychannel\n  grapevine leader show mychannel --target peer1.org1 -o json",
		Annotations: watched(next("grapevine channel leader CH", "grapevine leader history CH")),
	}, admin.Remote.Leader, func(v *admin.LeaderState) *screen {
		return &screen{
			show: func(t *table) { showLeaderState(t, v) }, names: func() []string { return []string{v.Leader} },
			key: fmt.Sprintln(v.Mode, v.Role, v.Pulling, v.Leader, v.Since, v.Term, v.Orderer, v.Neighbours, v.Reaches, v.Unreachable, v.BarredUntil, v.Changes),
		}
	})
}

func showLeaderState(t *table, v *admin.LeaderState) {
	t.row("mode", v.Mode)
	role := v.Role
	switch {
	case v.Mode == "static" && v.Leading:
		role = "always leads"
	case v.Pulling && !v.Leading:
		role += ", pulls beside a leader that brings nothing"
	}
	t.row("role", role)
	if v.Leader == "" {
		t.row("leader", "(none)")
	} else {
		t.row("leader", v.Leader+" for "+since(v.Since)+", heard "+tenths(time.Duration(v.HeartbeatAgeMs)*time.Millisecond)+" ago")
	}
	t.row("term", v.Term)
	t.row("orderer", orDash(v.Orderer))
	reach := "one answers this node"
	if !v.Reaches {
		reach = "none answers this node"
		if v.Unreachable != "" {
			reach += ": " + v.Unreachable
		}
	}
	t.row("orderers", reach)
	t.row("neighbours", fmt.Sprintf("%d connected peers of the organisation", v.Neighbours))
	if !v.BarredUntil.IsZero() {
		t.row("barred", "until "+v.BarredUntil.UTC().Format(time.RFC3339)+": it leads only if nobody else can")
	}
	t.row("changes", fmt.Sprintf("%d leaders came, %s without one", v.Changes, tenths(time.Duration(v.LeaderlessMs)*time.Millisecond)))
}

func newLeaderHistoryCmd(a *app) *cobra.Command {
	return lookAt(a, &cobra.Command{
		Use: "history CH [--watch]", Short: "Past leaders and why they changed",
		Long: `Lists the changes of the organisation's leader on channel CH that the node has
seen since it started, 128 at most, the oldest first.

` + whichNode,
		Example:     "  grapevine leader history mychannel\n  grapevine leader history mychannel --watch\n  grapevine leader history mychannel -o json | jq '.items[-1]'",
		Annotations: watched(next("grapevine leader show CH")),
	}, admin.Remote.LeaderHistory, func(v *admin.LeaderHistory) *screen {
		return &screen{show: func(t *table) { showLeaderHistory(t, v) }, names: func() (names []string) {
			for _, i := range v.Items {
				if i.Leader != "" {
					names = append(names, i.Leader)
				}
			}
			return slices.Compact(names)
		}}
	})
}

func showLeaderHistory(t *table, v *admin.LeaderHistory) {
	if len(v.Items) == 0 {
		t.row("no leader was seen")
		return
	}
	t.row("TIME", "LEADER", "TERM", "WHY")
	for _, i := range v.Items {
		who, term := i.Leader, "-"
		if who == "" {
			who = "(none)"
		}
		if i.Term > 0 {
			term = fmt.Sprint(i.Term)
		}
		t.row(i.At.UTC().Format("2006-01-02T15:04:05.000Z"), who, term, i.Why)
	}
}

func newLeaderYieldCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "yield CH", Short: "Hand leadership over",
		Long: `Has the node, if it is the elected leader of its organisation on channel CH, hand
leadership over, and says who took it. For a minute it leads only if nobody else
can. A node that doesn't lead refuses.

` + whichNode,
		Example: "  grapevine leader yield mychannel\n  grapevine leader yield mychannel --target peer0.org1 -o json",
		Args:    exactly("CH"), Annotations: next("grapevine channel leader CH"), ValidArgsFunction: a.completeChannels,
		RunE: func(c *cobra.Command, args []string) error {
			t, err := a.node()
			if err != nil {
				return err
			}
			defer t.Close()
			ctx, cancel := a.within(c.Context(), 2*askTime)
			defer cancel()
			v, err := admin.Remote{Client: t.Client, Name: args[0]}.Yield(ctx)
			if err != nil {
				return err
			}
			return a.emit(v, func(t *table) {
				if v.Leader == "" {
					t.row(v.Yielded + " leads no more; nobody has taken over yet")
					return
				}
				t.row(fmt.Sprintf("%s leads no more; %s does, in term %d, after %d ms", v.Yielded, v.Leader, v.Term, v.TookMs))
			}, func() []string { return []string{v.Leader} })
		},
	}
}

package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"grapevine/cmd/grapevine/admin"
	"grapevine/cmd/grapevine/fault"
)

// peerAction makes a verb that does one thing to one peer.
func (a *app) peerAction(c *cobra.Command, do func(context.Context, *target, string) (*admin.PeerAction, error), said string) *cobra.Command {
	c.RunE = func(c *cobra.Command, args []string) error {
		t, err := a.node()
		if err != nil {
			return err
		}
		defer t.Close()
		ctx, cancel := a.within(c.Context(), 2*askTime)
		defer cancel()
		v, err := do(ctx, t, args[0])
		if err != nil {
			return err
		}
		return a.emit(v, func(t *table) {
			name := v.Name
			if name == "" {
				name = v.PKIID
			}
			line := fmt.Sprintf(said, name)
			if !v.Until.IsZero() {
				line += " until " + v.Until.UTC().Format(time.RFC3339)
			}
			t.row(line)
		}, func() []string { return []string{v.Name} })
	}
	return c
}

func newPeersConnectCmd(a *app) *cobra.Command {
	return a.peerAction(&cobra.Command{
		Use: "connect ADDR", Short: "Dial now",
		Long:    "Has the node dial ADDR, host:port or a multiaddr, and says who is there.\n\n" + whichNode,
		Example: "  grapevine peers connect peer0.org2:7051\n  grapevine peers connect /ip4/10.0.0.7/udp/7051/quic-v1",
		Args:    exactly("ADDR"), Annotations: next("grapevine peers ls"),
	}, func(ctx context.Context, t *target, addr string) (*admin.PeerAction, error) {
		return t.Connect(ctx, addr)
	}, "connected to %s")
}

func newPeersDisconnectCmd(a *app) *cobra.Command {
	return a.peerAction(&cobra.Command{
		Use: "disconnect NAME", Short: "Close the connection",
		Long: `Has the node close its connections to a peer. A member of a channel is dialled
again; to keep it away, ban it.

` + whichNode,
		Example: "  grapevine peers disconnect peer1.org1",
		Args:    exactly("NAME"), Annotations: next("grapevine peers ban NAME"), ValidArgsFunction: a.completePeers,
	}, func(ctx context.Context, t *target, name string) (*admin.PeerAction, error) {
		return t.Disconnect(ctx, name)
	}, "disconnected from %s")
}

func newPeersBanCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "ban NAME [--for DUR]", Short: "Refuse a peer here",
		Long: `Has the node close its connections to a peer, refuse its handshakes and dial it no
more, until the ban ends or is lifted; a restart doesn't lift it. Other nodes go
on as before: to put a member out of a channel, revoke its certificate.

` + whichNode,
		Example: "  grapevine peers ban peer1.org2 --for 1h\n  grapevine peers ban peer1.org2",
		Args:    exactly("NAME"), Annotations: next("grapevine peers unban NAME"), ValidArgsFunction: a.completePeers,
	}
	d := c.Flags().Duration("for", 0, "how long; without, until it is lifted")
	return a.peerAction(c, func(ctx context.Context, t *target, name string) (*admin.PeerAction, error) {
		if *d < 0 {
			return nil, usage(c, "--for is negative")
		}
		return t.Ban(ctx, name, *d)
	}, "banned %s")
}

func newPeersUnbanCmd(a *app) *cobra.Command {
	return a.peerAction(&cobra.Command{
		Use: "unban NAME", Short: "Lift a ban",
		Long:    "Lifts the ban of a peer: NAME as in peers show, or the whole PKI-ID of one that the\nnode doesn't know any more.\n\n" + whichNode,
		Example: "  grapevine peers unban peer1.org2",
		Args:    exactly("NAME"), Annotations: next("grapevine peers ls"), ValidArgsFunction: a.completePeers,
	}, func(ctx context.Context, t *target, name string) (*admin.PeerAction, error) {
		return t.Unban(ctx, name)
	}, "lifted the ban of %s")
}

func newPeersPingCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "ping NAME [--channel CH] [--count N]", Short: "Echo over the mesh, naming the path",
		Long: `Has the node ask a peer for an echo on a channel's own streams, and tells how long
it took and which way it went: on their connection, or, where there is none,
through a member that is connected to both. It exits with 5 if there is no answer.

` + whichNode,
		Example: "  grapevine peers ping peer1.org1\n  grapevine peers ping peer0.org2 --count 5 -o json",
		Args:    exactly("NAME"), Annotations: next("grapevine peers show NAME", "grapevine peers rtt"), ValidArgsFunction: a.completePeers,
	}
	channel := c.Flags().String("channel", "", "the channel to ask on; without, any that both have joined")
	count := c.Flags().Int("count", 1, "how many, one after the other")
	c.RunE = func(c *cobra.Command, args []string) error {
		if *count < 1 {
			return usage(c, "--count is below 1")
		}
		t, err := a.node()
		if err != nil {
			return err
		}
		defer t.Close()
		for range *count {
			ctx, cancel := a.within(c.Context(), askTime)
			v, err := t.Ping(ctx, args[0], *channel)
			cancel()
			if err == nil {
				err = a.emit(v, func(t *table) {
					way := v.Path
					if v.Via != "" {
						way += " by " + v.Via
					} else if v.Transport != "" {
						way += " " + v.Transport + " " + v.Addr
					}
					t.row(fmt.Sprintf("%s on %s: %s, %s", v.Name, v.Channel, millis(v.RTTMs), way))
				}, func() []string { return []string{v.Name} })
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	return c
}

func newPeersAnchorsCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "anchors CH", Short: "Anchor peers of all organisations and whether they answer",
		Long: `Has the node call at every anchor peer that the configuration of channel CH names,
and tells who answers, after how long, or why nobody does. A node without an
external endpoint calls on its own organisation alone. It exits with 6 unless all
that were called answer.

` + whichNode,
		Example: "  grapevine peers anchors mychannel\n  grapevine peers anchors mychannel -o json",
		Args:    exactly("CH"), ValidArgsFunction: a.completeChannels,
		RunE: func(c *cobra.Command, args []string) error {
			t, err := a.node()
			if err != nil {
				return err
			}
			defer t.Close()
			ctx, cancel := a.within(c.Context(), 2*askTime)
			defer cancel()
			l, err := admin.Remote{Client: t.Client, Name: args[0]}.Anchors(ctx)
			if err != nil {
				return err
			}
			if err := a.emit(l, func(t *table) { showAnchors(t, l) }, func() (names []string) {
				for _, v := range l.Items {
					names = append(names, v.Endpoint)
				}
				return names
			}); err != nil {
				return err
			}
			if slices.ContainsFunc(l.Items, func(v admin.Anchor) bool { return !v.OK && v.Code != fault.NoExternal }) {
				return exitCode(fault.ExitCheck)
			}
			return nil
		},
	}
}

func showAnchors(t *table, l *admin.AnchorList) {
	if len(l.Items) == 0 {
		t.row("the configuration names no anchor peer")
		return
	}
	t.row("ORG", "ENDPOINT", "ANSWERS", "TOOK", "LINK", "")
	for _, v := range l.Items {
		link := "-"
		if v.Self {
			link = "self"
		} else if v.Connected {
			link = "connected"
		}
		if v.OK {
			t.row(v.Org, v.Endpoint, v.Name, millis(v.TookMs), link)
		} else {
			t.row(v.Org, v.Endpoint, "no", "-", link, v.Code+" "+v.Message)
		}
	}
}

func newPeersRTTCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "rtt", Short: "Round-trip matrix",
		Long: `Shows the round trips to all living peers that the node's own probes measured; in
a development network, those of every node that runs, one row each.

` + whichNode,
		Example: "  grapevine peers rtt\n  grapevine peers rtt --target peer1.org2 -o json",
		Args:    exactly(), Annotations: next("grapevine peers ping NAME"),
		RunE: func(c *cobra.Command, _ []string) error {
			t, err := a.node()
			if err != nil {
				return err
			}
			defer t.Close()
			ctx, cancel := a.within(c.Context(), askTime)
			defer cancel()
			out := &rtts{&admin.PeerRTT{}}
			if err := out.row(ctx, t.Client); err != nil {
				return err
			}
			if t.dev != nil && a.flags.target == "" {
				for _, v := range t.dev.Peers() {
					if v.Name == t.node.Name {
						continue
					}
					c := admin.Dial(t.dev.Folder(v))
					err := out.row(ctx, c)
					c.Close()
					if err != nil && fault.Of(err).Code != fault.Unreachable { // it may be down
						return err
					}
				}
			}
			return a.emit(out.PeerRTT, func(t *table) { showRTT(t, out.PeerRTT) }, func() []string { return out.Nodes })
		},
	}
}

// rtts gathers round trips.
type rtts struct{ *admin.PeerRTT }

// row adds what one node measured.
func (m *rtts) row(ctx context.Context, c *admin.Client) error {
	l, err := c.Peers(ctx, "", "alive")
	if err != nil {
		return err
	}
	from := ""
	for _, p := range l.Items {
		if !slices.Contains(m.Nodes, p.Name) {
			m.Nodes = append(m.Nodes, p.Name)
		}
		if p.Self {
			from = p.Name
		}
	}
	for _, p := range l.Items {
		if !p.Self {
			m.Items = append(m.Items, admin.PeerLeg{From: from, To: p.Name, RTTMs: p.RTTMs})
		}
	}
	return nil
}

func showRTT(t *table, m *admin.PeerRTT) {
	head := []any{"FROM"}
	for _, n := range m.Nodes {
		head = append(head, n)
	}
	t.row(head...)
	for _, from := range m.Nodes {
		cells, known := []any{from}, false
		for _, to := range m.Nodes {
			cell := "-"
			for _, l := range m.Items {
				if l.From == from && l.To == to {
					cell, known = millis(l.RTTMs), true
				}
			}
			cells = append(cells, cell)
		}
		if known {
			t.row(cells...)
		}
	}
}

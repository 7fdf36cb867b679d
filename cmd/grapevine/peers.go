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

// peerStates are the values of --state.
var peerStates = []string{"alive", "suspect", "dead", "left"}

func newPeersCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "peers", Short: "Look at the other peers, as a node sees them", GroupID: groupNetwork,
		Example: "  grapevine peers ls\n  grapevine peers show peer1.org1\n  grapevine peers ping peer1.org1",
	}
	c.AddCommand(
		newPeersLsCmd(a), newPeersShowCmd(a), newPeersConnectCmd(a), newPeersDisconnectCmd(a), newPeersBanCmd(a), newPeersUnbanCmd(a),
		newPeersPingCmd(a), newPeersRTTCmd(a), newPeersAnchorsCmd(a),
	)
	return c
}

func newPeersLsCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "ls [--channel CH] [--state alive|suspect|dead|left] [--watch]", Short: "Peers this node knows",
		Long: `Lists the node itself and the peers that it knows: those that share a channel
with it, and those that are connected. The state is what this node believes; on
several channels, the one where the peer seems most alive. Who has left all
channels is listed with --state left alone. Of other organisations only external
endpoints are known.

` + whichNode,
		Example: "  grapevine peers ls\n  grapevine peers ls --channel mychannel --state alive -o name\n  grapevine peers ls -o wide --watch",
		Args:    exactly(), Annotations: watched(next("grapevine peers show NAME", "grapevine channel members CH")),
	}
	channel := c.Flags().String("channel", "", "only members of this channel")
	state := c.Flags().String("state", "", "only peers in this state: "+strings.Join(peerStates, ", "))
	c.RunE = func(c *cobra.Command, _ []string) error {
		if *state != "" && !slices.Contains(peerStates, *state) {
			return usage(c, "--state "+*state+" is none of "+strings.Join(peerStates, ", "))
		}
		t, err := a.node()
		if err != nil {
			return err
		}
		defer t.Close()
		return a.watch(c.Context(), func(ctx context.Context) (*screen, error) {
			l, err := t.Peers(ctx, *channel, *state)
			if err != nil {
				return nil, err
			}
			out := &screen{obj: l, show: func(t *table) { showPeers(t, l) }, names: func() (names []string) {
				for _, p := range l.Items {
					names = append(names, p.Name)
				}
				return names
			}}
			calm := *l
			calm.Items = slices.Clone(l.Items)
			for i := range calm.Items {
				calm.Items[i].LastSeen, calm.Items[i].RTTMs = admin.Time{}, 0
			}
			out.key, err = keyOf(&calm)
			return out, err
		})
	}
	return c
}

// keyOf is what tells one answer from another when watched.
func keyOf(v any) (string, error) {
	raw, err := admin.Marshal(v)
	return string(raw), err
}

func showPeers(t *table, l *admin.PeerList) {
	if len(l.Items) == 0 {
		t.row("no such peer")
		return
	}
	head := []any{"PEER", "ORG", "ROLE", "STATE", "LINK", "RTT", "ENDPOINT", "CHANNELS", "SEEN"}
	if t.wide {
		head = append(head, "EXTERNAL", "PEER ID", "PKI-ID", "INCARNATION")
	}
	t.row(head...)
	for _, p := range l.Items {
		link, endpoint := "-", p.Endpoint
		if p.Self {
			link = "self"
		} else if p.Connected {
			link = p.Transport
		}
		if endpoint == "" {
			endpoint = p.ExternalEndpoint
		}
		role := "member"
		if p.Anchor {
			role = "anchor"
		}
		cells := []any{p.Name, p.Org, role, p.State, link, millis(p.RTTMs), orDash(endpoint), orDash(strings.Join(p.Channels, " ")), ago(p.LastSeen)}
		if t.wide {
			cells = append(cells, orDash(p.ExternalEndpoint), p.PeerID, p.PKIID, p.Incarnation)
		}
		t.row(cells...)
	}
}

// millis is a duration in milliseconds for people.
func millis(v float64) string {
	if v == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1fms", v)
}

// ago is how long ago something was, for people.
func ago(at admin.Time) string {
	if at.IsZero() {
		return "-"
	}
	return max(0, time.Since(at.Time)).Round(100 * time.Millisecond).String()
}

func newPeersShowCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show NAME [--watch]", Short: "One peer: identity, addresses, streams, scores",
		Long: `Shows one peer as the node sees it. NAME is its certificate's name, its peer ID,
or the beginning of its PKI-ID, at least eight digits.

` + whichNode,
		Example: "  grapevine peers show peer1.org1\n  grapevine peers show 9f2c41d0 -o json",
		Args:    exactly("NAME"), Annotations: watched(next("grapevine peers ping NAME")), ValidArgsFunction: a.completePeers,
		RunE: func(c *cobra.Command, args []string) error {
			t, err := a.node()
			if err != nil {
				return err
			}
			defer t.Close()
			return a.watch(c.Context(), func(ctx context.Context) (*screen, error) {
				p, err := t.Peer(ctx, args[0])
				if err != nil {
					return nil, err
				}
				return &screen{obj: p, show: func(t *table) { showPeer(t, p) }, names: func() []string { return []string{p.Name} }}, nil
			})
		},
	}
}

func showPeer(t *table, p *admin.PeerInfo) {
	t.row("peer", fmt.Sprintf("%s (%s)", p.Name, p.MSPID))
	t.row("state", p.State+" since "+ago(p.Since)+", seen "+ago(p.LastSeen)+" ago")
	t.row("peer ID", p.PeerID)
	t.row("PKI-ID", p.PKIID)
	t.row("version", orDash(p.Version))
	t.row("endpoint", orDash(p.Endpoint)+" inside, "+orDash(p.ExternalEndpoint)+" outside")
	t.row("round trip", millis(p.RTTMs))
	if p.Certificate.Subject != "" {
		t.row("certificate", p.Certificate.Subject+" until "+p.Certificate.NotAfter.UTC().Format(time.DateOnly)+" by "+p.Certificate.Issuer)
	}
	if !p.BannedUntil.IsZero() {
		t.row("banned", "until "+p.BannedUntil.UTC().Format(time.RFC3339))
	}
	t.flush()
	for _, m := range p.Memberships {
		var streams []string
		for _, s := range m.Streams {
			streams = append(streams, fmt.Sprintf("%d %s", s.Count, s.Kind))
		}
		t.row("channel", m.Channel, m.State, fmt.Sprintf("height %d", m.Height), fmt.Sprintf("score %.1f", m.Score), "streams: "+orDash(strings.Join(streams, ", ")))
	}
	t.flush()
	for _, v := range p.Connections {
		t.row("connection", v.Direction, v.Transport, v.Addr, "since "+ago(v.Since), fmt.Sprintf("%d streams", v.Streams))
	}
}

func newChannelMembersCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "members CH [--watch]", Short: "Members with state, height, lag",
		Long: `Lists the members of channel CH as the node sees them, itself included: what it
believes of each (alive, suspect, dead), and the height that each tells, which is
a hint. With --watch it goes on as members come, go, and are lost.

` + whichNode,
		Example: "  grapevine channel members mychannel\n  grapevine channel members mychannel --watch\n  grapevine channel members mychannel -o json | jq '.items[] | select(.state==\"dead\").name'",
		Args:    exactly("CH"), Annotations: watched(next("grapevine peers show NAME")), ValidArgsFunction: a.completeChannels,
		RunE: func(c *cobra.Command, args []string) error {
			t, err := a.node()
			if err != nil {
				return err
			}
			defer t.Close()
			return a.watch(c.Context(), func(ctx context.Context) (*screen, error) {
				l, err := admin.Remote{Client: t.Client, Name: args[0]}.Members(ctx)
				if err != nil {
					return nil, err
				}
				out := &screen{obj: l, show: func(t *table) { showMembers(t, l) }, names: func() (names []string) {
					for _, m := range l.Items {
						names = append(names, m.Name)
					}
					return names
				}}
				calm := *l
				calm.Items = slices.Clone(l.Items)
				for i := range calm.Items {
					calm.Items[i].LastSeen = admin.Time{}
				}
				out.key, err = keyOf(&calm)
				return out, err
			})
		},
	}
}

func showMembers(t *table, l *admin.ChannelMemberList) {
	head := []any{"MEMBER", "ORG", "ROLE", "STATE", "HEIGHT", "LAG", "ENDPOINT", "SEEN"}
	if t.wide {
		head = append(head, "TIP", "PEER ID", "PKI-ID")
	}
	t.row(head...)
	for _, m := range l.Items {
		role := "member"
		if m.Leader {
			role = "★ leader"
		} else if m.Anchor {
			role = "anchor"
		}
		cells := []any{m.Name, m.Org, role, m.State, m.Height, m.Lag, orDash(m.Endpoint), ago(m.LastSeen)}
		if t.wide {
			cells = append(cells, m.TipHash, m.PeerID, m.PKIID)
		}
		t.row(cells...)
	}
}

package dev

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"grapevine/cmd/grapevine/admin"
)

// The live view shows leadership move: the star, and a line that stays.
func TestViewFollowsLeaders(t *testing.T) {
	at := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	v := &view{net: &Network{dir: "net"}}
	show := func(leaders ...string) string {
		s := &admin.DevState{Channels: []admin.DevChannel{{Name: "mychannel", Height: 7}}}
		for _, name := range []string{"peer0.org1", "peer1.org1", "peer0.org2"} {
			p := admin.DevPeer{NodeRef: admin.NodeRef{Name: name, Org: name[6:]}, State: string(Alive)}
			for _, l := range leaders {
				p.Leader = p.Leader || l == name
			}
			s.Peers = append(s.Peers, p)
		}
		at = at.Add(time.Second)
		v.take(looked{s, at})
		return v.View().Content
	}
	starred := func(screen string) (names []string) {
		for _, line := range strings.Split(screen, "\n") {
			if strings.Contains(line, "★ leader") {
				names = append(names, strings.Fields(line)[0])
			}
		}
		return names
	}
	s := show("peer0.org1", "peer0.org2")
	require.Equal(t, []string{"peer0.org1", "peer0.org2"}, starred(s))
	require.NotContains(t, s, "→", "the first leader came from nowhere")
	s = show("peer0.org2")
	require.Equal(t, []string{"peer0.org2"}, starred(s))
	s = show("peer1.org1", "peer0.org2")
	require.Equal(t, []string{"peer1.org1", "peer0.org2"}, starred(s))
	require.Contains(t, s, "12:00:03  org1: leader peer0.org1 → peer1.org1\n")
	s = show("peer0.org1", "peer1.org1", "peer0.org2")
	require.NotContains(t, s, "peer1.org1 → peer0.org1", "two at once")
	for range maxMoves + 1 {
		show("peer0.org1", "peer0.org2")
		s = show("peer1.org1", "peer0.org2")
	}
	require.Equal(t, maxMoves, strings.Count(s, "→"))
}

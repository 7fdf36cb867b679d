package main

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	channelLeaderKeys = []string{"org", "mspId", "mode", "leader", "leaders", "peerId", "since", "term", "heartbeatAgeMs", "orderer", "problems"}
	leaderStateKeys   = []string{
		"apiVersion", "kind", "channel", "mode", "role", "leading", "pulling", "leader", "peerId", "since", "term", "heartbeatAgeMs", "orderer",
		"neighbours", "reaches", "unreachable", "barredUntil", "changes", "leaderlessMs",
	}
)

// leadersAt is who leads which organisation, as a peer knows it, once each has
// one leader who names his orderer.
func leadersAt(t *testing.T, m *machine, target string, ok func(org1, org2 string) bool) (org1, org2 string) {
	t.Helper()
	for {
		l := m.object(t, 0, "channel", "leader", "mychannel", "--target", target)
		require.Equal(t, "ChannelLeaderList", l["kind"])
		require.Equal(t, "mychannel", l["channel"])
		items := of(l, "items")
		require.Len(t, items, 2)
		whole := true
		for i, v := range items {
			require.ElementsMatch(t, channelLeaderKeys, keys(v))
			require.Equal(t, []string{"org1", "org2"}[i], v["org"])
			require.Equal(t, "dynamic", v["mode"])
			whole = whole && len(v["leaders"].([]any)) == 1 && strings.HasPrefix(v["orderer"].(string), "127.0.0.1:")
		}
		org1, org2 = items[0]["leader"].(string), items[1]["leader"].(string)
		if !whole || ok != nil && !ok(org1, org2) {
			continue
		}
		for _, v := range items {
			require.Equal(t, v["leader"], v["leaders"].([]any)[0])
			require.Positive(t, v["term"])
			require.NotEmpty(t, v["peerId"])
			_, err := time.Parse(time.RFC3339, v["since"].(string))
			require.NoError(t, err)
			require.Empty(t, v["problems"])
		}
		return org1, org2
	}
}

// other is the other of an organisation's two peers.
func other(name string) string {
	if strings.HasPrefix(name, "peer0") {
		return strings.Replace(name, "peer0", "peer1", 1)
	}
	return strings.Replace(name, "peer1", "peer0", 1)
}

// testLeaderVerbs plays the verbs on a network of two organisations of two
// peers, all alive.
func testLeaderVerbs(t *testing.T, m *machine) {
	org1, org2 := leadersAt(t, m, "peer0.org1", nil)
	for _, p := range []string{"peer1.org1", "peer0.org2", "peer1.org2"} {
		leadersAt(t, m, p, func(a, b string) bool { return a == org1 && b == org2 })
	}
	require.Regexp(t, `(?m)^ORG +MODE +LEADER +SINCE +TERM +LAST HEARTBEAT +ORDERER\norg1 +dynamic +`+org1+` +[0-9.ms]+ +\d+ +\d+\.\ds +127\.0\.0\.1:\d+$`, m.run(t, 0, "channel", "leader", "mychannel"))
	require.Equal(t, org1+"\n"+org2+"\n", m.run(t, 0, "channel", "leader", "mychannel", "-o", "name"))
	for i, v := range of(m.object(t, 0, "channel", "members", "mychannel"), "items") {
		require.Equal(t, v["name"] == org1 || v["name"] == org2, v["leader"], "member %d", i)
	}

	show := m.object(t, 0, "leader", "show", "mychannel", "--target", org2)
	require.ElementsMatch(t, leaderStateKeys, keys(show))
	require.Equal(t, "LeaderState", show["kind"])
	require.Equal(t, []any{"leader", true, true, org2, 1.0}, []any{show["role"], show["leading"], show["pulling"], show["leader"], show["neighbours"]})
	show = m.object(t, 0, "leader", "show", "mychannel", "--target", other(org2))
	require.Equal(t, []any{"following", false, false, org2}, []any{show["role"], show["leading"], show["pulling"], show["leader"]})
	require.Contains(t, m.run(t, 0, "leader", "show", "mychannel", "--target", org2), "role        leader\nleader      "+org2+" for ")

	m.refused(t, 1, "GOS023", "leader", "yield", "mychannel", "--target", other(org2))
	m.refused(t, 1, "API007", "leader", "show", "nochannel")
	m.refused(t, 1, "API008", "leader", "yield", "mychannel", "--target", "orderer0")
	m.refused(t, 2, "API001", "leader", "yield", "mychannel", "--watch")

	y := m.object(t, 0, "leader", "yield", "mychannel", "--target", org2)
	require.ElementsMatch(t, []string{"apiVersion", "kind", "channel", "yielded", "leader", "term", "tookMs", "waitedMs"}, keys(y))
	require.Equal(t, []any{"LeaderYield", org2}, []any{y["kind"], y["yielded"]})
	leadersAt(t, m, "peer0.org1", func(_, b string) bool { return b == other(org2) })
	h := m.object(t, 0, "leader", "history", "mychannel", "--target", org2)
	require.Equal(t, "LeaderHistory", h["kind"])
	var why []string
	for _, v := range of(h, "items") {
		require.ElementsMatch(t, []string{"at", "leader", "pkiId", "self", "term", "why"}, keys(v))
		why = append(why, v["why"].(string))
	}
	require.Contains(t, why, "asked to yield")
	require.Equal(t, []any{other(org2), "claimed"}, []any{of(h, "items")[len(why)-1]["leader"], why[len(why)-1]})
	require.Contains(t, m.run(t, 0, "leader", "history", "mychannel", "--target", other(org2)), "elected")
}

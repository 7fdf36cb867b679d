package main

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	refKeys  = []string{"name", "org", "mspId", "peerId", "pkiId"}
	peerKeys = append([]string{
		"endpoint", "externalEndpoint", "addrs", "state", "self", "anchor", "connected", "transport", "rttMs", "channels", "lastSeen", "incarnation",
	}, refKeys...)
	memberKeys = append([]string{"endpoint", "state", "self", "leader", "anchor", "height", "lag", "tipHash", "lastSeen"}, refKeys...)
)

func names(list []map[string]any) (out []string) {
	for _, v := range list {
		out = append(out, v["name"].(string))
	}
	return out
}

// testPeerVerbs plays the verbs on a network of two organisations of two peers,
// all alive, as peer0.org1 sees it.
func testPeerVerbs(t *testing.T, m *machine) {
	all := []string{"peer0.org1", "peer1.org1", "peer0.org2", "peer1.org2"}
	l := m.object(t, 0, "peers", "ls")
	require.ElementsMatch(t, []string{"apiVersion", "kind", "items"}, keys(l))
	require.Equal(t, "PeerList", l["kind"])
	peers := of(l, "items")
	require.Equal(t, all, names(peers))
	for i, p := range peers {
		require.ElementsMatch(t, peerKeys, keys(p))
		require.Equal(t, "alive", p["state"])
		require.Equal(t, i == 0, p["self"])
		require.Equal(t, i != 0, p["connected"])
		require.Equal(t, i%2 == 0, p["anchor"], "the first of each organisation")
		require.Equal(t, []any{"mychannel"}, p["channels"])
		require.NotEmpty(t, p["externalEndpoint"])
		require.NotEmpty(t, p["addrs"])
		require.Positive(t, p["incarnation"])
		_, err := time.Parse(time.RFC3339, p["lastSeen"].(string))
		require.NoError(t, err)
	}
	require.Equal(t, "tcp", peers[1]["transport"])
	for _, i := range []int{2, 3} {
		require.Empty(t, peers[i]["endpoint"], "another organisation's internal endpoint")
	}
	require.Equal(t, all, names(of(m.object(t, 0, "peers", "ls", "--channel", "mychannel", "--state", "alive"), "items")))
	require.Empty(t, of(m.object(t, 0, "peers", "ls", "--state", "left"), "items"))
	m.refused(t, 1, "API007", "peers", "ls", "--channel", "nochannel")
	m.refused(t, 2, "API001", "peers", "ls", "--state", "asleep")
	m.refused(t, 1, "API008", "peers", "ls", "--target", "orderer0")

	l = m.object(t, 0, "channel", "members", "mychannel")
	require.ElementsMatch(t, []string{"apiVersion", "kind", "channel", "height", "items"}, keys(l))
	require.Equal(t, "ChannelMemberList", l["kind"])
	require.Equal(t, "mychannel", l["channel"])
	members := of(l, "items")
	require.Equal(t, all, names(members))
	for i, p := range members {
		require.ElementsMatch(t, memberKeys, keys(p))
		require.Equal(t, peers[i]["pkiId"], p["pkiId"])
		require.Equal(t, peers[i]["peerId"], p["peerId"])
		require.Equal(t, "alive", p["state"])
		require.NotEmpty(t, p["endpoint"])
		require.Len(t, p["tipHash"], 64)
	}
	require.Equal(t, l["height"], members[0]["height"])

	id := peers[3]["pkiId"].(string)
	for _, name := range []string{"peer1.org2", peers[3]["peerId"].(string), id, strings.ToUpper(id[:8])} {
		v := m.object(t, 0, "peers", "show", name)
		require.Equal(t, "PeerInfo", v["kind"])
		require.Equal(t, id, v["pkiId"])
		require.Len(t, of(v, "memberships"), 1)
		require.NotEmpty(t, of(v, "memberships")[0]["streams"])
		require.NotEmpty(t, of(v, "connections"))
		require.Contains(t, v["certificate"].(map[string]any)["subject"], "CN=peer1.org2")
	}
	m.refused(t, 1, "API007", "peers", "show", "nobody")

	v := m.object(t, 0, "peers", "ping", "peer1.org2")
	require.Equal(t, "PeerPing", v["kind"])
	require.Equal(t, "direct", v["path"])
	require.Positive(t, v["rttMs"])
	v = m.object(t, 0, "peers", "rtt")
	require.ElementsMatch(t, []any{all[0], all[1], all[2], all[3]}, v["nodes"])
	require.Len(t, of(v, "items"), 12)
	v = m.object(t, 0, "peers", "anchors", "mychannel")
	require.Len(t, of(v, "items"), 2)
	for _, a := range of(v, "items") {
		require.Equal(t, true, a["ok"], "%v", a)
	}
	require.Equal(t, "peer0.org2", of(v, "items")[1]["name"])

	v = m.object(t, 0, "peers", "ban", "peer1.org2", "--for", "1h")
	require.Equal(t, "ban", v["action"])
	require.NotEmpty(t, v["until"])
	for connected := true; connected; {
		connected = of(m.object(t, 0, "peers", "ls"), "items")[3]["connected"].(bool)
	}
	require.Equal(t, "relayed", m.object(t, 0, "peers", "ping", "peer1.org2")["path"])
	m.refused(t, 4, "NET006", "peers", "connect", peers[3]["externalEndpoint"].(string))
	m.run(t, 0, "peers", "unban", "peer1.org2")
	v = m.object(t, 0, "peers", "connect", peers[3]["externalEndpoint"].(string))
	require.Equal(t, "peer1.org2", v["name"])
	m.run(t, 0, "peers", "disconnect", "peer1.org2")
	m.refused(t, 2, "API001", "peers", "disconnect", "peer0.org1")
	m.refused(t, 2, "API001", "peers", "connect", "nowhere")
	m.run(t, 0, "dev", "status", "--wait", "20s")
}

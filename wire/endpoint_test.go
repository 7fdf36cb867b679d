package wire

import (
	"strings"
	"testing"

	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"
)

func TestEndpointsAsPeopleWriteThem(t *testing.T) {
	const id = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"
	for _, k := range []struct {
		text  string
		addrs string // joined by blanks
		again string // as it is shown, if otherwise
	}{
		{"", "", ""},
		{"  ", "", ""},
		{"peer0.org1:7051", "/dns/peer0.org1/tcp/7051 /dns/peer0.org1/udp/7051/quic-v1", "peer0.org1:7051"},
		{"10.0.0.1:7051", "/ip4/10.0.0.1/tcp/7051 /ip4/10.0.0.1/udp/7051/quic-v1", "10.0.0.1:7051"},
		{"[fd00::1]:7051", "/ip6/fd00::1/tcp/7051 /ip6/fd00::1/udp/7051/quic-v1", "[fd00::1]:7051"},
		{"[::ffff:10.0.0.1]:1", "/ip4/10.0.0.1/tcp/1 /ip4/10.0.0.1/udp/1/quic-v1", "10.0.0.1:1"},
		{"/ip4/10.0.0.1/tcp/1", "/ip4/10.0.0.1/tcp/1", "/ip4/10.0.0.1/tcp/1"},
		{"/dns4/a/udp/1/quic-v1,b:2", "/dns4/a/udp/1/quic-v1 /dns/b/tcp/2 /dns/b/udp/2/quic-v1", "/dns4/a/udp/1/quic-v1 b:2"},
		{"/dns4/a/tcp/1 /dns4/a/udp/1/quic-v1", "/dns4/a/tcp/1 /dns4/a/udp/1/quic-v1", "/dns4/a/tcp/1 /dns4/a/udp/1/quic-v1"},
		{"/ip4/10.0.0.1/udp/1/quic-v1 10.0.0.1:1", "/ip4/10.0.0.1/udp/1/quic-v1 /ip4/10.0.0.1/tcp/1", "10.0.0.1:1"},
		{"/ip4/10.0.0.1/tcp/1/p2p/" + id, "/ip4/10.0.0.1/tcp/1/p2p/" + id, "/ip4/10.0.0.1/tcp/1/p2p/" + id},
	} {
		t.Run(k.text, func(t *testing.T) {
			addrs, err := ParseEndpoint(k.text)
			require.NoError(t, err)
			require.Equal(t, k.addrs, strings.Join(texts(addrs), " "))
			require.Equal(t, k.again, FormatEndpoint(addrs))
			again, err := ParseEndpoint(k.again)
			require.NoError(t, err)
			require.ElementsMatch(t, texts(addrs), texts(again))
			_, raw, err := EncodeEndpoint(k.text)
			if strings.Contains(k.text, "/p2p/") {
				require.Error(t, err, "an endpoint of one's own names no peer")
				return
			}
			require.NoError(t, err)
			decoded, err := DecodeEndpoint(raw)
			require.NoError(t, err)
			require.Equal(t, texts(addrs), texts(decoded))
		})
	}
	for _, text := range []string{
		"peer0", "peer0:", ":7051", "peer0:0", "peer0:65536", "peer0:-1", "peer0:x", "0.0.0.0:1", "[::]:1", "[fe80::1%eth0]:1", "224.0.0.1:1",
		"a/b:1", "pe er:1", "peer\x00:1", strings.Repeat("a", 254) + ":1", strings.Repeat("a", 64<<10) + ":1", "unix:///tmp/socket", "/tmp/socket:1", "/unix/tmp/a",
		"/ip4/10.0.0.1", "/ip4/10.0.0.1/udp/1", "/ip4/10.0.0.1/tcp/1/ws", "/p2p/" + id, "/", strings.Repeat("a:1 ", 4) + "b:1 c:1 d:1 e:1 f:1",
	} {
		_, err := ParseEndpoint(text)
		require.Error(t, err, "%q", text)
		require.Less(t, len(err.Error()), 400)
	}
}

func TestOnlyHere(t *testing.T) {
	for text, here := range map[string]bool{
		"/ip4/127.0.0.1/tcp/1": true, "/ip4/127.1.2.3/tcp/1": true, "/ip6/::1/tcp/1": true, "/ip6/::ffff:127.0.0.1/tcp/1": true,
		"/ip4/10.0.0.1/tcp/1": false, "/dns/localhost/tcp/1": false, "/dns/abcd/tcp/1": false,
	} {
		a, err := ma.NewMultiaddr(text)
		require.NoError(t, err)
		require.Equal(t, here, OnlyHere(a), text)
	}
	require.False(t, OnlyHere(nil))
}

func texts(addrs []ma.Multiaddr) (out []string) {
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return out
}

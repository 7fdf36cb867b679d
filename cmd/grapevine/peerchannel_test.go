package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPeerChannelBadFlags(t *testing.T) {
	play{}.fails(t, 2, "CHN006", "peer", "channel", "getinfo")
	play{}.fails(t, 2, "CHN006", "peer", "channel", "fetch", "newest")
	play{}.fails(t, 2, "API003", "peer", "channel", "fetch", "-1x", "-c", "mychannel")
	r := play{}.run("peer", "channel", "fetch", "newest", "-c", "mychannel", "-o", "127.0.0.1:1") // -o is the orderer here
	require.Equal(t, 2, r.code)
	require.Contains(t, r.err, "API001")
	play{}.fails(t, 2, "API001", "peer", "channel", "join")
	play{}.fails(t, 1, "BLK003", "peer", "channel", "join", "-b", write(t, t.TempDir(), "noise", []byte("\xff\xff\xff not a block")))
}

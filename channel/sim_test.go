package channel

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/x/simlibp2p"
	"github.com/marcopolo/simnet"
	"github.com/stretchr/testify/require"
)

// bubble plays with n real hosts in virtual time, on links of 100 Mbit/s and
// 25 ms one way. What the play opens it closes.
func bubble(t *testing.T, n int, play func(t *testing.T, hs []host.Host)) {
	t.Helper()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // golang/go#78156
	synctest.Test(t, func(t *testing.T) {
		nw := &simnet.Simnet{LatencyFunc: simnet.StaticLatency(25 * time.Millisecond)}
		link := simnet.LinkSettings{BitsPerSecond: 100 * simlibp2p.OneMbps}
		hs := make([]host.Host, n)
		for i := range hs {
			h, err := libp2p.New(
				libp2p.ListenAddrStrings(fmt.Sprintf("/ip4/%s/udp/8000/quic-v1", simnet.IntToPublicIPv4(i))),
				simlibp2p.QUICSimnet(nw, simnet.NodeBiDiLinkSettings{Uplink: link, Downlink: link}),
				libp2p.DisableIdentifyAddressDiscovery(), libp2p.DisableRelay(), libp2p.DisableMetrics(),
				libp2p.ForceReachabilityPublic())
			require.NoError(t, err)
			hs[i] = h
		}
		nw.Start()
		synctest.Wait()
		defer func() { // also when the play failed
			for _, h := range hs {
				require.NoError(t, h.Close())
			}
			nw.Close()
		}()
		stuck := time.AfterFunc(time.Hour, func() { panic(t.Name() + " is stuck: an hour has passed in it") })
		defer stuck.Stop()
		play(t, hs)
	})
}

// connect connects all hosts with each other.
func connect(t *testing.T, hs ...host.Host) {
	t.Helper()
	for i, a := range hs {
		for _, b := range hs[i+1:] {
			require.NoError(t, a.Connect(context.Background(), peer.AddrInfo{ID: b.ID(), Addrs: b.Addrs()}))
		}
	}
}

package node

import (
	"crypto/tls"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
)

// An orderer's TLS certificate is replaced while it runs: peers and clients see
// the new one, and with another key it stays the consenter that it is.
func TestOrdererShowsANewCertificate(t *testing.T) {
	ctx := patience(t)
	b := newBench(t, 3)
	reg := prometheus.NewRegistry()
	b.configs[0].Metrics = reg
	b.start(0, 1, 2)
	b.submit(ctx)
	o := b.nodes[0]
	until(t, ctx, func() bool { return counted(t, reg, "grapevine_certificate_expiry_seconds", "use", "tls") > 0 })
	require.Less(t, counted(t, reg, "grapevine_certificate_expiry_seconds", "use", "tls"), time.Until(o.pairs()[0].Leaf.NotAfter).Seconds()+60)

	another, err := b.w.orderer.TLS("localhost", "localhost", "127.0.0.1")
	require.NoError(t, err)
	require.NoError(t, o.SetCertificate(another))
	require.Error(t, o.SetCertificate(tls.Certificate{}))
	require.Len(t, o.keys(), 2)
	_, is := o.find("mychannel").chain.Self()
	require.True(t, is, "by the key that the configuration names")
	b.stop(1) // the others need each other
	b.submit(ctx)
	b.start(1)
	b.submit(ctx)
	b.same(ctx)
	for range 4 {
		c, err := b.w.orderer.TLS("localhost", "localhost", "127.0.0.1")
		require.NoError(t, err)
		require.NoError(t, o.SetCertificate(c))
	}
	require.Len(t, o.keys(), 2, "the newest, and the one that is named")
	_, is = o.find("mychannel").chain.Self()
	require.True(t, is)
}

package node

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
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

// A node says each day of the last week that a certificate of it ends.
func TestEndsAreSaidInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said bytes.Buffer
		s := newStack(slog.New(slog.NewTextHandler(&said, nil)))
		s.guard = newGuard("", nil)
		reg := prometheus.NewRegistry()
		m, err := newMetrics(reg)
		require.NoError(t, err)
		end := time.Now().Add(9 * 24 * time.Hour)
		ctx, cancel := context.WithCancel(t.Context())
		var g sync.WaitGroup
		g.Go(func() {
			require.ErrorIs(t, s.watchExpiry(ctx, m, func() map[string]*x509.Certificate {
				return map[string]*x509.Certificate{"sign": {NotAfter: end}, "tls": {NotAfter: end.Add(365 * 24 * time.Hour)}}
			}), context.Canceled)
		})
		time.Sleep(2*24*time.Hour - time.Second)
		require.Empty(t, said.String())
		time.Sleep(time.Hour)
		require.Equal(t, 1, strings.Count(said.String(), "ends soon"))
		require.Contains(t, said.String(), "use=sign")
		time.Sleep(3 * 24 * time.Hour)
		require.Equal(t, 4, strings.Count(said.String(), "ends soon"))
		require.InDelta(t, time.Until(end).Seconds(), counted(t, reg, "grapevine_certificate_expiry_seconds", "use", "sign"), 60)
		cancel()
		g.Wait()
	})
}

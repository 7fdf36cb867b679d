package serve

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"grapevine/cmd/grapevine/conf"
	"grapevine/msp"
	"grapevine/msp/ca"
)

// A certificate whose files are replaced is taken up once they fit each other,
// and one that is refused isn't shown.
func TestFilesAreWatched(t *testing.T) {
	org, err := ca.NewOrg("OrdererMSP", "orderer", time.Now())
	require.NoError(t, err)
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key")
	issue := func() (c, k []byte) {
		pair, err := org.TLS("orderer0", "127.0.0.1")
		require.NoError(t, err)
		der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
		require.NoError(t, err)
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	}
	put := func(file string, content []byte) { require.NoError(t, os.WriteFile(file, content, 0o600)) }
	c, k := issue()
	put(cert, c)
	put(key, k)
	log, err := NewLog(io.Discard, conf.Logging{Spec: "info"}, "")
	require.NoError(t, err)
	told := make(chan tls.Certificate, 8)
	refuse := make(chan error, 1)
	p, err := newPair(cert, key, log)
	require.NoError(t, err)
	p.changed = func(c tls.Certificate) error {
		told <- c
		select {
		case err := <-refuse:
			return err
		default:
			return nil
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.watch(ctx) }()
	defer func() {
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
	}()
	shown := func() []byte {
		c, err := p.config().GetCertificate(nil)
		require.NoError(t, err)
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})
	}
	first := c
	c, k = issue()
	put(cert, c)
	put(key, k)
	require.Eventually(t, func() bool { return string(shown()) == string(c) }, 20*time.Second, 10*time.Millisecond)
	require.NotEqual(t, string(first), string(shown()))
	<-told

	refuse <- errors.New("no")
	before := c
	c, k = issue()
	put(cert, c)
	put(key, k)
	<-told
	require.Equal(t, string(before), string(shown()))
}

// An MSP folder whose certificate, key or CAs are replaced is taken up once it
// fits itself and its node takes it.
func TestMSPFolderIsWatched(t *testing.T) {
	org, err := ca.NewOrg("Org1MSP", "org1", time.Now())
	require.NoError(t, err)
	dir := t.TempDir()
	put := func(name string, content []byte) {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), content, 0o600))
	}
	put("cacerts/ca.pem", org.CA.PEM())
	put("config.yaml", []byte("NodeOUs:\n  Enable: true\n  ClientOUIdentifier: {OrganizationalUnitIdentifier: client}\n  PeerOUIdentifier: {OrganizationalUnitIdentifier: peer}\n  AdminOUIdentifier: {OrganizationalUnitIdentifier: admin}\n  OrdererOUIdentifier: {OrganizationalUnitIdentifier: orderer}\n"))
	issue := func() (cert, key []byte) {
		cert, key, err := org.CA.Pair(ca.Request{CN: "peer0.org1", OU: []string{"peer"}}, ca.P256)
		require.NoError(t, err)
		return cert, key
	}
	cert, key := issue()
	put("signcerts/cert.pem", cert)
	put("keystore/key.pem", key)
	log, err := NewLog(io.Discard, conf.Logging{Spec: "info"}, "")
	require.NoError(t, err)
	f, err := newMSPFolder("Org1MSP", dir, log)
	require.NoError(t, err)
	first := f.now.Load()
	told := make(chan msp.Signer, 8)
	f.changed = func(s msp.Signer, _ [][]byte, m *msp.MSP) error {
		require.NotNil(t, m)
		told <- s
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f.watch(ctx) }()
	defer func() {
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
	}()
	cert, key = issue()
	put("signcerts/cert.pem", cert) // its key isn't there yet
	put("keystore/key.pem", key)
	s := <-told
	require.NotEqual(t, first.Signer.Identity().PKIID(), s.Identity().PKIID())
	require.Eventually(t, func() bool { return f.now.Load() != first }, time.Minute, 5*time.Millisecond)

	other, err := ca.NewOrg("Org1MSP", "org1", time.Now())
	require.NoError(t, err)
	put("cacerts/renewed.pem", other.CA.PEM())
	require.Equal(t, s.Identity().PKIID(), (<-told).Identity().PKIID(), "the same identity, more CAs")
}

// The roots of an orderer's other address are those that its file holds now.
func TestOverridesAreWatched(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ca.pem")
	root := func() []byte {
		c, err := ca.New("orderer", "tlsca", ca.P256, time.Now())
		require.NoError(t, err)
		return c.PEM()
	}
	first, second := root(), root()
	require.NoError(t, os.WriteFile(file, first, 0o600))
	log, err := NewLog(io.Discard, conf.Logging{Spec: "info"}, "")
	require.NoError(t, err)
	w := &watching{log: log}
	all, err := w.overrides([]conf.Override{{From: "a:1", To: "b:2", CACertsFile: file}, {From: "c:1", To: "d:2"}})
	require.NoError(t, err)
	require.Nil(t, all["c:1"].Newest)
	holds := func(pem []byte) bool {
		want := x509.NewCertPool()
		want.AppendCertsFromPEM(pem)
		return all["a:1"].Newest().Equal(want)
	}
	require.True(t, holds(first))
	require.Len(t, w.files, 1)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.files[0].watch(ctx) }()
	require.NoError(t, os.WriteFile(file, second, 0o600))
	require.Eventually(t, func() bool { return holds(second) }, time.Minute, 10*time.Millisecond)
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	_, err = w.overrides([]conf.Override{{From: "a:1", To: "b:2", CACertsFile: file + "x"}})
	require.Error(t, err)
}

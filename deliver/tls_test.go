package deliver_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"net"
	"testing"

	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// D6: where client certificates are required, a request counts only over the connection it was signed for.
func TestTLSBinding(t *testing.T) {
	w := newWorld(t)
	w.handler.MutualTLS = true
	cert, err := w.org.TLS("peer0", "localhost")
	require.NoError(t, err)
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	require.NoError(t, err)
	hash := sha256.Sum256(leaf.Raw)
	other := sha256.Sum256([]byte("another"))
	over := func(certs ...*x509.Certificate) context.Context {
		return peer.NewContext(t.Context(), &peer.Peer{
			Addr: &net.TCPAddr{}, AuthInfo: credentials.TLSInfo{State: tls.ConnectionState{PeerCertificates: certs}},
		})
	}
	for _, tc := range []struct {
		name string
		ctx  context.Context
		hash []byte
		ok   bool
	}{
		{"bound", over(leaf), hash[:], true},
		{"bound to another", over(leaf), other[:], false},
		{"unbound", over(leaf), nil, false},
		{"no certificate", over(), hash[:], false},
		{"no connection", t.Context(), hash[:], false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := len(w.reasons())
			s := w.connect(tc.ctx)
			s.requests <- w.envelope(ask{tlsHash: tc.hash, seek: &ab.SeekInfo{Start: newest, Stop: newest}})
			_, st := s.until()
			if tc.ok {
				require.Equal(t, success, st)
				s.cancel()
			} else {
				require.Equal(t, badRequest, st)
				require.Equal(t, []string{"deliver.tls_binding"}, w.reasons()[before:])
			}
			<-s.done
		})
	}
}

package orderer

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
)

// Fabric's servers cut off who pings more often than once a minute, so a dead transport is found by them only after 80 s.
// That is the last resort: the watch finds it sooner, if blocks flow at all.
const (
	pingEvery  = time.Minute
	pingAnswer = 20 * time.Second
)

// Endpoint is one orderer.
type Endpoint struct {
	Address  string         // host:port, as the channel's configuration names it
	Override string         // host:port to dial instead, whose name the certificate must bear; empty: Address
	Roots    *x509.CertPool // of the server's TLS certificate; nil: the system's
}

// target is where to dial.
func (e Endpoint) target() string {
	if e.Override != "" {
		return e.Override
	}
	return e.Address
}

// same reports whether two lists name the same endpoints, in the same order.
func same(a, b []Endpoint) bool {
	return slices.EqualFunc(a, b, func(x, y Endpoint) bool {
		return x.Address == y.Address && x.Override == y.Override && x.Roots.Equal(y.Roots)
	})
}

// clientTLS is how to dial an endpoint: showing a certificate, unless it is nil, and asking check, unless it is nil, about
// the one that is shown, when its chain and name hold.
func clientTLS(e Endpoint, client *tls.Certificate, check func(*x509.Certificate) error) *tls.Config {
	conf := &tls.Config{RootCAs: e.Roots, MinVersion: tls.VersionTLS12}
	if client != nil {
		conf.Certificates = []tls.Certificate{*client}
	}
	if check != nil {
		conf.VerifyConnection = func(s tls.ConnectionState) error { return check(s.PeerCertificates[0]) }
	}
	return conf
}

// dial prepares a connection, which the first call on it will make.
func dial(e Endpoint, client *tls.Certificate, timeout time.Duration, check func(*x509.Certificate) error, more ...grpc.DialOption) (*grpc.ClientConn, error) {
	conf := clientTLS(e, client, check)
	conn, err := grpc.NewClient("passthrough:///"+e.target(), append(more,
		grpc.WithTransportCredentials(credentials.NewTLS(conf)),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: grpcbackoff.DefaultConfig, MinConnectTimeout: timeout}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingEvery, Timeout: pingAnswer, PermitWithoutStream: true}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		grpc.WithDisableServiceConfig(),
	)...)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w: %w", e.target(), Unreachable, err)
	}
	return conn, nil
}

// open opens a stream on conn, and gives up after timeout if there is no connection by then.
func open[S any](ctx context.Context, timeout time.Duration, call func(context.Context, ...grpc.CallOption) (S, error)) (S, context.CancelFunc, error) {
	ctx, cancel := context.WithCancel(ctx)
	t := time.AfterFunc(timeout, cancel)
	stream, err := call(ctx)
	if err != nil || !t.Stop() {
		cancel()
		if err == nil {
			err = context.DeadlineExceeded
		}
		return stream, nil, fmt.Errorf("connect: %w: %w", Unreachable, err)
	}
	return stream, cancel, nil
}

// certHash is what a request says of the client certificate of its connection; nil without one.
func certHash(c *tls.Certificate) []byte {
	if c == nil || len(c.Certificate) == 0 {
		return nil
	}
	h := sha256.Sum256(c.Certificate[0])
	return h[:]
}

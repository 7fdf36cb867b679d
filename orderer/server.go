package orderer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"time"

	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/keepalive"

	"grapevine/wire"
)

// Fabric's peers ping every minute, also while no stream is open; gRPC's own default would cut them off. A client that is
// gone without a word is noticed within 80 s.
const (
	shortestPing     = 30 * time.Second
	handshakeTimeout = 10 * time.Second
	maxStreams       = 1000 // per connection
)

// ServerConfig says what is served, and to whom.
type ServerConfig struct {
	Chains      func(channel string) (*Chain, bool)
	Deliver     func(stream ab.AtomicBroadcast_DeliverServer) error // serves blocks
	Certificate func() *tls.Certificate                             // the newest, asked for at each handshake
	ClientRoots func() *x509.CertPool                               // not nil: clients must present a certificate that chains to it
	Refused     func(channel string, why *wire.Reason)              // called once per refused envelope; may be nil
	Codec       encoding.CodecV2                                    // of messages; nil: gRPC's own
	Logger      *slog.Logger                                        // nil: silence
}

// Server is Fabric's AtomicBroadcast over gRPC and TLS.
type Server struct {
	ab.UnimplementedAtomicBroadcastServer
	c ServerConfig
}

// NewServer prepares a server; it listens to nothing.
func NewServer(c ServerConfig) *Server {
	c.Logger = logger(c.Logger)
	if c.Codec == nil {
		c.Codec = encoding.GetCodecV2(proto.Name)
	}
	return &Server{c: c}
}

// Run serves on l until ctx ends, and closes l. When it returns, every stream has ended.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	conf := &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		// A consenter is known by the key that it shows, whoever certifies it.
		now := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"}, Certificates: []tls.Certificate{*s.c.Certificate()}, ClientAuth: tls.RequestClientCert}
		if s.c.ClientRoots != nil {
			now.ClientCAs, now.ClientAuth = s.c.ClientRoots(), tls.RequireAndVerifyClientCert
		}
		return now, nil
	}}
	g := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(conf)),
		grpc.ForceServerCodecV2(s.c.Codec),
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: shortestPing, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: pingEvery, Timeout: pingAnswer}),
		grpc.WaitForHandlers(true),
	)
	ab.RegisterAtomicBroadcastServer(g, s)
	ab.RegisterClusterServer(g, stepServer{s: s})
	defer context.AfterFunc(ctx, g.Stop)()
	if err := g.Serve(l); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	g.Stop() // returns once all handlers have
	return nil
}

// Deliver hands out blocks.
func (s *Server) Deliver(stream ab.AtomicBroadcast_DeliverServer) error { return s.c.Deliver(stream) }

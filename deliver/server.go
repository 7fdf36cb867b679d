package deliver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

// Fabric's clients ping every minute, also while no stream is open; gRPC's own default would cut them off. One that is
// gone without a word is noticed within 80 s.
const (
	shortestPing     = 30 * time.Second
	pingEvery        = time.Minute
	pingAnswer       = 20 * time.Second
	handshakeTimeout = 10 * time.Second
	perConnection    = 1000 // streams
	maxMessage       = 100 << 20
	maxRequest       = 64 << 10 // a seek envelope is some 2 KiB
)

// ServerConfig says how a peer's services are reached.
type ServerConfig struct {
	Handler *Handler
	// Certificate is asked for at each handshake.
	Certificate func() *tls.Certificate
	ClientRoots func() *x509.CertPool // likewise; not nil: clients must present a certificate that chains to it
	// More registers what is served beside, if it isn't nil.
	More func(grpc.ServiceRegistrar)
}

// Server is Fabric's protos.Deliver over gRPC and TLS, as a peer serves it to client SDKs. Validation codes are those
// that the blocks of the Handler's sources carry. Private data isn't served: it never travels with blocks.
type Server struct {
	peer.UnimplementedDeliverServer
	c ServerConfig
}

// NewServer prepares a server; it listens to nothing.
func NewServer(c ServerConfig) *Server { return &Server{c: c} }

// Run serves on l until ctx ends, and closes l. When it returns, every stream has ended.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	return serve(ctx, l, s.c.Certificate, s.c.ClientRoots, maxRequest, func(g *grpc.Server) {
		peer.RegisterDeliverServer(g, s)
		if s.c.More != nil {
			s.c.More(g)
		}
	})
}

// serve is a gRPC server over TLS that Fabric's clients get on with, until ctx ends. It closes l.
func serve(ctx context.Context, l net.Listener, cert func() *tls.Certificate, roots func() *x509.CertPool, most int, register func(*grpc.Server)) error {
	conf := &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		now := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"}, Certificates: []tls.Certificate{*cert()}}
		if roots != nil {
			now.ClientCAs, now.ClientAuth = roots(), tls.RequireAndVerifyClientCert
		}
		return now, nil
	}}
	g := grpc.NewServer(
		grpc.Creds(corked{credentials.NewTLS(conf)}), grpc.WriteBufferSize(corkBytes),
		grpc.ForceServerCodecV2(Codec()),
		grpc.MaxRecvMsgSize(most), grpc.MaxSendMsgSize(maxMessage),
		grpc.MaxConcurrentStreams(perConnection),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: shortestPing, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: pingEvery, Timeout: pingAnswer}),
		grpc.WaitForHandlers(true),
	)
	register(g)
	defer context.AfterFunc(ctx, g.Stop)()
	if err := g.Serve(l); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	g.Stop() // returns once all handlers have
	return nil
}

// Deliver hands out whole blocks.
func (s *Server) Deliver(stream peer.Deliver_DeliverServer) error {
	return s.c.Handler.serve(peerStream{stream})
}

// DeliverFiltered hands out what [Filter] makes of blocks.
func (s *Server) DeliverFiltered(stream peer.Deliver_DeliverFilteredServer) error {
	return s.c.Handler.serve(filteredStream{stream})
}

// DeliverWithPrivateData is refused.
func (s *Server) DeliverWithPrivateData(peer.Deliver_DeliverWithPrivateDataServer) error {
	return status.Error(codes.Unimplemented, "this peer keeps no private data: use Deliver, or ask a Fabric peer of the collection's organisations")
}

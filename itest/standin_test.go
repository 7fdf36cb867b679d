package itest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"iter"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/proto"

	"grapevine/deliver"
	"grapevine/msp"
)

// A standin is one orderer of a recorded network: it serves the chain that the
// real one served, over TLS with the real one's certificate, and does wrong as
// it is told.
type standin struct {
	ab.UnimplementedAtomicBroadcastServer
	t        testing.TB
	r        *recording
	endpoint string // as the channel's configuration names it
	cert     tls.Certificate
	signer   msp.Signer
	clients  *x509.CertPool // not nil: mutual TLS, and requests bound to it
	listen   func() net.Listener
	handler  *deliver.Handler
	end      func() // nil: it is dead

	mu       sync.Mutex
	changed  chan struct{}                        // closed and replaced at each change, owned by mu
	height   uint64                               // of what it shows, owned by mu
	pause    time.Duration                        // before each block, owned by mu
	spoil    func(*common.Block) *common.Block    // owned by mu
	answer   *ab.BroadcastResponse                // to each envelope; owned by mu
	got      []*common.Envelope                   // owned by mu
	streams  int                                  // of Deliver, ever; owned by mu
	received func(*common.Envelope, *ab.SeekInfo) // of each request; owned by mu
}

// standin makes one of the network's orderers, dead. It shows the whole chain.
func (r *recording) standin(t testing.TB, name, endpoint string, mutual bool, listen func() net.Listener) *standin {
	t.Helper()
	org := filepath.Join(r.dir, "crypto", "ordererOrganizations", "example.com")
	folder := filepath.Join(org, "orderers", name+".example.com", "tls")
	s := &standin{t: t, r: r, endpoint: endpoint, listen: listen, changed: make(chan struct{}), height: uint64(len(r.chain)), answer: &ab.BroadcastResponse{Status: common.Status_SUCCESS}}
	var err error
	s.cert, err = tls.LoadX509KeyPair(filepath.Join(folder, "server.crt"), filepath.Join(folder, "server.key"))
	require.NoError(t, err)
	s.signer, err = msp.Load("OrdererMSP", filepath.Join(filepath.Dir(folder), "msp"))
	require.NoError(t, err)
	if mutual {
		s.clients = x509.NewCertPool()
		roots, err := filepath.Glob(filepath.Join(r.dir, "crypto", "peerOrganizations", "*", "tlsca", "*.pem"))
		require.NoError(t, err)
		require.NotEmpty(t, roots)
		for _, f := range roots {
			raw, err := os.ReadFile(f)
			require.NoError(t, err)
			s.clients.AppendCertsFromPEM(raw)
		}
	}
	s.handler = &deliver.Handler{MutualTLS: mutual, Channels: func(name string) (deliver.Channel, bool) {
		return deliver.Channel{Source: s, Access: func() deliver.Access {
			return deliver.Access{Sequence: r.conf.Sequence(), MSPs: r.conf.MSPs(), Readers: r.conf.Policy("/Channel/Readers")}
		}}, name == r.conf.Channel()
	}}
	return s
}

// start brings it to life, at the listener that it is given.
func (s *standin) start() *standin {
	conf := &tls.Config{Certificates: []tls.Certificate{s.cert}}
	if s.clients != nil {
		conf.ClientCAs, conf.ClientAuth = s.clients, tls.RequireAndVerifyClientCert
	}
	g := grpc.NewServer(grpc.Creds(credentials.NewTLS(conf)), grpc.MaxRecvMsgSize(100<<20), grpc.WaitForHandlers(true),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Minute}))
	ab.RegisterAtomicBroadcastServer(g, s)
	l := s.listen()
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := g.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			s.t.Error(err)
		}
	})
	s.end = func() { g.Stop(); serving.Wait() }
	return s
}

// die ends it at once, as a kill does.
func (s *standin) die() {
	if s.end != nil {
		s.end()
		s.end = nil
	}
}

// set changes what it does.
func (s *standin) set(change func(*standin)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *standin) Deliver(stream ab.AtomicBroadcast_DeliverServer) error {
	s.set(func(s *standin) { s.streams++ })
	return s.handler.Serve(heard{stream, s})
}

// heard lets a stand-in hear the requests.
type heard struct {
	ab.AtomicBroadcast_DeliverServer
	by *standin
}

func (h heard) Recv() (*common.Envelope, error) {
	env, err := h.AtomicBroadcast_DeliverServer.Recv()
	h.by.mu.Lock()
	f := h.by.received
	h.by.mu.Unlock()
	if err == nil && f != nil {
		var payload common.Payload
		var seek ab.SeekInfo
		if proto.Unmarshal(env.Payload, &payload) == nil && proto.Unmarshal(payload.Data, &seek) == nil {
			f(env, &seek)
		}
	}
	return env, err
}

func (s *standin) Broadcast(stream ab.AtomicBroadcast_BroadcastServer) error {
	for {
		env, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var a *ab.BroadcastResponse
		s.set(func(s *standin) { s.got = append(s.got, env); a = s.answer })
		if err := stream.Send(a); err != nil || a.Status != common.Status_SUCCESS {
			return err
		}
	}
}

// Height and Blocks are the chain as far as it shows it.
func (s *standin) Height() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.height
}

func (s *standin) Blocks(ctx context.Context, from uint64) iter.Seq2[*common.Block, error] {
	return func(yield func(*common.Block, error) bool) {
		for n := from; ; n++ {
			for {
				s.mu.Lock()
				ready, changed := n < s.height, s.changed
				s.mu.Unlock()
				if ready {
					break
				}
				select {
				case <-changed:
				case <-ctx.Done():
					yield(nil, ctx.Err())
					return
				}
			}
			s.mu.Lock()
			pause, spoil := s.pause, s.spoil
			s.mu.Unlock()
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				yield(nil, ctx.Err())
				return
			}
			b := s.r.chain[n]
			if spoil != nil {
				b = spoil(proto.CloneOf(b))
			}
			if !yield(b, nil) {
				return
			}
		}
	}
}

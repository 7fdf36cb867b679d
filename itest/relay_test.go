package itest

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	ab "github.com/hyperledger/fabric-protos-go-apiv2/orderer"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
	"grapevine/block/tx"
	"grapevine/election"
	"grapevine/msp/ca"
	"grapevine/node"
	"grapevine/orderer"
)

// A relay world is a recorded network's orderers, one relay that is a peer of
// the network, and what a Fabric peer behind it sees.
type relayWorld struct {
	t        *testing.T
	r        *recording
	orderers []*standin
	node     *node.Node
	channel  *node.Channel
	roots    *x509.CertPool   // of the relay's TLS certificate
	shown    *tls.Certificate // by clients; nil: none
	fronts   []node.Front
	counts   *prometheus.Registry // of the relay
}

// newRelayWorld has an address of the relay for each orderer, and a last one for
// all. Change may alter the orderers before anybody asks them.
func newRelayWorld(t *testing.T, network string, change func([]*standin)) *relayWorld {
	return relayWorldOf(t, network, false, change)
}

// relayWorldOf has mutual TLS on both sides of the relay, if asked.
func relayWorldOf(t *testing.T, network string, mutual bool, change func([]*standin)) *relayWorld {
	w := &relayWorld{t: t, r: record(t, network), roots: x509.NewCertPool(), counts: prometheus.NewRegistry()}
	overrides := map[string]node.Override{}
	for i, o := range w.r.conf.Orderers() {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		addr := l.Addr().String()
		first := true
		s := w.r.standin(t, fmt.Sprintf("orderer%d", i+1), o.Endpoint, mutual, func() net.Listener {
			if first {
				first = false
				return l
			}
			again, err := net.Listen("tcp", addr)
			require.NoError(t, err)
			return again
		})
		w.orderers = append(w.orderers, s)
		overrides[o.Endpoint] = node.Override{Address: addr}
		w.fronts = append(w.fronts, node.Front{Listen: "127.0.0.1:0", Orderer: o.Endpoint})
	}
	w.fronts = append(w.fronts, node.Front{Listen: "127.0.0.1:0"})
	if change != nil {
		change(w.orderers)
	}
	for _, s := range w.orderers {
		s.start()
		t.Cleanup(s.die)
	}
	org, err := ca.NewOrg("RelayMSP", "relay", time.Now())
	require.NoError(t, err)
	cert, err := org.TLS("relay.orga", "localhost", "127.0.0.1")
	require.NoError(t, err)
	w.roots.AddCert(org.TLSCA.Certificate())

	cfg := node.Default()
	w.r.peer(t, w.r.conf.Orgs()[0], 0, &cfg)
	listen, endpoint := loopback(t, 1)
	cfg.Dir, cfg.Listen, cfg.ExternalEndpoint, cfg.Log, cfg.Role = t.TempDir(), listen(0), endpoint(0), testLog(), "relay"
	cfg.Metrics = w.counts
	cfg.Leader, cfg.Orderers = election.Static, node.OrdererClient{Overrides: overrides, Stall: 600 * time.Millisecond, MaxBackoff: 100 * time.Millisecond}
	shown := func() *tls.Certificate { return &cert }
	cfg.Relay = node.RelayServices{Fronts: w.fronts, Certificate: shown}
	cfg.Clients = node.ClientServices{Address: "127.0.0.1:0", Certificate: shown}
	if mutual {
		own := w.r.tls(t)
		cfg.Orderers.Certificate = func() *tls.Certificate { return &own }
		roots := func() *x509.CertPool { return w.roots }
		cfg.Relay.ClientRoots, cfg.Clients.ClientRoots = roots, roots
		client, err := org.TLS("client")
		require.NoError(t, err)
		w.shown = &client
	}
	w.node, err = node.Open(cfg)
	require.NoError(t, err)
	w.channel, err = w.node.Join(t.Context(), w.r.chain[0])
	require.NoError(t, err)
	run(t, w.node)
	return w
}

// peer is a Fabric peer's deliver client whose core.yaml names address i of the
// relay for an orderer.
func (w *relayWorld) peer(i int) *orderer.Client {
	at := w.node.RelayAddresses()[i]
	return orderer.NewClient(orderer.ClientConfig{
		Channel: w.r.conf.Channel(), Signer: w.r.signer(w.t), Stall: time.Hour,
		Endpoints: func() []orderer.Endpoint {
			return []orderer.Endpoint{{Address: w.r.conf.Orderers()[0].Endpoint, Override: at, Roots: w.roots}}
		},
		OnFailure:  func(_ string, err error, _ time.Duration) { w.t.Log(err) },
		MaxBackoff: 50 * time.Millisecond,
		ClientCert: func() *tls.Certificate { return w.shown },
	})
}

// stream opens a Deliver stream to address i, as a Fabric peer does, and asks.
func (w *relayWorld) stream(ctx context.Context, i int, seek *ab.SeekInfo) ab.AtomicBroadcast_DeliverClient {
	env, err := tx.BoundEnvelope(common.HeaderType_DELIVER_SEEK_INFO, w.r.conf.Channel(), seek, w.r.signer(w.t), time.Now(), w.binding())
	require.NoError(w.t, err)
	s, err := ab.NewAtomicBroadcastClient(w.dial(i)).Deliver(ctx)
	require.NoError(w.t, err)
	require.NoError(w.t, s.Send(env))
	return s
}

func (w *relayWorld) dial(i int) *grpc.ClientConn { return w.dialAt(w.node.RelayAddresses()[i]) }

func (w *relayWorld) dialAt(addr string) *grpc.ClientConn {
	conf := &tls.Config{RootCAs: w.roots}
	if w.shown != nil {
		conf.Certificates = []tls.Certificate{*w.shown}
	}
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(credentials.NewTLS(conf)))
	require.NoError(w.t, err)
	w.t.Cleanup(func() { require.NoError(w.t, conn.Close()) })
	return conn
}

// binding is what ties a request to the certificate that clients show.
func (w *relayWorld) binding() []byte {
	if w.shown == nil {
		return nil
	}
	sum := sha256.Sum256(w.shown.Certificate[0])
	return sum[:]
}

// answers asks address i until it gives a status, or a block.
func (w *relayWorld) answers(ctx context.Context, i int, want common.Status, seek *ab.SeekInfo) {
	w.t.Helper()
	for last := common.Status_UNKNOWN; ; {
		s := w.stream(ctx, i, seek)
		for {
			r, err := s.Recv()
			require.NoError(w.t, err, "waiting for %v, last was %v", want, last)
			if r.GetBlock() != nil {
				continue
			}
			last = r.GetStatus()
			break
		}
		if last == want {
			return
		}
	}
}

// newestHeader is what a monitor of a Fabric peer asks.
func newestHeader(content ab.SeekInfo_SeekContentType, effort ab.SeekInfo_SeekErrorResponse) *ab.SeekInfo {
	newest := &ab.SeekPosition{Type: &ab.SeekPosition_Newest{Newest: &ab.SeekNewest{}}}
	return &ab.SeekInfo{Start: newest, Stop: newest, ContentType: content, ErrorResponse: effort}
}

const (
	whole, headers = ab.SeekInfo_BLOCK, ab.SeekInfo_HEADER_WITH_SIG
	strict, effort = ab.SeekInfo_STRICT, ab.SeekInfo_BEST_EFFORT
)

// A Fabric peer follows both recorded chains through each of the relay's
// addresses: what it gets holds under its own rules and is, header, data and
// signatures, what the orderers sent.
func TestRelayServes(t *testing.T) {
	for _, network := range []string{"raft", "bft"} {
		t.Run(network, func(t *testing.T) {
			w := newRelayWorld(t, network, nil)
			ctx := longPatience(t)
			require.NoError(t, w.channel.Ledger().Wait(ctx, w.r.tip.Height))
			for i := range w.fronts {
				conf, tip := w.r.conf, block.Tip{Height: 1, Hash: block.HeaderHash(w.r.chain[0].Header)}
				for b, err := range w.peer(i).Blocks(ctx, 1) {
					require.NoError(t, err)
					raw, err := block.Marshal(b)
					require.NoError(t, err)
					require.Equal(t, w.r.files[tip.Height], raw)
					c, err := block.Check(conf.Rules(), raw)
					require.NoError(t, err)
					v, err := block.Verify(conf.Rules(), tip, c)
					require.NoError(t, err)
					if v.IsConfig() {
						conf, err = conf.Next(v.Block())
						require.NoError(t, err)
					}
					if tip = (block.Tip{Height: v.Number() + 1, Hash: v.Hash()}); tip == w.r.tip {
						break
					}
				}
			}
			// Headers, but for the address that would attest for all of four orderers.
			oldest := newestHeader(headers, strict)
			oldest.Start = &ab.SeekPosition{Type: &ab.SeekPosition_Oldest{Oldest: &ab.SeekOldest{}}}
			for i, f := range w.fronts {
				s := w.stream(ctx, i, oldest)
				if network == "bft" && f.Orderer == "" {
					r, err := s.Recv()
					require.NoError(t, err)
					require.Equal(t, common.Status_SERVICE_UNAVAILABLE, r.GetStatus())
					continue
				}
				for n := range w.r.chain {
					r, err := s.Recv()
					require.NoError(t, err)
					b := r.GetBlock()
					require.True(t, proto.Equal(w.r.chain[n].Header, b.Header))
					require.Equal(t, block.IsConfig(w.r.chain[n]), b.Data != nil)
				}
			}
			// A start beyond what the relay has is not found, so that the peer asks elsewhere.
			far := newestHeader(whole, strict)
			far.Start = &ab.SeekPosition{Type: &ab.SeekPosition_Specified{Specified: &ab.SeekSpecified{Number: 99}}}
			far.Stop = far.Start
			w.answers(ctx, 0, common.Status_NOT_FOUND, far)
		})
	}
}

// In a quiet channel whose newest block is a configuration block, orderers show
// nothing newer than the configuration: they are alive all the same.
func TestRelayAtAConfigurationBlock(t *testing.T) {
	for _, network := range []string{"raft", "bft"} {
		t.Run(network, func(t *testing.T) {
			const tip = 3
			var questions atomic.Int64 // put to the first orderer
			w := newRelayWorld(t, network, func(all []*standin) {
				for _, s := range all {
					s.set(func(s *standin) { s.height = tip + 1 })
				}
				all[0].received = func(_ *common.Envelope, seek *ab.SeekInfo) {
					if seek.ContentType == headers {
						questions.Add(1)
					}
				}
			})
			require.True(t, block.IsConfig(w.r.chain[tip]))
			ctx := longPatience(t)
			require.NoError(t, w.channel.Ledger().Wait(ctx, tip+1))
			before := questions.Load() // what was shown on the way there counts for four of them
			require.NoError(t, soon(ctx, "questions", func() bool { return questions.Load() > before+8 }))
			for i := range w.fronts {
				w.answers(ctx, i, common.Status_SUCCESS, newestHeader(whole, strict))
			}
			for _, s := range w.orderers {
				s.set(func(s *standin) { s.height = w.r.tip.Height })
			}
			require.NoError(t, w.channel.Ledger().Wait(ctx, w.r.tip.Height))
		})
	}
}

// Envelopes go to the orderer that the address stands for, to the byte, and its
// answer comes back word for word.
func TestRelayForwards(t *testing.T) {
	for _, network := range []string{"raft", "bft"} {
		t.Run(network, func(t *testing.T) {
			w := newRelayWorld(t, network, nil)
			ctx := longPatience(t)
			env, err := tx.SignedEnvelope(common.HeaderType_ENDORSER_TRANSACTION, w.r.conf.Channel(), &common.Payload{Data: []byte("odd")}, w.r.signer(t), time.Now())
			require.NoError(t, err)
			submit := func(i int, env *common.Envelope) (*ab.BroadcastResponse, error) {
				s, err := ab.NewAtomicBroadcastClient(w.dial(i)).Broadcast(ctx)
				require.NoError(t, err)
				require.NoError(t, s.Send(env))
				require.NoError(t, s.CloseSend())
				return s.Recv()
			}
			for i, o := range w.orderers {
				for _, want := range []*ab.BroadcastResponse{
					{Status: common.Status_SUCCESS},
					{Status: common.Status_FORBIDDEN, Info: "implicit policy evaluation failed"},
					{Status: common.Status_SERVICE_UNAVAILABLE, Info: "failed to submit request: request already exists"},
				} {
					o.set(func(s *standin) { s.got, s.answer = nil, want })
					got, err := submit(i, env)
					require.NoError(t, err)
					require.True(t, proto.Equal(want, got), "%v", got)
					require.Len(t, o.got, 1)
					require.True(t, proto.Equal(env, o.got[0]))
				}
			}
			// The address for all turns to an orderer that lives; of a BFT channel it hands nothing on.
			last := len(w.fronts) - 1
			for _, o := range w.orderers[1:] {
				o.die()
			}
			w.orderers[0].set(func(s *standin) { s.got, s.answer = nil, &ab.BroadcastResponse{Status: common.Status_SUCCESS} })
			got, err := submit(last, env)
			if network == "bft" {
				require.Equal(t, codes.Unavailable, status.Code(err))
				require.ErrorContains(t, err, "one address for each orderer")
			} else {
				require.NoError(t, err)
				require.Equal(t, common.Status_SUCCESS, got.Status)
			}
			// An orderer that is gone gives no answer, and none is made up.
			_, err = submit(1, env)
			require.Equal(t, codes.Unavailable, status.Code(err))
			// To who isn't of the channel's organisations it is as unknown as any.
			foreign, err := ca.NewOrg("Org9MSP", "org9.example.com", time.Now())
			require.NoError(t, err)
			stranger, err := foreign.Identity("User1", "client")
			require.NoError(t, err)
			w.orderers[0].set(func(s *standin) { s.got = nil })
			var answers []*ab.BroadcastResponse
			for _, name := range []string{w.r.conf.Channel(), "nosuchchannel"} {
				bad, err := tx.SignedEnvelope(common.HeaderType_ENDORSER_TRANSACTION, name, &common.Payload{}, stranger, time.Now())
				require.NoError(t, err)
				a, err := submit(0, bad)
				require.NoError(t, err)
				require.Equal(t, common.Status_BAD_REQUEST, a.Status)
				answers = append(answers, a)
			}
			require.True(t, proto.Equal(answers[0], answers[1]))
			require.Empty(t, w.orderers[0].got)
		})
	}
}

// Four BFT orderers, one of which dies: its address alone says so, also to who
// takes what there is, and answers again when the orderer does.
func TestRelayStandsForLivingOrderers(t *testing.T) {
	w := newRelayWorld(t, "bft", nil)
	ctx := longPatience(t)
	require.NoError(t, w.channel.Ledger().Wait(ctx, w.r.tip.Height))
	for i := range w.fronts {
		w.answers(ctx, i, common.Status_SUCCESS, newestHeader(whole, strict))
	}
	follows := w.stream(ctx, 3, &ab.SeekInfo{
		Start: &ab.SeekPosition{Type: &ab.SeekPosition_Newest{Newest: &ab.SeekNewest{}}},
		Stop:  &ab.SeekPosition{Type: &ab.SeekPosition_Specified{Specified: &ab.SeekSpecified{Number: 1 << 60}}},
	})
	r, err := follows.Recv()
	require.NoError(t, err)
	require.NotNil(t, r.GetBlock())
	w.orderers[3].die()
	r, err = follows.Recv()
	require.NoError(t, err)
	require.Equal(t, common.Status_SERVICE_UNAVAILABLE, r.GetStatus(), "the open stream ends")
	for _, content := range []ab.SeekInfo_SeekContentType{whole, headers} {
		w.answers(ctx, 3, common.Status_SERVICE_UNAVAILABLE, newestHeader(content, effort))
		for i := range 3 {
			w.answers(ctx, i, common.Status_SUCCESS, newestHeader(content, strict))
		}
	}
	w.orderers[3].start()
	w.answers(ctx, 3, common.Status_SUCCESS, newestHeader(headers, strict))
}

// A relay that lags says so, until it has caught up; who wants what there is
// gets it. One whose orderers are all gone answers nobody.
func TestRelayLags(t *testing.T) {
	held := make(chan struct{})
	w := newRelayWorld(t, "raft", func(all []*standin) {
		for _, s := range all {
			s.set(func(s *standin) {
				s.spoil = func(b *common.Block) *common.Block { // block 20 doesn't go out whole before the play says so
					if b.Header.Number == 20 {
						<-held
					}
					return b
				}
			})
		}
	})
	ctx := longPatience(t)
	last := len(w.fronts) - 1
	require.NoError(t, w.channel.Ledger().Wait(ctx, 20))
	w.answers(ctx, last, common.Status_SERVICE_UNAVAILABLE, newestHeader(whole, strict))
	w.answers(ctx, last, common.Status_SUCCESS, newestHeader(whole, effort))
	require.NoError(t, soon(ctx, "leaving the orderer", func() bool { return countedBy(t, w.counts, "grapevine_orderer_left_total", "orderer.stalled") > 0 }))
	close(held)
	require.NoError(t, w.channel.Ledger().Wait(ctx, w.r.tip.Height))
	w.answers(ctx, last, common.Status_SUCCESS, newestHeader(whole, strict))
	for _, s := range w.orderers {
		s.die()
	}
	w.answers(ctx, last, common.Status_SERVICE_UNAVAILABLE, newestHeader(whole, effort))
}

// Of an organisation's peers on a BFT channel each orderer is asked by one alone
// what it has, and the others hear of it; nobody follows but the leader.
func TestPeersShareTheWatch(t *testing.T) {
	r := record(t, "bft")
	var orderers []*standin
	overrides := map[string]node.Override{}
	var mu sync.Mutex
	inARow := map[string]int{} // of each orderer; owned by mu
	lastBy := map[string]string{}
	follows := map[string]bool{}
	settled := make(chan struct{})
	for i, o := range r.conf.Orderers() {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		s := r.standin(t, fmt.Sprintf("orderer%d", i+1), o.Endpoint, false, func() net.Listener { return l })
		s.received = func(env *common.Envelope, seek *ab.SeekInfo) {
			_, signer, err := block.Header(env)
			require.NoError(t, err)
			mu.Lock()
			defer mu.Unlock()
			who := string(signer.Creator)
			if seek.ContentType != headers {
				follows[who] = true
				return
			}
			if inARow[o.Endpoint]++; lastBy[o.Endpoint] != who {
				inARow[o.Endpoint], lastBy[o.Endpoint] = 1, who
			}
			for _, o := range r.conf.Orderers() {
				if inARow[o.Endpoint] < 5 {
					return
				}
			}
			select {
			case <-settled:
			default:
				close(settled)
			}
		}
		orderers = append(orderers, s.start())
		t.Cleanup(s.die)
		overrides[o.Endpoint] = node.Override{Address: l.Addr().String()}
	}
	ctx := longPatience(t)
	listen, endpoint := loopback(t, 3)
	for k := range 3 {
		cfg := node.Default()
		r.peer(t, r.conf.Orgs()[0], k, &cfg)
		cfg.Dir, cfg.Listen, cfg.Endpoint, cfg.Log = t.TempDir(), listen(k), endpoint(k), testLog()
		cfg.Leader = election.Standby
		cfg.Orderers = node.OrdererClient{Overrides: overrides, Stall: 1500 * time.Millisecond}
		if k == 0 {
			cfg.Leader = election.Static
		} else {
			cfg.Bootstrap = []string{endpoint(0)}
		}
		n, err := node.Open(cfg)
		require.NoError(t, err)
		ch, err := n.Join(ctx, r.chain[0])
		require.NoError(t, err)
		run(t, n)
		defer func() { require.NoError(t, ch.Ledger().Wait(ctx, r.tip.Height)) }()
	}
	select {
	case <-settled:
	case <-ctx.Done():
		mu.Lock()
		defer mu.Unlock()
		t.Fatalf("in a row: %v", inARow)
	}
	mu.Lock()
	defer mu.Unlock()
	require.Len(t, follows, 1)
	require.Len(t, orderers, 4)
}

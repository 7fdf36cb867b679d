package itest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/test/bufconn"

	"grapevine/block"
	"grapevine/channel"
	"grapevine/msp"
	"grapevine/orderer"
	"grapevine/wire"
)

// A service is a recorded network's orderers behind a network inside the
// process, so that they live in virtual time.
type service struct {
	t    *testing.T
	r    *recording
	all  []*standin
	addr map[string]*bufconn.Listener // by host:port
	mu   sync.Mutex                   // guards addr
}

func newService(t *testing.T, r *recording, mutual bool) *service {
	s := &service{t: t, r: r, addr: map[string]*bufconn.Listener{}}
	for i, o := range r.conf.Orderers() {
		at := o.Endpoint
		s.all = append(s.all, r.standin(t, fmt.Sprintf("orderer%d", i+1), at, mutual, func() net.Listener {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.addr[at] = bufconn.Listen(1 << 20)
			return s.addr[at]
		}))
	}
	return s
}

func (s *service) dial(ctx context.Context, addr string) (net.Conn, error) {
	s.mu.Lock()
	l := s.addr[addr]
	s.mu.Unlock()
	if l == nil {
		return nil, errors.New("connection refused")
	}
	return l.DialContext(ctx)
}

// puller follows the orderers as a leader does, with the rules of a leader.
type puller struct {
	s       *service
	ledger  block.Tip
	conf    *channel.Config
	client  *orderer.Client
	mu      sync.Mutex
	reasons map[string]int // why orderers were left; owned by mu
	from    []string       // whom blocks came from, without repetition; owned by mu
	left    time.Time      // when the last orderer was left; owned by mu
}

func (s *service) puller(height uint64, mutual bool) *puller {
	t, r := s.t, s.r
	p := &puller{s: s, reasons: map[string]int{}, conf: r.conf}
	for n := uint64(1); n < height; n++ {
		if block.IsConfig(r.chain[n]) {
			next, err := p.conf.Next(r.chain[n])
			require.NoError(t, err)
			p.conf = next
		}
	}
	p.ledger = block.Tip{Height: height, Hash: block.HeaderHash(r.chain[height-1].Header)}
	conf := orderer.ClientConfig{
		Channel: r.conf.Channel(), Signer: r.signer(t), Dial: s.dial,
		Endpoints: func() (out []orderer.Endpoint) {
			for _, o := range r.conf.Orderers() {
				out = append(out, orderer.Endpoint{Address: o.Endpoint, Roots: o.TLSRoots})
			}
			return out
		},
		Attest: func(b *common.Block) error {
			if err := block.Attest(p.rules(), b); !errors.Is(err, block.UnknownConfig) {
				return err
			}
			return nil
		},
		Prove: func(b *common.Block, previous [32]byte) error {
			if err := block.Attest(p.rules(), b); err != nil {
				return err
			}
			if previous != ([32]byte{}) && previous != [32]byte(b.Header.PreviousHash) {
				return block.BadLink
			}
			return nil
		},
		OnConnect: func(addr string) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.from = append(p.from, addr)
		},
		OnFailure: func(_ string, err error, _ time.Duration) { p.leave(err) },
	}
	if mutual {
		cert := r.tls(t)
		conf.ClientCert = func() *tls.Certificate { return &cert }
	}
	p.client = orderer.NewClient(conf)
	return p
}

func (p *puller) rules() *block.Rules {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.conf.Rules()
}

func (p *puller) leave(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reasons[wire.ReasonOf(err).Code()]++
	p.left = time.Now()
}

// until pulls up to a height; each block is verified, and one that doesn't hold
// ends the stream, as in a node.
func (p *puller) until(ctx context.Context, height uint64) {
	for p.ledger.Height < height && ctx.Err() == nil {
		for b, err := range p.client.Blocks(ctx, p.ledger.Height) {
			if err == nil {
				err = p.take(b)
			}
			if err != nil {
				if ctx.Err() == nil {
					p.leave(err)
				}
				break
			}
			if p.ledger.Height >= height {
				return
			}
		}
	}
}

func (p *puller) take(b *common.Block) error {
	c, err := block.CheckBlock(p.rules(), b)
	if err != nil {
		return err
	}
	v, err := block.Verify(p.rules(), p.ledger, c)
	if err != nil {
		return err
	}
	p.ledger = block.Tip{Height: v.Number() + 1, Hash: v.Hash()}
	if !v.IsConfig() {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conf, err = p.conf.Next(v.Block())
	return err
}

// followed is the orderer that blocks come from now.
func (p *puller) followed() *standin {
	at := p.client.Source()
	for _, o := range p.s.all {
		if o.endpoint == at {
			return o
		}
	}
	return nil
}

// tls is the TLS certificate of whom signer gives.
func (r *recording) tls(t testing.TB) tls.Certificate {
	r.signer(t)
	folder := filepath.Join(filepath.Dir(r.folder), "tls")
	cert, err := tls.LoadX509KeyPair(filepath.Join(folder, "server.crt"), filepath.Join(folder, "server.key"))
	require.NoError(t, err)
	return cert
}

// signer is a peer of the recorded network.
func (r *recording) signer(t testing.TB) msp.Signer {
	org := r.conf.Orgs()[0]
	folders, err := filepath.Glob(filepath.Join(r.dir, "crypto", "peerOrganizations", "*", "peers", "*", "msp"))
	require.NoError(t, err)
	for _, f := range folders {
		if s, err := msp.Load(org.MSPID, f); err == nil && org.MSP.Validate(s.Identity()) == nil {
			r.folder = f
			return s
		}
	}
	require.FailNow(t, "no peer of the organisation")
	return nil
}

// Each fault of the orderer that blocks come from, on the chains that real
// orderers made: it is left for the reason that is true, within seconds, and
// every block comes. Blocks are ordered twice a second. Virtual time.
func TestOrdererFaults(t *testing.T) {
	const first, beat = 8, 500 * time.Millisecond
	for _, network := range []string{"raft", "bft"} {
		r := record(t, network)
		quorum, fork := "block.bad_signature", "block.bad_link"
		if network == "bft" { // where one orderer's signature proves nothing
			quorum, fork = "block.quorum", "block.quorum"
		}
		for _, f := range []struct {
			name   string
			mutual bool
			begin  func(bad *standin)
			reason string // "": it isn't left
			most   time.Duration
		}{
			{"none", false, func(*standin) {}, "", 0},
			{"mutual TLS", true, func(*standin) {}, "", 0},
			{"dead", false, func(bad *standin) { bad.die() }, "orderer.unreachable", time.Second},
			{"restarting", true, func(bad *standin) { bad.die(); bad.start() }, "orderer.unreachable", time.Second},
			{"slow, but no slower than it must be", false, func(bad *standin) { bad.set(func(s *standin) { s.pause = 300 * time.Millisecond }) }, "", 0},
			{"dripping", false, func(bad *standin) { bad.set(func(s *standin) { s.pause = 1400 * time.Millisecond }) }, "orderer.stalled", 6 * time.Second},
			{"censoring", true, func(bad *standin) { bad.set(func(s *standin) { s.height = 0 }) }, "orderer.stalled", 6 * time.Second},
			{"forking", false, func(bad *standin) { bad.set(func(s *standin) { s.spoil = bad.otherHistory }) }, fork, time.Second},
			{"another cut", false, func(bad *standin) { bad.set(func(s *standin) { s.spoil = otherData }) }, "block.bad_data_hash", time.Second},
			{"wrong signatures", false, func(bad *standin) { bad.set(func(s *standin) { s.spoil = wrongSignatures }) }, quorum, time.Second},
		} {
			t.Run(network+"/"+f.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					time.Sleep(time.Until(time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)))
					s := newService(t, r, f.mutual)
					bad := map[*standin]bool{}
					for _, o := range s.all {
						o.set(func(o *standin) { o.height = first })
						o.start()
						defer o.die()
					}
					p := s.puller(first-2, f.mutual)
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					defer cancel()
					p.until(ctx, first) // until the tip
					var pulling sync.WaitGroup
					pulling.Go(func() { p.until(ctx, uint64(len(r.chain))) })
					synctest.Wait()
					o := p.followed()
					require.NotNil(t, o)
					bad[o] = true
					f.begin(o)
					begun := time.Now()
					for n := uint64(first + 1); n <= uint64(len(r.chain)); n++ {
						time.Sleep(beat)
						for _, o := range s.all {
							if !bad[o] || f.name != "censoring" {
								o.set(func(o *standin) { o.height = n })
							}
						}
					}
					pulling.Wait()
					require.NoError(t, ctx.Err())
					require.Equal(t, r.tip, p.ledger)
					if f.reason == "" {
						require.Empty(t, p.reasons)
						return
					}
					require.Equal(t, 1, p.reasons[f.reason], "%v", p.reasons)
					require.Len(t, p.reasons, 1)
					require.LessOrEqual(t, p.left.Sub(begun), f.most)
					t.Logf("left after %v, for %v; then from %v", p.left.Sub(begun), p.reasons, p.from[len(p.from)-1])
				})
			})
		}
	}
}

// otherHistory is the block that the orderer would have signed in another one.
func (s *standin) otherHistory(b *common.Block) *common.Block {
	b.Header.PreviousHash[0] ^= 1
	last, err := block.LastConfigOf(b)
	if err == nil {
		err = block.Sign(b, s.signer, last, nil)
	}
	if err != nil {
		s.t.Error(err)
	}
	return b
}

// otherData is a block of one transaction more.
func otherData(b *common.Block) *common.Block {
	b.Data.Data = append(b.Data.Data, b.Data.Data[0])
	return b
}

// wrongSignatures has a bit of each signature flipped.
func wrongSignatures(b *common.Block) *common.Block {
	slot := b.Metadata.Metadata[common.BlockMetadataIndex_SIGNATURES]
	slot[len(slot)-1] ^= 1
	return b
}

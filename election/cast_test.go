package election

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	"grapevine/msp"
	"grapevine/msp/ca"
	"grapevine/wire"
)

var tag = sha256.Sum256([]byte("a channel's tag"))

// players are the identities of all tests: six of Org1, two of Org2. The first
// of Org1 beyond them has a certificate that ends in 2000.
var players = sync.OnceValue(func() (all []player) {
	start := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	for o, n := range []int{6, 2} {
		domain := fmt.Sprintf("org%d.example.com", o+1)
		org := must(ca.NewOrg(fmt.Sprintf("Org%dMSP", o+1), domain, start))
		for i := range n {
			all = append(all, player{must(org.Identity(fmt.Sprintf("peer%d.%s", i, domain), "peer")), host(len(all))})
		}
	}
	return all
})

type player struct {
	msp.Signer
	host peer.ID
}

func (p player) pki() msp.PKIID { return p.Identity().PKIID() }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func host(i int) peer.ID {
	seed := sha256.Sum256(fmt.Append(nil, "host", i))
	_, key, err := crypto.GenerateEd25519Key(bytes.NewReader(seed[:]))
	if err != nil {
		panic(err)
	}
	return must(peer.IDFromPublicKey(key))
}

// claimOf is what a player claims, changed by f, as it travels.
func claimOf(i int, f func(*wire.Claim)) *wire.SignedClaim {
	p := players()[i]
	id := p.pki()
	c := &wire.Claim{
		Tag: tag[:], PkiId: id[:], Act: wire.Claim_ACT_LEADING, Term: 3, Sequence: uint64(time.Now().UnixMilli()),
		Reach: 2, Height: 7, Since: uint64(time.Now().UnixMilli()), Orderer: "orderer:7050",
	}
	if f != nil {
		f(c)
	}
	raw := must(wire.Marshal(c))
	sum := wire.HashParts([]byte(wire.DomainClaim), raw)
	return &wire.SignedClaim{Claim: raw, Signature: must(p.Sign(sum[:]))}
}

func ballotOf(s *wire.SignedClaim) *wire.Ballot {
	return &wire.Ballot{Claim: must(wire.Marshal(s)), Term: 3, Height: 7}
}

// company are elections that run, in a bubble, joined by pipes.
type company struct {
	t       *testing.T
	members []*member
}

type member struct {
	*Election
	player
	company *company
	cancel  context.CancelFunc
	done    chan error
	up      atomic.Bool // it was started and not stopped

	mu       sync.Mutex
	refused  []string // guarded by mu
	streams  []*pipe  // guarded by mu
	leading  atomic.Int32
	leads    atomic.Int32 // times
	height   atomic.Uint64
	cut      atomic.Bool // from the orderers
	streamed atomic.Bool // lead runs, so blocks come
}

// newCompany makes n members of Org1, which run once started.
func newCompany(t *testing.T, n int) *company {
	c := &company{t: t}
	for i := range n {
		m := &member{player: players()[i], company: c}
		m.height.Store(1)
		m.Election = must(New(m.config()))
		c.members = append(c.members, m)
	}
	return c
}

func (m *member) config() Config {
	return Config{
		Mode: Dynamic, Self: m.Signer, Tag: tag, Expects: true,
		Open: m.open,
		Bound: func(p peer.ID) (*msp.Identity, [][]byte, bool) {
			for _, v := range players() {
				if v.host == p {
					return v.Identity(), nil, true
				}
			}
			return nil, nil, false
		},
		Known: func(id msp.PKIID) (*msp.Identity, bool) {
			for _, v := range players()[:7] { // the last one wasn't heard of
				if v.pki() == id {
					return v.Identity(), true
				}
			}
			return nil, false
		},
		Admit: func(id *msp.Identity, _ time.Time) error {
			if id.Name() == players()[5].Identity().Name() {
				return errors.New("not a member")
			}
			return nil
		},
		Height: m.height.Load,
		Stream: func() (string, uint64) {
			if m.cut.Load() || !m.streamed.Load() {
				return "", m.height.Load()
			}
			return "orderer:7050", m.height.Load()
		},
		Newest: func(context.Context) (uint64, error) {
			if m.cut.Load() {
				return 0, errors.New("cut")
			}
			return m.height.Load(), nil
		},
		Refused: func(_ peer.ID, r *wire.Reason) {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.refused = append(m.refused, r.Code())
		},
	}
}

// start runs a member and connects it to those that run.
func (m *member) start() {
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel, m.done = cancel, make(chan error, 1)
	m.up.Store(true)
	go func() { m.done <- m.Run(ctx, m.lead) }()
	for _, o := range m.company.members {
		if o != m && o.up.Load() {
			m.Arrived(o.host)
			o.Arrived(m.host)
		}
	}
}

// lead is a pull that takes a moment to end.
func (m *member) lead(ctx context.Context) {
	if m.leading.Add(1) > 1 {
		m.company.t.Error("two pulls of one peer")
	}
	m.leads.Add(1)
	m.streamed.Store(true)
	<-ctx.Done()
	m.streamed.Store(false)
	time.Sleep(20 * time.Millisecond)
	m.leading.Add(-1)
}

// stop ends a member; its connections break.
func (m *member) stop() {
	if !m.up.Load() {
		return
	}
	m.up.Store(false)
	m.cancel()
	require.ErrorIs(m.company.t, <-m.done, context.Canceled)
	for _, o := range m.company.members {
		if o != m {
			o.Gone(m.host)
			m.Gone(o.host)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.streams {
		_ = s.Reset()
	}
	m.streams = nil
}

func (c *company) stop() {
	for _, m := range c.members {
		m.stop()
	}
}

// leaders are those that say they lead.
func (c *company) leaders() (all []*member) {
	for _, m := range c.members {
		if m.up.Load() && m.Leading() {
			all = append(all, m)
		}
	}
	return all
}

// open is a stream to another member, served there.
func (m *member) open(_ context.Context, p peer.ID) (network.Stream, error) {
	for _, o := range m.company.members {
		if o.host == p && o.up.Load() {
			a, b := net.Pipe()
			mine, his := &pipe{c: a}, &pipe{c: b}
			m.mu.Lock()
			m.streams = append(m.streams, mine)
			m.mu.Unlock()
			o.mu.Lock()
			o.streams = append(o.streams, his)
			o.mu.Unlock()
			go o.Serve(his, m.host)
			return mine, nil
		}
	}
	return nil, errors.New("no such member")
}

// pipe is a stream over a pipe.
type pipe struct {
	network.Stream
	c net.Conn
}

func (p *pipe) Read(b []byte) (int, error)         { return p.c.Read(b) }
func (p *pipe) Write(b []byte) (int, error)        { return p.c.Write(b) }
func (p *pipe) Reset() error                       { return p.c.Close() }
func (p *pipe) Close() error                       { return p.c.Close() }
func (p *pipe) SetWriteDeadline(t time.Time) error { return p.c.SetWriteDeadline(t) }
func (p *pipe) SetReadDeadline(t time.Time) error  { return p.c.SetReadDeadline(t) }

package membership

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"grapevine/msp"
	"grapevine/msp/ca"
	"grapevine/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bubbleEpoch is when the clock of a synctest bubble starts; certificates are
// made for it.
var bubbleEpoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

var tag = sha256.Sum256([]byte("a channel's tag"))

// cast are the identities of all tests: six of Org1, three each of Org2 and Org3.
var cast = sync.OnceValue(func() []msp.Signer {
	hosts()
	var all []msp.Signer
	for o, n := range []int{6, 3, 3} {
		domain := fmt.Sprintf("org%d.example.com", o+1)
		org := must(ca.NewOrg(fmt.Sprintf("Org%dMSP", o+1), domain, bubbleEpoch))
		for i := range n {
			all = append(all, must(org.Identity(fmt.Sprintf("peer%d.%s", i, domain), "peer")))
		}
	}
	return all
})

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

var hosts = sync.OnceValue(func() []peer.ID {
	var all []peer.ID
	for i := range 12 {
		all = append(all, makeHost(i))
	}
	return all
})

func hostOf(i int) peer.ID { return hosts()[i] }

func makeHost(i int) peer.ID {
	seed := sha256.Sum256(fmt.Append(nil, "host", i))
	_, key, err := crypto.GenerateEd25519Key(bytes.NewReader(seed[:]))
	if err != nil {
		panic(err)
	}
	return must(peer.IDFromPublicKey(key))
}

// alive returns what member i says now, changed by f.
func alive(i int, f func(*wire.Alive)) *wire.Alive {
	s := cast()[i]
	id := s.Identity().PKIID()
	now := uint64(time.Now().UnixMilli())
	a := &wire.Alive{
		Tag: tag[:], PkiId: id[:], MspId: s.Identity().MSPID(), PeerId: []byte(hostOf(i)),
		Incarnation: uint64(bubbleEpoch.UnixMilli()), Sequence: 1, SentAt: now, Height: 7, TipHash: make([]byte, 32),
		Endpoint: place(fmt.Sprintf("peer%d:7051", i)),
	}
	sum := sha256.Sum256(s.Identity().Certificate().Raw)
	a.Certificate = sum[:]
	if f != nil {
		f(a)
	}
	return a
}

// place is an endpoint as it travels.
func place(text string) [][]byte {
	_, raw, err := wire.EncodeEndpoint(text)
	if err != nil {
		panic(err)
	}
	return raw
}

func signed(i int, f func(*wire.Alive)) *wire.SignedAlive {
	return must(sign(alive(i, f), cast()[i], nil))
}

// boundTo is what the handshakes of all hosts showed.
func boundTo(p peer.ID) (*msp.Identity, [][]byte, bool) {
	for i, s := range cast() {
		if p == hostOf(i) {
			return s.Identity(), nil, true
		}
	}
	return nil, nil, false
}

// party is one member under test and what it told.
type party struct {
	*Members
	mu      sync.Mutex
	sent    []*wire.SignedAlive // guarded by mu
	heights map[peer.ID]uint64  // guarded by mu
	changes []Event             // guarded by mu
	stored  []byte              // guarded by mu
	stores  int                 // guarded by mu
	admit   error               // guarded by mu
}

func newParty(t testing.TB, i int, f func(*Config)) *party {
	p := &party{heights: make(map[peer.ID]uint64)}
	c := Config{
		Self: cast()[i], Tag: tag, PeerID: hostOf(i), Incarnation: uint64(time.Now().UnixMilli()),
		Endpoint: fmt.Sprintf("peer%d:7051", i), Internal: fmt.Sprintf("inside%d:7051", i), Role: "peer",
		Tip: func() (uint64, [32]byte) { return 42, [32]byte{4, 2} },
		Publish: func(_ context.Context, s *wire.SignedAlive) error {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.sent = append(p.sent, s)
			return nil
		},
		Admit: func(*msp.Identity, [][]byte, time.Time) error {
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.admit
		},
		OnHeight: func(id peer.ID, h uint64) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.heights[id] = h
		},
		Bound: boundTo,
		Changed: func(m Event) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.changes = append(p.changes, m)
		},
		Load: func() ([]byte, error) { return p.stored, nil },
		Store: func(b []byte) error {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.stored = b
			p.stores++
			return nil
		},
	}
	if f != nil {
		f(&c)
	}
	m, err := New(c)
	require.NoError(t, err)
	p.Members = m
	return p
}

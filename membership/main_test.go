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

// cast are the identities of all tests.
var cast = sync.OnceValue(func() []msp.Signer {
	org := must(ca.NewOrg("Org1MSP", "org1.example.com", bubbleEpoch))
	var all []msp.Signer
	for i := range 6 {
		all = append(all, must(org.Identity(fmt.Sprintf("peer%d.org1.example.com", i), "peer")))
	}
	return all
})

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func hostOf(i int) peer.ID {
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
	}
	if f != nil {
		f(a)
	}
	return a
}

func signed(i int, f func(*wire.Alive)) *wire.SignedAlive {
	return must(sign(alive(i, f), cast()[i], nil))
}

// party is one member under test and what it told.
type party struct {
	*Members
	mu      sync.Mutex
	sent    []*wire.SignedAlive // guarded by mu
	heights map[peer.ID]uint64  // guarded by mu
	changes []Member            // guarded by mu
	stored  []byte              // guarded by mu
	stores  int                 // guarded by mu
	admit   error               // guarded by mu
}

func newParty(t testing.TB, i int, f func(*Config)) *party {
	p := &party{heights: make(map[peer.ID]uint64)}
	c := Config{
		Self: cast()[i], Tag: tag, PeerID: hostOf(i), Incarnation: uint64(time.Now().UnixMilli()),
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
		Changed: func(m Member) {
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

package channel

import (
	"context"
	"crypto/sha256"
	"sync"
	"testing"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	"grapevine/block"
	"grapevine/msp"
	"grapevine/msp/ca"
	"grapevine/wire"
)

// roll says who is a member; a node's view of it can change.
type roll struct {
	mu  sync.Mutex
	set map[peer.ID]bool
}

func rollOf(hs ...host.Host) *roll {
	r := &roll{set: make(map[peer.ID]bool)}
	for _, h := range hs {
		r.set[h.ID()] = true
	}
	return r
}

func (r *roll) has(p peer.ID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.set[p]
}

func (r *roll) put(p peer.ID, member bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.set[p] = member
}

// node is a host with one channel's view and mesh.
type node struct {
	host.Host
	door *Door
	view *View
	mesh *Mesh
	roll *roll

	mu      sync.Mutex
	blocks  []Announced
	alives  map[string]int // by certificate, which the tests use as payload
	refused map[string]int

	stop context.CancelFunc
	done chan error
}

var testTag = sha256.Sum256([]byte("channel under test"))

// signer is an identity for nodes whose identity doesn't matter. In a bubble
// the clock starts in 2000, so it is made with the present time.
var signer = sync.OnceValue(func() msp.Signer {
	org, err := ca.NewOrg("Org1MSP", "org1.example.com", time.Now())
	if err != nil {
		panic(err)
	}
	s, err := org.Identity("peer0.org1.example.com", "peer")
	if err != nil {
		panic(err)
	}
	return s
})

// start opens a door at h and runs a mesh with the tag on it.
func start(t *testing.T, h host.Host, r *roll, edit ...func(*MeshConfig)) *node {
	t.Helper()
	return startAt(t, NewDoor(h), testTag, r, edit...)
}

func startAt(t *testing.T, d *Door, tag [32]byte, r *roll, edit ...func(*MeshConfig)) *node {
	t.Helper()
	return startWith(t, d, tag, r, nil, edit...)
}

// startWith gives GossipSub options beyond the mesh's own.
func startWith(t *testing.T, d *Door, tag [32]byte, r *roll, more []pubsub.Option, edit ...func(*MeshConfig)) *node {
	t.Helper()
	n := &node{
		Host: d.host, door: d, view: d.Open(tag, r.has), roll: r,
		alives: make(map[string]int), refused: make(map[string]int), done: make(chan error, 1),
	}
	c := MeshConfig{
		Channel: "test", Tag: tag, Members: 5, Self: signer(),
		Rules:  func() *block.Rules { return nil },
		Height: func() uint64 { return 1 },
		Roots:  oneRoot,
		Deliver: func(a Announced) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.blocks = append(n.blocks, a)
		},
		Alive: func(_ peer.ID, a *wire.SignedAlive) error {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.alives[string(a.Certificate)]++
			return nil
		},
		Refused: func(r *wire.Reason) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.refused[r.Code()]++
		},
	}
	for _, f := range edit {
		f(&c)
	}
	var err error
	n.mesh, err = NewMesh(n.view, c)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	n.stop = cancel
	go func() { n.done <- n.mesh.run(ctx, append(n.mesh.options(), more...)) }()
	return n
}

// leave ends the mesh and closes the door, not the host.
func (n *node) leave(t *testing.T) {
	t.Helper()
	n.stop()
	require.ErrorIs(t, <-n.done, context.Canceled)
	require.NoError(t, n.view.Close())
	require.NoError(t, n.door.Close())
}

// say publishes an alive message with this payload.
func (n *node) say(t *testing.T, what string) {
	t.Helper()
	require.NoError(t, n.mesh.PublishAlive(context.Background(), &wire.SignedAlive{
		Alive: []byte("alive"), Certificate: []byte(what), Signature: []byte("signature"),
	}))
}

// heardOf says how often the payload came.
func (n *node) heardOf(what string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.alives[what]
}

func (n *node) refusals(code string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.refused[code]
}

func leaveAll(t *testing.T, ns []*node) {
	t.Helper()
	for _, n := range ns {
		n.leave(t)
	}
}

func closeAll(t *testing.T, hs []host.Host) {
	t.Helper()
	for _, h := range hs {
		require.NoError(t, h.Close())
	}
}

package channel

import (
	"context"
	"crypto/sha256"
	"math/rand/v2"
	"testing"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/stretchr/testify/require"

	"grapevine/block"
	"grapevine/msp"
	"grapevine/wire"
)

// withRules lets a mesh judge blocks of o, all of whose members have the same
// identity (which tests of one announcer don't mind).
func withRules(o *ordered) func(*MeshConfig) {
	return func(c *MeshConfig) {
		c.Rules = func() *block.Rules { return o.rules }
		c.Identify = func(peer.ID) (*msp.Identity, bool) { return signer().Identity(), true }
	}
}

// got returns what was delivered.
func (n *node) got() []Announced {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]Announced(nil), n.blocks...)
}

// Blocks, small and large, come to every member once, the leader included.
func TestPublish(t *testing.T) {
	o := newOrdered(t)
	small, large := o.checked(1, 1000), o.checked(2, 3*wire.InlineLimit)
	bubble(t, 5, func(t *testing.T, hs []host.Host) {
		ns := startAll(t, hs, withRules(o))
		defer leaveAll(t, ns)
		connect(t, hs...)
		time.Sleep(settle)
		for _, c := range []*block.Checked{small, small} { // the last is no news
			require.NoError(t, ns[0].mesh.Publish(context.Background(), c))
		}
		require.ErrorIs(t, ns[0].mesh.Publish(context.Background(), large), block.TooLarge)
		a, err := ns[0].mesh.Sign(large, testRoots)
		require.NoError(t, err)
		require.NoError(t, ns[0].mesh.Tell(context.Background(), a))
		_, err = ns[0].mesh.Sign(large, testRoots)
		require.ErrorIs(t, err, block.Stale)
		time.Sleep(time.Second)
		for i, n := range ns {
			got := n.got()
			if i == 0 {
				require.Len(t, got, 1, "what it signs itself isn't delivered")
				continue
			}
			require.Len(t, got, 2, "node %d", i)
			a, b := got[0], got[1]
			if a.Checked == nil {
				a, b = b, a
			}
			require.Equal(t, small.Hash(), a.Checked.Hash())
			require.Empty(t, a.Announcer)
			require.Nil(t, b.Checked)
			require.Equal(t, testRoots, b.Roots)
			require.Nil(t, b.Header.Data)
			require.Equal(t, large.Hash(), block.HeaderHash(b.Header.Header))
			require.NotEmpty(t, b.Announcer)
			require.Greater(t, b.Size, uint64(3*wire.InlineLimit))
			require.Empty(t, n.mesh.Stats().Refused)
		}
	})
}

// What came by another way counts as heard: it is judged by the same judge, and
// what the topic then brings isn't forwarded.
func TestTold(t *testing.T) {
	o := newOrdered(t)
	large := o.checked(1, 3*wire.InlineLimit)
	bubble(t, 6, func(t *testing.T, hs []host.Host) {
		ns := startAll(t, hs, withRules(o))
		defer leaveAll(t, ns)
		connect(t, hs...)
		time.Sleep(settle)
		a, err := ns[0].mesh.Sign(large, testRoots)
		require.NoError(t, err)
		for _, n := range ns[1:] {
			require.NoError(t, n.mesh.Told(hs[0].ID(), a.Raw))
			require.ErrorIs(t, n.mesh.Told(hs[0].ID(), a.Raw), block.Stale)
			require.Error(t, n.mesh.Told(hs[0].ID(), append([]byte{1}, a.Raw...)))
		}
		require.NoError(t, ns[0].mesh.Tell(context.Background(), a))
		time.Sleep(2 * time.Second)
		var heard uint64
		for _, n := range ns[1:] {
			require.Len(t, n.got(), 1)
			heard += n.mesh.Stats().Heard
		}
		require.LessOrEqual(t, heard, uint64(len(ns)-1), "the first node's copies alone, pushed or asked for")
	})
}

// Two leaders with two orderers' copies of a block: every member takes one.
func TestTwoLeaders(t *testing.T) {
	o := newOrdered(t)
	one := o.checked(1, 1000)
	two, err := block.CheckBlock(o.rules, o.block(1, 1000, 1, 0))
	require.NoError(t, err)
	bubble(t, 6, func(t *testing.T, hs []host.Host) {
		ns := startAll(t, hs, withRules(o))
		defer leaveAll(t, ns)
		connect(t, hs...)
		time.Sleep(settle)
		require.NoError(t, ns[0].mesh.Publish(context.Background(), one))
		require.NoError(t, ns[1].mesh.Publish(context.Background(), two))
		time.Sleep(time.Second)
		for _, n := range ns {
			require.Len(t, n.got(), 1)
		}
	})
}

// raw is a member that speaks GossipSub by hand: it follows every rule but
// those of what it publishes.
func raw(t *testing.T, ctx context.Context, h host.Host, r *roll, opts ...pubsub.Option) (*Door, map[string]*pubsub.Topic) {
	t.Helper()
	d := NewDoor(h)
	v := d.Open(testTag, r.has)
	ps, err := pubsub.NewGossipSub(ctx, v, append([]pubsub.Option{
		pubsub.WithGossipSubProtocols([]protocol.ID{v.meshID()}, func(pubsub.GossipSubFeature, protocol.ID) bool { return true }),
		pubsub.WithGossipSubParams(meshParams(5)), pubsub.WithMessageIdFn(messageID),
		pubsub.WithMessageSignaturePolicy(pubsub.StrictNoSign), pubsub.WithNoAuthor(), pubsub.WithFloodPublish(true),
	}, opts...)...)
	require.NoError(t, err)
	ts := make(map[string]*pubsub.Topic)
	for _, name := range []string{wire.TopicBlocks, wire.TopicAlive} {
		ts[name], err = ps.Join(name)
		require.NoError(t, err)
		_, err = ts[name].Relay()
		require.NoError(t, err)
	}
	return d, ts
}

// T16, S14: a member that publishes forgeries is counted by each that hears it,
// is on the graylist after the second, and nobody forwards them. A non-member's
// message, or one on the wrong topic, is refused as well.
func TestInvalidSpam(t *testing.T) {
	o := newOrdered(t)
	bad := func(n uint64) []byte {
		b := o.block(n, 100, 0, 0)
		b.Header.DataHash = make([]byte, 32)
		rawBlock, err := block.Marshal(b)
		require.NoError(t, err)
		return encode(t, &wire.Announcement{Tag: testTag[:], Block: rawBlock, Size: uint64(len(rawBlock))})
	}
	good := o.checked(1, 100)
	bubble(t, 4, func(t *testing.T, hs []host.Host) {
		r := rollOf(hs...)
		var ns []*node
		for _, h := range hs[:3] {
			ns = append(ns, start(t, h, rollOf(hs...), withRules(o)))
		}
		defer leaveAll(t, ns)
		ctx, cancel := context.WithCancel(context.Background())
		door, topics := raw(t, ctx, hs[3], r)
		defer door.Close()
		defer cancel()
		connect(t, hs...)
		time.Sleep(settle)
		for i := range 10 {
			require.NoError(t, topics[wire.TopicBlocks].Publish(ctx, bad(uint64(1+i))))
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(time.Second)
		spammer := hs[3].ID()
		for _, n := range ns {
			require.Equal(t, 2, n.refusals(BadAnnouncement.Code()), "after two it isn't heard any more")
			require.Equal(t, map[string]uint64{BadAnnouncement.Code(): 2}, n.mesh.Stats().Refused)
			require.Empty(t, n.got())
			require.NotContains(t, n.mesh.Stats().Mesh, spammer)
		}
		require.NoError(t, ns[0].mesh.Publish(ctx, good))
		time.Sleep(time.Second)
		for _, n := range ns {
			require.Len(t, n.got(), 1, "the others go on")
		}
	})
}

// G4: fields that name an author, each alone, are refused and counted.
func TestAuthorFields(t *testing.T) {
	for name, spoil := range map[string]func(*pb.Message){
		"from":      func(m *pb.Message) { m.From = []byte("someone") },
		"seqno":     func(m *pb.Message) { m.Seqno = make([]byte, 8) },
		"key":       func(m *pb.Message) { m.Key = []byte("key") },
		"signature": func(m *pb.Message) { m.Signature = []byte("signature") },
	} {
		t.Run("G4/"+name, func(t *testing.T) {
			bubble(t, 2, func(t *testing.T, hs []host.Host) {
				n := start(t, hs[0], rollOf(hs...))
				defer n.leave(t)
				d := NewDoor(hs[1])
				defer d.Close()
				v := d.Open(testTag, rollOf(hs...).has)
				v.Handle(wire.KindMesh, echo)
				connect(t, hs...)
				time.Sleep(settle)
				s, err := v.Stream(context.Background(), hs[0].ID(), wire.KindMesh)
				require.NoError(t, err)
				topic := wire.TopicAlive
				m := &pb.Message{Topic: &topic, Data: encode(t, &wire.SignedAlive{Alive: []byte("a"), Certificate: []byte(name)})}
				send := func() {
					rpc := &pb.RPC{Publish: []*pb.Message{m}}
					require.NoError(t, wire.WriteFrame(s, encode(t, rpc)))
					time.Sleep(time.Second)
				}
				spoil(m)
				send()
				require.Equal(t, 1, n.refusals(AuthorFields.Code()))
				require.Zero(t, n.heardOf(name))
				m.From, m.Seqno, m.Key, m.Signature = nil, nil, nil, nil
				send()
				require.Equal(t, 1, n.heardOf(name), "without it is taken")
				send()
				require.Equal(t, 1, n.heardOf(name), "G7: once")
				require.Equal(t, 1, n.refusals(Duplicate.Code()))
			})
		})
	}
}

// Nothing comes after Run has ended, and Publish says so.
func TestMeshEnds(t *testing.T) {
	o := newOrdered(t)
	c := o.checked(1, 100)
	bubble(t, 2, func(t *testing.T, hs []host.Host) {
		ns := startAll(t, hs, withRules(o))
		connect(t, hs...)
		time.Sleep(settle)
		ns[1].stop()
		<-ns[1].done
		require.Error(t, ns[1].mesh.Publish(context.Background(), c))
		require.NoError(t, ns[0].mesh.Publish(context.Background(), c))
		time.Sleep(time.Second)
		require.Empty(t, ns[1].got())
		require.Equal(t, pubsub.ValidationIgnore, ns[1].mesh.validateBlock(context.Background(), hs[0].ID(), &pubsub.Message{Message: &pb.Message{}}))
		require.Equal(t, 1, ns[1].refusals(Left.Code()), "G1")
		for _, n := range ns {
			require.NoError(t, n.view.Close())
		}
		ns[0].stop()
		<-ns[0].done
		for _, n := range ns {
			require.NoError(t, n.door.Close())
		}
	})
}

// The message id is that of the whole message.
func TestMessageID(t *testing.T) {
	data := make([]byte, 100)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	sum := sha256.Sum256(data)
	require.Equal(t, string(sum[:]), messageID(&pb.Message{Data: data}))
}

package channel

import (
	"context"
	"io"
	"math"
	"sync"
	"testing"
	"time"

	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"grapevine/wire"
)

// A talker is a member that writes RPCs by hand and keeps those it gets.
type talker struct {
	t    *testing.T
	out  network.Stream
	mu   sync.Mutex
	rpcs []*pb.RPC
}

// take reads the RPCs that the other side's GossipSub sends.
func (k *talker) take(s network.Stream) {
	for {
		b, err := wire.ReadFrame(s, wire.MaxGossip)
		if err != nil {
			_ = s.Reset()
			return
		}
		rpc := &pb.RPC{}
		if proto.Unmarshal(b, rpc) == nil {
			k.mu.Lock()
			k.rpcs = append(k.rpcs, rpc)
			k.mu.Unlock()
		}
	}
}

// say sends one RPC; an error means that the stream was cut.
func (k *talker) say(rpc *pb.RPC) error {
	return wire.WriteFrame(k.out, encode(k.t, rpc))
}

// count adds up what came.
func (k *talker) count(f func(*pb.RPC) int) (sum int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, rpc := range k.rpcs {
		sum += f(rpc)
	}
	return sum
}

// TestSpam (T17): floods of control messages cost what the limits say, are
// counted, and change no state. The node goes on talking to the others.
func TestSpam(t *testing.T) {
	alive := wire.TopicAlive
	for _, c := range []struct {
		name string
		spam func(t *testing.T, n *node, k *talker)
	}{
		{"G8", func(t *testing.T, n *node, k *talker) {
			for range 11 {
				require.NoError(t, k.say(control(&pb.ControlMessage{Ihave: []*pb.ControlIHave{{TopicID: &alive, MessageIDs: ids(900)}}})))
			}
			time.Sleep(heartbeat / 2)
			require.NotZero(t, n.refusals(IHaveLimit.Code()))
			wants := k.count(func(r *pb.RPC) int { return len(r.GetControl().GetIwant()) })
			require.LessOrEqual(t, wants, maxIHaves)
			require.LessOrEqual(t, k.count(func(r *pb.RPC) (sum int) {
				for _, w := range r.GetControl().GetIwant() {
					sum += len(w.GetMessageIDs())
				}
				return sum
			}), maxIHaveIDs)
		}},
		{"G9", func(t *testing.T, n *node, k *talker) {
			n.say(t, "wanted")
			time.Sleep(time.Second)
			id := messageID(&pb.Message{Data: encode(t, &wire.SignedAlive{Alive: []byte("alive"), Certificate: []byte("wanted"), Signature: []byte("signature")})})
			before := k.count(func(r *pb.RPC) int { return len(r.GetPublish()) })
			for range 100 {
				require.NoError(t, k.say(control(&pb.ControlMessage{Iwant: []*pb.ControlIWant{{MessageIDs: []string{id}}}})))
			}
			time.Sleep(time.Second)
			served := k.count(func(r *pb.RPC) int { return len(r.GetPublish()) }) - before
			require.Positive(t, served)
			require.LessOrEqual(t, served, 3)
			require.Equal(t, 100-maxIWants, n.refusals(IWantLimit.Code()))
		}},
		{"G10", func(t *testing.T, n *node, k *talker) {
			for range 20 {
				c := &pb.ControlMessage{}
				for _, id := range ids(500) {
					c.Graft = append(c.Graft, &pb.ControlGraft{TopicID: ptr("t" + id)})
				}
				require.NoError(t, k.say(control(c)))
			}
			time.Sleep(time.Second)
			require.Equal(t, 20, n.refusals(UnknownTopic.Code()))
			require.Empty(t, n.mesh.pubsub.ListPeers("t"+ids(1)[0]))
		}},
		{"G12", func(t *testing.T, n *node, k *talker) {
			require.NoError(t, k.say(control(&pb.ControlMessage{Prune: []*pb.ControlPrune{{TopicID: &alive, Backoff: ptr(uint64(math.MaxUint64))}}})))
			time.Sleep(time.Second)
			require.Equal(t, 1, n.refusals(BadBackoff.Code()))
		}},
		{"G13", func(t *testing.T, n *node, k *talker) {
			known := len(n.Peerstore().Peers())
			c := &pb.ControlPrune{TopicID: &alive}
			for _, id := range ids(500) {
				c.Peers = append(c.Peers, &pb.PeerInfo{PeerID: []byte(id)})
			}
			require.NoError(t, k.say(control(&pb.ControlMessage{Prune: []*pb.ControlPrune{c}})))
			time.Sleep(time.Second)
			require.Equal(t, 1, n.refusals(PXForbidden.Code()))
			require.Len(t, n.Peerstore().Peers(), known)
		}},
		{"G14", func(t *testing.T, n *node, k *talker) {
			require.NoError(t, k.say(control(&pb.ControlMessage{Idontwant: []*pb.ControlIDontWant{{MessageIDs: ids(900)}}})))
			time.Sleep(time.Second)
			require.Equal(t, 1, n.refusals(IDontWantLimit.Code()))
		}},
		{"G15", func(t *testing.T, n *node, k *talker) {
			var err error
			for i := 0; i < 2000 && err == nil; i++ {
				err = k.say(&pb.RPC{Subscriptions: []*pb.RPC_SubOpts{{Topicid: &alive, Subscribe: ptr(i%2 == 0)}}})
				time.Sleep(time.Millisecond)
			}
			require.Error(t, err, "the stream is cut")
			require.Positive(t, n.refusals(RateLimit.Code()))
		}},
		{"control too large", func(t *testing.T, n *node, k *talker) {
			c := &pb.ControlMessage{Ihave: []*pb.ControlIHave{{TopicID: &alive, MessageIDs: ids(5001)}}}
			_ = k.say(control(c))
			_, err := io.ReadAll(k.out)
			require.Error(t, err, "the stream is cut")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, 3, func(t *testing.T, hs []host.Host) {
				ns := []*node{start(t, hs[0], rollOf(hs...)), start(t, hs[1], rollOf(hs...))}
				defer leaveAll(t, ns)
				d := NewDoor(hs[2])
				defer d.Close()
				v := d.Open(testTag, rollOf(hs...).has)
				k := &talker{t: t}
				v.Handle(wire.KindMesh, k.take)
				connect(t, hs...)
				time.Sleep(settle)
				var err error
				k.out, err = v.Stream(context.Background(), hs[0].ID(), wire.KindMesh)
				require.NoError(t, err)
				require.NoError(t, k.say(&pb.RPC{Subscriptions: []*pb.RPC_SubOpts{{Topicid: &alive, Subscribe: ptr(true)}}}))
				time.Sleep(time.Second)
				c.spam(t, ns[0], k)
				ns[1].say(t, "still here")
				time.Sleep(time.Second)
				require.Equal(t, 1, ns[0].heardOf("still here"))
			})
		})
	}
}

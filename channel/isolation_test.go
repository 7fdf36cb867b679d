package channel

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/stretchr/testify/require"

	"grapevine/wire"
)

// canary is what must not be found outside: 32 bytes that occur nowhere else.
const canary = "CANARY-0f6b2c91d7e84a53b1c09e77aa"

// routers are what an outsider may speak.
var routers = map[string]func(ctx context.Context, h host.Host, ids []protocol.ID, opts ...pubsub.Option) (*pubsub.PubSub, error){
	"gossipsub": func(ctx context.Context, h host.Host, ids []protocol.ID, opts ...pubsub.Option) (*pubsub.PubSub, error) {
		if len(ids) > 0 {
			opts = append(opts, pubsub.WithGossipSubProtocols(ids, func(pubsub.GossipSubFeature, protocol.ID) bool { return true }))
		}
		return pubsub.NewGossipSub(ctx, h, opts...)
	},
	"floodsub": func(ctx context.Context, h host.Host, ids []protocol.ID, opts ...pubsub.Option) (*pubsub.PubSub, error) {
		if len(ids) > 0 {
			return pubsub.NewFloodsubWithProtocols(ctx, h, ids, opts...)
		}
		return pubsub.NewFloodSub(ctx, h, opts...)
	},
	"randomsub": func(ctx context.Context, h host.Host, _ []protocol.ID, opts ...pubsub.Option) (*pubsub.PubSub, error) {
		return pubsub.NewRandomSub(ctx, h, 10, opts...)
	},
}

// TestIsolationMatrix (T6, T7): an outsider that knows the channel's tag and
// holds a place in the network, and in another channel of one of the members,
// speaks every router, at the door and on the plain host, while the members
// flood, exchange peers, and name the outsider as a direct peer, or don't.
func TestIsolationMatrix(t *testing.T) {
	for router := range routers {
		for _, where := range []string{"plain host", "door"} {
			for bits := range 8 {
				flood, direct, px := bits&1 != 0, bits&2 != 0, bits&4 != 0
				t.Run(fmt.Sprintf("T6/%s/%s/flood=%v/direct=%v/px=%v", router, where, flood, direct, px), func(t *testing.T) {
					bubble(t, 4, func(t *testing.T, hs []host.Host) {
						isolated(t, hs, router, where == "door", flood, direct, px)
					})
				})
			}
		}
	}
}

// TestIsolationControl: the same outsider, let in, gets it all; so the matrix
// would notice.
func TestIsolationControl(t *testing.T) {
	bubble(t, 3, func(t *testing.T, hs []host.Host) {
		out := &tap{Host: hs[2]}
		ns := []*node{start(t, hs[0], rollOf(hs...)), start(t, hs[1], rollOf(hs...)), startAt(t, NewDoor(out), testTag, rollOf(hs...))}
		defer leaveAll(t, ns)
		connect(t, hs...)
		time.Sleep(settle)
		ns[0].say(t, canary)
		time.Sleep(time.Second)
		require.Contains(t, string(out.received()), canary)
		require.Len(t, ns[2].mesh.pubsub.ListPeers(wire.TopicAlive), 2)
	})
}

func isolated(t *testing.T, hs []host.Host, router string, atDoor, flood, direct, px bool) {
	members, outsider := hs[:3], &tap{Host: hs[3]}
	var named []peer.AddrInfo
	if direct {
		named = []peer.AddrInfo{{ID: outsider.ID(), Addrs: outsider.Addrs()}}
	}
	toggles := func(ps []peer.AddrInfo) []pubsub.Option {
		return []pubsub.Option{pubsub.WithFloodPublish(flood), pubsub.WithPeerExchange(px), pubsub.WithDirectPeers(ps)}
	}
	var ns []*node
	for _, h := range members {
		ns = append(ns, startWith(t, NewDoor(h), testTag, rollOf(members...), toggles(named)))
	}
	defer leaveAll(t, ns)

	// The outsider is a member of another channel, with the first member.
	other := [32]byte{7}
	theirs := rollOf(hs[0], hs[3])
	mine := ns[0].door.Open(other, theirs.has)
	defer mine.Close()
	door := NewDoor(outsider)
	defer door.Close()
	door.Open(other, theirs.has)

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var h host.Host = outsider
	var ids []protocol.ID
	if atDoor {
		all := rollOf(hs...)
		all.put(outsider.ID(), true)
		v := door.Open(testTag, all.has)
		h, ids = v, []protocol.ID{v.meshID()}
		defer v.Close()
	}
	opts := []pubsub.Option{
		pubsub.WithMessageSignaturePolicy(pubsub.StrictNoSign), pubsub.WithNoAuthor(), pubsub.WithMessageIdFn(messageID),
	}
	if router == "gossipsub" {
		var ps []peer.AddrInfo
		if direct {
			for _, m := range members {
				ps = append(ps, peer.AddrInfo{ID: m.ID(), Addrs: m.Addrs()})
			}
		}
		opts = append(opts, toggles(ps)...)
	}
	ps, err := routers[router](ctx, h, ids, opts...)
	require.NoError(t, err)
	subs := make(map[string]*pubsub.Subscription)
	topics := make(map[string]*pubsub.Topic)
	for _, name := range []string{wire.TopicAlive, wire.TopicBlocks} {
		topics[name], err = ps.Join(name)
		require.NoError(t, err)
		subs[name], err = topics[name].Subscribe()
		require.NoError(t, err)
	}
	connect(t, hs...)
	time.Sleep(settle)

	for i := range 5 {
		ns[i%3].say(t, fmt.Sprint(canary, i))
		forged, err := wire.Marshal(&wire.SignedAlive{Alive: []byte("a"), Certificate: fmt.Append(nil, "injected", i), Signature: []byte("s")})
		require.NoError(t, err)
		require.NoError(t, topics[wire.TopicAlive].Publish(ctx, forged))
		time.Sleep(heartbeat)
	}
	time.Sleep(time.Minute)

	for i := range 5 {
		for j, n := range ns {
			if j != i%3 {
				require.Equal(t, 1, n.heardOf(fmt.Sprint(canary, i)), "the members have it")
			}
			require.Zero(t, n.heardOf(fmt.Sprint("injected", i)), "nobody takes the outsider's")
		}
	}
	for _, name := range []string{wire.TopicAlive, wire.TopicBlocks} {
		require.Empty(t, ps.ListPeers(name), "the outsider sees no subscriber")
	}
	for name, sub := range subs {
		short, stop := context.WithTimeout(ctx, time.Second)
		for m, err := sub.Next(short); err == nil; m, err = sub.Next(short) {
			require.Equal(t, outsider.ID(), m.ReceivedFrom, "topic %s: the outsider gets its own only", name)
		}
		stop()
	}
	require.Empty(t, outsider.received(), "not a byte reaches the outsider on any pubsub or door stream")
	for _, n := range ns {
		require.NotContains(t, n.view.Members(), outsider.ID())
		require.Empty(t, n.mesh.pubsub.ListPeers("nobody"))
		require.NotContains(t, n.mesh.pubsub.ListPeers(""), outsider.ID())
	}
	cancel()
	time.Sleep(time.Second) // the outsider's goroutines end
	for _, n := range ns {
		require.NoError(t, outsider.Network().ClosePeer(n.ID()))
	}
}

// TestNonInterference (S8, T7, T8): what an outsider receives is the same
// whether the channel is there or not: the same bytes, the same errors, after
// the same time.
func TestNonInterference(t *testing.T) {
	var logs [2][]string
	for i, active := range []bool{false, true} {
		bubble(t, 3, func(t *testing.T, hs []host.Host) {
			logs[i] = probe(t, hs, active)
		})
	}
	require.Equal(t, logs[0], logs[1])
	require.Greater(t, len(logs[0]), 20)
}

// probe lets the third host try all it can, and returns what it saw.
func probe(t *testing.T, hs []host.Host, active bool) []string {
	other := [32]byte{7}
	doors := []*Door{NewDoor(hs[0]), NewDoor(hs[1]), NewDoor(hs[2])}
	var ns []*node
	if active {
		for i := range 2 {
			ns = append(ns, startAt(t, doors[i], testTag, rollOf(hs[:2]...)))
			ns[i].view.Handle(wire.KindBlocks, echo)
		}
	}
	for _, d := range doors { // a channel that all of them share
		d.Open(other, rollOf(hs...).has).Handle(wire.KindBlocks, echo)
	}
	connect(t, hs...)
	time.Sleep(settle)
	if active {
		ns[0].say(t, canary)
		time.Sleep(time.Second)
		require.Equal(t, 1, ns[1].heardOf(canary))
	}
	var log []string
	for _, m := range hs[:2] {
		ids, err := hs[2].Peerstore().GetProtocols(m.ID())
		require.NoError(t, err)
		slices.Sort(ids)
		log = append(log, fmt.Sprint("identify ", ids))
		require.Contains(t, ids, protocol.ID(wire.DoorID))
		for _, first := range firstFrames(other) {
			before := time.Now()
			s, err := hs[2].NewStream(context.Background(), m.ID(), wire.DoorID)
			require.NoError(t, err)
			_, err = s.Write(append(first, "and more"...))
			require.NoError(t, err)
			_ = s.CloseWrite()
			got := new(bytes.Buffer)
			_, err = got.ReadFrom(s)
			log = append(log, fmt.Sprintf("%s: %x: %q, %v, %v", strings.TrimSpace(string(first[1:min(len(first), 20)])), first, got, err, time.Since(before)))
			_ = s.Reset()
		}
		for _, id := range []protocol.ID{pubsub.GossipSubID_v11, pubsub.FloodSubID, protocol.ID(wire.ProtocolID(testTag, wire.KindMesh))} {
			before := time.Now()
			_, err := hs[2].NewStream(context.Background(), m.ID(), id)
			log = append(log, fmt.Sprintf("%s: %v, %v", id, err, time.Since(before)))
		}
	}
	for i, line := range log { // host keys differ from run to run
		for j, h := range hs {
			line = strings.ReplaceAll(line, h.ID().String(), fmt.Sprint("host", j))
		}
		log[i] = line
	}
	for _, n := range ns {
		n.stop()
		<-n.done
	}
	for _, d := range doors {
		require.NoError(t, d.Close())
	}
	return log
}

// firstFrames are first frames that say where a stream goes: to the channel
// under test, to one that nobody has, to one that all have, and nowhere.
func firstFrames(shared [32]byte) [][]byte {
	var fs [][]byte
	for _, tag := range [][32]byte{testTag, {99}, shared} {
		for _, kind := range []string{wire.KindMesh, wire.KindBlocks, "nothing"} {
			if tag == shared && kind == wire.KindMesh {
				continue
			}
			fs = append(fs, wire.AppendFrame(nil, []byte(wire.ProtocolID(tag, kind))))
		}
	}
	return append(fs, []byte{0}, []byte{200, 200, 1}, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, []byte{40, 'x'})
}

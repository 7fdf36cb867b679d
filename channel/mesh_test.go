package channel

import (
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/stretchr/testify/require"
)

// settle is how long, in virtual time, a mesh may take to form.
const settle = 5 * time.Second

func startAll(t *testing.T, hs []host.Host, edit ...func(*MeshConfig)) []*node {
	t.Helper()
	ns := make([]*node, len(hs))
	for i, h := range hs {
		ns[i] = start(t, h, rollOf(hs...), edit...)
	}
	return ns
}

func TestMeshCarries(t *testing.T) {
	bubble(t, 6, func(t *testing.T, hs []host.Host) {
		ns := startAll(t, hs)
		defer leaveAll(t, ns)
		connect(t, hs...)
		time.Sleep(settle)
		ns[0].say(t, "hello")
		time.Sleep(time.Second)
		for i, n := range ns {
			require.Equal(t, min(i, 1), n.heardOf("hello"), "node %d", i)
			require.NotEmpty(t, n.mesh.Stats().Mesh, "node %d", i)
		}
	})
}

// A channel that is opened after its members are connected comes up by itself.
func TestMeshOpenedLate(t *testing.T) {
	bubble(t, 3, func(t *testing.T, hs []host.Host) {
		doors := []*Door{NewDoor(hs[0]), NewDoor(hs[1]), NewDoor(hs[2])}
		connect(t, hs...)
		r := rollOf(hs...)
		ns := []*node{startAt(t, doors[0], testTag, r), startAt(t, doors[1], testTag, r)}
		time.Sleep(time.Minute) // they have given the third up
		ns = append(ns, startAt(t, doors[2], testTag, r))
		defer leaveAll(t, ns)
		time.Sleep(settle)
		ns[0].say(t, "to the late")
		ns[2].say(t, "from the late")
		time.Sleep(time.Second)
		require.Equal(t, 1, ns[2].heardOf("to the late"))
		require.Equal(t, 1, ns[0].heardOf("from the late"))
	})
}

// A member admitted while it is connected isn't locked out, whichever side
// learns of it first.
func TestLateAdmission(t *testing.T) {
	bubble(t, 3, func(t *testing.T, hs []host.Host) {
		late := hs[2].ID()
		ns := []*node{start(t, hs[0], rollOf(hs[:2]...)), start(t, hs[1], rollOf(hs[:2]...)), start(t, hs[2], rollOf(hs...))}
		defer leaveAll(t, ns)
		connect(t, hs...)
		time.Sleep(time.Minute)
		ns[0].say(t, "before")
		time.Sleep(time.Second)
		require.Equal(t, 1, ns[1].heardOf("before"))
		require.Zero(t, ns[2].heardOf("before"))

		for _, n := range ns[:2] {
			n.roll.put(late, true)
			n.view.Arrive(late)
		}
		time.Sleep(settle)
		ns[0].say(t, "after")
		ns[2].say(t, "thanks")
		time.Sleep(time.Second)
		require.Equal(t, 1, ns[2].heardOf("after"))
		require.Equal(t, 1, ns[1].heardOf("thanks"))
	})
}

// Who is expelled gets nothing and brings nothing, and its connection stays.
func TestExpulsion(t *testing.T) {
	bubble(t, 4, func(t *testing.T, hs []host.Host) {
		ns := startAll(t, hs)
		defer leaveAll(t, ns)
		connect(t, hs...)
		time.Sleep(settle)
		out := hs[3].ID()
		for _, n := range ns[:3] {
			n.roll.put(out, false)
			n.view.Expel(out)
		}
		time.Sleep(time.Second)
		for _, n := range ns[:3] {
			require.NotContains(t, n.mesh.Stats().Mesh, out)
			require.NotContains(t, n.view.Members(), out)
			require.Empty(t, n.view.Network().ConnsToPeer(out))
			require.NotContains(t, n.mesh.pubsub.ListPeers(""), out)
			require.NotEmpty(t, n.Network().ConnsToPeer(out))
		}
		ns[0].say(t, "secret")
		ns[3].say(t, "injected")
		time.Sleep(time.Minute)
		require.Equal(t, 1, ns[1].heardOf("secret"))
		require.Zero(t, ns[3].heardOf("secret"))
		for _, n := range ns[:3] {
			require.Zero(t, n.heardOf("injected"))
		}

		for _, n := range ns[:3] { // and it may come back
			n.roll.put(out, true)
			n.view.Arrive(out)
		}
		time.Sleep(settle)
		ns[0].say(t, "again")
		time.Sleep(time.Second)
		require.Equal(t, 1, ns[3].heardOf("again"))
	})
}

// A mesh that ends and starts anew on the same host, as after a restart with
// the same peer ID whose old streams linger, is taken back in.
func TestRestartSamePeerID(t *testing.T) {
	bubble(t, 3, func(t *testing.T, hs []host.Host) {
		ns := startAll(t, hs)
		connect(t, hs...)
		time.Sleep(settle)
		for range 8 { // more often than GossipSub would retry by itself
			ns[2].leave(t)
			time.Sleep(time.Second)
			ns[2] = start(t, hs[2], rollOf(hs...))
			time.Sleep(time.Second)
		}
		time.Sleep(2 * greetEvery)
		ns[0].say(t, "welcome")
		ns[2].say(t, "back")
		time.Sleep(time.Second)
		require.Equal(t, 1, ns[2].heardOf("welcome"))
		require.Equal(t, 1, ns[0].heardOf("back"))
		leaveAll(t, ns)
	})
}

// Streams that die again and again, until both sides' GossipSub has given the
// other up, come back while the connection stays.
func TestStreamsFlap(t *testing.T) {
	bubble(t, 2, func(t *testing.T, hs []host.Host) {
		ns := startAll(t, hs)
		defer leaveAll(t, ns)
		connect(t, hs...)
		time.Sleep(settle)
		for range 12 {
			ns[0].mesh.cut(hs[1].ID())
			ns[1].mesh.cut(hs[0].ID())
			time.Sleep(2 * time.Second)
		}
		time.Sleep(2 * greetEvery)
		ns[0].say(t, "still")
		ns[1].say(t, "there")
		time.Sleep(time.Second)
		require.Equal(t, 1, ns[1].heardOf("still"))
		require.Equal(t, 1, ns[0].heardOf("there"))
	})
}

// Two channels on the same hosts don't see each other's messages.
func TestTwoChannels(t *testing.T) {
	bubble(t, 3, func(t *testing.T, hs []host.Host) {
		other := [32]byte{1}
		var ns, os []*node
		for _, h := range hs {
			d := NewDoor(h)
			ns = append(ns, startAt(t, d, testTag, rollOf(hs...)))
			os = append(os, startAt(t, d, other, rollOf(hs...), func(c *MeshConfig) { c.Tag = other }))
		}
		defer leaveAll(t, ns)
		defer func() {
			for _, o := range os {
				o.stop()
				<-o.done
				require.NoError(t, o.view.Close())
			}
		}()
		connect(t, hs...)
		time.Sleep(settle)
		ns[0].say(t, "here")
		os[0].say(t, "there")
		time.Sleep(time.Second)
		require.Equal(t, 1, ns[1].heardOf("here"))
		require.Zero(t, ns[1].heardOf("there"))
		require.Equal(t, 1, os[1].heardOf("there"))
		require.Zero(t, os[1].heardOf("here"))
	})
}

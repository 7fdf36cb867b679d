package channel

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	"grapevine/wire"
)

// refusals collects what a door refused.
func refusals(d *Door) chan *wire.Reason {
	c := make(chan *wire.Reason, 1024)
	d.OnRefused(func(_ peer.ID, r *wire.Reason) { c <- r })
	return c
}

// W6 and the like at the door: what a stranger gets is one and the same reset;
// the reason is ours alone.
func TestDoorFirstFrame(t *testing.T) {
	for _, c := range []struct {
		name  string
		bytes []byte
		slow  bool // one byte a second
		want  *wire.Reason
		after time.Duration // at most
	}{
		{"W1", []byte{0}, false, wire.Empty, time.Second},
		{"W3", []byte{firstFrame + 1}, false, wire.TooLarge, time.Second},
		{"W4", []byte{0xff, 0xff, 0xff, 0xff, 0x07}, false, wire.TooLarge, time.Second},
		{"W5", []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, false, wire.BadVarint, time.Second},
		{"W6", []byte{20, 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j'}, true, wire.Stalled, firstFrameTime + 2*time.Second},
		{"W6 silent", []byte{1}, true, wire.Stalled, firstFrameTime + 2*time.Second},
		{"G16", wire.AppendFrame(nil, []byte("/floodsub/1.0.0")), false, OldProtocol, time.Second},
		{"unknown channel", wire.AppendFrame(nil, []byte(wire.ProtocolID([32]byte{9}, wire.KindMesh))), false, UnknownChannel, time.Second},
		{"unknown kind", wire.AppendFrame(nil, []byte(wire.ProtocolID(testTag, "x"))), false, UnknownChannel, time.Second},
		{"no member", wire.AppendFrame(nil, []byte(wire.ProtocolID(testTag, wire.KindBlocks))), false, NotMember, time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, 2, func(t *testing.T, hs []host.Host) {
				d := NewDoor(hs[0])
				refused := refusals(d)
				d.Open(testTag, func(peer.ID) bool { return false }).Handle(wire.KindBlocks, echo)
				connect(t, hs...)
				s, err := hs[1].NewStream(context.Background(), hs[0].ID(), wire.DoorID)
				require.NoError(t, err)
				begin := time.Now()
				for i := range c.bytes {
					if _, err := s.Write(c.bytes[i : i+1]); err != nil {
						break // it was reset meanwhile
					}
					if c.slow {
						time.Sleep(time.Second)
					}
				}
				got, err := io.ReadAll(s)
				require.Empty(t, got)
				var code *network.StreamError
				require.ErrorAs(t, err, &code)
				require.Equal(t, network.StreamProtocolNegotiationFailed, code.ErrorCode)
				require.Less(t, time.Since(begin), c.after)
				require.Same(t, c.want, <-refused)
				require.Empty(t, refused)
				require.NoError(t, d.Close())
			})
		})
	}
}

// One peer can't hold more streams in suspense than its share.
func TestDoorWaitingIsBounded(t *testing.T) {
	bubble(t, 3, func(t *testing.T, hs []host.Host) {
		d := NewDoor(hs[0])
		refused := refusals(d)
		d.Open(testTag, rollOf(hs...).has).Handle(wire.KindBlocks, echo)
		connect(t, hs...)
		for range 2 * waitingPerPeer {
			s, err := hs[1].NewStream(context.Background(), hs[0].ID(), wire.DoorID)
			require.NoError(t, err)
			_, err = s.Write([]byte{20})
			require.NoError(t, err)
		}
		time.Sleep(time.Second)
		require.Len(t, refused, waitingPerPeer)
		require.Same(t, DoorBusy, <-refused)

		other := NewDoor(hs[2]) // another peer has its own share
		s, err := other.Open(testTag, rollOf(hs...).has).Stream(context.Background(), hs[0].ID(), wire.KindBlocks)
		require.NoError(t, err)
		talk(t, s)
		time.Sleep(firstFrameTime)
		d.mu.Lock()
		require.Empty(t, d.waiting)
		d.mu.Unlock()
		require.NoError(t, other.Close())
		require.NoError(t, d.Close())
	})
}

// talk sends a line over an echo stream and ends it.
func talk(t *testing.T, s network.Stream) {
	t.Helper()
	_, err := s.Write([]byte("hello"))
	require.NoError(t, err)
	require.NoError(t, s.CloseWrite())
	got, err := io.ReadAll(s)
	require.NoError(t, err)
	require.Equal(t, "hello", string(got))
	require.NoError(t, s.Close())
}

// Streams of other kinds go through the same door, and forget themselves.
func TestViewStreams(t *testing.T) {
	bubble(t, 2, func(t *testing.T, hs []host.Host) {
		r := rollOf(hs...)
		a, b := NewDoor(hs[0]), NewDoor(hs[1])
		va, vb := a.Open(testTag, r.has), b.Open(testTag, r.has)
		va.Handle(wire.KindBlocks, echo)
		connect(t, hs...)
		for range 3 {
			s, err := vb.Stream(context.Background(), hs[0].ID(), wire.KindBlocks)
			require.NoError(t, err)
			require.Equal(t, wire.ProtocolID(testTag, wire.KindBlocks), string(s.Protocol()))
			talk(t, s)
		}
		time.Sleep(time.Second)
		require.Empty(t, va.open())
		require.Empty(t, vb.open())

		s, err := vb.Stream(context.Background(), hs[0].ID(), wire.KindBlocks)
		require.NoError(t, err)
		_, err = s.Write([]byte("half"))
		require.NoError(t, err)
		time.Sleep(time.Second)
		require.Len(t, va.open(), 1)
		r.put(hs[1].ID(), false)
		va.Expel(hs[1].ID())
		_, err = io.ReadAll(s)
		require.Error(t, err, "expulsion resets what is open")
		_, err = va.Stream(context.Background(), hs[1].ID(), wire.KindBlocks)
		require.ErrorIs(t, err, NotMember)
		require.ErrorIs(t, va.Connect(context.Background(), peer.AddrInfo{ID: hs[1].ID()}), NotMember)
		require.NotEmpty(t, hs[0].Network().ConnsToPeer(hs[1].ID()), "the connection stays for other channels")

		require.NoError(t, va.Close())
		require.NoError(t, va.Close(), "closing twice is closing once")
		_, err = va.NewStream(context.Background(), hs[1].ID(), "x")
		require.Error(t, err)
		require.NoError(t, a.Close())
		require.NoError(t, b.Close())
	})
}

// A connection's end leaves nothing behind.
func TestViewDisconnect(t *testing.T) {
	bubble(t, 2, func(t *testing.T, hs []host.Host) {
		r := rollOf(hs...)
		a, b := NewDoor(hs[0]), NewDoor(hs[1])
		va, vb := a.Open(testTag, r.has), b.Open(testTag, r.has)
		held := make(chan network.Stream, 1)
		va.Handle(wire.KindBlocks, func(s network.Stream) { held <- s }) // it keeps the stream and returns
		seen := make(chan string, 8)
		va.Network().Notify(&network.NotifyBundle{
			ConnectedF:    func(network.Network, network.Conn) { seen <- "connected" },
			DisconnectedF: func(network.Network, network.Conn) { seen <- "disconnected" },
		})
		connect(t, hs...)
		require.Equal(t, "connected", <-seen)
		s, err := vb.Stream(context.Background(), hs[0].ID(), wire.KindBlocks)
		require.NoError(t, err)
		_, err = s.Write([]byte("x"))
		require.NoError(t, err)
		<-held
		require.Equal(t, []peer.ID{hs[1].ID()}, va.Members())
		require.Len(t, va.open(), 1)
		require.NoError(t, hs[1].Network().ClosePeer(hs[0].ID()))
		require.Equal(t, "disconnected", <-seen)
		time.Sleep(time.Second)
		require.Empty(t, va.open())
		require.Empty(t, va.Members())
		require.NoError(t, a.Close())
		require.NoError(t, b.Close())
	})
}

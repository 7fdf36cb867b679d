package channel

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/stretchr/testify/require"

	"grapevine/block"
	"grapevine/wire"
)

// FuzzTopicValidator: whatever comes on a topic gets a verdict, the same each
// time; what is accepted is within the window, true, and new only once.
func FuzzTopicValidator(f *testing.F) {
	j := newJudged(f)
	for _, a := range []*wire.Announcement{
		j.inline(j.block(5, 100, 0, 0)), j.inline(j.block(12, 1, 1, 0)), j.inline(j.block(4, 100, 0, 0)),
		j.inline(j.block(7, 100, 0, 6)), j.large(j.block(6, big, 0, 0), big),
		{Tag: testTag[:]},
		{},
	} {
		f.Add(encode(f, a))
	}
	f.Add(encode(f, &wire.SignedAlive{Alive: []byte("a"), Certificate: []byte("c"), Signature: []byte("s"), Chain: [][]byte{{1}, {2}}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		fresh := func() *judge {
			return &judge{tag: j.tag, member: j.member, rules: j.judge.rules, height: j.height, window: j.window, known: j.known, roots: oneRoot}
		}
		k := fresh()
		told, err := k.announcement(relayPeer, data)
		_, again := fresh().announcement(relayPeer, data)
		require.Equal(t, wire.ReasonOf(err), wire.ReasonOf(again))
		if a, err := k.alive(relayPeer, data); err == nil {
			require.Equal(t, data, encode(t, a))
		}
		if err != nil {
			require.NotNil(t, wire.ReasonOf(err), "every refusal has its reason: %v", err)
			require.Zero(t, told)
			return
		}
		_, twice := k.announcement(relayPeer, data)
		require.ErrorIs(t, twice, block.Stale)
		require.True(t, (told.Checked == nil) != (told.Header == nil))
		if told.Checked != nil {
			require.GreaterOrEqual(t, told.Checked.Number(), uint64(5))
			require.Less(t, told.Checked.Number(), uint64(13))
		}
	})
}

// FuzzChannelTag: whatever a stranger sends as its first frame, in whatever
// pieces, it gets the one reset and nothing else; a member gets in by the exact
// frame alone.
func FuzzChannelTag(f *testing.F) {
	mesh := wire.ProtocolID(testTag, wire.KindMesh)
	for _, id := range []string{mesh, mesh + "x", mesh[:len(mesh)-1], wire.ProtocolID(testTag, wire.KindBlocks), wire.ProtocolID([32]byte{}, wire.KindMesh), "/floodsub/1.0.0"} {
		f.Add(append(wire.AppendFrame(nil, []byte(id)), "body"...), true)
	}
	f.Add([]byte{}, false)
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, false)
	f.Add([]byte{0x80, 0x00}, true)
	f.Fuzz(func(t *testing.T, data []byte, member bool) {
		d := &Door{routes: make(map[protocol.ID]route), views: make(map[[32]byte]*View), waiting: make(map[peer.ID]streamSet)}
		served := 0
		v := &View{door: d, tag: testTag, isMember: func(peer.ID) bool { return member }, streams: make(map[*stream]struct{}), host: lone{}}
		d.set(protocol.ID(wire.ProtocolID(testTag, wire.KindBlocks)), v, func(s network.Stream) {
			served++
			rest, err := io.ReadAll(s)
			require.NoError(t, err)
			require.True(t, bytes.HasSuffix(data, rest))
			_ = s.Close()
		})
		s := &fakeStream{in: bytes.NewReader(data)}
		d.serve(s)
		exact := wire.AppendFrame(nil, []byte(wire.ProtocolID(testTag, wire.KindBlocks)))
		if member && bytes.HasPrefix(data, exact) {
			require.Equal(t, 1, served)
			require.Zero(t, s.code)
		} else {
			require.Zero(t, served)
			require.Equal(t, network.StreamProtocolNegotiationFailed, s.code)
		}
		require.Empty(t, s.out)
		require.Empty(t, d.waiting)
		require.Empty(t, v.open())
	})
}

// fakeStream is a stream that was opened by a peer and holds some bytes.
type fakeStream struct {
	network.Stream
	in   *bytes.Reader
	out  []byte
	code network.StreamErrorCode
}

func (s *fakeStream) Read(b []byte) (int, error) { return s.in.Read(b) }
func (s *fakeStream) Write(b []byte) (int, error) {
	s.out = append(s.out, b...)
	return len(b), nil
}
func (s *fakeStream) Close() error                    { return nil }
func (s *fakeStream) Reset() error                    { return nil }
func (s *fakeStream) SetReadDeadline(time.Time) error { return nil }
func (s *fakeStream) Conn() network.Conn              { return fakeConn{} }
func (s *fakeStream) Scope() network.StreamScope      { return &network.NullScope{} }
func (s *fakeStream) Stat() network.Stats             { return network.Stats{Direction: network.DirInbound} }

func (s *fakeStream) ResetWithError(c network.StreamErrorCode) error {
	if s.code != 0 {
		return errors.New("reset twice")
	}
	s.code = c
	return nil
}

type fakeConn struct{ network.Conn }

func (fakeConn) RemotePeer() peer.ID { return "remote" }

// lone is a host of which only the ID is asked.
type lone struct{ host.Host }

func (lone) ID() peer.ID { return "self" }

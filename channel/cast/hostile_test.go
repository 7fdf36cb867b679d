package cast

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	"grapevine/block"
	"grapevine/wire"
)

// TestHostileFrames: everything that a member can send, with its verdict. The
// ids are the catalogue's group K; each is counted once under its reason.
func TestHostileFrames(t *testing.T) {
	p := &play{t: t}
	h, code := p.head(1, 100<<10, &actor{id: "leader"})
	id := h.id()
	frame := func(k int, edit func(*chunk)) []byte {
		ch := chunk{session: id, index: k, hop: hopKeep, data: bytes.Clone(code.segs[0].chunks[k])}
		ch.levels, ch.hashes = code.segs[0].tree.path(k, newTree(code.Shape.N(), code.Roots).known)
		if edit != nil {
			edit(&ch)
		}
		return append(appendChunk(nil, ch), ch.data...)
	}
	for _, c := range []struct {
		name   string
		frames []byte
		want   *wire.Reason // nil: Accept
		ends   bool         // the stream
	}{
		{"a chunk", frame(3, nil), nil, false},
		{"K1 unknown frame", []byte{99}, BadFrame, true},
		{"K1 type 0", []byte{0}, BadFrame, true},
		{"K2 hop beyond the last", frame(3, func(c *chunk) { c.hop = hops }), BadFrame, true},
		{"K2 index beyond the last", frame(3, func(c *chunk) { c.index = 44 }), BadFrame, true},
		{"K2 segment beyond the last", frame(3, func(c *chunk) { c.segment = 1 }), BadFrame, true},
		{"K2 another length", frame(3, func(c *chunk) { c.data = c.data[1:] }), BadFrame, true},
		{"K2 length 2^32-1", append(appendChunk(nil, chunk{session: id})[:15], 0xff, 0xff, 0xff, 0xff), BadFrame, true},
		{"K2 levels the tree hasn't", frame(3, func(c *chunk) { c.levels, c.hashes = 0xff, make([]hash, 8) }), BadFrame, true},
		{"K4 altered data", frame(3, func(c *chunk) { c.data[0] ^= 1 }), BadChunk, false},
		{"K4 altered path", frame(3, func(c *chunk) { c.hashes[0][0] ^= 1 }), BadChunk, false},
		{"K4 another's place", frame(3, func(c *chunk) { c.index = 4 }), BadChunk, false},
		{"K5 no path", frame(3, func(c *chunk) { c.levels, c.hashes = 0, nil }), NoPath, false},
		{"K6 twice", append(frame(3, nil), frame(3, nil)...), Duplicate, false},
		{"K7 asks to pass on what isn't its own", frame(3, func(c *chunk) { c.hop = hopAll }), NotOrigin, false},
		{"K8 cut off", frame(3, nil)[:200], wire.Truncated, true},
		{"K9 asks for a segment beyond the last", appendNeed(nil, id, 7, newBitset(256)), BadFrame, false},
		{"K10 asks for ever", bytes.Repeat(appendWord(nil, frameAsk, uint64(id)), headsMost+1), RateLimit, false},
		{"K11 a flood of words", bytes.Repeat(appendWord(nil, frameDone, 7), framesAtOnce+framesPerSecond), RateLimit, true},
		{"K12 an announcement of 4 GiB", append([]byte{byte(frameHead), byte(hopKeep)}, 0xff, 0xff, 0xff, 0xff), BadFrame, true},
		{"K12 an announcement to be passed to organisations", appendHead(nil, hopOrgs, []byte("x")), BadFrame, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			cast, refused := quietCast(t)
			cast.Arrived("liar", "org1")
			cast.Announced(h)
			s := &fakeStream{in: bytes.NewReader(c.frames)}
			cast.Serve(s, "liar")
			cast.mu.Lock()
			for _, fx := range cast.todo {
				if fx, ok := fx.(fxRefuse); ok {
					refused[fx.reason.Code()]++
				}
			}
			count := cast.core.sessions[id].segs[0].count
			cast.mu.Unlock()
			if c.want == nil {
				require.Empty(t, refused)
				require.Equal(t, 1, count)
				return
			}
			require.Equal(t, map[string]int{c.want.Code(): 1}, refused)
			require.Equal(t, c.ends, s.reset, "the stream ends")
		})
	}
}

// TestHostileLeaders: what who announces can do, with its verdict.
func TestHostileLeaders(t *testing.T) {
	w := newWorks(t)
	t.Run("K13 sessions beyond the limit", func(t *testing.T) {
		b := newBystander(t, 1, w)
		pulls, turned := 0, 0
		for n := range uint64(2 * perAnnouncer) {
			h := (&play{}).announce(w.blocks[0], w.codes[0][0], &actor{id: "leader"})
			h.Number, h.Hash = n, [32]byte{byte(n)}
			for _, fx := range b.c.step(evAnnounced{h}, b.now) {
				switch fx := fx.(type) {
				case fxPull:
					pulls++
				case fxRefuse:
					require.Same(t, TooMany, fx.reason)
					turned++
				}
			}
		}
		require.Len(t, b.c.sessions, perAnnouncer)
		require.Equal(t, perAnnouncer, turned)
		require.Equal(t, perAnnouncer, pulls, "their blocks are pulled")
	})
	t.Run("K14 an encoding that gives another body", func(t *testing.T) {
		p := newPlay(t, 1, 6, 1)
		h, _ := p.head(1, 20<<10, p.nodes[0])
		lie, err := p.coder.Encode(pattern(int(h.Size)))
		require.NoError(t, err)
		false1 := p.announce(h.Block, lie, p.nodes[0])
		p.nodes[0].cast(false1, lie)
		p.run(10 * time.Second)
		for _, a := range p.nodes[1:] {
			require.Equal(t, 1, a.lies)
			require.Equal(t, 1, a.pulls[1], "no more than one pull")
			require.Contains(t, a.core.barred, p.nodes[0].id)
			require.Equal(t, 1, a.refused[BadEncoding.Code()])
		}
	})
	t.Run("K15 barred", func(t *testing.T) {
		p := newPlay(t, 2, 3, 1)
		h, code := p.head(1, 20<<10, p.nodes[0])
		p.nodes[1].step(evBarred{p.nodes[0].id})
		p.nodes[0].cast(h, code)
		p.run(10 * time.Second)
		require.Equal(t, 1, p.nodes[1].refused[Barred.Code()])
		require.Contains(t, p.nodes[1].got, uint64(1), "it is pulled")
	})
	t.Run("K16 more than the budget", func(t *testing.T) {
		cast, _ := quietCast(t)
		cast.conf.Budget = NewBudget(100 << 10)
		p := &play{t: t}
		for n := range uint64(3) {
			h, _ := p.head(n, 60<<10, &actor{id: "leader"})
			cast.Announced(h)
		}
		require.Len(t, cast.core.sessions, 1)
		require.LessOrEqual(t, cast.conf.Budget.Taken(), int64(100<<10))
	})
}

// quietCast is a Cast that isn't run, and what it refuses.
func quietCast(t testing.TB) (*Cast, map[string]int) {
	refused := map[string]int{}
	c, err := New(Config{
		Self: "self", Org: "org0", Rules: func() *block.Rules { return nil },
		Open:    func(context.Context, peer.ID) (network.Stream, error) { return nil, errors.New("nobody") },
		Told:    func(peer.ID, []byte) error { return wire.NotCanonical },
		Tell:    func(context.Context, *Head) error { return nil },
		Deliver: func(*block.Checked, Arrival) {}, Pull: func(*Head, []peer.ID) {}, Expect: func(uint64, time.Time) {},
		Refused: func(_ peer.ID, r *wire.Reason) { refused[r.Code()]++ },
	})
	require.NoError(t, err)
	return c, refused
}

// FuzzFrames: whatever a member sends, it is taken or refused with a reason, and
// nothing is kept of it that wasn't announced.
func FuzzFrames(f *testing.F) {
	p := &play{t: f}
	h, code := p.head(1, 9<<10, &actor{id: "leader"})
	ch := chunk{session: h.id(), index: 3, hop: hopAll, data: code.segs[0].chunks[3]}
	f.Add(append(appendChunk(nil, ch), ch.data...))
	f.Add(appendNeed(nil, h.id(), 0, newBitset(256)))
	f.Add(appendHead(nil, hopEnter, []byte("announcement")))
	f.Add(appendWord(appendWord(appendWord(nil, frameDone, uint64(h.id())), framePing, 1), framePong, 2))
	f.Add(binary.BigEndian.AppendUint64(nil, 1<<63))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, _ := quietCast(t)
		c.Arrived("leader", "org1")
		c.Announced(h)
		c.Serve(&fakeStream{in: bytes.NewReader(data)}, "leader")
		c.core.check(t)
		for i, b := range c.core.sessions[h.id()].segs[0].chunks {
			if b != nil {
				require.Equal(t, code.segs[0].chunks[i], b)
			}
		}
		require.LessOrEqual(t, c.core.parked.bytes, parkBytes)
	})
}

// fakeStream is a stream that was opened by a peer and holds some bytes.
type fakeStream struct {
	network.Stream
	in    io.Reader
	reset bool
}

func (s *fakeStream) Read(b []byte) (int, error)      { return s.in.Read(b) }
func (s *fakeStream) Close() error                    { return nil }
func (s *fakeStream) SetReadDeadline(time.Time) error { return nil }
func (s *fakeStream) Scope() network.StreamScope      { return &network.NullScope{} }
func (s *fakeStream) Reset() error {
	s.reset = true
	return nil
}

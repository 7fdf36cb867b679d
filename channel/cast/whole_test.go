package cast

import (
	"bytes"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	"grapevine/block"
	"grapevine/wire"
)

// TestHostileParts: what a member can send of a body that isn't cut into chunks.
func TestHostileParts(t *testing.T) {
	p := &play{t: t}
	h, code := p.head(1, 100<<10, &actor{id: "leader"})
	id, size := h.id(), len(code.body)
	part := func(at, n int) []byte {
		return append(appendPart(nil, id, at, n), make([]byte, n)...)
	}
	for _, c := range []struct {
		name   string
		from   peer.ID
		frames []byte
		want   *wire.Reason // nil: Accept
		ends   bool         // the stream
		placed int
	}{
		{"a part", "leader", part(0, 1000), nil, false, 1000},
		{"two parts", "leader", append(part(0, 1000), part(1000, 7)...), nil, false, 1007},
		{"K17 beyond the body", "leader", part(size-10, 11), BadFrame, true, 0},
		{"K17 offset 2^32-1", "leader", append(appendPart(nil, id, 0, 1)[:9], 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0), BadFrame, true, 0},
		{"K17 empty", "leader", part(0, 0), BadFrame, true, 0},
		{"K17 longer than a part may be", "leader", appendPart(nil, id, 0, maxPart+1), BadFrame, true, 0},
		{"K17 cut off", "leader", part(0, 1000)[:500], wire.Truncated, true, 1000},
		{"K18 not its announcer's", "liar", part(0, 1000), NotOrigin, false, 0},
		{"K18 begins in the middle", "leader", part(1000, 1000), Duplicate, false, 0},
		{"K18 again", "leader", append(part(0, 1000), part(0, 1000)...), Duplicate, false, 1000},
		{"K18 leaves some out", "leader", append(part(0, 1000), part(2000, 1000)...), Duplicate, false, 1000},
	} {
		t.Run(c.name, func(t *testing.T) {
			cast, refused := quietCast(t)
			cast.Arrived(c.from, "org1")
			cast.Announced(h)
			s := &fakeStream{in: bytes.NewReader(c.frames)}
			cast.Serve(s, c.from)
			placed := 0
			if d := cast.core.sessions[id].direct; d != nil {
				placed = d.next
			}
			require.Equal(t, c.placed, placed)
			require.Equal(t, c.ends, s.reset, "the stream ends")
			if c.want == nil {
				require.Empty(t, refused)
				return
			}
			require.Equal(t, map[string]int{c.want.Code(): 1}, refused)
		})
	}
}

// TestWrongBody: a body that isn't the announced one counts against who sent it,
// one that is announced and false against who announced it; either way the block
// comes, by no more than one pull.
func TestWrongBody(t *testing.T) {
	for name, announced := range map[string]bool{"K19 not what was announced": false, "K19 an encoding of another body": true} {
		t.Run(name, func(t *testing.T) {
			p := newPlay(t, 1, 5, 1)
			liar := p.nodes[0]
			h, code := p.head(1, 16<<10, liar)
			lie, err := p.coder.Encode(pattern(int(h.Size)))
			require.NoError(t, err)
			if announced {
				h, code = p.announce(h.Block, lie, liar), lie
			} else {
				code = &Encoding{Shape: code.Shape, Roots: code.Roots, body: lie.body, segs: code.segs}
			}
			liar.core.paces.link.rate = mostRate // so it goes whole
			liar.cast(h, code)
			p.run(20 * time.Second)
			for _, a := range p.nodes[1:] {
				require.Contains(t, a.got, uint64(1))
				require.LessOrEqual(t, a.pulls[1], 1)
				require.Contains(t, a.core.barred, liar.id)
				if announced {
					require.Equal(t, 1, a.lies)
					require.Equal(t, 1, a.refused[BadEncoding.Code()])
					require.NoError(t, p.coder.Refute(&block.Rules{}, a.proof, saying(h)))
				} else {
					require.Zero(t, a.lies)
					require.Equal(t, 1, a.refused[BadBody.Code()])
				}
			}
		})
	}
}

// TestShellTellsLies: the shell tells a body that its announcer announced from
// one that he didn't.
func TestWrongBodyShell(t *testing.T) {
	p := &play{t: t}
	h, code := p.head(1, 16<<10, &actor{id: "leader"})
	for _, announced := range []bool{false, true} {
		c, _ := quietCast(t)
		slab, err := newSlab(code.Shape, h.Block)
		require.NoError(t, err)
		d := &direct{from: "leader", raw: slab.lay()}
		copy(slab.body(d.raw), pattern(code.Shape.Size))
		head := *h
		if announced {
			lie, err := p.coder.Encode(slab.body(d.raw))
			require.NoError(t, err)
			head.Roots = lie.Roots
		}
		e := c.judge(fxJudge{head: &head, slab: slab, direct: d}).(evJudged)
		require.Error(t, e.err)
		require.Equal(t, announced, e.lie)
		require.Equal(t, !announced, e.wrong == "leader")
	}
}

// TestChunksOfAWholeBody: who got a body whole makes chunks of it for who asks.
func TestChunksOfAWholeBody(t *testing.T) {
	p := newPlay(t, 3, 4, 1)
	leader, late := p.nodes[0], p.nodes[3]
	h, code := p.head(1, 16<<10, leader)
	p.mess = func(from, to *actor, fx effect) bool { // its body is lost
		_, ok := fx.(fxPart)
		return ok && to == late
	}
	leader.core.paces.link.rate = mostRate
	leader.cast(h, code)
	p.after(60*time.Millisecond, func() { // and the leader is gone
		leader.dead = true
		for _, a := range p.nodes[1:] {
			a.step(evLeft{leader.id})
		}
	})
	p.run(20 * time.Second)
	require.Contains(t, late.got, uint64(1))
	require.Zero(t, late.pulls[1], "it came in chunks, from those who have it")
	p.settled()
}

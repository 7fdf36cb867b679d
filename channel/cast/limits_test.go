package cast

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestShareOfWork: a leader can't make one member pass everything on, and nobody
// fills a member with chunks that were never announced.
func TestShareOfWork(t *testing.T) {
	t.Run("K20 all chunks to one relay", func(t *testing.T) {
		p := newPlay(t, 1, 30, 1)
		leader, relay := p.nodes[0], p.nodes[1]
		h, code := p.head(1, 1<<20, leader)
		relay.step(evAnnounced{h})
		passed, over := map[piece]bool{}, 0
		for k := range code.Shape.N() {
			ch := chunk{session: h.id(), index: k, hop: hopAll, data: code.segs[0].chunks[k]}
			ch.levels, ch.hashes = code.segs[0].tree.path(k, newTree(code.Shape.N(), code.Roots).known)
			ch.leaf = leafOf(ch.data)
			for _, fx := range relay.core.step(evChunk{leader.id, ch}, p.now) {
				switch fx := fx.(type) {
				case fxChunk:
					passed[fx.piece] = true
				case fxRefuse:
					if fx.reason == OverShare {
						over++
					}
				}
			}
		}
		share := code.Shape.N()/(len(p.nodes)-1) + 1
		require.GreaterOrEqual(t, len(passed), share)
		require.LessOrEqual(t, len(passed), shareFactor*share+shareSpare)
		require.Equal(t, code.Shape.N()-len(passed), over)
	})
	t.Run("K3 chunks that nobody announced", func(t *testing.T) {
		p := newPlay(t, 1, 3, 1)
		victim, liar := p.nodes[0], p.nodes[1]
		data := make([]byte, 40<<10)
		refused := 0
		for k := range 100 {
			for _, fx := range victim.core.step(evChunk{liar.id, chunk{session: sessionID(k), data: data}}, p.now) {
				if fx, ok := fx.(fxRefuse); ok {
					require.Same(t, Unknown, fx.reason)
					refused++
				}
			}
		}
		require.LessOrEqual(t, victim.core.parked.bytes, parkBytes)
		require.Equal(t, 100-parkBytes/len(data), refused)
		p.now = p.now.Add(2 * parkTime)
		victim.core.step(evTick{}, p.now)
		require.Zero(t, victim.core.parked.bytes, "they wait for a while only")
	})
}

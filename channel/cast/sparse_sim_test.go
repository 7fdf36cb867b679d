package cast

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestSimSparse casts in a channel whose members don't all know each other: each
// organisation's first member, its anchor, is connected to all, and the others to
// a quarter of the channel, beside their own organisation. The leader is an anchor,
// so few of the others know anybody of its organisation but itself. A body
// comes to them as it does to everybody, without being asked for. Two in five know
// nobody of another organisation but its anchor, which hands what it is sent
// beyond its part of a large body to others: no anchor sends much more than they do.
func TestSimSparse(t *testing.T) {
	const n, orgs = 200, 40
	var last *play
	sparse := func(p *play) {
		last = p
		for i, a := range p.nodes {
			for j, b := range p.nodes[:i] {
				if i >= orgs && j >= orgs && i%orgs != j%orgs && p.rng.IntN(4) > 0 {
					delete(a.core.members, b.id)
					delete(b.core.members, a.id)
				}
			}
		}
		for _, a := range p.nodes {
			for _, b := range p.nodes[:orgs] {
				if m := a.core.members[b.id]; m != nil {
					m.hub = true
				}
			}
			a.core.regroup()
		}
	}
	for kib, most := range map[int]time.Duration{16: 125 * time.Millisecond, 128: 125 * time.Millisecond, 1 << 10: 300 * time.Millisecond} {
		f := casts(t, n, orgs, kib<<10, 3, sparse)
		t.Logf("%d KiB: %v", kib, f)
		require.LessOrEqual(t, f.at(1), most)
		require.Zero(t, f.pulls)
		require.Less(t, f.copies, 1.6)
		var anchors, others int64
		for i, a := range last.nodes[1:] {
			if i+1 < orgs {
				anchors = max(anchors, a.sent)
			} else {
				others += a.sent / (n - orgs)
			}
		}
		most := float64(anchors) / float64(others)
		t.Logf("an anchor sends at most %.2f times what others do", most)
		if kib == 1<<10 {
			require.Less(t, most, 1.3)
		}
	}
}

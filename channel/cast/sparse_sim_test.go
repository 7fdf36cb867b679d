package cast

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"grapevine/itest/figures"
)

// TestSimSparse casts in a channel whose members don't all know each other: each
// organisation's first member, its anchor, is connected to all, and the others to
// a quarter of the channel, beside their own organisation. The leader is an anchor,
// so few of the others know anybody of its organisation but itself. A body
// comes to them as it does to everybody, without being asked for. Two in five know
// nobody of another organisation but its anchor, which hands what it is sent
// beyond its part of a large body to others: no anchor sends much more than they
// do. With make sim there are also 1000 members, of whom nearly all know the
// anchors alone.
func TestSimSparse(t *testing.T) {
	ms := time.Millisecond
	for kib, limit := range map[int]time.Duration{16: 125 * ms, 128: 125 * ms, 1 << 10: 300 * ms, 2 << 10: 450 * ms} {
		more := sparse(t, 200, 40, 4, kib, limit)
		if kib == 1<<10 {
			require.Less(t, more, 1.3)
		}
	}
	if figures.Long() {
		sparse(t, 1000, 100, 40, 16, 150*ms)
		require.Less(t, sparse(t, 1000, 100, 40, 128, 200*ms), 4.0)
	}
}

// sparse casts blocks that all of n members have after limit, where one in few
// knows another that is no anchor. It returns how many times what the others send
// an anchor sends at most.
func sparse(t *testing.T, n, orgs, few, kib int, limit time.Duration) float64 {
	var last *play
	f := casts(t, n, orgs, kib<<10, 3, func(p *play) {
		last = p
		p.part(orgs, few)
	})
	var anchors, others int64
	for i, a := range last.nodes[1:] {
		if i+1 < orgs {
			anchors = max(anchors, a.sent)
		} else {
			others += a.sent / int64(n-orgs)
		}
	}
	more := float64(anchors) / float64(others)
	t.Logf("%d members, %d KiB: %v; an anchor sends at most %.2f times what others do", n, kib, f, more)
	require.LessOrEqual(t, f.at(1), limit)
	require.Zero(t, f.pulls)
	require.Less(t, f.copies, 1.6)
	return more
}

// part leaves one in few connections between members of different organisations
// of which neither is an anchor: the first orgs nodes are.
func (p *play) part(orgs, few int) {
	for i, a := range p.nodes {
		for j, b := range p.nodes[:i] {
			if i >= orgs && j >= orgs && i%orgs != j%orgs && p.rng.IntN(few) > 0 {
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

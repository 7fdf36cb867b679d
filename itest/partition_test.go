package itest

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"grapevine/itest/figures"
	"grapevine/membership"
	"grapevine/node"
)

// sees returns how a node sees another; Left if it has never heard of it.
func (s *sim) sees(i, j int) membership.State {
	for _, m := range s.Peers[i].Channel.Members() {
		if m.Peer == s.Peers[j].Node.PeerID() {
			return m.State
		}
	}
	return membership.Left
}

// views counts the pairs of running nodes of which the first sees the second
// alive, and all pairs.
func (s *sim) views() (alive, all int) {
	running := 0
	for _, p := range s.Peers {
		if p.Node != nil {
			running++
			alive += p.living() - 1
		}
	}
	return alive, running * (running - 1)
}

func (s *sim) whole() bool {
	alive, all := s.views()
	return alive == all
}

// TestSimLongPartition cuts real nodes apart for ten minutes, so that every
// connection breaks and redialling is as slow as it ever gets. After healing
// everybody sees everybody within ten seconds: with anchor peers, and with
// neither bootstrap nor anchor peers.
func TestSimLongPartition(t *testing.T) {
	long := figures.Long()
	var r figures.Records
	defer func() { figures.Save(t, "partition", r) }()
	for _, k := range []struct {
		name  string
		cut   func(a, b int) bool
		quick bool
		dead  bool // those who are cut apart can't know of each other
	}{
		{"halves", func(a, b int) bool { return a%2 != b%2 }, true, true},
		{"bridge", func(a, b int) bool { return a != 1 && b != 1 && a%2 != b%2 }, false, false},
		{"ring", func(a, b int) bool { d := (a - b + 8) % 8; return d != 1 && d != 7 }, false, false},
		{"one way", func(a, b int) bool { return a < 4 && b >= 4 }, false, true},
	} {
		for _, anchored := range []bool{true, false} {
			if !long && (!k.quick || anchored) {
				continue
			}
			t.Run(fmt.Sprintf("%s, anchors %v", k.name, anchored), func(t *testing.T) {
				g := stage{orgs: 2, peers: 4}
				if !anchored {
					g = stage{orgs: 1, peers: 9, anchored: func(int) bool { return false }, tune: func(i int, c *node.Config) {
						c.Bootstrap = []string{simAt(8)} // who leaves before the cut
					}}
				}
				simulateOn(t, g, func(s *sim) {
					s.until("all see all", s.whole)
					if !anchored {
						require.NoError(t, s.Stop(s.Peers[8]))
						s.Peers = s.Peers[:8]
						time.Sleep(10 * time.Second)
					}
					s.lose(k.cut)
					time.Sleep(10 * time.Minute)
					apart := 0
					for i := range s.Peers {
						for j := range s.Peers {
							switch seen := s.sees(i, j); {
							case i == j:
							case !k.cut(i, j) && !k.cut(j, i):
								require.Less(t, seen, membership.Dead, "%d of %d", i, j)
							case k.dead:
								require.Equal(t, membership.Dead, seen, "%d of %d", i, j)
							case seen < membership.Dead:
								apart++
							}
						}
					}
					began := time.Now()
					s.heal()
					s.until("all see all", s.whole)
					took := time.Since(began)
					t.Logf("of those cut apart %d were seen alive; whole again after %v", apart, took)
					r.Add("partition.healed", map[string]any{"nodes": len(s.Peers), "kind": k.name, "anchors": anchored, "minutes": 10},
						"ms until everybody sees everybody", figures.Millis(took))
					require.LessOrEqual(t, took, 10*time.Second)
				})
			})
		}
	}
}

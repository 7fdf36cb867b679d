package membership

import (
	"fmt"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	"grapevine/itest/figures"
)

// meeting lets connections break and be made anew, as nodes do: one that is cut
// breaks when it has been silent for a minute and its last question for ten seconds, and whom to dial
// then is for each peer's Circle to say.
func (s *simulator) meeting() {
	for _, p := range s.peers {
		p.circle = NewCircle(simHost(p.i), "", uint64(p.i), 3*time.Second)
	}
}

func simHost(i int) peer.ID { return peer.ID(fmt.Sprintf("host%06d", i)) }

// divide cuts links, some time before their connections break.
func (s *simulator) divide(cut func(from, to int) bool) {
	s.cut = cut
	for i, p := range s.peers {
		for _, j := range p.here {
			if j < i && (cut(i, j) || cut(j, i)) {
				s.push(simEvent{at: s.clock + 60_000 + s.rng.IntN(10_000), then: func() { s.disconnect(i, j) }})
			}
		}
	}
}

func (s *simulator) disconnect(i, j int) {
	for _, e := range [][2]int{{i, j}, {j, i}} {
		p := s.peers[e[0]]
		p.here = without(p.here, e[1])
		p.mesh = without(p.mesh, e[1])
		if l := p.out[e[1]]; l != nil {
			l.queue = nil
		}
		p.look = s.clock
		s.step(p, event{kind: lose, id: simID(e[1])})
	}
}

func without(all []int, j int) (out []int) {
	for _, i := range all {
		if i != j {
			out = append(out, i)
		}
	}
	return out
}

// dial does what p's circle wants.
func (s *simulator) dial(p *simPeer) {
	if s.clock < p.look {
		return
	}
	here := make(map[int]bool, len(p.here))
	for _, j := range p.here {
		here[j] = true
	}
	var strangers []Member
	for j := range s.peers {
		if j != p.i && !here[j] {
			strangers = append(strangers, Member{Peer: simHost(j), PKIID: simID(j), State: p.d.all[simID(j)].state})
		}
	}
	due, wait := p.circle.Due(strangers, len(p.here), s.now)
	if p.look = s.clock + max(int(wait.Milliseconds()), len(s.peers)); wait == 0 { // in large ones now and then, to save time
		p.look = s.clock + 10_000
	}
	for _, m := range due {
		j := simIndex(m.PKIID)
		took := 100
		if s.cut != nil && (s.cut(p.i, j) || s.cut(j, p.i)) {
			if took = 3_000; lives(m) { // see node/meeting.go
				took = 10_000
			}
		}
		s.push(simEvent{at: s.clock + took, then: func() { s.dialled(p, j, took == 100) }})
	}
}

func (s *simulator) dialled(p *simPeer, j int, well bool) {
	p.circle.Done(simHost(j), s.now)
	p.look = min(p.look, s.clock+len(s.peers))
	for _, k := range p.here {
		well = well && k != j
	}
	if !well {
		return
	}
	q := s.peers[j]
	s.connect(p.i, j)
	if min(len(p.mesh), len(q.mesh)) < simMesh {
		p.mesh, q.mesh = append(p.mesh, j), append(q.mesh, p.i)
	}
	for _, e := range [][2]*simPeer{{p, q}, {q, p}} { // they compare their views
		from, to := e[0], e[1]
		for k := range s.peers {
			n := from.d.number
			if k != from.i {
				x := from.d.all[simID(k)]
				if n = x.number; k == to.i || x.state >= Dead {
					continue
				}
			}
			if !to.knows(k, n) {
				s.send(simEvent{from: from.i, to: to.i, about: k, alive: n})
			}
		}
	}
}

func (p *simPeer) knows(k int, n number) bool {
	x := p.d.all[simID(k)]
	return !x.number.less(n)
}

// beat lets each say a new round to whom it can reach, by others too.
func (s *simulator) beat() {
	for _, p := range s.peers {
		s.refute(p)
	}
}

// wholly says whether everybody sees everybody.
func (s *simulator) wholly() bool {
	for _, p := range s.peers {
		for _, x := range p.d.all {
			if x.state != Alive {
				return false
			}
		}
	}
	return true
}

// TestSimPartition: for ten minutes some can't reach others. Who can still talk
// to each other sees each other alive, and in halves nobody of the other half is.
// When it ends everybody sees everybody within ten seconds, without bootstrap or
// anchor peers: by those they know.
func TestSimPartition(t *testing.T) {
	m := newMeasured(t, "partition")
	for _, n := range []int{12, 200} {
		for name, cut := range map[string]func(a, b int) bool{
			"halves":  func(a, b int) bool { return a%2 != b%2 },
			"one":     func(a, b int) bool { return a == 3 || b == 3 },
			"pair":    func(a, b int) bool { return a+b == 7 && a*b == 12 },
			"bridge":  func(a, b int) bool { return a != 0 && b != 0 && a%2 != b%2 },
			"ring":    func(a, b int) bool { d := (a - b + n) % n; return d != 1 && d != n-1 },
			"one way": func(a, b int) bool { return a < n/2 && b >= n/2 },
		} {
			for _, loss := range []float64{0, .1} {
				if n > 12 && (name != "halves" || loss > 0 || !figures.Long()) {
					continue // costly, and no different
				}
				t.Run(fmt.Sprintf("%d %s %g", n, name, loss), func(t *testing.T) {
					t.Parallel()
					s := newSimulator(9, n, mostPeers)
					s.loss = loss
					s.meeting()
					s.run(10 * time.Second)
					require.True(t, s.wholly())
					suspicions := s.suspicions
					s.divide(cut)
					for range 10 {
						s.run(time.Minute)
						s.beat()
					}
					s.run(10 * time.Second)
					known, wrong := 0, 0
					for _, p := range s.peers {
						for j := range s.peers {
							if j == p.i {
								continue
							}
							alive := p.d.all[simID(j)].state < Dead
							switch {
							case !cut(p.i, j) && !cut(j, p.i):
								require.True(t, alive, "%d of %d", p.i, j)
							case name == "halves" || name == "one":
								require.False(t, alive, "%d of %d", p.i, j)
							case alive:
								known++
							default:
								wrong++
							}
						}
					}
					if name == "pair" && loss == 0 {
						require.Equal(t, suspicions, s.suspicions, "others answer for the two")
					}
					s.cut = nil
					began := s.clock
					for !s.wholly() {
						s.run(100 * time.Millisecond)
						require.LessOrEqual(t, s.clock-began, 10_000)
					}
					t.Logf("of those cut apart %d were seen alive, %d not; whole again after %d ms", known, wrong, s.clock-began)
					m.note(func(r *figures.Records) {
						p := map[string]any{"peers": n, "kind": name, "loss": loss, "minutes": 10}
						r.Add("membership.partition.healed", p, "ms until everybody sees everybody", float64(s.clock-began))
						r.Add("membership.partition.unseen", p, "of the pairs cut apart, those that don't see each other alive", float64(wrong))
					})
				})
			}
		}
	}
}

package election

import "time"

// What can befall a town.

func (t *town) kill(i int) {
	p := t.peers[i]
	p.up, p.pulling, p.pulls = false, false, ""
	t.log("%v kill %d", t.now.Sub(townEpoch), i)
	for j := range t.peers {
		if j != i {
			t.after(t.between(0, 200*time.Millisecond), func() {
				if !p.up {
					t.part(i, j)
				}
			})
		}
	}
}

func (t *town) pause(i int) {
	t.peers[i].paused = true
	t.log("%v pause %d", t.now.Sub(townEpoch), i)
}

// resume lets a peer go on, with all that came meanwhile.
func (t *town) resume(i int) {
	p := t.peers[i]
	if !p.paused {
		return
	}
	p.paused = false
	t.log("%v resume %d", t.now.Sub(townEpoch), i)
	waits := p.waits
	p.waits = nil
	if t.rng.IntN(2) == 0 { // whichever the scheduler takes first
		p.due = t.now
		t.deliver(p, townEvent{at: t.now, what: "tick"})
	}
	for _, e := range waits {
		e.at = t.now
		t.push(e)
	}
	t.connect(i)
}

// cut takes links down, as which says of each direction, and breaks the
// connections of those after a while; what it doesn't name carries again.
func (t *town) cut(which func(from, to int) bool) {
	for i := range t.peers {
		for j := range t.peers {
			if i == j {
				continue
			}
			l := t.links[[2]int{i, j}]
			down := which(i, j)
			if down == l.down {
				continue
			}
			l.down = down
			if down {
				t.after(t.between(300*time.Millisecond, 8*time.Second), func() {
					if l.down {
						t.part(i, j)
					}
				})
			} else if !l.met {
				t.after(t.between(20*time.Millisecond, 600*time.Millisecond), func() {
					if t.reachable(i, j) {
						t.meet(i, j)
					}
				})
			}
		}
	}
	var down [][2]int
	for e, l := range t.links {
		if l.down {
			down = append(down, e)
		}
	}
	t.log("%v down %v", t.now.Sub(townEpoch), down)
	t.oracle.disturbed()
}

func (t *town) heal() { t.cut(func(int, int) bool { return false }) }

// orderers cuts a peer from the ordering service, or lets it reach it.
func (t *town) orderers(i int, reaches, hole bool) {
	p := t.peers[i]
	if p.reaches && !reaches {
		p.lostAt = t.now
	}
	p.reaches, p.hole = reaches, hole
	t.log("%v reaches %d: %v", t.now.Sub(townEpoch), i, reaches)
}

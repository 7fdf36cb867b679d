package election

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// An oracle watches a town, as nobody in it can. It splits the living peers into
// parts that are connected, and looks in each how long no peer leads although
// one reaches an orderer, and how long more than one does.
type oracle struct {
	town    *town
	parts   map[uint]*part  // by their members, a bit each
	none    []time.Duration // gaps without a leader, once there was one to be had
	idle    []time.Duration // gaps in which nobody pulled, once somebody could
	two     []time.Duration // times with more than one
	starve  time.Duration   // longest that a part which reaches an orderer lacked a block
	changes int             // peers that began to lead
	last    int             // who did
	before  []uint64        // heights
	errs    []string
}

// A part is a set of connected living peers, as long as it stays the same.
type part struct {
	since   time.Time
	reaches time.Time // one of them reaches an orderer since then; zero: none
	none    time.Time // nobody leads since then
	idle    time.Time // nobody pulls since then
	two     time.Time
	lacks   time.Time
	lacked  uint64
}

func (o *oracle) fail(format string, args ...any) {
	if len(o.errs) < 8 {
		o.errs = append(o.errs, fmt.Sprintf("%v: ", o.town.now.Sub(townEpoch))+fmt.Sprintf(format, args...))
	}
}

func (o *oracle) began(p *townPeer) {
	if p.i != o.last || o.changes == 0 {
		o.changes++
	}
	o.last = p.i
}

// disturbed begins all measures anew.
func (o *oracle) disturbed() {
	for _, p := range o.parts {
		o.close(p)
	}
	o.parts = nil
}

// close ends the measures of a part that is no more: what was too long by then
// counts.
func (o *oracle) close(p *part) {
	now := o.town.now
	if !p.none.IsZero() && now.Sub(p.none) > mostNone {
		o.none = append(o.none, now.Sub(p.none))
	}
	if !p.two.IsZero() && now.Sub(p.two) > mostTwo {
		o.two = append(o.two, now.Sub(p.two))
	}
}

const (
	mostNone = 5 * time.Second
	mostTwo  = 2 * time.Second
)

func (o *oracle) look() {
	t, now := o.town, o.town.now
	if o.before == nil {
		o.before = make([]uint64, len(t.peers))
	}
	for i, p := range t.peers {
		if p.height < o.before[i] {
			o.fail("height of %d falls", i)
		}
		o.before[i] = p.height
	}
	fresh := map[uint]*part{}
	for _, members := range t.components() {
		key := uint(0)
		for _, i := range members {
			key |= 1 << i
		}
		p := o.parts[key]
		if p == nil {
			p = &part{since: now}
		}
		fresh[key] = p
		o.judge(p, members)
	}
	for key, p := range o.parts {
		if fresh[key] == nil {
			o.close(p)
		}
	}
	o.parts = fresh
}

func (o *oracle) judge(p *part, members []int) {
	t, now := o.town, o.town.now
	leads, pulls, reaches := 0, 0, false
	best := uint64(0)
	for _, i := range members {
		v := t.peers[i]
		reaches = reaches || v.reaches
		best = max(best, v.height)
		if v.leads() {
			leads++
		}
		if v.pulls != "" {
			pulls++
		}
	}
	if leads == 0 { // one that is heard here, though it doesn't hear, leads us too
		for _, i := range t.heard(members) {
			if t.peers[i].leads() {
				leads, pulls = 1, 1
			}
		}
	}
	if !reaches {
		p.reaches, p.none, p.idle = time.Time{}, time.Time{}, time.Time{}
	} else if p.reaches.IsZero() {
		p.reaches = now
	}
	timer := func(since *time.Time, on bool, into *[]time.Duration) {
		switch {
		case on && since.IsZero():
			*since = now
		case !on && !since.IsZero():
			if d := now.Sub(*since); into != nil && d > 0 {
				*into = append(*into, d)
			}
			*since = time.Time{}
		}
	}
	timer(&p.none, reaches && leads == 0, &o.none)
	timer(&p.idle, reaches && pulls == 0, &o.idle)
	timer(&p.two, leads > 1, &o.two)
	if p.lacked <= best || p.lacked == 0 || !reaches {
		p.lacked, p.lacks = t.tip, now
	}
	o.starve = max(o.starve, now.Sub(p.lacks))
}

// components are the sets of living peers that hear each other, both ways.
func (t *town) components() [][]int {
	seen := make([]bool, len(t.peers))
	var out [][]int
	for i, p := range t.peers {
		if seen[i] || !p.up || p.paused {
			continue
		}
		var set []int
		todo := []int{i}
		seen[i] = true
		for len(todo) > 0 {
			a := todo[0]
			todo = todo[1:]
			set = append(set, a)
			for b := range t.peers {
				if !seen[b] && a != b && t.reachable(a, b) {
					seen[b] = true
					todo = append(todo, b)
				}
			}
		}
		slices.Sort(set)
		out = append(out, set)
	}
	return out
}

// heard are the living peers outside a part whose words come into it.
func (t *town) heard(members []int) (out []int) {
	in := slices.Clone(members)
	for k := 0; k < len(in); k++ {
		for j, p := range t.peers {
			if p.up && !p.paused && !slices.Contains(in, j) && !t.links[[2]int{j, in[k]}].down {
				in = append(in, j)
				out = append(out, j)
			}
		}
	}
	return out
}

// level says whether the living peers hold what was ordered up to a moment ago.
func (t *town) level(back uint64) error {
	for i, p := range t.peers {
		if p.up && p.height+back < t.tip {
			return fmt.Errorf("peer %d has %d of %d blocks", i, p.height, t.tip)
		}
	}
	return nil
}

func quantile(d []time.Duration, q float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return d[min(len(d)-1, max(0, int(math.Ceil(q*float64(len(d))))-1))]
}

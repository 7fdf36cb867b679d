package election

import (
	"context"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"grapevine/msp"
	"grapevine/wire"
)

// run is an Election while it runs: one goroutine that owns the machine.
type run struct {
	*Election
	machine *machine
	pull    *pull
	met     map[peer.ID]msp.PKIID // neighbours, as the machine knows them
	probes  chan answer
	asked   sync.WaitGroup
	began   time.Time
	static  bool      // it leads, because it always does
	last    time.Time // accounted
	struck  time.Time // the clock, last
}

type answer struct {
	height uint64
	err    error
}

func (r *run) run(ctx context.Context) {
	wide, cancel := context.WithCancel(context.WithoutCancel(ctx)) // the last words outlive ctx
	wait := r.links.run(wide)
	defer wait()
	defer cancel()
	defer r.asked.Wait()
	defer r.pull.wait()
	if r.static = r.c.Mode == Static; r.static {
		r.publish(r.began)
		r.pull.begin(ctx)
		r.note(Change{At: r.began, Leader: r.id, Self: true, Why: "static"})
	}
	clock := time.NewTimer(0)
	defer clock.Stop()
	strike := func() {
		now := time.Now()
		r.struck = now
		r.step(ctx, event{kind: tick, facts: r.facts(now)}, "")
		r.publish(now)
	}
	strike()
	r.meet(ctx)
	for {
		clock.Reset(time.Until(r.machine.due(r.struck)))
		select {
		case <-ctx.Done():
			r.step(ctx, event{kind: halt}, "")
			if r.static {
				r.static = false
				r.note(Change{At: time.Now(), Why: "stopped"})
			}
			r.pull.end()
			r.publish(time.Now())
			r.links.flush(farewell)
			return
		case h := <-r.heard:
			r.step(ctx, event{kind: said, id: h.from, ballot: h.ballot}, h.peer)
			if time.Since(r.struck) >= calmClock {
				strike() // a leader's beats make the clock strike, of who is awake anyway
			}
		case a := <-r.probes:
			r.counted.Unreachable = a.err
			r.step(ctx, event{kind: probed, ok: a.err == nil, tip: a.height}, "")
		case tip := <-r.tips:
			if r.machine.role == leader {
				r.step(ctx, event{kind: probed, ok: true, tip: tip}, "")
			}
		case done := <-r.resigns:
			if r.machine.role != leader {
				done <- ErrNotLeading
				continue
			}
			r.step(ctx, event{kind: resign}, "")
			done <- nil
		case <-r.kick:
			r.meet(ctx)
		case <-clock.C:
			strike()
		}
	}
}

// meet tells the machine who came and who went.
func (r *run) meet(ctx context.Context) {
	r.mu.Lock()
	hosts := make(map[peer.ID]msp.PKIID, len(r.hosts))
	for p, id := range r.hosts {
		hosts[p] = id
	}
	r.mu.Unlock()
	here := make(map[msp.PKIID]bool, len(hosts))
	for _, id := range hosts {
		here[id] = true
	}
	for p, id := range r.met {
		if _, ok := hosts[p]; !ok {
			delete(r.met, p)
			r.links.remove(p)
			if !here[id] {
				r.step(ctx, event{kind: lose, id: id}, "")
			}
		}
	}
	for p, id := range hosts {
		if _, ok := r.met[p]; !ok {
			r.met[p] = id
			r.links.add(p)
			r.step(ctx, event{kind: meet, id: id}, "")
		}
	}
}

func (r *run) facts(now time.Time) facts {
	f := facts{tallest: r.tallest(now)}
	if r.c.Height != nil {
		f.height = r.c.Height()
	}
	f.orderer, f.ordered = r.stream()
	return f
}

// stream tells of the pull; without the means to know, it goes well.
func (r *run) stream() (orderer string, next uint64) {
	if r.c.Stream == nil {
		return "unknown", 0
	}
	return r.c.Stream()
}

// step lets the machine take one event in, and does what it wants. from is the
// host that a ballot came from.
func (r *run) step(ctx context.Context, e event, from peer.ID) {
	now := time.Now()
	effects := r.machine.step(e, now)
	for _, x := range effects {
		switch x.kind {
		case tell:
			r.tell(x)
		case begin:
			r.pull.begin(ctx)
		case end:
			r.pull.end()
		case probe:
			r.ask(ctx)
		case refuse:
			r.refused(from, x.reason)
		case turned:
			r.turn(x, now)
		}
	}
	if len(effects) > 0 {
		r.publish(now)
	}
}

// tell sends a ballot to one or all; a claim of ours is signed before, and one
// of another that nobody has checked is, and stays out if it is bad.
func (r *run) tell(x effect) {
	if c := x.ballot.claim; c != nil {
		if err := r.vouch(c); err != nil {
			log.Warnw("a claim isn't passed on", "error", err)
			for p, id := range r.met {
				if id == c.id {
					r.refused(p, BadSignature)
				}
			}
			x.ballot.claim = nil
		}
	}
	b, err := r.encode(x.ballot)
	if err != nil {
		log.Errorw("a ballot could not be made", "error", err)
		return
	}
	for p, id := range r.met {
		if x.id == id || x.id == (msp.PKIID{}) {
			r.links.send(p, b)
		}
	}
}

// ask asks an orderer, beside the loop.
func (r *run) ask(ctx context.Context) {
	r.asked.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, probeTime)
		defer cancel()
		h, err := r.c.Newest(ctx)
		r.probes <- answer{h, err} // the machine asks one at a time
	})
}

// refused counts a refusal, and ends the stream of who is to blame.
func (r *run) refused(from peer.ID, reason *wire.Reason) {
	if r.c.Refused != nil {
		r.c.Refused(from, reason)
	}
	if v := reason.Verdict(); v == wire.Reject || v == wire.Close {
		r.shut(from)
	}
}

// turn notes a change that the machine tells of.
func (r *run) turn(x effect, now time.Time) {
	c := Change{At: now, Why: x.why}
	if x.claim != nil {
		c.Leader, c.Term, c.Self = x.claim.id, x.claim.term, x.claim.id == r.id
	}
	r.note(c)
}

// note keeps and tells a change of leader.
func (r *run) note(c Change) {
	if c.Leader != (msp.PKIID{}) {
		r.counted.Changes++
	}
	r.history.add(c)
	if r.c.Changed != nil {
		r.c.Changed(c)
	}
	log.Infow("leader", "leader", c.Leader, "self", c.Self, "term", c.Term, "why", c.Why)
}

// publish makes the state that others see.
func (r *run) publish(now time.Time) {
	m := r.machine
	s := State{Mode: r.c.Mode, Changes: r.counted.Changes, Checks: r.checks.Load(), Term: m.era, Neighbours: m.near, Reaches: m.reach() != cut, Answered: m.watch.answer, Unreachable: r.counted.Unreachable}
	if d := now.Sub(r.last); d > 0 { // it is called with the time of the step, which may be past
		r.last = now
		if r.counted.Leader == nil && r.c.Mode == Dynamic && m.role != starting {
			r.counted.Leaderless += d
		}
	}
	s.Leaderless = r.counted.Leaderless
	s.Role = roleNames[m.role]
	if now.Before(m.barUntil) {
		s.BarredUntil = m.barUntil
	}
	s.Pulling = r.pull.on
	orderer, _ := r.stream()
	if orderer != "" || !s.Pulling {
		r.counted.Lacks = time.Time{}
	} else if r.counted.Lacks.IsZero() {
		r.counted.Lacks = now
	}
	s.Lacks = r.counted.Lacks
	s.Leading = m.role == leader || r.static
	if c := m.leads(); r.static {
		s.Leader = &Leader{PKIID: r.id, Self: true, Since: r.began, Heard: now, Orderer: orderer}
	} else if c != nil {
		s.Leader = &Leader{PKIID: c.id, Term: c.term, Since: time.UnixMilli(int64(c.since)), Heard: m.heard, Orderer: c.orderer, Self: c.id == r.id}
		if s.Leader.Self {
			s.Leader.Heard, s.Leader.Orderer = now, m.facts.orderer
		}
	}
	if s.Leader == nil {
		s.Vacant = m.vacant
	}
	r.counted.Leader = s.Leader
	r.state.Store(&s)
}

package membership

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"grapevine/msp"
	"grapevine/wire"
)

// The shell around view and detector: when it looks, and what it then says.

// Run beats and watches until ctx ends, then stores the marks.
func (m *Members) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, m.store()) }()
	defer m.links.run(ctx)()
	t := time.NewTimer(0)
	m.rings(t)
	defer m.rings(nil)
	r := rhythm{stored: time.Now()}
	for {
		force := false
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-m.due:
			force = true
			m.raise()
		case <-t.C:
		}
		if err := m.look(ctx, &r, force, time.Now()); err != nil {
			return err
		}
	}
}

// A rhythm is what Run knows of its beats. Its zero value has the first come at
// once.
type rhythm struct {
	said   time.Time // the last beat
	wait   float64   // until the next, as a share of a beat
	beats  int
	stored time.Time // the marks were, last
}

// look says that we live if it is time, or forced, and lets time pass.
func (m *Members) look(ctx context.Context, r *rhythm, force bool, now time.Time) error {
	if force || now.Sub(r.said).Seconds() >= m.pace().Seconds()*r.wait {
		why := beating
		if force || r.beats == 0 {
			why = changed
		} else if r.beats%ownBeats == 0 {
			why = beatingOwn
		}
		r.said, r.wait = now, 1+rand.Float64()/10
		if err := m.say(ctx, now, why); err != nil && ctx.Err() == nil {
			log.Warnw("an alive message didn't go out", "error", err)
		}
		r.beats++
	}
	if m.tick(now, now.Sub(r.stored) >= storeEvery) {
		r.stored = now
		return m.store()
	}
	return nil
}

// rings sets Run's timer, or takes it away.
func (m *Members) rings(t *time.Timer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.timer != nil {
		m.timer.Stop()
	}
	m.timer, m.wound = t, time.Time{}
}

// wake makes Run look at a time at the latest. Called under mu.
func (m *Members) wake(at time.Time) {
	if at.Before(m.next) {
		m.next = at
		m.wind()
	}
}

// wind sets the timer to when Run looks again. Called under mu.
func (m *Members) wind() {
	if at := m.alarm(); m.timer != nil && !at.Equal(m.wound) {
		m.wound = at
		m.timer.Reset(time.Until(at))
	}
}

// alarm is when Run looks again. Called under mu.
func (m *Members) alarm() time.Time {
	if at := m.detector.alarm; at.Before(m.next) {
		return at
	}
	return m.next
}

// pace is how long a beat is now.
func (m *Members) pace() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case time.Since(m.twin) < twinTime:
		return beat
	case m.sparse():
		return m.detector.scaled(beat)
	}
	return calmBeat
}

// Grown tells that there are more blocks, of which others soon hear.
func (m *Members) Grown() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wake(m.heightAt.Add(heightPause))
}

// A cause is why a round is said, and so what is in it.
type cause int

const (
	beating    cause = iota // we live still
	beatingOwn              // the same; the own organisation gets its own message too
	changed                 // as that, and who isn't connected gets the certificate
	leaving                 // the last
)

// say signs the next round and tells it: to the connected members directly, and
// to others by Publish.
func (m *Members) say(ctx context.Context, now time.Time, why cause) error {
	own := why >= beatingOwn
	m.mu.Lock()
	err := m.sign(now, own, why == leaving)
	wide := m.wide
	if err == nil {
		m.step(event{kind: themselves, number: number{m.incarnation, m.round}, hidden: wide == nil}, now)
		for _, t := range m.talks {
			m.greet(t, now, own)
		}
	}
	sparse := m.sparse()
	m.mu.Unlock()
	if err != nil || wide == nil || !sparse || m.c.Publish == nil {
		return err
	}
	if why >= changed {
		return m.c.Publish(ctx, m.whole(wide))
	}
	return m.c.Publish(ctx, slim(wide))
}

// slim is a message for those who have the certificate.
func slim(s *wire.SignedAlive) *wire.SignedAlive {
	return &wire.SignedAlive{Alive: s.Alive, Signature: s.Signature}
}

// whole is a message of ours for those who may have nothing.
func (m *Members) whole(s *wire.SignedAlive) *wire.SignedAlive {
	return &wire.SignedAlive{Alive: s.Alive, Signature: s.Signature, Certificate: s.Certificate, Chain: m.c.Chain()}
}

// sign makes the messages of the next round. Called under mu.
func (m *Members) sign(now time.Time, own, left bool) error {
	if m.left {
		return nil
	}
	m.round++
	m.saidAt = now
	m.wide = nil
	me := m.self()
	lead, err := wire.Marshal(me.Lead)
	if err != nil {
		return err
	}
	m.lead = me.Lead
	signer := msp.Present(m.c.Self)
	sum := sha256.Sum256(signer.Identity().Certificate().Raw)
	a := &wire.Alive{
		Tag: m.c.Tag[:], PkiId: m.id[:], MspId: me.MSPID, PeerId: []byte(me.Peer),
		Incarnation: m.incarnation, Sequence: 2*m.round - 1, SentAt: uint64(now.UnixMilli()),
		Height: me.Height, TipHash: me.TipHash[:], Endpoint: m.at.wide,
		Certificate: sum[:], Left: left, Role: m.c.Role, Version: m.c.Version, Lead: lead,
	}
	a.StateHeight, a.StateHash = m.state()
	if len(m.at.wide) > 0 {
		m.stats.Signed++
		if m.wide, err = sign(a, signer, nil); err != nil {
			return err
		}
	}
	if own || len(m.at.wide) == 0 {
		m.stats.Signed++
		a.Own, a.Internal, a.Sequence = true, m.at.own, 2*m.round
		if m.own, err = sign(a, signer, nil); err != nil {
			return err
		}
	}
	return nil
}

// tick lets time pass, and tells whether the marks are due to be stored.
func (m *Members) tick(now time.Time, late bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if now.Sub(m.swept) >= sweepPause {
		m.sweep(now)
	}
	m.next = now.Add(time.Hour)
	m.step(event{kind: tick}, now)
	if !now.Before(m.newsAt) {
		m.spread()
	} else if len(m.news) > 0 {
		m.wake(m.newsAt)
	}
	m.tellHeight(now)
	if m.c.Lead != nil && m.round > 0 && now.Sub(m.saidAt) >= leadPause && !proto.Equal(m.c.Lead(), m.lead) {
		m.publishSoon()
	}
	return m.view.born || m.view.moved && late
}

// tellHeight tells a few of those who don't know it how high we are: those first
// who were told longest ago. While blocks flow somebody tells each member in
// nearly each pause, and what a node says doesn't grow with the network; those
// who have still not been told learn it at leisure. Called under mu.
func (m *Members) tellHeight(now time.Time) {
	h, _ := m.c.Tip()
	pause := heightPause
	if h == m.lately {
		pause = heightRest
	}
	switch {
	case h == m.height:
		return
	case now.Sub(m.heightAt) < pause:
		m.wake(m.heightAt.Add(pause))
		return
	}
	m.heightAt, m.lately = now, h
	behind := make([]*talk, 0, len(m.talks))
	for _, t := range m.talks {
		if t.height != h {
			behind = append(behind, t)
		}
	}
	slices.SortFunc(behind, func(a, b *talk) int { return cmp.Compare(a.told, b.told) })
	few := min(heightFew+len(m.talks)/16, len(behind))
	for _, t := range behind[:few] {
		m.send(t, new(wire.Word))
	}
	if few == len(behind) {
		m.height = h
		return
	}
	m.wake(now.Add(heightRest))
}

// sweep forgets whose time is over. Called under mu.
func (m *Members) sweep(now time.Time) {
	m.swept = now
	for _, e := range m.view.tick(now) {
		m.notify(Event{Kind: Died, Member: e.member})
	}
	for id := range m.known {
		if m.view.marks[id] == nil {
			delete(m.known, id)
			m.step(event{kind: forget, id: id}, now)
		}
	}
	for id, at := range m.clashed {
		if now.Sub(at) > clashPause {
			delete(m.clashed, id)
		}
	}
}

// store writes the marks if they changed.
func (m *Members) store() error {
	m.mu.Lock()
	dirty := m.view.born || m.view.moved
	m.view.born, m.view.moved = false, false
	b := m.view.encode()
	m.mu.Unlock()
	if m.c.Store == nil || !dirty {
		return nil
	}
	if err := m.c.Store(b); err != nil {
		return fmt.Errorf("store the marks of members: %w", err)
	}
	return nil
}

// publishSoon makes Run say a new round.
func (m *Members) publishSoon() {
	select {
	case m.due <- struct{}{}:
	default:
	}
}

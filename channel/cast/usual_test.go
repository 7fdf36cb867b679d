package cast

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestLatencyIsTheShortest: a ping that waited for something else moves little.
func TestLatencyIsTheShortest(t *testing.T) {
	m := &member{}
	m.measured(100 * time.Millisecond)
	m.measured(2 * time.Millisecond)
	m.measured(time.Second)
	require.Less(t, m.latency, 80*time.Millisecond)
	m.measured(time.Millisecond)
	require.Equal(t, time.Millisecond, m.latency)
	for range 200 {
		m.measured(50 * time.Millisecond)
	}
	require.Greater(t, m.latency, 45*time.Millisecond, "the way has become longer")
}

// TestProbe: where links are fast and members slow, a leader finds out by sending
// one of them a body again, and then sends bodies whole. Where links are slow it
// goes on with stripes, and doesn't probe all the time.
func TestProbe(t *testing.T) {
	for _, c := range []struct {
		rate    float64
		whole   bool
		latency time.Duration
	}{{simRate, false, simLatency}, {1e9, true, 100 * time.Microsecond}} {
		p := newPlay(t, 1, 10, 1)
		for _, a := range p.nodes {
			a.up, a.latency = c.rate, c.latency
		}
		p.measureLatencies()
		probes := 0
		leader := p.nodes[0]
		p.mess = func(from, to *actor, fx effect) bool {
			switch fx := fx.(type) {
			case fxPart:
				if fx.probe && fx.offset == 0 {
					probes++
				}
			case fxSay: // it took them long
				if s := leader.core.sessions[fx.session]; c.whole && to == leader && s != nil && s.path == PathStriped {
					p.after(200*time.Millisecond, func() { leader.step(evDone{from.id, fx.session}) })
					return true
				}
			}
			return false
		}
		var h *Head
		for n := range uint64(4) {
			var code *Encoding
			h, code = p.head(n+1, 1<<20, leader)
			leader.cast(h, code)
			if n < 3 {
				p.run(time.Second)
			}
		}
		require.Equal(t, map[bool]int{true: 1, false: probesFirst}[c.whole], probes)
		require.Equal(t, c.whole, leader.core.sessions[h.id()].path == PathDirect)
		p.run(time.Minute)
		if !c.whole {
			require.InEpsilon(t, c.rate, leader.core.paces.link.rate, .3)
		}
		for _, a := range p.nodes[1:] {
			require.Len(t, a.got, 4)
			require.Empty(t, a.pulls)
		}
		p.settled()
	}
}

// TestPatience: where casts usually take long, members don't ask for what is on
// its way, and don't wait for ever either.
func TestPatience(t *testing.T) {
	p := newPlay(t, 1, 10, 1)
	for _, a := range p.nodes {
		a.up = simRate / 3 // unknown to them
	}
	asked := 0
	p.mess = func(_, _ *actor, fx effect) bool {
		if _, ok := fx.(fxNeed); ok {
			asked++
		}
		return false
	}
	leader := p.nodes[0]
	var first int
	for n := range uint64(12) {
		h, code := p.head(n+1, 1<<20, leader)
		leader.cast(h, code)
		p.run(3 * time.Second)
		if n == 3 {
			first, asked = asked, 0
		}
	}
	require.LessOrEqual(t, asked, first)
	c := p.nodes[1].core
	h, _ := p.head(13, 1<<20, leader)
	s, err := newSession(h, p.now)
	require.NoError(t, err)
	computed := c.estimate(s.shape) + slack
	require.Greater(t, c.wait(s), computed)
	require.LessOrEqual(t, c.wait(s), usualMost*computed)
}

// TestSyncIsPatientForLonger: blocksync doesn't begin to pull at the moment at
// which this node looks whether anything still comes.
func TestSyncIsPatientForLonger(t *testing.T) {
	p := newPlay(t, 1, 3, 1)
	h, _ := p.head(1, 128<<10, p.nodes[0])
	var look, until time.Time
	note := func(all []effect) {
		for _, fx := range all {
			switch fx := fx.(type) {
			case fxWake:
				look = fx.at
			case fxExpect:
				until = fx.until
			}
		}
		require.GreaterOrEqual(t, until.Sub(look), slack)
	}
	c := p.nodes[1].core
	note(c.step(evAnnounced{h}, p.now))
	note(c.step(evHeaded{p.nodes[0].id, hopKeep, h.Raw}, p.now))
	note(c.step(evTick{}, look))
}

// TestHelperKeepsBlock: who was asked for what lacks keeps the block until it may
// have come.
func TestHelperKeepsBlock(t *testing.T) {
	for _, asked := range []bool{false, true} {
		p := newPlay(t, 1, 3, 1)
		p.nodes[2].dead = true
		h, code := p.head(1, 128<<10, p.nodes[0])
		leader := p.nodes[0]
		leader.cast(h, code)
		s := leader.core.sessions[h.id()]
		require.NotNil(t, s)
		keep := leader.core.expires(s).Sub(s.done)
		s.helped = s.opened.Add(time.Hour)
		require.Equal(t, keep, leader.core.expires(s).Sub(s.done), "who asks for ever keeps nothing for ever")
		s.helped = time.Time{}
		p.run(keep - time.Second)
		if asked {
			leader.step(evNeed{p.nodes[2].id, h.id(), 0, newBitset(8 * haveBytes)})
		}
		p.run(2 * time.Second)
		require.Equal(t, asked, leader.core.sessions[h.id()] != nil)
		p.run(keep)
		require.Nil(t, leader.core.sessions[h.id()])
	}
}

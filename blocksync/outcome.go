package blocksync

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// source returns what is known of a peer, and makes room for one that is new;
// nil for nobody, or if everyone remembered is worth more.
func (s *scheduler) source(id peer.ID) *source {
	if id == "" || id == s.self {
		return nil
	}
	if p := s.sources[id]; p != nil {
		p.gone = false
		return p
	}
	if len(s.sources) >= maxSources && !s.evict() {
		return nil
	}
	p := &source{id: id, credit: 1}
	s.sources[id] = p
	return p
}

// evict forgets the peer that matters least: one that is gone, else the one
// that claims least. One with slices in flight stays.
func (s *scheduler) evict() bool {
	var least *source
	for _, p := range s.sources {
		if p.flying > 0 {
			continue
		}
		if least == nil || p.gone && !least.gone || p.gone == least.gone && max(p.height, p.shown) < max(least.height, least.shown) {
			least = p
		}
	}
	if least == nil {
		return false
	}
	delete(s.sources, least.id)
	return true
}

// leave takes a peer out. What it did is remembered while it is barred, so that
// reconnecting forgives nothing.
func (s *scheduler) leave(id peer.ID) {
	p := s.sources[id]
	if p == nil {
		return
	}
	s.cancel(id)
	if p.strikes == 0 {
		delete(s.sources, id)
		return
	}
	p.gone, p.height, p.hints, p.shown = true, 0, nil, 0
}

// ban ends everything with a peer for a minute.
func (s *scheduler) ban(id peer.ID, now time.Time) {
	s.cancel(id)
	if p := s.source(id); p != nil {
		p.bar(now, banned, "wrong bytes")
	}
	s.do(fxBan{peer: id, d: banned})
}

// cancel ends all slices of one peer.
func (s *scheduler) cancel(id peer.ID) {
	for _, f := range s.ordered() {
		if f.peer == id {
			s.drop(f, true)
			s.do(fxCancel{id: f.id})
		}
	}
}

// failed ends a slice before its time and deals with its peer.
func (s *scheduler) failed(e evFailed, now time.Time) {
	f := s.slices[e.id]
	if f == nil {
		return
	}
	s.drop(f, e.fault != ours)
	p := s.sources[f.peer]
	if p == nil {
		return
	}
	switch e.fault {
	case ours:
	case broken:
		p.failed(now, awayFirst, awayMost, s.retries, "broke off")
	case busy:
		p.failed(now, lackFirst, lackMost, s.retries, "busy")
	case lacking:
		s.lacks(f, p, e, now)
	case wrong:
		s.ban(f.peer, now)
	}
}

// lacks deals with a peer that says it doesn't hold what it was asked for. It
// may have pruned it, or never have claimed it; else it lied.
func (s *scheduler) lacks(f *slice, p *source, e evFailed, now time.Time) {
	p.lowest = e.lowest
	switch {
	case f.from < e.lowest:
	case f.claimed && e.height <= f.from:
		p.claim(e.height, now, s.grace)
		p.bar(now, min(falseFirst<<min(p.lies, 4), awayMost), "a false height")
		p.lies++
		s.do(fxLied{p.id})
	default:
		p.failed(now, lackFirst, lackMost, s.retries, "lacks it")
	}
}

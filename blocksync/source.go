package blocksync

import (
	"encoding/binary"
	"hash/fnv"
	"math"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// source is what the scheduler remembers of one peer. Heights are hints: they
// say whom to ask, never what is true.
type source struct {
	id     peer.ID
	height uint64    // highest number it claims to hold, plus one
	raised time.Time // when height was raised last
	firm   uint64    // the height it claimed for longer than grace before that
	shown  uint64    // highest number it sent or announced to us, plus one
	lowest uint64    // it said that it holds nothing below

	rate    float64 // bytes a second when asked; 0 while unknown
	credit  int     // slices it may have in flight; grows with each that is served
	flying  int     // slices it has in flight
	away    time.Time
	strikes int // failures in a row
	gone    bool
}

// claim notes a claimed height and tells whether it is lower than the last.
func (p *source) claim(height uint64, now time.Time, grace time.Duration) (lowered bool) {
	p.gone = false
	switch {
	case height < p.height:
		p.firm, p.height, p.raised = min(p.firm, height), height, now
		return true
	case height > p.height:
		if now.Sub(p.raised) >= grace { // else the oldest of the fresh claims sets the clock
			p.firm, p.raised = p.height, now
		}
		p.height = height
	}
	return false
}

// due returns when a number that the peer claims may be pulled from it: after a
// grace, in which the push path usually brings it.
func (p *source) due(n uint64, grace time.Duration) time.Time {
	if n < p.firm {
		return time.Time{}
	}
	return p.raised.Add(grace)
}

// served notes a slice that came whole.
func (p *source) served(bytes int64, took time.Duration, most int) {
	p.strikes = 0
	p.credit = min(p.credit+1, most)
	p.measure(bytes, took)
}

// measure folds one slice into the rate. Small ones measure the way rather than
// the width, and count only while nothing better is known.
func (p *source) measure(bytes int64, took time.Duration) {
	if bytes < measurable && p.rate > 0 {
		return
	}
	r := float64(bytes) / max(took.Seconds(), 1e-4) * float64(max(p.flying, 1))
	if p.rate == 0 {
		p.rate = r
		return
	}
	p.rate += (r - p.rate) / 4
}

// failed leaves the peer alone for a while: first, doubled with each failure in
// a row, at most last.
func (p *source) failed(now time.Time, first, last time.Duration) {
	pause := first << min(p.strikes, 16)
	p.strikes++
	p.credit = 1
	p.leave(now.Add(min(pause, last)))
}

func (p *source) leave(until time.Time) {
	if until.After(p.away) {
		p.away = until
	}
}

// speed orders peers: who is unknown is tried once, then the faster first.
func (p *source) speed() float64 {
	if p.rate == 0 {
		return math.MaxFloat64
	}
	return p.rate
}

// spread orders equals differently for each number and each asker, so that a
// whole channel doesn't lean on one peer.
func spread(asker, p peer.ID, n uint64) uint64 {
	h := fnv.New64a()
	h.Write(binary.BigEndian.AppendUint64([]byte(asker), n))
	h.Write([]byte(p))
	return h.Sum64()
}

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
	height uint64 // highest number it claims to hold, plus one
	hints  []hint // how height rose of late, ascending
	shown  uint64 // highest number it sent or announced to us, plus one
	lowest uint64 // it said that it holds nothing below

	rate     float64   // bytes a second when asked; 0 while unknown
	credit   int       // slices it may have in flight; grows with each that is served
	flying   int       // slices it has in flight, and not yet given all of
	away     time.Time // it is left alone until then
	barred   time.Time // it is not asked for anything until then
	failedAt time.Time // last
	strikes  int       // failures in a row
	lies     int       // heights that weren't true
	gone     bool

	blocks, bytes uint64 // that it brought
	why           string // its last failure
}

// hint is a height that was claimed at a time.
type hint struct {
	height uint64
	at     time.Time
}

// maxHints bounds a peer's hints. If they come so fast that more are fresh, the
// last is moved up instead.
const maxHints = 8

// claim notes a claimed height and tells whether it is lower than the last.
func (p *source) claim(height uint64, now time.Time, grace time.Duration) (lowered bool) {
	p.gone = false
	lowered = height < p.height
	if height == p.height {
		return false
	}
	p.height = height
	for len(p.hints) > 0 && p.hints[len(p.hints)-1].height >= height {
		p.hints = p.hints[:len(p.hints)-1]
	}
	for len(p.hints) > 1 && now.Sub(p.hints[1].at) >= grace { // the first is as good as older
		p.hints = p.hints[:copy(p.hints, p.hints[1:])]
	}
	if len(p.hints) == maxHints {
		p.hints = p.hints[:maxHints-1]
	}
	p.hints = append(p.hints, hint{height, now})
	return lowered
}

// due returns when a number that the peer claims may be pulled from it: after a
// grace, in which the push path usually brings it.
func (p *source) due(n uint64, grace time.Duration) time.Time {
	for _, h := range p.hints {
		if n < h.height {
			return h.at.Add(grace)
		}
	}
	return time.Unix(math.MaxInt32, 0)
}

// served notes a slice that came whole.
func (p *source) served(bytes int64, took time.Duration, most int) {
	p.strikes, p.away = 0, time.Time{}
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
// a row, at most last, and that once there were so many.
func (p *source) failed(now time.Time, first, last time.Duration, many int, why string) {
	pause := min(first<<min(p.strikes, 16), last)
	if p.strikes++; p.strikes >= many {
		pause = last
	}
	p.credit = 1
	p.rate = max(p.rate/2, 1)
	p.failedAt, p.why = now, why
	p.away = latest(p.away, now.Add(pause))
}

// bar ends everything with the peer for a time, and holds longer than failed.
func (p *source) bar(now time.Time, d time.Duration, why string) {
	p.credit, p.rate = 1, max(p.rate/2, 1)
	p.strikes++
	p.failedAt, p.why = now, why
	p.barred = latest(p.barred, now.Add(d))
}

// there tells whether the peer is here and isn't left alone.
func (p *source) there(now time.Time) bool {
	return !p.gone && !p.away.After(now) && !p.barred.After(now)
}

// slice returns how many bytes are asked of the peer at once.
func (p *source) slice() int64 {
	if p.rate == 0 {
		return sliceFirst
	}
	return min(max(int64(p.rate*sliceTime.Seconds()), sliceLeast), sliceBytes)
}

// overtaken notes a slice that another peer brought first. Who stayed below the
// floor is left alone for a while.
func (p *source) overtaken(bytes int64, took time.Duration, now time.Time) {
	rate := float64(bytes) / max(took.Seconds(), 1e-4)
	if rate < floorRate {
		p.failed(now, awayFirst, awayMost, 1<<16, "slow")
		return
	}
	p.credit = 1
	p.rate = min(max(p.rate, 1), rate)
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

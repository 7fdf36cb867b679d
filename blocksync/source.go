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
	pending  int64     // about how many bytes they are
	got      int64     // bytes that came since from
	from     time.Time // when it last had given all of a slice, or was first asked after being idle
	measured time.Time // its rate
	moved    time.Time // last byte
	stalled  bool      // it held up the head, and nothing has come from it since
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

// asked notes a slice of about so many bytes.
func (p *source) asked(bytes int64, now time.Time) {
	if p.flying == 0 {
		p.from, p.got = now, 0
	}
	p.flying++
	p.pending += bytes
}

// let go of a slice, given whole or not.
func (p *source) letGo(bytes int64) {
	p.flying--
	p.pending -= bytes
	p.stalled = p.stalled && p.flying > 0
}

// served notes a slice of which the last byte came at a time.
func (p *source) served(at time.Time, most int) {
	p.strikes, p.away = 0, time.Time{}
	p.credit = min(p.credit+1, most)
	p.measure(at)
}

// measure folds what came since the last slice into the rate. Little measures
// the way rather than the width, and counts only while nothing better is known.
func (p *source) measure(at time.Time) {
	if p.got < measurable && p.rate > 0 {
		return
	}
	r := float64(p.got) / max(at.Sub(p.from).Seconds(), 1e-4)
	if p.rate > 0 {
		r = p.rate + (r-p.rate)/4
	}
	p.rate, p.measured = r, at
	p.from, p.got = at, 0
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
	return !p.gone && !p.stalled && !p.away.After(now) && !p.barred.After(now)
}

// lively tells whether something comes from the peer just now.
func (p *source) lively(now time.Time) bool { return now.Sub(p.moved) < patience }

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
	p.rate, p.measured = min(max(p.rate, 1), max(rate, p.rate/2)), now
}

// when returns how long it takes, as far as is known, until so many bytes more
// have come from the peer; 0 if it wasn't measured: it is tried once.
func (p *source) when(bytes int64) float64 {
	if p.rate == 0 {
		return 0
	}
	return float64(p.pending+bytes) / p.rate
}

// sluggish tells whether the peer is so much slower than the fastest that what it
// is asked for only holds up the others. Now and then it is asked all the same,
// for it may have become faster.
func (p *source) sluggish(fastest float64, now time.Time) bool {
	return p.rate > 0 && p.rate*sluggishBy < fastest && now.Sub(p.measured) < sluggishFor
}

// busy tells whether the peer has enough to do.
func (p *source) busy() bool {
	return p.flying >= p.credit || p.flying > 0 && p.when(0) > windowTime.Seconds()
}

// spread orders equals differently for each number and each asker, so that a
// whole channel doesn't lean on one peer.
func spread(asker, p peer.ID, n uint64) uint64 {
	h := fnv.New64a()
	h.Write(binary.BigEndian.AppendUint64([]byte(asker), n))
	h.Write([]byte(p))
	return h.Sum64()
}

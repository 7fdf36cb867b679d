package blocksync

import "time"

// Being so many blocks behind is catching up, until no more than so few are
// missing. Less is the ordinary way of a block.
const (
	behindFrom = 32
	behindTo   = 2
)

// rateSpan is how many seconds back the rate looks.
const rateSpan = 10

// Progress is how catching up goes. The zero value: there is nothing to catch
// up with.
type Progress struct {
	Since          time.Time
	From           uint64 // height at the beginning
	Blocks         uint64 // committed since
	Bytes          uint64 // of them
	BlocksPerSec   float64
	BytesPerSec    float64 // of late
	Left           time.Duration
	LeftIsUnknown  bool // nothing came of late
	Height, Target uint64
}

// Active tells whether the channel is catching up.
func (p Progress) Active() bool { return !p.Since.IsZero() }

// progress counts what is committed while the channel is far behind. It is pure,
// and not safe for concurrent use.
type progress struct {
	since         time.Time // zero: not far behind
	from          uint64
	blocks, bytes uint64
	late          [rateSpan + 1]sample // by second, the present one included
}

type sample struct{ second, blocks, bytes int64 }

// look notes how high the ledger and the others are.
func (p *progress) look(height, target uint64, now time.Time) {
	switch {
	case p.since.IsZero() && target >= height+behindFrom && target > height:
		*p = progress{since: now, from: height}
	case !p.since.IsZero() && target <= height+behindTo:
		*p = progress{}
	}
}

// add notes what was committed.
func (p *progress) add(blocks int, bytes int64, now time.Time) {
	if p.since.IsZero() {
		return
	}
	p.blocks += uint64(blocks)
	p.bytes += uint64(bytes)
	s := &p.late[now.Unix()%int64(len(p.late))]
	if s.second != now.Unix() {
		*s = sample{second: now.Unix()}
	}
	s.blocks += int64(blocks)
	s.bytes += bytes
}

// told returns what people are told.
func (p *progress) told(height, target uint64, now time.Time) Progress {
	if p.since.IsZero() {
		return Progress{}
	}
	t := Progress{Since: p.since, From: p.from, Blocks: p.blocks, Bytes: p.bytes, Height: height, Target: max(target, height)}
	var blocks, bytes int64
	for _, s := range p.late {
		if now.Unix()-s.second <= rateSpan {
			blocks += s.blocks
			bytes += s.bytes
		}
	}
	span := min(now.Sub(p.since).Seconds(), rateSpan+now.Sub(now.Truncate(time.Second)).Seconds())
	if span <= 0 || blocks == 0 {
		t.LeftIsUnknown = true
		return t
	}
	t.BlocksPerSec, t.BytesPerSec = float64(blocks)/span, float64(bytes)/span
	t.Left = time.Duration(float64(t.Target-height) / t.BlocksPerSec * float64(time.Second))
	return t
}

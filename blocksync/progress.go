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

// Progress is how long work goes. The zero value: there is none to do.
type Progress struct {
	Since          time.Time
	From           uint64 // height at the beginning
	Height, Target uint64
	Blocks         uint64 // done since
	Bytes          uint64 // of them
	BlocksPerSec   float64
	BytesPerSec    float64       // of late
	Left           time.Duration // 0: unknown
}

// Active tells whether there is work to do.
func (p Progress) Active() bool { return !p.Since.IsZero() }

// A Meter counts blocks in long work. The zero value has none to do. It is pure,
// and not safe for concurrent use.
type Meter struct {
	since         time.Time // zero: nothing to do
	from          uint64
	blocks, bytes uint64
	late          [rateSpan + 1]sample // by second, the present one included
}

type sample struct{ second, blocks, bytes int64 }

// Start begins the work at a height.
func (m *Meter) Start(height uint64, now time.Time) { *m = Meter{since: now, from: height} }

// look starts when the ledger is far behind the others, and stops when it isn't
// any more.
func (m *Meter) look(height, target uint64, now time.Time) {
	switch {
	case m.since.IsZero() && target > height && target-height >= behindFrom:
		m.Start(height, now)
	case !m.since.IsZero() && target <= height+behindTo:
		*m = Meter{}
	}
}

// Add notes what was done.
func (m *Meter) Add(blocks int, bytes int64, now time.Time) {
	if m.since.IsZero() {
		return
	}
	m.blocks += uint64(blocks)
	m.bytes += uint64(bytes)
	s := &m.late[now.Unix()%int64(len(m.late))]
	if s.second != now.Unix() {
		*s = sample{second: now.Unix()}
	}
	s.blocks += int64(blocks)
	s.bytes += bytes
}

// Told returns how it goes, the height and what it is to become being these.
func (m *Meter) Told(height, target uint64, now time.Time) Progress {
	if m.since.IsZero() {
		return Progress{}
	}
	p := Progress{Since: m.since, From: m.from, Blocks: m.blocks, Bytes: m.bytes, Height: height, Target: max(target, height)}
	var blocks, bytes int64
	for _, s := range m.late {
		if now.Unix()-s.second <= rateSpan {
			blocks += s.blocks
			bytes += s.bytes
		}
	}
	span := min(now.Sub(m.since).Seconds(), rateSpan+now.Sub(now.Truncate(time.Second)).Seconds())
	if span > 0 && blocks > 0 {
		p.BlocksPerSec, p.BytesPerSec = float64(blocks)/span, float64(bytes)/span
		p.Left = time.Duration(float64(p.Target-height) / p.BlocksPerSec * float64(time.Second))
	}
	return p
}

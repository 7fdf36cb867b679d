package blocksync

import (
	"cmp"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// maxGaps bounds the gaps that a status lists.
const maxGaps = 64

// Status is what the sync of a channel does at one moment.
type Status struct {
	Height   uint64    // blocks in the ledger
	Target   uint64    // blocks that there are: proven, or claimed by more than a third of the peers
	Gaps     []Gap     // what is missing below Target, ascending; the first 64
	Requests []Request // under way, in the order of their numbers
	Sources  []Source  // who may be asked, in the order of their peer IDs
	Waiting  int       // blocks that wait for earlier ones
	Buffered int64     // bytes that wait, or are being read or checked
	Peak     int64     // most bytes that ever did at once
	Budget   int64     // bytes that may
	Paused   error     // why commits wait, or nil
	Progress Progress
}

// Gap is a run of blocks, from From to To-1, that neither the ledger nor the
// window holds.
type Gap struct{ From, To uint64 }

// Request is one question under way, for blocks From to To-1.
type Request struct {
	Peer     peer.ID
	From, To uint64
	Came     int   // blocks that came
	Bytes    int64 // that came
	Since    time.Time
	Parked   bool // waits for a configuration block
}

// Source is what is known of one peer as a source of blocks.
type Source struct {
	Peer          peer.ID
	Height        uint64  // blocks it claims to hold: a hint
	Lowest        uint64  // it holds none below
	Rate          float64 // bytes a second; 0: not measured
	Window        int     // requests that it may have at once
	Requests      int     // that it has
	Blocks, Bytes uint64  // that it brought
	Until         time.Time
	Banned        bool   // until Until
	Why           string // its last failure, "" if there was none
}

// Status tells what goes on.
func (s *Sync) Status() Status {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	t := Status{
		Height: s.tip.Height, Target: s.sched.target(now), Gaps: s.sched.gaps(now),
		Waiting: len(s.window.slots), Buffered: s.window.bytes + s.reading, Peak: s.peak, Budget: s.window.budget, Paused: s.paused,
	}
	for _, f := range s.sched.slices {
		t.Requests = append(t.Requests, Request{
			Peer: f.peer, From: f.from, To: f.to, Came: int(f.to-f.from) - f.left, Bytes: f.bytes, Since: f.began, Parked: f.parked > 0,
		})
	}
	slices.SortFunc(t.Requests, func(a, b Request) int {
		return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.Peer, b.Peer))
	})
	for _, p := range s.sched.sources {
		if p.gone {
			continue
		}
		v := Source{
			Peer: p.id, Height: p.height, Lowest: p.lowest, Rate: p.rate, Window: p.credit, Requests: p.flying,
			Blocks: p.blocks, Bytes: p.bytes, Why: p.why, Banned: p.barred.After(now),
		}
		if until := latest(p.away, p.barred); until.After(now) {
			v.Until = until
		}
		t.Sources = append(t.Sources, v)
	}
	slices.SortFunc(t.Sources, func(a, b Source) int { return cmp.Compare(a.Peer, b.Peer) })
	t.Progress = s.progress.Told(t.Height, t.Target, now)
	return t
}

// Progress is that of [Status], for less.
func (s *Sync) Progress() Progress {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.progress.Told(s.tip.Height, s.sched.target(now), now)
}

// Hurry asks now for what is missing, of everyone who wasn't found to be wrong,
// and returns how many blocks there are as far as is known.
func (s *Sync) Hurry() (target uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.step(evHurry{})
	return s.sched.target(time.Now())
}

// Served returns how many bytes of blocks others were given.
func (s *Sync) Served() uint64 { return s.served.Load() }

// target returns how many blocks there are: as many as is proven, or as more than
// a third of those claim who may be believed.
func (s *scheduler) target(now time.Time) uint64 {
	claims := make([]uint64, 0, len(s.sources))
	for _, p := range s.sources {
		if !p.gone && !p.barred.After(now) && p.height > 0 {
			claims = append(claims, p.height)
		}
	}
	if len(claims) == 0 {
		return s.top
	}
	slices.Sort(claims)
	return max(s.top, claims[len(claims)-1-len(claims)/3])
}

// gaps returns what is missing below the target.
func (s *scheduler) gaps(now time.Time) (gaps []Gap) {
	target := s.target(now)
	for n := s.lead; n < target && len(gaps) < maxGaps; n++ {
		if n >= s.end() {
			gaps = addGap(gaps, Gap{n, target})
			break
		}
		if !s.at(n).held {
			gaps = addGap(gaps, Gap{n, n + 1})
		}
	}
	return gaps
}

func addGap(gaps []Gap, g Gap) []Gap {
	if n := len(gaps); n > 0 && gaps[n-1].To == g.From {
		gaps[n-1].To = g.To
		return gaps
	}
	return append(gaps, g)
}

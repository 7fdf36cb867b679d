package blocksync

import (
	"cmp"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// A haul decides which chunks of a snapshot are asked of whom: a pure state machine,
// as the scheduler of blocks is. Order matters to nobody here, so it is simple.
//
// Every peer that holds the snapshot has at most haulFlights requests in flight,
// each for a run of missing chunks of at most haulBytes, and less towards the end,
// so that all are done at about the same time. When nothing is missing that isn't in
// flight, an idle peer is asked for what has been in flight longest elsewhere, if it is
// faster than what comes there, or nothing is known of it yet: work stealing; whoever brings a chunk first wins, and a request whose chunks have all
// come from others is cancelled. Who sends nothing for a time, or breaks off, is
// left alone for a while, longer each time; who sends a wrong chunk is barred; who
// doesn't hold it any more is forgotten.
//
// Invariants: a chunk is in at most haulCopies requests in flight, but for those of
// peers asked for the first time, and never twice with one peer; none that came is asked for; while one honest peer is there, every
// chunk comes.
type haul struct {
	sizes   []int64
	here    []bool
	copies  []int // requests in flight that bring it
	left    int   // chunks that aren't here
	next    int   // all before it are here or in flight
	peers   map[peer.ID]*hauler
	runs    map[uint64]*run
	lastID  uint64
	quiet   time.Duration
	effects []haulEffect
}

const (
	haulFlights = 2
	haulBytes   = 4 << 20
	haulCopies  = 3
	haulSteal   = 250 * time.Millisecond // what was asked for so long ago may be stolen
	haulFaster  = 2                      // by who is so many times as fast
)

// hauler is a peer that holds the snapshot.
type hauler struct {
	id      peer.ID
	flying  int
	asked   bool      // for anything
	away    time.Time // it is left alone until then
	strikes int
	barred  bool
	chunks  int     // that it brought first
	rate    float64 // bytes a second of the last request in which some came; 0: unknown
}

// run is a request in flight.
type run struct {
	id           uint64
	peer         peer.ID
	first, count int
	came         int // chunks of it that came in it
	asked, moved time.Time
}

type (
	haulEvent interface{ haul() }
	// hvPeer: the peer holds the snapshot; hvGone: it is gone; hvCame: a chunk came in
	// a request and is kept; hvMoved: bytes came; hvEnded: the request has ended;
	// hvTick: time has passed.
	hvPeer struct{ peer peer.ID }
	hvGone struct{ peer peer.ID }
	hvCame struct {
		id    uint64
		chunk int
	}
	hvMoved struct{ id uint64 }
	hvEnded struct {
		id    uint64
		fault fault
	}
	hvTick struct{}

	haulEffect interface{ effect() }
	hxAsk      struct {
		id           uint64
		peer         peer.ID
		first, count int
	}
	hxCancel struct{ id uint64 }
)

func (hvPeer) haul()  {}
func (hvGone) haul()  {}
func (hvCame) haul()  {}
func (hvMoved) haul() {}
func (hvEnded) haul() {}
func (hvTick) haul()  {}

func (hxAsk) effect()    {}
func (hxCancel) effect() {}

func newHaul(sizes []int64, here []bool, quiet time.Duration) *haul {
	h := &haul{
		sizes: sizes, here: here, copies: make([]int, len(sizes)), quiet: quiet,
		peers: make(map[peer.ID]*hauler), runs: make(map[uint64]*run),
	}
	for _, ok := range here {
		if !ok {
			h.left++
		}
	}
	return h
}

// step takes one event in. The effects are valid until the next step.
func (h *haul) step(e haulEvent, now time.Time) []haulEffect {
	h.effects = h.effects[:0]
	switch e := e.(type) {
	case hvPeer:
		if h.peers[e.peer] == nil && len(h.peers) < maxSources {
			h.peers[e.peer] = &hauler{id: e.peer}
		}
	case hvGone:
		h.leave(e.peer)
	case hvMoved:
		if r := h.runs[e.id]; r != nil {
			r.moved = now
		}
		return nil
	case hvCame:
		h.came(e, now)
	case hvEnded:
		h.ended(e, now)
	}
	h.expire(now)
	h.assign(now)
	return h.effects
}

func (h *haul) leave(id peer.ID) {
	for _, r := range h.ordered() {
		if r.peer == id {
			h.cancel(r)
		}
	}
	if p := h.peers[id]; p != nil && !p.barred {
		delete(h.peers, id)
	}
}

func (h *haul) came(e hvCame, now time.Time) {
	r := h.runs[e.id]
	if r != nil {
		r.came, r.moved = e.chunk-r.first+1, now
		p := h.peers[r.peer]
		p.strikes, p.rate = 0, h.pace(r, now)
	}
	if h.here[e.chunk] {
		return
	}
	h.here[e.chunk] = true
	h.left--
	if r != nil {
		h.peers[r.peer].chunks++
	}
	for _, o := range h.ordered() {
		if (r == nil || o.id != r.id) && !slices.Contains(h.here[o.first+o.came:o.first+o.count], false) {
			h.cancel(o)
		}
	}
}

func (h *haul) ended(e hvEnded, now time.Time) {
	r := h.runs[e.id]
	if r == nil {
		return
	}
	h.drop(r)
	p := h.peers[r.peer]
	switch {
	case e.fault == ours: // all came, or it is over
	case e.fault == wrong:
		p.barred = true
		h.leave(p.id)
	case e.fault == lacking:
		h.leave(p.id)
	case e.fault == busy:
		h.fail(p, lackFirst, lackMost, now)
	default:
		h.fail(p, awayFirst, awayMost, now)
	}
}

func (h *haul) fail(p *hauler, first, most time.Duration, now time.Time) {
	p.away = now.Add(min(first<<min(p.strikes, 16), most))
	p.strikes++
}

// expire gives up requests in which nothing comes.
func (h *haul) expire(now time.Time) {
	for _, r := range h.ordered() {
		if now.Sub(r.moved) >= h.quiet {
			h.cancel(r)
			if p := h.peers[r.peer]; p != nil {
				h.fail(p, awayFirst, awayMost, now)
			}
		}
	}
}

// pace is how fast a request comes, in bytes a second.
func (h *haul) pace(r *run, now time.Time) float64 {
	bytes := int64(0)
	for _, n := range h.sizes[r.first : r.first+r.came] {
		bytes += n
	}
	return float64(bytes) / max(now.Sub(r.asked).Seconds(), 1e-4)
}

// assign hands out what is missing, to who has least to do first.
func (h *haul) assign(now time.Time) {
	for h.left > 0 {
		p := h.idle(now)
		if p == nil {
			return
		}
		first, count := h.missing(now)
		if count == 0 {
			if first, count = h.steal(p, now); count == 0 {
				return
			}
		}
		h.lastID++
		r := &run{id: h.lastID, peer: p.id, first: first, count: count, asked: now, moved: now}
		h.runs[r.id] = r
		p.flying++
		p.asked = true
		for i := first; i < first+count; i++ {
			h.copies[i]++
		}
		h.effects = append(h.effects, hxAsk{r.id, p.id, first, count})
	}
}

// idle returns who has least in flight, and brought most, of those that may be
// asked.
func (h *haul) idle(now time.Time) (best *hauler) {
	for _, p := range h.peers {
		if p.barred || p.away.After(now) || p.flying >= haulFlights {
			continue
		}
		if best == nil || cmp.Or(cmp.Compare(p.flying, best.flying), cmp.Compare(best.chunks, p.chunks), cmp.Compare(p.id, best.id)) < 0 {
			best = p
		}
	}
	return best
}

// missing returns the next run of chunks that nobody brings.
func (h *haul) missing(now time.Time) (first, count int) {
	for h.next < len(h.here) && (h.here[h.next] || h.copies[h.next] > 0) {
		h.next++
	}
	share := 1
	for _, p := range h.peers {
		if !p.barred && !p.away.After(now) {
			share++
		}
	}
	most := min(max((h.left+2*share-1)/(2*share), 1), maxChunks)
	bytes := int64(0)
	for i := h.next; i < len(h.here) && count < most && !h.here[i] && h.copies[i] == 0; i++ {
		if bytes += h.sizes[i]; count > 0 && bytes > haulBytes {
			break
		}
		count++
	}
	return h.next, count
}

// steal returns what of the oldest request of another peer hasn't come.
func (h *haul) steal(p *hauler, now time.Time) (first, count int) {
	var oldest *run
	for _, r := range h.ordered() {
		if r.peer == p.id || now.Sub(r.asked) < haulSteal || oldest != nil && !r.asked.Before(oldest.asked) {
			continue
		}
		if p.asked && p.rate <= haulFaster*h.pace(r, now) && !(p.rate == 0 && h.lone(p, now)) {
			continue
		}
		if f, n := h.rest(r, p); n > 0 {
			oldest, first, count = r, f, n
		}
	}
	return first, count
}

// lone reports whether p has nothing to do, and nobody else could do it.
func (h *haul) lone(p *hauler, now time.Time) bool {
	if p.flying > 0 {
		return false
	}
	for _, o := range h.peers {
		if o != p && o.rate > 0 && !o.barred && !o.away.After(now) {
			return false
		}
	}
	return true
}

// rest is the last run of chunks of r that haven't come and that p may be asked for:
// they come last there.
func (h *haul) rest(r *run, p *hauler) (first, count int) {
	free := func(i int) bool {
		if h.here[i] || h.copies[i] >= haulCopies && p.asked {
			return false
		}
		for _, o := range h.runs {
			if o.peer == p.id && i >= o.first && i < o.first+o.count {
				return false
			}
		}
		return true
	}
	end := r.first + r.count
	for end > r.first+r.came && !free(end-1) {
		end--
	}
	first = end
	for first > r.first+r.came && free(first-1) {
		first--
	}
	if half := (end - first) / 2; end-first > 1 { // the other goes on with the first half
		first += half
	}
	return first, end - first
}

func (h *haul) cancel(r *run) {
	h.drop(r)
	h.effects = append(h.effects, hxCancel{r.id})
}

func (h *haul) drop(r *run) {
	delete(h.runs, r.id)
	if p := h.peers[r.peer]; p != nil {
		p.flying--
	}
	for i := r.first; i < r.first+r.count; i++ {
		h.copies[i]--
		if !h.here[i] {
			h.next = min(h.next, i)
		}
	}
}

// ordered lists the requests in flight, the oldest first.
func (h *haul) ordered() []*run {
	all := make([]*run, 0, len(h.runs))
	for _, r := range h.runs {
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b *run) int { return cmp.Compare(a.id, b.id) })
	return all
}

package blocksync

import (
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"
)

// Limits bound what the server does for its askers: one peer can't take what is
// its organisation's, nor one organisation what is everybody's. Zero fields take
// defaults.
type Limits struct {
	Streams int // requests served at once, all peers together
	Peer    Share
	Org     Share
}

// Share is what one asker may use.
type Share struct {
	Streams  int     // requests served at once
	Requests float64 // a second
	Bytes    float64 // a second
}

// quotaAskers bounds the peers, and the organisations, whose use is remembered;
// the longest unseen leaves first, and who comes back starts with full buckets.
const quotaAskers = 1024

func (l Limits) withDefaults() Limits {
	l.Streams = cmpOr(l.Streams, 256)
	l.Peer = l.Peer.or(Share{Streams: 16, Requests: 500, Bytes: 1 << 30})
	l.Org = l.Org.or(Share{Streams: 64, Requests: 2000, Bytes: 2 << 30})
	return l
}

func (s Share) or(def Share) Share {
	return Share{cmpOr(s.Streams, def.Streams), cmpOr(s.Requests, def.Requests), cmpOr(s.Bytes, def.Bytes)}
}

// quota is one asker's use. Streams is guarded by the quotas' mu.
type quota struct {
	share    Share
	requests *rate.Limiter
	bytes    *rate.Limiter
	streams  int
}

func newQuota(s Share) *quota {
	return &quota{
		share:    s,
		requests: rate.NewLimiter(rate.Limit(s.Requests), int(max(s.Requests, 1))),
		bytes:    rate.NewLimiter(rate.Limit(s.Bytes), maxBytes),
	}
}

type quotas struct {
	limits Limits

	mu      sync.Mutex
	peers   *lru.Cache[peer.ID, *quota] // guarded by mu
	orgs    *lru.Cache[string, *quota]  // guarded by mu
	streams int                         // guarded by mu
}

func newQuotas(l Limits) *quotas {
	peers, _ := lru.New[peer.ID, *quota](quotaAskers) // errs for sizes below 1 only
	orgs, _ := lru.New[string, *quota](quotaAskers)
	return &quotas{limits: l, peers: peers, orgs: orgs}
}

// place is the right to be served one request.
type place struct {
	of        *quotas
	peer, org *quota
}

// enter takes a place for one request of a peer of an organisation; nil if there
// is none.
func (q *quotas) enter(p peer.ID, org string) *place {
	q.mu.Lock()
	defer q.mu.Unlock()
	w := &place{q, quotaOf(q.peers, p, q.limits.Peer), quotaOf(q.orgs, org, q.limits.Org)}
	if q.streams >= q.limits.Streams {
		return nil
	}
	for _, v := range []*quota{w.peer, w.org} {
		if v.streams >= v.share.Streams || v.requests.Tokens() < 1 {
			return nil
		}
	}
	for _, v := range []*quota{w.peer, w.org} {
		v.requests.Allow()
		v.streams++
	}
	q.streams++
	return w
}

func quotaOf[K comparable](in *lru.Cache[K, *quota], k K, s Share) *quota {
	if v, ok := in.Get(k); ok {
		return v
	}
	v := newQuota(s)
	in.Add(k, v)
	return v
}

func (w *place) leave() {
	w.of.mu.Lock()
	defer w.of.mu.Unlock()
	w.peer.streams--
	w.org.streams--
	w.of.streams--
}

// delay takes n bytes out of the buckets and returns how long to wait for them.
func (w *place) delay(n int) time.Duration { return max(w.peer.delay(n), w.org.delay(n)) }

func (v *quota) delay(n int) (d time.Duration) {
	now := time.Now()
	for n > 0 {
		take := min(n, v.bytes.Burst())
		d = max(d, v.bytes.ReserveN(now, take).DelayFrom(now))
		n -= take
	}
	return d
}

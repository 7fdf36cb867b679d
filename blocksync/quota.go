package blocksync

import (
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"
)

// Limits bound what the server does for its askers. Zero fields take defaults.
type Limits struct {
	Streams       int     // requests served at once, all peers together
	StreamsOfPeer int     // of one peer
	Requests      float64 // a second, of one peer
	Bytes         float64 // a second, to one peer
}

// quotaPeers bounds the peers whose use is remembered; the longest unseen
// leaves first, and a peer that comes back starts with full buckets.
const quotaPeers = 1024

func (l Limits) withDefaults() Limits {
	l.Streams = cmpOr(l.Streams, 256)
	l.StreamsOfPeer = cmpOr(l.StreamsOfPeer, 16)
	if l.Requests <= 0 {
		l.Requests = 500
	}
	if l.Bytes <= 0 {
		l.Bytes = 1 << 30
	}
	return l
}

// quota is one peer's use. Streams is guarded by the quotas' mu.
type quota struct {
	requests *rate.Limiter
	bytes    *rate.Limiter
	streams  int
}

type quotas struct {
	limits Limits

	mu      sync.Mutex
	peers   *lru.Cache[peer.ID, *quota] // guarded by mu
	streams int                         // guarded by mu
}

func newQuotas(l Limits) *quotas {
	peers, _ := lru.New[peer.ID, *quota](quotaPeers) // errs for sizes below 1 only
	return &quotas{limits: l, peers: peers}
}

// of returns a peer's quota.
func (q *quotas) of(p peer.ID) *quota {
	q.mu.Lock()
	defer q.mu.Unlock()
	if v, ok := q.peers.Get(p); ok {
		return v
	}
	v := &quota{
		requests: rate.NewLimiter(rate.Limit(q.limits.Requests), int(q.limits.Requests)),
		bytes:    rate.NewLimiter(rate.Limit(q.limits.Bytes), maxBytes),
	}
	q.peers.Add(p, v)
	return v
}

// enter takes a place for one request, if there is one.
func (q *quotas) enter(v *quota) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if v.streams >= q.limits.StreamsOfPeer || q.streams >= q.limits.Streams || !v.requests.Allow() {
		return false
	}
	v.streams++
	q.streams++
	return true
}

func (q *quotas) leave(v *quota) {
	q.mu.Lock()
	defer q.mu.Unlock()
	v.streams--
	q.streams--
}

// delay takes n bytes out of the bucket and returns how long to wait for them.
func (v *quota) delay(n int) (d time.Duration) {
	now := time.Now()
	for n > 0 {
		take := min(n, v.bytes.Burst())
		d = max(d, v.bytes.ReserveN(now, take).DelayFrom(now))
		n -= take
	}
	return d
}

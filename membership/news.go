package membership

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"grapevine/msp"
	"grapevine/wire"
)

const (
	// relays is how many members news is passed on to.
	relays = 4
	// firstHand is how many are told of who has just connected: whom a whole
	// network has for bootstrap spares it most of the rest.
	firstHand = 64
	// maxNews is how many wait to be told together.
	maxNews = 256
)

// news is a message about a member that others may not have.
type news struct {
	from   peer.ID // who told us
	id     msp.PKIID
	mspID  string
	own    bool
	left   bool
	signed *wire.SignedAlive
}

// pass has news told: a leave at once, else soon, with what comes until then.
// Called under mu.
func (m *Members) pass(n news, now time.Time) {
	if len(m.news) == 0 {
		m.newsAt = now.Add(clock)
		m.wake(m.newsAt)
	}
	m.news = append(m.news, n)
	if n.left || len(m.news) >= maxNews {
		m.spread()
	}
}

// spread tells a few others what was heard since the last time, together.
// Called under mu.
func (m *Members) spread() {
	if len(m.news) == 0 {
		return
	}
	n := 0
	for p, t := range m.talks { // in no order
		if n == firstHand {
			break
		}
		out := bundle{m: m, to: t}
		for _, s := range m.news {
			many := m.hosts[s.id] == s.from && !s.left // who leaves has told everybody
			if s.from != p && s.id != t.id && (!s.own || t.mspID == s.mspID) && (n < relays || many) {
				out.add(s.signed)
			}
		}
		out.send()
		n++
	}
	m.news = m.news[:0]
}

// A bundle gathers messages for one member, as many to a word as it may hold.
// Its methods are called under mu.
type bundle struct {
	m    *Members
	to   *talk
	word wire.Word
	size int
}

func (b *bundle) add(s *wire.SignedAlive) {
	raw, err := wire.Marshal(s)
	if err != nil {
		return
	}
	b.word.Alive = append(b.word.Alive, raw)
	if b.size += len(raw); len(b.word.Alive) >= maxAlives || b.size > aliveBytes {
		b.send()
	}
}

func (b *bundle) accuse(id msp.PKIID, incarnation, round uint64) {
	b.word.Accused = append(b.word.Accused, appendEntry(nil, id, incarnation, round))
	if len(b.word.Accused) >= maxAccused {
		b.send()
	}
}

func (b *bundle) send() {
	if len(b.word.Alive)+len(b.word.Accused) > 0 {
		b.m.send(b.to, &wire.Word{Alive: b.word.Alive, Accused: b.word.Accused})
	}
	b.word.Alive, b.word.Accused, b.size = nil, nil, 0
}

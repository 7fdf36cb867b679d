package membership

import (
	"container/heap"
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"grapevine/msp"
	"grapevine/msp/ca"
	"grapevine/wire"
)

// A city is as many members as one likes: real Members and Circles, which send
// the words and signed messages that nodes send, on one goroutine in a bubble,
// whose clock is virtual. What is modelled is the rest of a node: connections and
// who dials (see node/meeting.go), and the flooding of GossipSub. Limits of hosts
// on connections are left out. What costs the same at every member is computed
// once: certificates are read and signatures checked once, and counted each time.
type city struct {
	rng      *rand.Rand
	people   []*citizen
	byHost   map[peer.ID]*citizen
	events   occasions
	ids      map[string]*msp.Identity
	checked  map[[32]byte]error
	seen     map[[32]byte]map[int]bool // messages flooded, and by whom they were had
	full     int                       // who has seen everybody
	made     int                       // connections
	words    int
	bytes    int // of words, and of flooded messages with copies
	flooded  int // messages that were received, copies included
	problems []error
}

type citizen struct {
	*Members
	i       int
	rhythm  rhythm
	circle  *Circle
	here    map[*citizen]bool
	mesh    []*citizen
	due     time.Time // when it looks next
	looks   time.Time // when its circle is asked next
	busy    time.Time // with handshakes, until then
	waiting int       // handshakes
	pause   time.Duration
	known   int
}

// An occasion is something that happens.
type occasion struct {
	at time.Time
	n  int
	do func()
}

type occasions []occasion

func (o occasions) Len() int { return len(o) }
func (o occasions) Less(i, j int) bool {
	return o[i].at.Before(o[j].at) || o[i].at.Equal(o[j].at) && o[i].n < o[j].n
}
func (o occasions) Swap(i, j int) { o[i], o[j] = o[j], o[i] }
func (o *occasions) Push(x any)   { *o = append(*o, x.(occasion)) }
func (o *occasions) Pop() any {
	old := *o
	x := old[len(old)-1]
	*o = old[:len(old)-1]
	return x
}

const (
	cityShake  = 3 * time.Millisecond   // of processor time for a handshake, at either end
	cityRound  = 100 * time.Millisecond // for its three round trips and a half
	cityGather = 100 * time.Millisecond // between two looks of a circle: nodes look sooner
	cityMesh   = 8                      // of GossipSub in large channels
	cityDoor   = 256                    // handshakes under way, more are refused; see node/host.go
)

// cityFolk are the identities and hosts of n peers of one organisation.
func cityFolk(n int) (signers []msp.Signer, hosts []peer.ID) {
	org := must(ca.NewOrg("Org1MSP", "org1.example.com", bubbleEpoch))
	for i := range n {
		signers = append(signers, must(org.Identity(fmt.Sprintf("peer%d.org1.example.com", i), "peer")))
		hosts = append(hosts, makeHost(1000+i))
	}
	return signers, hosts
}

// newCity makes a city in a bubble; nobody lives yet.
func newCity(signers []msp.Signer, hosts []peer.ID) *city {
	s := &city{
		rng: rand.New(rand.NewPCG(1, 2)), byHost: map[peer.ID]*citizen{}, ids: map[string]*msp.Identity{},
		checked: map[[32]byte]error{}, seen: map[[32]byte]map[int]bool{},
	}
	for i, signer := range signers {
		p := &citizen{i: i, here: map[*citizen]bool{}, circle: NewCircle(hosts[i], "", uint64(i), 3*time.Second), pause: 100 * time.Millisecond}
		p.Members = must(New(Config{
			Self: signer, Tag: tag, PeerID: hosts[i], Incarnation: uint64(time.Now().UnixMilli()),
			Endpoint: fmt.Sprintf("peer%d.org1.example.com:7051", i), Internal: fmt.Sprintf("inside%d:7051", i), Role: "peer", Version: "1.0.0",
			Tip:     func() (uint64, [32]byte) { return 42, [32]byte{4, 2} },
			Publish: func(_ context.Context, m *wire.SignedAlive) error { s.flood(p, m, p); return nil },
			Admit:   func(*msp.Identity, [][]byte, time.Time) error { return nil },
			Bound: func(h peer.ID) (*msp.Identity, [][]byte, bool) {
				if q := s.byHost[h]; q != nil && p.here[q] {
					return q.c.Self.Identity(), nil, true
				}
				return nil, nil, false
			},
			Changed: func(e Event) {
				if e.Kind == Joined {
					if p.known++; p.known == len(signers)-1 {
						s.full++
					}
				}
			},
		}))
		p.read = func(mspID string, der []byte) (*msp.Identity, error) {
			id, ok := s.ids[string(der)]
			if !ok {
				id = must(msp.FromDER(mspID, der))
				s.ids[string(der)] = id
			}
			return id, nil
		}
		p.check = func(id *msp.Identity, digest, sig []byte) error {
			key := sha256.Sum256(slices.Concat(id.Certificate().RawSubjectPublicKeyInfo, digest, sig))
			err, ok := s.checked[key]
			if !ok {
				err = id.Verify(digest, sig)
				s.checked[key] = err
			}
			return err
		}
		p.links.deliver = func(to peer.ID, w *wire.Word) bool {
			q, size := s.byHost[to], proto.Size(w)
			s.words++
			s.bytes += size + 2
			s.after(s.travel(), func() {
				if size > 0 && p.here[q] {
					if err := q.Hear(p.c.PeerID, w); err != nil {
						s.problems = append(s.problems, err)
					}
					s.attend(q)
				}
			})
			return true
		}
		s.people = append(s.people, p)
		s.byHost[hosts[i]] = p
	}
	return s
}

func (s *city) travel() time.Duration { return time.Duration(5+s.rng.IntN(40)) * time.Millisecond }

func (s *city) after(d time.Duration, f func()) {
	heap.Push(&s.events, occasion{time.Now().Add(d), s.rng.Int(), f})
}

// run lets time pass until done, at most for d, and says whether it is.
func (s *city) run(d time.Duration, done func() bool) bool {
	end := time.Now().Add(d)
	for !done() {
		if len(s.events) == 0 || s.events[0].at.After(end) {
			time.Sleep(time.Until(end))
			return done()
		}
		e := heap.Pop(&s.events).(occasion)
		time.Sleep(time.Until(e.at))
		e.do()
	}
	return true
}

// settle lets p begin.
func (s *city) settle(p *citizen) {
	p.looks = time.Now()
	s.live(p)
	if p.i > 0 {
		s.call(p)
	}
}

// call dials the bootstrap peer until it answers.
func (s *city) call(p *citizen) {
	s.dial(p, s.people[0], func(well bool) {
		if !well {
			s.after(p.pause/2+time.Duration(s.rng.Int64N(int64(p.pause))), func() { s.call(p) })
			p.pause = min(2*p.pause, 3*time.Second)
		}
	})
}

// live is what Run does when it wakes, and what meeting does.
func (s *city) live(p *citizen) {
	now := time.Now()
	p.due = time.Time{}
	force := false
	select {
	case <-p.Members.due:
		force = true
		p.raise()
	default:
	}
	if err := p.look(context.Background(), &p.rhythm, force, now); err != nil {
		s.problems = append(s.problems, err)
	}
	if !now.Before(p.looks) {
		s.meet(p, now)
	}
	s.attend(p)
}

// attend sees to it that p looks when it wants to.
func (s *city) attend(p *citizen) {
	at := p.alarm()
	if len(p.Members.due) > 0 {
		at = time.Now()
	}
	if p.looks.Before(at) {
		at = p.looks
	}
	if !p.due.IsZero() && !at.Before(p.due) {
		return
	}
	p.due = at
	s.after(max(0, time.Until(at)), func() {
		if p.due.Equal(at) {
			s.live(p)
		}
	})
}

// meet asks p's circle.
func (s *city) meet(p *citizen, now time.Time) {
	var strangers []Member
	for _, m := range p.List() {
		if !m.Self && m.State != Left && !p.here[s.byHost[m.Peer]] {
			strangers = append(strangers, m)
		}
	}
	due, wait := p.circle.Due(strangers, len(p.here), now)
	p.looks = now.Add(max(wait, cityGather))
	if wait == 0 {
		p.looks = now.Add(time.Second)
	}
	for _, m := range due {
		s.dial(p, s.byHost[m.Peer], func(bool) { p.circle.Done(m.Peer, time.Now()) })
	}
}

// dial connects p and q, or not.
func (s *city) dial(p, q *citizen, done func(well bool)) {
	if q.waiting >= cityDoor {
		s.after(cityRound/2, func() { done(false) })
		return
	}
	q.waiting++
	now, at := time.Now(), time.Now()
	for _, e := range []*citizen{p, q} {
		if e.busy.Before(now) {
			e.busy = now
		}
		e.busy = e.busy.Add(cityShake)
		if e.busy.After(at) {
			at = e.busy
		}
	}
	s.after(at.Sub(now)+cityRound, func() {
		q.waiting--
		done(true)
		s.connect(p, q)
	})
}

func (s *city) connect(p, q *citizen) {
	if p.here[q] || p == q {
		return
	}
	s.made++
	for _, e := range [][2]*citizen{{p, q}, {q, p}} {
		e[0].here[e[1]] = true
		if len(e[0].mesh) < cityMesh {
			e[0].mesh = append(e[0].mesh, e[1])
		}
	}
	p.Arrived(q.c.PeerID)
	q.Arrived(p.c.PeerID)
	s.attend(p)
	s.attend(q)
}

// acquaint lets all know each other and have so many connections at least, as if
// they had lived together for long. Nobody dials any more.
func (s *city) acquaint(degree int) {
	for _, p := range s.people {
		p.looks = time.Now().Add(1000 * time.Hour)
		p.Members.mu.Lock()
		err := p.sign(time.Now(), true, false)
		p.Members.mu.Unlock()
		if err != nil {
			s.problems = append(s.problems, err)
			return
		}
		for _, q := range s.people {
			if err := q.Receive(p.c.PeerID, p.whole(p.wide)); p != q && err != nil {
				s.problems = append(s.problems, err)
			}
		}
	}
	for _, p := range s.people {
		for len(p.here) < min(degree, len(s.people)-1) {
			s.connect(p, s.people[s.rng.IntN(len(s.people))])
		}
		s.after(time.Duration(s.rng.IntN(1000))*time.Millisecond, func() { s.live(p) })
	}
}

// flood passes a message on in the mesh.
func (s *city) flood(p *citizen, m *wire.SignedAlive, from *citizen) {
	id := sha256.Sum256(m.Alive)
	if s.seen[id] == nil {
		s.seen[id] = map[int]bool{}
	}
	s.seen[id][p.i] = true
	size := proto.Size(m)
	for _, q := range p.mesh {
		if q == from {
			continue
		}
		s.after(s.travel(), func() {
			s.flooded++
			s.bytes += size
			if s.seen[id][q.i] {
				return
			}
			s.seen[id][q.i] = true
			if q.Receive(p.c.PeerID, m) == nil {
				s.flood(q, m, p)
			}
			s.attend(q)
		})
	}
}

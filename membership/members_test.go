package membership

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	"grapevine/msp"
	"grapevine/wire"
)

// A town is parties and the connections between them. A word takes 5 ms, as
// long as both ends are connected, and words of one to another keep their order.
type town struct {
	t       *testing.T
	parties []*party
	mu      sync.Mutex
	open    map[[2]int]bool     // from, to; guarded by mu
	waiting map[[2]int][][]byte // words, likewise
	hearing sync.Mutex          // one word at a time is heard
	over    []chan error
	stop    []context.CancelFunc
	words   int // guarded by mu
	bytes   int // guarded by mu
}

// newTown makes a party of each of the cast named.
func newTown(t *testing.T, f func(i int, c *Config), who ...int) *town {
	w := &town{t: t, open: make(map[[2]int]bool), waiting: make(map[[2]int][][]byte)}
	for k, i := range who {
		p := newParty(t, i, func(c *Config) {
			if f != nil {
				f(k, c)
			}
		})
		w.parties = append(w.parties, p)
		w.wire(k, p)
	}
	return w
}

// said is how many words, and how many bytes, went from one to another.
func (w *town) said() (words, size int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.words, w.bytes
}

// wire lets what k's party says reach the others.
func (w *town) wire(k int, p *party) {
	p.links.deliver = func(to peer.ID, word *wire.Word) bool {
		b := must(wire.Marshal(word))
		w.mu.Lock()
		parties := slices.Clone(w.parties)
		w.mu.Unlock()
		for j, q := range parties {
			if q.c.PeerID != to {
				continue
			}
			way := [2]int{k, j}
			w.mu.Lock()
			w.waiting[way] = append(w.waiting[way], b)
			w.mu.Unlock()
			time.AfterFunc(5*time.Millisecond, func() { w.arrive(way, p.c.PeerID) })
		}
		return true
	}
}

// arrive lets the first word that waits on a way be heard: in order, as a
// stream's.
func (w *town) arrive(way [2]int, from peer.ID) {
	w.hearing.Lock()
	defer w.hearing.Unlock()
	w.mu.Lock()
	b, q, open := w.waiting[way][0], w.parties[way[1]], w.open[way]
	w.waiting[way] = w.waiting[way][1:]
	if open {
		w.words++
		w.bytes += len(b)
	}
	w.mu.Unlock()
	if !open || len(b) == 0 {
		return
	}
	got := new(wire.Word)
	if err := wire.Unmarshal(b, got); err != nil {
		w.t.Errorf("a word that doesn't decode: %v", err)
	} else if err := q.Hear(from, got); err != nil {
		w.t.Errorf("%d to %d: %v", way[0], way[1], err)
	}
}

// join connects parties i and j.
func (w *town) join(i, j int) {
	w.mu.Lock()
	w.open[[2]int{i, j}], w.open[[2]int{j, i}] = true, true
	w.mu.Unlock()
	w.parties[i].Arrived(w.parties[j].c.PeerID)
	w.parties[j].Arrived(w.parties[i].c.PeerID)
}

// cut ends their connection; told says whether they notice.
func (w *town) cut(i, j int, told bool) {
	w.mu.Lock()
	delete(w.open, [2]int{i, j})
	delete(w.open, [2]int{j, i})
	w.mu.Unlock()
	if told {
		w.parties[i].Gone(w.parties[j].c.PeerID)
		w.parties[j].Gone(w.parties[i].c.PeerID)
	}
}

func (w *town) joinAll() {
	for i := range w.parties {
		for j := range i {
			w.join(i, j)
		}
	}
}

// run starts party i; end ends all.
func (w *town) run(is ...int) {
	for _, i := range is {
		ctx, cancel := context.WithCancel(context.Background())
		over := make(chan error, 1)
		p := w.parties[i]
		go func() { over <- p.Run(ctx) }()
		w.stop, w.over = append(w.stop, cancel), append(w.over, over)
	}
}

func (w *town) end() {
	for i := range w.stop {
		w.stop[i]()
		require.ErrorIs(w.t, <-w.over[i], context.Canceled)
	}
	time.Sleep(time.Second) // what is under way
}

// sees returns how party i sees party j.
func (w *town) sees(i, j int) (Member, bool) {
	for _, m := range w.parties[i].List() {
		if m.PKIID == w.parties[j].id {
			return m, true
		}
	}
	return Member{}, false
}

// happened returns the kinds of events that party i was told of j.
func (w *town) happened(i, j int) (out []Kind) {
	p := w.parties[i]
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.changes {
		if e.Member.PKIID == w.parties[j].id {
			out = append(out, e.Kind)
		}
	}
	return out
}

// heard returns how many members' heights were told.
func (p *party) heard() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.heights)
}

func TestMembersFindEachOther(t *testing.T) {
	cast()
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, nil, 0, 1, 2, 3)
		w.run(0, 1, 2)
		w.join(0, 1)
		w.join(0, 2) // 1 and 2 hear of each other through 0
		time.Sleep(100 * time.Millisecond)
		w.run(3)
		w.join(3, 0)
		time.Sleep(500 * time.Millisecond)
		for _, p := range w.parties {
			list := p.List()
			require.Len(t, list, 4)
			require.True(t, list[0].Self)
			for _, m := range list {
				require.Equal(t, Alive, m.State)
				require.EqualValues(t, 42, m.Height)
				require.Equal(t, [32]byte{4, 2}, m.TipHash)
				require.Contains(t, m.Name, "peer")
				require.Equal(t, "peer", m.Role)
			}
			require.Equal(t, 3, p.heard())
		}
		w.joinAll()
		time.Sleep(10 * time.Second)
		for j := range 3 {
			w.cut(j, 3, false) // it crashes; no connection breaks
		}
		time.Sleep(4 * time.Second)
		for i := range 3 {
			m, _ := w.sees(i, 3)
			require.Equal(t, Dead, m.State)
			require.Equal(t, "dead", m.State.String())
			require.Equal(t, []Kind{Joined, Suspected, Died}, w.happened(i, 3))
		}
		for j := range 3 {
			w.cut(j, 3, true)
			w.join(j, 3)
		}
		time.Sleep(time.Second)
		m, _ := w.sees(0, 3)
		require.Equal(t, Alive, m.State, "its own word revives it")
		time.Sleep(time.Hour)
		w.end()
		for _, p := range w.parties {
			s := p.Stats()
			require.LessOrEqual(t, float64(s.Checks), 60+3600/30*4*1.3, "checks of signatures")
			require.LessOrEqual(t, p.stores, 3700/10, "marks are stored now and then")
		}
	})
}

func TestRejudgeExpels(t *testing.T) {
	cast()
	synctest.Test(t, func(t *testing.T) {
		p := newParty(t, 0, nil)
		require.NoError(t, p.Receive(hostOf(1), signed(1, nil)))
		p.Rejudge()
		require.Len(t, p.List(), 2)
		revoked := errors.New("revoked")
		p.admit = revoked
		p.Rejudge()
		require.Len(t, p.List(), 1)
		require.Equal(t, Expelled, p.changes[len(p.changes)-1].Kind)
		require.ErrorIs(t, p.Receive(hostOf(1), signed(1, func(a *wire.Alive) { a.Sequence = 2 })), revoked)
		p.admit = nil
		require.ErrorIs(t, p.Receive(hostOf(1), signed(1, nil)), NotNewer, "its mark was forgotten")
		require.NoError(t, p.Receive(hostOf(1), signed(1, func(a *wire.Alive) { a.Sequence = 3 })))
	})
}

// Who was refused under a configuration that is older than its certificate is asked
// for, once that which admits it is in force: its next beat may be minutes away.
func TestRejudgeAsksForTheRefused(t *testing.T) {
	cast()
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, nil, 0, 6, 9)
		w.parties[2].admit = errors.New("certificate signed by unknown authority")
		w.run(0, 1, 2)
		w.join(0, 1)
		w.join(1, 2) // of 0 the one hears from another
		time.Sleep(3 * fresh)
		for i := range 2 {
			_, ok := w.sees(2, i)
			require.False(t, ok)
		}
		w.parties[2].mu.Lock()
		w.parties[2].admit = nil
		w.parties[2].mu.Unlock()
		w.parties[2].Rejudge()
		time.Sleep(time.Second)
		for i := range 2 {
			_, ok := w.sees(2, i)
			require.True(t, ok, "%d", i)
		}
		w.end()
	})
}

// A no of Admit holds even within the time for which a yes is remembered, and a
// yes no longer than the certificate.
func TestAdmit(t *testing.T) {
	cast()
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		stranger := errors.New("not a member")
		p := newParty(t, 0, func(c *Config) {
			c.Admit = func(id *msp.Identity, _ [][]byte, _ time.Time) error {
				asked++
				if id.Name() == "peer2.org1.example.com" {
					return stranger
				}
				return nil
			}
		})
		for i := range 20 {
			s := signed(1, func(a *wire.Alive) { a.Sequence = uint64(i + 1) })
			if i > 0 {
				s.Certificate = nil // known by now
			}
			require.NoError(t, p.Receive(hostOf(1), s))
			time.Sleep(time.Second)
		}
		require.Equal(t, 1, asked)
		require.ErrorIs(t, p.Receive(hostOf(2), signed(2, nil)), stranger)
		require.Len(t, p.List(), 2)
		require.Empty(t, p.heights[hostOf(2)])
	})
}

func TestStoreThatFailsEndsRun(t *testing.T) {
	cast()
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("input/output error")
		p := newParty(t, 0, func(c *Config) { c.Store = func([]byte) error { return broken } })
		require.NoError(t, p.Receive(hostOf(1), signed(1, nil)))
		require.ErrorIs(t, p.Run(t.Context()), broken)
	})
}

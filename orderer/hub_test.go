package orderer_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"

	"grapevine/orderer"
)

// hub is a network of consenters in memory. Links can be cut.
type hub struct {
	mu    sync.Mutex
	takes map[string]taker   // guarded by mu: by address
	cut   map[[2]string]bool // guarded by mu: both ways
	open  map[*wire]struct{} // guarded by mu

	voting map[string]func() []orderer.Consenter // guarded by mu: whom the node at an address counts among the voters
	dials  map[string]int                        // guarded by mu: in vain, by address
}

func newHub() *hub {
	return &hub{takes: map[string]taker{}, cut: map[[2]string]bool{}, open: map[*wire]struct{}{}, voting: map[string]func() []orderer.Consenter{}, dials: map[string]int{}}
}

type taker struct {
	id   uint64
	take func(net.Conn)
}

// wire is one stream between two consenters.
type wire struct {
	a, b   net.Conn
	ends   [2]string
	closed sync.Once
}

// port is a consenter's side of the hub.
type port struct {
	hub  *hub
	self string
}

func (p port) Accept(id uint64, take func(net.Conn)) {
	p.hub.mu.Lock()
	defer p.hub.mu.Unlock()
	p.hub.takes[p.self] = taker{id, take}
}

func (p port) Dial(_ context.Context, to orderer.Consenter) (net.Conn, error) {
	h := p.hub
	h.mu.Lock()
	other := h.takes[to.Address()]
	if other.take == nil || other.id != to.ID || h.cut[[2]string{p.self, to.Address()}] {
		h.dials[to.Address()]++
		h.mu.Unlock()
		return nil, errors.New("nobody there")
	}
	if voting := h.voting[to.Address()]; voting != nil && !slices.ContainsFunc(voting(), func(c orderer.Consenter) bool { return c.Address() == p.self }) {
		h.mu.Unlock()
		return nil, orderer.Stranger
	}
	w := &wire{ends: [2]string{p.self, to.Address()}}
	w.a, w.b = net.Pipe()
	h.open[w] = struct{}{}
	h.mu.Unlock()
	other.take(end{w.b, w, h})
	return end{w.a, w, h}, nil
}

// end is one end of a wire: who closes one closes both.
type end struct {
	net.Conn
	w *wire
	h *hub
}

func (e end) Close() error {
	e.w.close()
	e.h.mu.Lock()
	defer e.h.mu.Unlock()
	delete(e.h.open, e.w)
	return nil
}

func (w *wire) close() {
	w.closed.Do(func() { _ = errors.Join(w.a.Close(), w.b.Close()) })
}

// isolate cuts a consenter off from all others, or lets it back.
func (h *hub) isolate(who string, all []string, off bool) {
	h.mu.Lock()
	var gone []*wire
	for _, other := range all {
		h.cut[[2]string{who, other}], h.cut[[2]string{other, who}] = off, off
	}
	for w := range h.open {
		if off && (w.ends[0] == who || w.ends[1] == who) {
			gone = append(gone, w)
		}
	}
	h.mu.Unlock()
	for _, w := range gone {
		w.close()
	}
}

// counts tells whom the node at an address counts among the voters.
func (h *hub) counts(who string, voting func() []orderer.Consenter) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.voting[who] = voting
}

// dialled is how often an address was dialled in vain.
func (h *hub) dialled(who string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.dials[who]
}

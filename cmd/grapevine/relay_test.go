package main

import (
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A relay carries TCP connections to an address, until it is cut: then nothing
// passes, and nothing ends.
type relay struct {
	to     string
	listen net.Listener
	over   sync.WaitGroup

	mu    sync.Mutex
	open  chan struct{} // closed while bytes pass, owned by mu
	gone  chan struct{} // closed at the end
	conns map[net.Conn]bool
}

func newRelay(t *testing.T, to string) *relay {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r := &relay{to: to, listen: l, open: make(chan struct{}), gone: make(chan struct{}), conns: map[net.Conn]bool{}}
	close(r.open)
	r.over.Go(r.accept)
	t.Cleanup(r.end)
	return r
}

func (r *relay) addr() string { return r.listen.Addr().String() }

// cut lets nothing pass any more, or again what comes from then on.
func (r *relay) cut(yes bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.open:
		if yes {
			r.open = make(chan struct{})
		}
	default:
		if !yes {
			close(r.open)
		}
	}
}

func (r *relay) end() {
	close(r.gone)
	_ = r.listen.Close()
	r.mu.Lock()
	for c := range r.conns {
		_ = c.Close()
	}
	r.mu.Unlock()
	r.over.Wait()
}

func (r *relay) accept() {
	for {
		c, err := r.listen.Accept()
		if err != nil {
			return
		}
		if !r.keep(c) {
			return
		}
		r.over.Go(func() {
			defer c.Close()
			if !r.passes() {
				return
			}
			d, err := net.DialTimeout("tcp", r.to, time.Second)
			if err != nil {
				return // nobody there: neither is anybody here
			}
			defer d.Close()
			if !r.keep(d) {
				return
			}
			var both sync.WaitGroup
			both.Go(func() { r.copy(d, c) })
			both.Go(func() { r.copy(c, d) })
			both.Wait()
		})
	}
}

// keep notes a connection, to be closed at the end.
func (r *relay) keep(c net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.gone:
		_ = c.Close()
		return false
	default:
		r.conns[c] = true
		return true
	}
}

// passes waits until bytes pass; false at the end.
func (r *relay) passes() bool {
	r.mu.Lock()
	open := r.open
	r.mu.Unlock()
	select {
	case <-open:
		return true
	case <-r.gone:
		return false
	}
}

func (r *relay) copy(to, from net.Conn) {
	defer func() { _ = to.Close() }()
	for b := make([]byte, 32<<10); ; {
		n, err := from.Read(b)
		if !r.passes() || err != nil {
			return
		}
		if _, err := to.Write(b[:n]); err != nil {
			return
		}
	}
}

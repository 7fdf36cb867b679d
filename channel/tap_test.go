package channel

import (
	"context"
	"io"
	"sync"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// tap is a host that keeps every byte that its owner's streams receive.
type tap struct {
	host.Host
	mu  sync.Mutex
	got []byte
}

func (h *tap) received() []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]byte(nil), h.got...)
}

func (h *tap) NewStream(ctx context.Context, p peer.ID, ids ...protocol.ID) (network.Stream, error) {
	s, err := h.Host.NewStream(ctx, p, ids...)
	if err != nil {
		return nil, err
	}
	return tapped{s, h}, nil
}

func (h *tap) SetStreamHandler(id protocol.ID, f network.StreamHandler) {
	h.Host.SetStreamHandler(id, func(s network.Stream) { f(tapped{s, h}) })
}

func (h *tap) SetStreamHandlerMatch(id protocol.ID, m func(protocol.ID) bool, f network.StreamHandler) {
	h.Host.SetStreamHandlerMatch(id, m, func(s network.Stream) { f(tapped{s, h}) })
}

type tapped struct {
	network.Stream
	tap *tap
}

func (s tapped) Read(b []byte) (int, error) {
	n, err := s.Stream.Read(b)
	s.tap.mu.Lock()
	defer s.tap.mu.Unlock()
	s.tap.got = append(s.tap.got, b[:n]...)
	return n, err
}

// echo is a handler that gives back what it gets.
func echo(s network.Stream) {
	_, err := io.Copy(s, s)
	if err != nil {
		_ = s.Reset()
		return
	}
	_ = s.Close()
}

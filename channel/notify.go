package channel

import (
	"sync"

	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"
)

// Listen and ListenClose complete network.Notifiee; addresses are none of the
// door's business.
func (d *doorNotifiee) Listen(network.Network, ma.Multiaddr)      {}
func (d *doorNotifiee) ListenClose(network.Network, ma.Multiaddr) {}

// notifiees are those who asked a view's network for notifications. They hear
// of members only: of connections to them, and of those already connected that
// arrive or are expelled.
type notifiees struct {
	mu  sync.Mutex
	set map[network.Notifiee]struct{} // guarded by mu
}

func (n *notifiees) add(f network.Notifiee) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.set == nil {
		n.set = make(map[network.Notifiee]struct{})
	}
	n.set[f] = struct{}{}
}

func (n *notifiees) remove(f network.Notifiee) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.set, f)
}

// each calls f for every notifiee, outside the lock.
func (n *notifiees) each(f func(network.Notifiee)) {
	n.mu.Lock()
	fs := make([]network.Notifiee, 0, len(n.set))
	for k := range n.set {
		fs = append(fs, k)
	}
	n.mu.Unlock()
	for _, k := range fs {
		f(k)
	}
}

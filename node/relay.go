package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"grapevine/deliver"
	"grapevine/wire"
)

// RelayServices are what a peer serves to unmodified Fabric peers, whose
// core.yaml names it in addressOverrides: blocks as an orderer delivers them, of
// its own verified ledger, and submissions handed on to the real orderers. The
// zero value serves nothing.
type RelayServices struct {
	Fronts []Front
	// Certificate is asked for at each handshake.
	Certificate func() *tls.Certificate
	ClientRoots func() *x509.CertPool // likewise; not nil: clients must present a certificate that chains to it
	MaxStreams  int                   // served at once on each address; 0: 2500
	TimeWindow  time.Duration         // how far a request's clock may be off; 0: 15 minutes
}

// A Front is one address of a relay.
type Front struct {
	Listen string // host:port
	// Orderer is the one orderer, host:port as the channel's configuration names
	// it, that the address stands for; it answers as long as that one does. Empty:
	// any orderer of a Raft channel. A BFT channel needs one address for each.
	Orderer string
}

// relays are the listeners of the fronts.
type relays struct {
	listeners []net.Listener
	servers   []*deliver.Relay
}

func (n *Node) openRelay() error {
	c := n.cfg.Relay
	for i, f := range c.Fronts {
		l, err := net.Listen("tcp", f.Listen)
		if err != nil {
			return fmt.Errorf("listening for Fabric peers: %w", err)
		}
		n.relays.listeners = append(n.relays.listeners, l)
		n.relays.servers = append(n.relays.servers, deliver.NewRelay(deliver.RelayConfig{
			Certificate: c.Certificate, ClientRoots: c.ClientRoots,
			Submission: func() deliver.Submission { return &submission{node: n, front: f} },
			Handler: &deliver.Handler{
				Channels:  func(name string) (deliver.Channel, bool) { return n.relayed(name, i) },
				MutualTLS: c.ClientRoots != nil, MaxStreams: c.MaxStreams, TimeWindow: c.TimeWindow,
				Logger: n.log, Refused: func(ch string, r *wire.Reason) { n.metrics.refused(ch, r) }, Hooks: n.delivered(),
			},
		}))
	}
	return nil
}

func (r *relays) close() (err error) {
	for _, l := range r.listeners {
		if e := l.Close(); !errors.Is(e, net.ErrClosed) { // Run closes them too
			err = errors.Join(err, e)
		}
	}
	return err
}

// RelayAddresses are where the relay listens, in the order of its fronts, with
// the ports that were chosen.
func (n *Node) RelayAddresses() (out []string) {
	for _, l := range n.relays.listeners {
		out = append(out, l.Addr().String())
	}
	return out
}

// stands says whether an address of the relay stands for an orderer alone.
func (n *Node) stands(orderer string) bool {
	for _, f := range n.cfg.Relay.Fronts {
		if f.Orderer == orderer {
			return true
		}
	}
	return false
}

// relayed is what one of the relay's addresses serves of a channel: to whom the
// ordering service would, and what it would.
func (n *Node) relayed(name string, front int) (deliver.Channel, bool) {
	c, err := n.Channel(name)
	if err != nil {
		return deliver.Channel{}, false
	}
	g := c.fronts[front]
	return deliver.Channel{
		Source: c.ledger, Errored: g.lagging.wait, Gone: g.gone.wait,
		Whole: n.cfg.Relay.Fronts[front].Orderer == "" && c.conf.Load().Consensus() == "BFT",
		Access: func() deliver.Access {
			conf := c.conf.Load()
			path := "/Channel/Readers"
			if conf.Maintenance() {
				path = "/Channel/Orderer/Readers"
			}
			return deliver.Access{Sequence: conf.Sequence(), Readers: conf.Policy(path), MSPs: conf.MSPs()}
		},
	}, true
}

// A front's gates are shut while it must not answer: because this peer lags
// behind the ordering service, or because the orderer is gone that it stands for.
type gates struct{ lagging, gone gate }

// A gate lets wait for the moment in which it is shut. Its zero value is shut.
type gate struct {
	mu   sync.Mutex
	ch   chan struct{} // closed while the gate is shut; nil: never opened; owned by mu
	open bool          // owned by mu
}

var alwaysShut = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// set opens or shuts the gate, and says whether that changed anything.
func (g *gate) set(open bool) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open == open {
		return false
	}
	g.open = open
	if open {
		g.ch = make(chan struct{})
	} else {
		close(g.ch)
	}
	return true
}

// wait returns a channel that is closed while the gate is shut.
func (g *gate) wait() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ch == nil {
		return alwaysShut
	}
	return g.ch
}

// lateness judges whether a ledger lags: whether it lacks a block that was seen
// longer than most ago. It is pure.
type lateness struct {
	armed  bool
	waits  uint64 // number of a block that was seen
	since  time.Time
	lagged bool
}

// step takes the ledger's height and the height that is known to exist.
func (l *lateness) step(height, exists uint64, now time.Time, most time.Duration) bool {
	switch {
	case height >= exists:
		*l = lateness{}
	case !l.armed || height > l.waits:
		*l = lateness{armed: true, waits: exists - 1, since: now}
	default:
		l.lagged = now.Sub(l.since) > most
	}
	return l.lagged
}

// watchFronts opens and shuts the relay's addresses for the channel until ctx
// ends.
func (c *Channel) watchFronts(ctx context.Context) error {
	fronts := c.node.cfg.Relay.Fronts
	if len(fronts) == 0 {
		return nil
	}
	stall := c.stall()
	t := time.NewTicker(stall / 6)
	defer t.Stop()
	defer func() {
		for _, g := range c.fronts {
			g.gone.set(false)
		}
	}()
	var late lateness
	for {
		height, exists, now := c.ledger.Height(), c.sync.Status().Target, time.Now()
		o, pulls := c.source.(interface{ Source() string })
		heard := pulls && c.elect.Leading() && o.Source() != ""
		fresh := map[string]bool{}
		for _, s := range c.sources.list() {
			exists = max(exists, s.Newest+1)
			if now.Sub(s.At) <= 2*stall {
				fresh[s.Address], heard = true, true
			}
		}
		lagging := late.step(height, exists, now, 2*stall)
		for i, f := range fronts {
			alive := heard
			if f.Orderer != "" {
				alive = fresh[f.Orderer]
			}
			g := c.fronts[i]
			if g.gone.set(alive) {
				c.log.Info("relay: the source of an address", "address", f.Listen, "orderer", f.Orderer, "answers", alive)
			}
			if g.lagging.set(!lagging) && lagging {
				c.log.Warn("relay: this node lags behind the ordering service; its clients are sent on", "address", f.Listen, "height", height, "exists", exists)
			}
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

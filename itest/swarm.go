package itest

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/prometheus/client_golang/prometheus"

	"grapevine/channel"
	"grapevine/election"
	"grapevine/msp"
	"grapevine/msp/ca"
	"grapevine/node"
)

// A Peer of a swarm.
type Peer struct {
	Name    string
	Org     int // index into World.Orgs
	Node    *node.Node
	Channel *node.Channel
	Metrics *prometheus.Registry

	cfg  node.Config
	stop context.CancelFunc
	done chan error
}

// SwarmConfig says how the nodes of a swarm are made.
type SwarmConfig struct {
	Dir      string // folders of the nodes
	Peers    int    // per organisation; the first leads it
	InMemory bool
	Leaders  int // organisations whose first peer pulls; 0: all
	Log      *slog.Logger
	// Listen and Libp2p give each node its addresses and further options.
	Listen func(i int) []string
	Libp2p func(i int) []libp2p.Option
	// Endpoint is what each node tells others; nil: none.
	Endpoint func(i int) string
	// Tune changes a node's configuration at last; may be nil.
	Tune func(i int, c *node.Config)
}

// A Swarm is several real nodes of one world in one process.
type Swarm struct {
	World *World
	Peers []*Peer
	cfg   SwarmConfig
}

// NewSwarm makes the configurations of the nodes; Start starts them.
func NewSwarm(w *World, c SwarmConfig) (*Swarm, error) {
	s := &Swarm{World: w, cfg: c}
	if c.Leaders == 0 {
		c.Leaders = len(w.Orgs)
	}
	for i := range len(w.Orgs) * c.Peers {
		org, k := i%len(w.Orgs), i/len(w.Orgs)
		o := w.Orgs[org]
		name := fmt.Sprintf("peer%d.%s", k, o.Domain)
		signer, err := o.Identity(name, "peer")
		if err != nil {
			return nil, err
		}
		m, err := definition(o)
		if err != nil {
			return nil, err
		}
		cfg := node.Default()
		cfg.Dir, cfg.Name, cfg.NetworkID, cfg.Signer, cfg.MSP = filepath.Join(c.Dir, name), name, "test", signer, m
		cfg.Listen, cfg.InMemory, cfg.Log = c.Listen(i), c.InMemory, c.Log
		cfg.Source = func(string, func() *channel.Config) node.Source { return w.Source() }
		cfg.Leader = election.Standby
		if k == 0 && org < c.Leaders {
			cfg.Leader = election.Static
		}
		if c.Libp2p != nil {
			cfg.Libp2p = c.Libp2p(i)
		}
		if c.Endpoint != nil {
			cfg.ExternalEndpoint = c.Endpoint(i)
		}
		if c.Tune != nil {
			c.Tune(i, &cfg)
		}
		s.Peers = append(s.Peers, &Peer{Name: name, Org: org, cfg: cfg})
	}
	return s, nil
}

func definition(o *ca.Org) (*msp.MSP, error) {
	return msp.New(o.MSPConfig(), msp.Features{NodeOUs: true, Ed25519: true})
}

// Start opens a node, joins it and runs it.
func (s *Swarm) Start(ctx context.Context, p *Peer) error {
	p.Metrics = prometheus.NewRegistry()
	p.cfg.Metrics = p.Metrics
	n, err := node.Open(p.cfg)
	if err != nil {
		return fmt.Errorf("%s: %w", p.Name, err)
	}
	if p.Channel, err = n.Join(ctx, s.World.Genesis); err != nil {
		return errors.Join(fmt.Errorf("%s: %w", p.Name, err), n.Close())
	}
	p.Node = n
	run, cancel := context.WithCancel(ctx)
	p.stop, p.done = cancel, make(chan error, 1)
	go func() { p.done <- n.Run(run) }()
	return nil
}

// StartAll starts every node.
func (s *Swarm) StartAll(ctx context.Context) error {
	for _, p := range s.Peers {
		if err := s.Start(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// Stop ends a node and closes it.
func (s *Swarm) Stop(p *Peer) error {
	if p.Node == nil {
		return nil
	}
	p.stop()
	err := errors.Join(<-p.done, p.Node.Close())
	p.Node = nil
	return err
}

// StopAll ends every node, all at once.
func (s *Swarm) StopAll() error {
	errs := make([]error, len(s.Peers))
	var g sync.WaitGroup
	for i, p := range s.Peers {
		g.Go(func() { errs[i] = s.Stop(p) })
	}
	g.Wait()
	return errors.Join(errs...)
}

// Await waits until every running node holds height blocks, durably.
func (s *Swarm) Await(ctx context.Context, height uint64) error {
	for _, p := range s.Peers {
		if p.Node == nil {
			continue
		}
		if err := p.Channel.Ledger().Wait(ctx, height); err != nil {
			return fmt.Errorf("%s at height %d, wanted %d: %w", p.Name, p.Channel.Ledger().Height(), height, err)
		}
	}
	return nil
}

// Same returns an error unless every running node's tip is the chain's, and all that
// judge transactions are in one world state.
func (s *Swarm) Same() error {
	want := s.World.Tip()
	var first *Peer
	for _, p := range s.Peers {
		if p.Node == nil {
			continue
		}
		if got := p.Channel.Ledger().Tip(); got != want {
			return fmt.Errorf("%s ends at %d %x, the chain at %d %x", p.Name, got.Height, got.Hash, want.Height, want.Hash)
		}
		state := p.Channel.Ledger().State()
		if state.Height == 0 {
			continue
		}
		if first == nil {
			first = p
		}
		if other := first.Channel.Ledger().State(); state.Height == other.Height && state.Hash != other.Hash {
			return fmt.Errorf("%s is in world state %x at height %d, %s in %x", p.Name, state.Hash, state.Height, first.Name, other.Hash)
		}
	}
	return nil
}

// Commits calls each as blocks from a number on become durable at p, until ctx
// ends. Several that were committed together are told one after the other.
func (p *Peer) Commits(ctx context.Context, from uint64, each func(n uint64, at time.Time)) {
	for led := p.Channel.Ledger(); ; from++ {
		if err := led.Wait(ctx, from+1); err != nil {
			return
		}
		each(from, time.Now())
	}
}

// metMost is as many others as a node has met soon: above 64 they aren't all
// connected.
const metMost = 48

// Met tells whether every running node is connected to every other, or metMost.
func (s *Swarm) Met() bool {
	running := 0
	for _, p := range s.Peers {
		if p.Node != nil {
			running++
		}
	}
	want := running - 1
	if running > circleSize {
		want = metMost
	}
	for _, p := range s.Peers {
		if p.Node != nil && len(p.Channel.Connected()) < want {
			return false
		}
	}
	return true
}

// Meshed tells whether every running node has peers that it forwards blocks to.
func (s *Swarm) Meshed() bool {
	for _, p := range s.Peers {
		if p.Node != nil && len(p.Channel.Traffic().Mesh.Mesh) < min(2, len(p.Channel.Connected())) {
			return false
		}
	}
	return true
}

// Heard counts the messages about blocks, copies included, that came to the
// nodes but the first so far. The first one leads.
func (s *Swarm) Heard() (n uint64) {
	for _, p := range s.Peers[1:] {
		n += p.Channel.Traffic().Mesh.Heard
	}
	return n
}

func pemOf(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/libp2p/go-libp2p"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"

	"grapevine/channel"
	"grapevine/election"
	"grapevine/msp"
	"grapevine/wire"
)

// Config is what a peer is made of. [Default] gives what most want; Signer,
// Dir and Listen must be set.
type Config struct {
	// Dir holds the host key, the ledger and the lock. One node at a time.
	Dir string
	// Name is shown to people; it plays no part in any protocol.
	Name string
	// NetworkID keeps bindings of one network from counting in another. All
	// members of a network use the same.
	NetworkID string

	// Signer is the node's MSP identity; msp.Load reads it from a folder.
	Signer msp.Signer
	// Chain are the intermediates that issued it, DER, leaf's issuer first;
	// never roots.
	Chain [][]byte
	// MSP is the definition of the node's own organisation. It lets members of
	// it in before the first channel is joined; nil: only joined channels'
	// configurations say who is valid.
	MSP *msp.MSP

	// Listen are multiaddrs, such as /ip4/0.0.0.0/tcp/7051. A node that listens
	// on QUIC alone dials QUIC alone.
	Listen []string
	// Endpoint is where peers of the own organisation reach this one; nobody else
	// is told. It is host:port, a multiaddr, or several of these with spaces
	// between. ":7051" stands for this machine's own address. Empty: they use
	// ExternalEndpoint; without that, what it listens on.
	Endpoint string
	// ExternalEndpoint, written likewise, is what other organisations learn.
	// Without one this peer is not announced to them, and doesn't call on them.
	ExternalEndpoint string
	// Bootstrap are peers of the own organisation, host:port or multiaddr, who
	// are dialled for ever.
	Bootstrap []string
	// MaxPeers is what the host's limits are made for.
	MaxPeers int

	// Leader says whether this peer pulls from the ordering service: always,
	// never, or when the organisation's peers elect it.
	Leader election.Mode
	// Election holds the waits of dynamic election; the zero value has the
	// defaults of package election.
	Election election.Timing
	// Quiet keeps a leader from passing on what it pulls (Fabric's
	// blockGossipEnabled: false).
	Quiet bool
	// Orderers tunes the client to the ordering service.
	Orderers OrdererClient
	// Clients are the services for Fabric's client SDKs.
	Clients ClientServices
	// Relay are the services for unmodified Fabric peers.
	Relay RelayServices
	// Role is told to members: "peer" or "relay".
	Role string
	// Alive is the period in which each peer looks whether a few others live.
	Alive time.Duration
	// Suspicion is how long a silent member is suspected, at most, before it
	// counts as dead; it grows a little with the network. 0: three times Alive.
	Suspicion time.Duration
	// Redial is how far the pauses grow between two tries to reach a member,
	// bootstrap or anchor peer; 0: 3 s. After Tries in vain to reach a bootstrap or
	// anchor peer, 0: 120, they grow five times as far. Tries never end.
	Redial time.Duration
	Tries  int
	// AliveExpiry is how old a signed alive message may be, beyond 30 s for
	// clocks that differ; 0: 5 s.
	AliveExpiry time.Duration
	// Version is told to members.
	Version string
	// Judge has transactions judged by Fabric's rules and the world state kept.
	// Without, the peer keeps blocks alone.
	Judge bool
	// FabricPeer is a Fabric peer of the own organisation, host:port of its gRPC
	// listener, whose validation codes count instead of this node's own, and whose
	// blocks are taken beside the orderers'; Judge must be false. Empty: none.
	FabricPeer string
	// BindingLife is how long a binding of the host key to the MSP identity
	// lasts: how long a stolen host key works. It is renewed at half time.
	BindingLife time.Duration
	// BufferBytes bounds the blocks that wait for an earlier one; the channels
	// share it. One larger block passes alone.
	BufferBytes int64
	// Transfer says how missing blocks are fetched and given.
	Transfer Transfer
	// Scrubs says how damage to what is kept is looked for.
	Scrubs Scrubs
	// Snapshots says which are made, and which are trusted.
	Snapshots Snapshots
	// Sync is how a channel that is joined comes to what others hold; "": SyncGenesis.
	Sync SyncMode

	// Source, if not nil, replaces the client to the ordering service: the
	// leader asks it for the blocks from a number on.
	Source func(ch string, conf func() *channel.Config) Source
	// InMemory keeps nothing on disk; for simulations.
	InMemory bool
	// Libp2p are further options of the host, after ours.
	Libp2p []libp2p.Option

	// Log takes what people should know; nil: nothing is said.
	Log *slog.Logger
	// Metrics registers the node's metrics; nil: none are kept.
	Metrics prometheus.Registerer
	// HostMetrics registers libp2p's own figures, which are one set for all
	// hosts of a process and stay when a node is closed; nil: none are kept.
	HostMetrics prometheus.Registerer
	// Hooks are told of moments that measurements are made of.
	Hooks Hooks
}

// Hooks are functions that a node calls as things happen. Each may be nil; none
// may block or call back.
type Hooks struct {
	// Held: a block of the channel is here and true in itself; it waits for
	// those before it, and for the disk.
	Held func(ch string, number uint64)
}

// A Source yields blocks in order from a number on, waits at the tip and ends
// only with ctx.
type Source interface {
	Blocks(ctx context.Context, from uint64) iter.Seq2[*common.Block, error]
}

// OrdererClient tunes the client to the ordering service. The zero value has
// the defaults of package orderer.
type OrdererClient struct {
	// Overrides replaces endpoints of the channel configuration, by exact
	// host:port.
	Overrides map[string]Override
	// Certificate is offered to the orderers' TLS, and asked for at each
	// connection; nil, or returning nil: none.
	Certificate func() *tls.Certificate

	// Dial makes a connection to an orderer's host:port, beneath TLS; nil: over TCP.
	Dial func(ctx context.Context, addr string) (net.Conn, error)
	// Simple trusts one orderer of a BFT channel with what is newest, as Fabric's
	// policy of that name does; else its peers share asking the others.
	Simple bool

	DialTimeout, MinBackoff, MaxBackoff time.Duration
	// Stall is how long an orderer may keep back a block that another one attests
	// (Fabric's blockCensorshipTimeoutKey); 0: 3 s.
	Stall time.Duration
}

// An Override is where to go instead of a configured orderer endpoint.
type Override struct {
	Address string
	Roots   *x509.CertPool // nil: those of the channel configuration
	// Newest, if not nil, is asked for Roots at each connection.
	Newest func() *x509.CertPool
}

// bindingLife is how long a stolen host key works, usually and at most;
// shortBinding leaves five minutes of a binding after it is made.
const (
	bindingLife  = msp.BindingLife
	shortBinding = 10 * time.Minute
)

// Default returns a Config that lacks only Dir, Signer and Listen.
func Default() Config {
	return Config{
		NetworkID:   "dev",
		MaxPeers:    256,
		Leader:      election.Dynamic,
		Role:        "peer",
		Alive:       time.Second,
		Judge:       true,
		BindingLife: bindingLife,
		BufferBytes: 64 << 20,
	}
}

// Validate says everything that is wrong, not the first thing only.
func (c *Config) Validate() error {
	var errs []error
	wrong := func(bad bool, field, what string) {
		if bad {
			errs = append(errs, fmt.Errorf("%s %s", field, what))
		}
	}
	wrong(c.Dir == "", "Dir", "is empty: name a folder for the host key and the ledger")
	wrong(c.Signer == nil, "Signer", "is nil: load one with msp.Load")
	wrong(c.NetworkID == "", "NetworkID", "is empty: all members of a network share one, such as \"dev\"")
	wrong(len(c.Listen) == 0, "Listen", "is empty: name at least one multiaddr, such as /ip4/0.0.0.0/tcp/7051")
	wrong(c.MaxPeers <= 0, "MaxPeers", "must be positive")
	wrong(c.Alive <= 0, "Alive", "must be positive")
	wrong(c.BindingLife < shortBinding || c.BindingLife > bindingLife, "BindingLife",
		fmt.Sprintf("%v must lie between %v, for clocks differ and a binding begins 5 minutes before it is made, and %v", c.BindingLife, shortBinding, bindingLife))
	wrong(c.BufferBytes <= 0, "BufferBytes", "must be positive")
	for _, a := range c.Listen {
		if _, err := ma.NewMultiaddr(a); err != nil {
			errs = append(errs, fmt.Errorf("Listen %q is no multiaddr: %w", a, err))
		}
	}
	wrong(c.FabricPeer != "" && c.Judge, "FabricPeer", "is set and Judge is true: one of the two says what is valid")
	internal, err := c.internal()
	errs = append(errs, err, checkEndpoint("Endpoint", internal), checkEndpoint("ExternalEndpoint", c.ExternalEndpoint))
	for _, b := range c.Bootstrap {
		if _, err := wire.ParseEndpoint(b); err != nil {
			errs = append(errs, fmt.Errorf("Bootstrap: %w", err)) //nolint:staticcheck // the field is called so
		}
	}
	if err := c.Leader.Validate(); err != nil {
		errs = append(errs, fmt.Errorf("Leader: %w", err))
	}
	return errors.Join(errs...)
}

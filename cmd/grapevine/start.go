package main

import (
	"cmp"
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"grapevine/cmd/grapevine/admin"
	"grapevine/cmd/grapevine/conf"
	"grapevine/cmd/grapevine/fault"
	"grapevine/cmd/grapevine/serve"
	"grapevine/node"
	"grapevine/orderer"
)

func newPeerCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "peer", Short: "Run a peer; Fabric's peer channel", GroupID: groupOperate,
		Example: "  grapevine peer start --config core.yaml",
	}
	start := &cobra.Command{
		Use: "start [--sync snapshot|genesis|auto]", Short: "Run a peer in the foreground",
		Long: `Run a peer in the foreground, until SIGINT or SIGTERM. Its configuration is
core.yaml, as Fabric's peers have it, and CORE_ variables. --sync says how channels
that are joined from now on come to what others hold: by every block (genesis, the
default), by a snapshot that enough organisations attest (snapshot), or by one if it
is far ahead (auto).`,
		Example: "  grapevine peer start --config core.yaml\n  CORE_PEER_ID=peer1 grapevine peer start",
		Args:    exactly(), Annotations: next("grapevine status", "grapevine channel join CH --block FILE"),
	}
	by := start.Flags().String("sync", "", "how joined channels come to what others hold: genesis, snapshot or auto; else as p2p.sync says")
	start.RunE = func(c *cobra.Command, _ []string) error {
		if _, ok := node.ParseSync(*by); !ok {
			return usage(c, "--sync is genesis, snapshot or auto")
		}
		return a.runPeer(c.Context(), func(ctx context.Context, p *conf.Peer, b admin.Build, log *serve.Log) error {
			p.Sync = cmp.Or(*by, p.Sync)
			return serve.Peer(ctx, p, b, log)
		})
	}
	c.AddCommand(start, newPeerChannelCmd(a))
	return c
}

func newRelayCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "relay", Short: "Serve the blocks to Fabric peers", GroupID: groupOperate,
		Example: "  grapevine relay start --config core.yaml --config grapevine.yaml",
	}
	start := &cobra.Command{
		Use: "start", Short: "Run a relay in the foreground",
		Long: `Run a peer whose work is to serve unmodified Fabric peers, in the foreground, until
SIGINT or SIGTERM. A Fabric peer whose core.yaml names the relay in
peer.deliveryclient.addressOverrides follows its channels through it, and its
gateway submits through it. Only blocks whose orderers' signatures hold are
served; a relay that lags, or has lost the orderers, answers SERVICE_UNAVAILABLE.

Its configuration is a peer's, and says with relay.listenAddress where Fabric
peers of Raft channels reach it; relay.orderers names one address for each
orderer of a BFT channel. A peer start with these keys serves the same.`,
		Example: "  grapevine relay start --config core.yaml --config grapevine.yaml\n  GRAPEVINE_RELAY_LISTENADDRESS=0.0.0.0:7055 grapevine relay start",
		Args:    exactly(), Annotations: next("grapevine channel join CH --block FILE", "grapevine status"),
	}
	start.RunE = func(c *cobra.Command, _ []string) error { return a.runPeer(c.Context(), serve.Relay) }
	c.AddCommand(start)
	return c
}

// runPeer runs what serves a peer's configuration.
func (a *app) runPeer(ctx context.Context, run func(context.Context, *conf.Peer, admin.Build, *serve.Log) error) error {
	s := a.settings(conf.RolePeer)
	a.tellFindings(s)
	p, err := s.Peer()
	if err != nil {
		return err
	}
	log, err := a.log(p.Logging, p.ID)
	if err != nil {
		return err
	}
	return a.untilStopped(ctx, func(ctx context.Context) error { return run(ctx, p, build(), log) })
}

func newOrdererCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "orderer", Short: "Run an ordering node, and see to its channels", GroupID: groupOperate,
		Example: "  grapevine orderer start --config orderer.yaml\n  grapevine orderer channel list",
	}
	start := &cobra.Command{
		Use: "start", Short: "Run an ordering node in the foreground",
		Long: `Run an ordering node in the foreground, until SIGINT or SIGTERM. Its
configuration is orderer.yaml, as Fabric's orderers have it, and ORDERER_
variables. With General.BootstrapMethod "file" it orders the channel of
General.BootstrapFile from its first start on.`,
		Example: "  grapevine orderer start --config orderer.yaml\n  ORDERER_GENERAL_LISTENPORT=7050 grapevine orderer start",
		Args:    exactly(), Annotations: next("grapevine status"),
	}
	start.RunE = func(c *cobra.Command, _ []string) error {
		s := a.settings(conf.RoleOrderer)
		a.tellFindings(s)
		o, err := s.Orderer()
		if err != nil {
			return err
		}
		log, err := a.log(o.Logging, "")
		if err != nil {
			return err
		}
		return a.untilStopped(c.Context(), func(ctx context.Context) error {
			return serve.Orderer(ctx, o, "", build(), log)
		})
	}
	c.AddCommand(start, newOrdererChannelCmd(a))
	return c
}

// tellFindings says, once, what the configuration's judge warns of.
func (a *app) tellFindings(s *conf.Settings) {
	for _, f := range s.Findings() {
		if f.Severity != conf.SeverityError {
			a.say("%s", f.Text())
		}
	}
}

// log is the log of the one node that this process runs.
func (a *app) log(c conf.Logging, name string) (*serve.Log, error) {
	l, err := serve.NewLog(a.err, c, name)
	if err != nil {
		return nil, err
	}
	return l, l.Lead(c, "")
}

// untilStopped runs what ends with the first signal, cleanly. A disk that failed
// is told although a signal came, too.
func (a *app) untilStopped(ctx context.Context, run func(context.Context) error) error {
	a.long.Store(true)
	err := run(ctx)
	switch {
	case errors.Is(err, node.ErrDurability), errors.Is(err, orderer.BrokenLog):
		return fault.New("STA012", "").Because(strings.Split(err.Error(), "\n")...).From(err)
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return nil
	}
	return err
}

// build is what this program says of itself.
func build() admin.Build {
	v := buildVersion()
	return admin.Build{Version: v.Version, Commit: v.Commit, Go: v.Go, LibP2P: v.LibP2P}
}

package main

import (
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
		Use: "peer", Short: "Run a peer", GroupID: groupOperate,
		Example: "  grapevine peer start --config core.yaml",
	}
	start := &cobra.Command{
		Use: "start", Short: "Run a peer in the foreground",
		Long: `Run a peer in the foreground, until SIGINT or SIGTERM. Its configuration is
core.yaml, as Fabric's peers have it, and CORE_ variables.`,
		Example: "  grapevine peer start --config core.yaml\n  CORE_PEER_ID=peer1 grapevine peer start",
		Args:    exactly(), Annotations: next("grapevine status", "grapevine channel join CH --block FILE"),
	}
	start.RunE = func(c *cobra.Command, _ []string) error {
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
		return a.untilStopped(c.Context(), func(ctx context.Context) error {
			return serve.Peer(ctx, p, build(), log)
		})
	}
	c.AddCommand(start)
	return c
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

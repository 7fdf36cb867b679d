package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"grapevine/cmd/grapevine/admin"
	"grapevine/cmd/grapevine/dev"
	"grapevine/cmd/grapevine/fault"
)

const (
	upTime   = time.Minute     // for a network to become ready
	doneTime = 2 * time.Minute // for transactions to be everywhere
	stopTime = 30 * time.Second

	// hostFlag makes dev up the process that dev up --in-process --detach leaves
	// behind.
	hostFlag = "host"
)

func newDevCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "dev", Short: "A whole network on this machine", GroupID: groupStart,
		Example: "  grapevine dev up\n  grapevine dev tx --count 100\n  grapevine dev down",
	}
	dir := c.PersistentFlags().String("dir", "", "the network's folder (default $XDG_DATA_HOME/grapevine/dev)")
	d := &devCmd{app: a, dir: dir}
	c.AddCommand(
		d.up(), d.down(), d.status(), d.env(),
		d.node("kill", "Kill a node (SIGKILL); returns when its process is gone", (*dev.Network).KillNode),
		d.node("pause", "Suspend a node (SIGSTOP)", func(n *dev.Network, _ context.Context, v *dev.Node) error { return n.Pause(v) }),
		d.node("resume", "Let a suspended node go on (SIGCONT)", func(n *dev.Network, _ context.Context, v *dev.Node) error { return n.Resume(v) }),
		d.node("restart", "Stop a node if it runs, start it on the same data, wait until it answers", (*dev.Network).Restart),
		d.tx(), d.logs(), d.clean(),
	)
	return c
}

// devCmd is what the dev verbs share.
type devCmd struct {
	*app
	dir *string
}

func (d *devCmd) folder() (string, error) {
	if *d.dir != "" {
		return d.path(*d.dir), nil
	}
	return dev.DefaultDir(d.getenv)
}

func (d *devCmd) find() (*dev.Network, error) {
	dir, err := d.folder()
	if err != nil {
		return nil, err
	}
	return dev.Find(dir)
}

func (d *devCmd) up() *cobra.Command {
	s := dev.DefaultShape()
	var detach, inProcess, hostOnly bool
	c := &cobra.Command{
		Use: "up", Short: "Make or resume a network",
		Long: `Make or resume a network: certificate authorities, identities, a genesis block,
an ordering service and peers, each a process of its own on 127.0.0.1. Peer 0 of
each organisation is its anchor and its static leader. On a terminal a live view
shows it; q leaves the nodes running. Otherwise it lives until SIGINT or SIGTERM,
and stops all nodes then.`,
		Example: "  grapevine dev up\n  grapevine dev up --orgs 2 --peers 2 --detach\n  grapevine dev up --in-process -o json",
		Args:    exactly(), Annotations: next("grapevine dev tx --count 100", "grapevine dev status", "grapevine dev kill peer1.org1"),
	}
	f := c.Flags()
	f.IntVar(&s.Orgs, "orgs", s.Orgs, "organisations")
	f.IntVar(&s.Peers, "peers", s.Peers, "peers of each organisation")
	f.IntVar(&s.Orderers, "orderers", s.Orderers, "ordering nodes")
	f.StringVar(&s.Channel, "channel", s.Channel, "the channel's name")
	f.BoolVar(&detach, "detach", false, "return once the network is ready")
	f.BoolVar(&inProcess, "in-process", false, "run all nodes in one process")
	f.BoolVar(&hostOnly, hostFlag, false, "be that process, and start no node")
	_ = f.MarkHidden(hostFlag) // it was defined a line above
	c.RunE = func(c *cobra.Command, _ []string) error {
		dir, err := d.folder()
		if err != nil {
			return err
		}
		u := &upRun{devCmd: d, attached: !detach, start: d.now(), last: d.now()}
		d.long.Store(!detach)
		if u.net, err = dev.Open(dir, s, inProcess, u.step); err != nil {
			return err
		}
		switch {
		case hostOnly:
			d.long.Store(true)
			return u.net.Host(c.Context(), build(), func() {})
		case inProcess && !u.net.Hosted() && detach:
			err = u.background(c.Context())
		case inProcess && !u.net.Hosted():
			return u.host(c.Context())
		}
		if err != nil {
			return err
		}
		err = u.ready(c.Context())
		switch {
		case c.Context().Err() != nil: // told to stop before it was up
			if err := u.stop(c.Context()); err != nil {
				return err
			}
			return c.Context().Err()
		case err != nil || detach:
			return err
		}
		return u.attend(c.Context())
	}
	return c
}

// upRun is one run of dev up.
type upRun struct {
	*devCmd
	net      *dev.Network
	attached bool
	start    time.Time
	last     time.Time
	steps    []admin.DevStep
}

func (u *upRun) step(name, detail string) {
	now := u.now()
	took := now.Sub(u.last)
	u.last = now
	u.steps = append(u.steps, admin.DevStep{Name: name, Detail: detail, ElapsedMs: took.Milliseconds()})
	u.say(" ✓ %-19s  %-34s %5.1fs\n", name, detail, took.Seconds())
}

// ready starts the nodes, waits, and prints the network.
func (u *upRun) ready(ctx context.Context) error {
	wait, cancel := u.within(ctx, upTime)
	defer cancel()
	s, err := u.net.Up(wait, u.step)
	if err != nil {
		return err
	}
	out := &admin.DevUp{DevState: *s, Dir: u.net.Dir(), Context: dev.ContextName, InProcess: u.net.InProcess, Steps: u.steps}
	if err := u.net.Register(u.getenv); err != nil {
		out.Context = ""
		u.say("warning: the context %s is not registered: %v\n", dev.ContextName, err)
	}
	at := ""
	if dir, err := dev.DefaultDir(u.getenv); err != nil || dir != u.net.Dir() {
		at = " --dir " + dev.Quote(u.net.Dir())
	}
	peers := u.net.Peers()
	out.Next = []string{
		"grapevine dev tx --count 100" + at, "grapevine dev kill " + peers[len(peers)-1].Name + at, `eval "$(grapevine dev env org1` + at + `)"`,
	}
	out.ElapsedMs = u.now().Sub(u.start).Milliseconds()
	u.say("Ready in %.1fs.\n", float64(out.ElapsedMs)/1000)
	return u.emit(out, func(t *table) {
		if !u.attached || !u.watchable() { // the live view shows it
			fmt.Fprint(t, dev.Table(s))
		}
		for i, n := range out.Next {
			fmt.Fprintf(t, "%-6s%s\n", map[bool]string{true: "Next:"}[i == 0], n)
		}
	}, u.net.Names)
}

// watchable says whether somebody looks at a terminal and wants to see tables
// there.
func (u *upRun) watchable() bool {
	o := u.flags.output
	return terminal(u.out) && terminal(u.in) && (o == "table" || o == "wide")
}

// attend stays with the network until it is told to stop, and then stops it.
func (u *upRun) attend(ctx context.Context) error {
	if u.watchable() {
		left, err := u.net.View(ctx, u.in, u.out, u.color())
		if err != nil || left {
			return err
		}
	} else {
		<-ctx.Done()
	}
	return u.stop(ctx)
}

// stop stops all nodes, although ctx has ended.
func (u *upRun) stop(ctx context.Context) error {
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
	defer cancel()
	u.say("stopping all nodes\n")
	return u.net.Down(end)
}

// host runs all nodes here.
func (u *upRun) host(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	up := make(chan error, 1)
	err := u.net.Host(ctx, build(), func() {
		go func() {
			err := u.ready(ctx)
			up <- err
			switch {
			case err != nil:
				cancel()
			case u.watchable():
				_, _ = u.net.View(ctx, u.in, u.out, u.color()) // leaving it ends what it shows: the nodes live here
				cancel()
			}
		}()
	})
	select {
	case e := <-up:
		return errors.Join(e, err)
	default:
		return err
	}
}

// background starts this program again as the process that hosts the nodes.
func (u *upRun) background(ctx context.Context) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	s := u.net.Shape
	out, err := os.OpenFile(filepath.Join(u.net.Dir(), "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }() // the process has its own
	c := exec.Command(exe, "dev", "up", "--in-process", "--"+hostFlag, "--dir", u.net.Dir(), "--orgs", fmt.Sprint(s.Orgs), "--peers", fmt.Sprint(s.Peers), "--orderers", fmt.Sprint(s.Orderers), "--channel", s.Channel)
	c.Stdout, c.Stderr = out, out
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := c.Start(); err != nil {
		return fmt.Errorf("starting the process of the nodes: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = c.Wait() // reaped, should it end before this command
	}()
	ctx, cancel := u.within(ctx, upTime)
	defer cancel()
	return u.net.AwaitHost(ctx, ended)
}

func (d *devCmd) down() *cobra.Command {
	c := &cobra.Command{
		Use: "down", Short: "Stop every node, keep the data", Args: exactly(),
		Example: "  grapevine dev down", Annotations: next("grapevine dev up", "grapevine dev clean"),
	}
	c.RunE = func(c *cobra.Command, _ []string) error {
		n, err := d.find()
		if err != nil {
			return err
		}
		ctx, cancel := d.within(c.Context(), stopTime)
		defer cancel()
		return n.Down(ctx)
	}
	return c
}

func (d *devCmd) clean() *cobra.Command {
	c := &cobra.Command{
		Use: "clean", Short: "Stop every node and delete the network's folder", Args: exactly(),
		Example: "  grapevine dev clean --yes",
	}
	yes := c.Flags().Bool("yes", false, "don't ask")
	c.RunE = func(c *cobra.Command, _ []string) error {
		n, err := d.find()
		if err != nil {
			return err
		}
		if !*yes {
			if err := d.confirm("delete " + n.Dir() + " and all that is in it?"); err != nil {
				return err
			}
		}
		ctx, cancel := d.within(c.Context(), stopTime)
		defer cancel()
		if err := n.Clean(ctx); err != nil {
			return err
		}
		return n.Forget(d.getenv)
	}
	return c
}

// confirm asks on a terminal; elsewhere --yes is needed.
func (a *app) confirm(question string) error {
	if a.flags.noInput || !terminal(a.in) {
		return fault.Newf(fault.Usage, "%s Nobody can be asked here", question).Do("say so with --yes")
	}
	fmt.Fprintf(a.err, "%s [y/N] ", question)
	var answer string
	if _, err := fmt.Fscanln(a.in, &answer); err != nil || (answer != "y" && answer != "yes") {
		return fault.New(fault.Interrupted, "nothing was done").WithExit(fault.ExitFailed)
	}
	return nil
}

func (d *devCmd) status() *cobra.Command {
	c := &cobra.Command{
		Use: "status", Short: "Every node on one screen", Args: exactly(),
		Example: "  grapevine dev status\n  grapevine dev status --wait 30s -o json", Annotations: watched(next("grapevine dev logs NAME", "grapevine status --target NAME")),
	}
	wait := c.Flags().Duration("wait", 0, "wait until the network is ready; exit 7 if it isn't in time")
	c.RunE = func(c *cobra.Command, _ []string) error {
		n, err := d.find()
		if err != nil {
			return err
		}
		if *wait > 0 {
			ctx, cancel := context.WithTimeout(c.Context(), *wait)
			defer cancel()
			if _, err := n.Wait(ctx, func(s *admin.DevState) bool { return s.Ready }); err != nil {
				return err
			}
		}
		return d.watch(c.Context(), func(ctx context.Context) (*screen, error) {
			s := n.Status(ctx)
			return &screen{obj: &admin.DevStatus{DevState: *s}, show: func(t *table) { fmt.Fprint(t, dev.Table(s)) }, names: n.Names}, ctx.Err()
		})
	}
	return c
}

// node is a verb that acts on one node.
func (d *devCmd) node(name, short string, act func(*dev.Network, context.Context, *dev.Node) error) *cobra.Command {
	c := &cobra.Command{
		Use: name + " NAME", Short: short, Args: exactly("NAME"),
		Example: "  grapevine dev " + name + " peer1.org1", Annotations: next("grapevine dev status"),
		ValidArgsFunction: d.names,
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		n, err := d.find()
		if err != nil {
			return err
		}
		v, err := n.Node(args[0])
		if err != nil {
			return err
		}
		ctx, cancel := d.within(c.Context(), stopTime)
		defer cancel()
		return act(n, ctx, v)
	}
	return c
}

// names completes the names of nodes.
func (d *devCmd) names(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	n, err := d.find()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return n.Names(), cobra.ShellCompDirectiveNoFileComp
}

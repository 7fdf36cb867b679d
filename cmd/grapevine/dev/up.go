package dev

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"grapevine/cmd/grapevine/admin"
	"grapevine/cmd/grapevine/fault"
)

// startTime is how long a node may take until it answers.
const startTime = 20 * time.Second

// A Step is told of each part of a network's start when it is done.
type Step func(name, detail string)

// Open loads the network in dir, or makes it. On a network of another shape it
// is DEV003.
func Open(dir string, s Shape, inProcess bool, step Step) (*Network, error) {
	n, err := Find(dir)
	var f *fault.Error
	if errors.As(err, &f) && f.Code == "DEV001" {
		return Create(dir, s, inProcess, step)
	}
	if err != nil {
		return nil, err
	}
	if n.Shape != s || n.InProcess != inProcess {
		same := fmt.Sprintf("grapevine dev up --orgs %d --peers %d --orderers %d --channel %s", n.Shape.Orgs, n.Shape.Peers, n.Shape.Orderers, n.Shape.Channel)
		how := "each a process"
		if n.InProcess {
			same, how = same+" --in-process", "all in one process"
		}
		at := " --dir " + Quote(n.dir)
		return nil, fault.Newf("DEV003", "%s holds a network of another shape", n.dir).
			Because(fmt.Sprintf("it has %d organisations of %d peers, %d orderers and channel %s, %s", n.Shape.Orgs, n.Shape.Peers, n.Shape.Orderers, n.Shape.Channel, how)).
			Do("run it as it is: "+same+at, "delete it: grapevine dev clean"+at, "choose another folder with --dir")
	}
	return n, nil
}

// Up starts every node that doesn't run, lets suspended ones go on, makes each
// join the channel, waits until all are alive and the network is ready, and defines the chaincode kv if nobody has. With
// processes the nodes outlive ctx.
func (n *Network) Up(ctx context.Context, step Step) (*admin.DevState, error) {
	if err := n.startAll(ctx, n.Orderers()); err != nil {
		return nil, err
	}
	s, err := n.Wait(ctx, func(s *admin.DevState) bool { return leading(s) != "" })
	if err != nil {
		return s, err
	}
	step("orderers", "leader "+leading(s))
	if err := n.startAll(ctx, n.Peers()); err != nil {
		return nil, err
	}
	s, err = n.Wait(ctx, func(s *admin.DevState) bool { return s.Ready && whole(s) })
	if err != nil {
		return s, err
	}
	leaders := 0
	for _, p := range s.Peers {
		if p.Leader {
			leaders++
		}
	}
	step("peers", fmt.Sprintf("%d/%d joined, %d leaders elected", len(s.Peers), len(n.Peers()), leaders))
	if s.Channels[0].Height == 1 {
		if err := n.define(ctx); err != nil {
			return s, err
		}
		step("chaincode", "kv defined under _lifecycle")
		return n.Wait(ctx, func(s *admin.DevState) bool { return s.Ready && level(s) })
	}
	return s, nil
}

// whole says whether every node is alive.
func whole(s *admin.DevState) bool {
	for _, o := range s.Orderers {
		if o.State != string(Alive) {
			return false
		}
	}
	for _, p := range s.Peers {
		if p.State != string(Alive) {
			return false
		}
	}
	return true
}

// level says whether the living nodes are equally high.
func level(s *admin.DevState) bool {
	for _, p := range s.Peers {
		if p.State == string(Alive) && p.Height != s.Channels[0].Height {
			return false
		}
	}
	return true
}

// leading is the orderer that leads; "" while none does.
func leading(s *admin.DevState) string {
	for _, o := range s.Orderers {
		if o.Leader {
			return o.Name
		}
	}
	return ""
}

// startAll starts nodes side by side and makes them join.
func (n *Network) startAll(ctx context.Context, vs []*Node) error {
	errs := make([]error, len(vs))
	var g sync.WaitGroup
	for i, v := range vs {
		g.Go(func() {
			switch s, _ := n.Process(v); s {
			case Dead:
				errs[i] = n.Start(ctx, v)
			case Stopped:
				errs[i] = n.Resume(v)
			}
		})
	}
	g.Wait()
	return errors.Join(errs...)
}

// Start starts a node, waits until it answers, and makes it join the channel.
func (n *Network) Start(ctx context.Context, v *Node) error {
	if n.InProcess {
		if err := n.control(ctx, "start", v); err != nil {
			return err
		}
	} else if err := n.spawn(v); err != nil {
		return err
	}
	return n.await(ctx, v)
}

// await waits until a node answers, and hands it the genesis block.
func (n *Network) await(ctx context.Context, v *Node) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	genesis, err := os.ReadFile(n.GenesisFile())
	if err != nil {
		return err
	}
	t := time.NewTicker(poll)
	defer t.Stop()
	for {
		client := admin.Dial(n.Folder(v))
		_, err := client.Join(ctx, n.Shape.Channel, genesis, "")
		client.Close()
		if err == nil {
			return nil
		}
		var f *fault.Error
		if errors.As(err, &f) && f.Code != fault.Unreachable {
			return fmt.Errorf("%s joining the channel: %w", v.Name, err)
		}
		if s, _ := n.Process(v); s == Dead && !n.InProcess { // else it was started when it answered
			return fault.Newf("DEV012", "%s ended while it started", v.Name).
				Because(n.tail(v, 5)...).Do(n.verb("logs " + v.Name))
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return fault.Newf("DEV012", "%s did not answer in time", v.Name).From(err).
				Because(n.tail(v, 5)...).Do(n.verb("logs " + v.Name))
		}
	}
}

// Restart stops a node if it runs, and starts it on the same data.
func (n *Network) Restart(ctx context.Context, v *Node) error {
	if err := n.StopNode(ctx, v); err != nil {
		return err
	}
	return n.Start(ctx, v)
}

// StopNode and KillNode end a node, wherever it runs.
func (n *Network) StopNode(ctx context.Context, v *Node) error {
	n.look(ctx, v) // so that its last height is known
	if n.InProcess {
		return n.control(ctx, "stop", v)
	}
	return n.Stop(ctx, v)
}

// KillNode ends a node without warning it.
func (n *Network) KillNode(ctx context.Context, v *Node) error {
	if s, _ := n.Process(v); s == Dead {
		return fault.Newf("DEV011", "%s does not run", v.Name).Do(n.verb("restart " + v.Name))
	}
	n.look(ctx, v)
	if n.InProcess {
		return n.control(ctx, "kill", v)
	}
	return n.Kill(ctx, v)
}

// Down stops every node and keeps the data.
func (n *Network) Down(ctx context.Context) error {
	n.Status(ctx) // so that the last heights are known
	if n.InProcess {
		return n.controlDown(ctx)
	}
	errs := make([]error, len(n.Nodes))
	var g sync.WaitGroup
	for i := range n.Nodes {
		g.Go(func() { errs[i] = n.Stop(ctx, &n.Nodes[i]) })
	}
	g.Wait()
	return errors.Join(errs...)
}

// Clean stops every node and deletes the folder.
func (n *Network) Clean(ctx context.Context) error {
	if err := n.Down(ctx); err != nil {
		return err
	}
	if err := os.RemoveAll(n.dir); err != nil {
		return fmt.Errorf("deleting the network: %w", err)
	}
	return nil
}

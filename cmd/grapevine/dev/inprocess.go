package dev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"grapevine/cmd/grapevine/admin"
	"grapevine/cmd/grapevine/conf"
	"grapevine/cmd/grapevine/fault"
	"grapevine/cmd/grapevine/serve"
)

const controlDir = "control" // holds the socket by which other commands reach the one process

// A Host runs all nodes of a network inside this process.
type Host struct {
	net   *Network
	build admin.Build
	down  context.CancelFunc

	mu   sync.Mutex
	runs map[string]*nodeRun // owned by mu
}

type nodeRun struct {
	stop context.CancelFunc
	done chan struct{}
	err  error // set before done is closed
}

// Host runs the network's nodes inside this process until ctx ends, or until
// another command says down. ready is called once nodes can be started.
func (n *Network) Host(ctx context.Context, b admin.Build, ready func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	h := &Host{net: n, build: b, down: cancel, runs: map[string]*nodeRun{}}
	l, err := admin.Listen(filepath.Join(n.dir, controlDir))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(n.dir, pidFile), fmt.Appendln(nil, os.Getpid()), 0o644); err != nil {
		return errors.Join(err, l.Close())
	}
	// What logs for the whole process, not for one node, must not write over the
	// live view.
	shared, err := serve.NewLog(io.Discard, conf.Logging{Spec: "info"}, "")
	if err == nil {
		err = shared.Lead(conf.Logging{}, filepath.Join(n.dir, logFile))
	}
	if err != nil {
		return errors.Join(err, l.Close())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /start", h.handle(func(v *Node) error { return h.start(ctx, v) }))
	mux.HandleFunc("POST /stop", h.handle(h.stop))
	mux.HandleFunc("POST /kill", h.handle(h.stop))
	mux.HandleFunc("POST /down", func(w http.ResponseWriter, _ *http.Request) { h.stopAll(); w.WriteHeader(http.StatusOK); h.down() })
	n.hosting = true
	ready()
	err = admin.ServeHTTP(ctx, &http.Server{Handler: mux, ReadHeaderTimeout: time.Second}, l, time.Second)
	h.stopAll()
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return errors.Join(err, os.Remove(filepath.Join(n.dir, pidFile)))
}

func (h *Host) handle(f func(*Node) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := h.net.Node(r.URL.Query().Get("node"))
		if err == nil {
			err = f(v)
		}
		if err != nil {
			w.WriteHeader(http.StatusInternalServerError)
			if _, err := w.Write(fault.Of(err).JSON()); err != nil {
				slog.Debug("answering a dev verb", "err", err)
			}
		}
	}
}

// start runs a node and returns once it answers; what its configuration refuses,
// it refuses here, too.
func (h *Host) start(ctx context.Context, v *Node) error {
	r, err := h.launch(ctx, v)
	if err != nil {
		return err
	}
	t := time.NewTicker(poll)
	defer t.Stop()
	for !answers(admin.Socket(h.net.Folder(v))) {
		select {
		case <-r.done:
			if r.err != nil {
				return r.err
			}
			return context.Canceled
		case <-t.C:
		}
	}
	return nil
}

// launch runs a node's loops until ctx ends or it is stopped.
func (h *Host) launch(ctx context.Context, v *Node) (*nodeRun, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.runs[v.Name] != nil {
		return nil, fault.Newf("DEV010", "%s runs already", v.Name).Do(h.net.verb("restart " + v.Name))
	}
	out, err := os.OpenFile(h.net.LogFile(v), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	log, err := serve.NewLog(out, conf.Logging{Spec: "info"}, v.Name)
	if err != nil {
		return nil, errors.Join(err, out.Close())
	}
	run, err := h.prepare(v, log)
	if err != nil {
		return nil, errors.Join(err, out.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	r := &nodeRun{stop: cancel, done: make(chan struct{})}
	h.runs[v.Name] = r
	go func() {
		err := run(ctx)
		if err != nil && !errors.Is(err, context.Canceled) {
			log.Error("the node has ended", "err", err)
		}
		r.err = errors.Join(err, out.Close())
		h.mu.Lock()
		delete(h.runs, v.Name)
		h.mu.Unlock()
		close(r.done)
	}()
	return r, nil
}

func (h *Host) prepare(v *Node, log *serve.Log) (func(context.Context) error, error) {
	in := conf.Input{Files: h.net.ConfigFiles(v), Dir: h.net.Folder(v), Role: conf.RolePeer}
	if v.Orderer {
		in.Role = conf.RoleOrderer
		c, err := conf.Load(in).Orderer()
		return func(ctx context.Context) error { return serve.Orderer(ctx, c, v.Name, h.build, log) }, err
	}
	c, err := conf.Load(in).Peer()
	return func(ctx context.Context) error { return serve.Peer(ctx, c, h.build, log) }, err
}

func (h *Host) stop(v *Node) error {
	h.mu.Lock()
	r := h.runs[v.Name]
	h.mu.Unlock()
	if r == nil {
		return nil
	}
	r.stop()
	<-r.done
	if r.err != nil && !errors.Is(r.err, context.Canceled) {
		return r.err
	}
	return nil
}

func (h *Host) stopAll() {
	var g sync.WaitGroup
	for i := range h.net.Nodes {
		v := &h.net.Nodes[i]
		g.Go(func() {
			if err := h.stop(v); err != nil {
				slog.Warn("stopping a node", "node", v.Name, "err", err)
			}
		})
	}
	g.Wait()
}

// control asks the process that hosts the network.
func (n *Network) control(ctx context.Context, what string, v *Node) error {
	return n.ask(ctx, "/"+what+"?node="+v.Name)
}

func (n *Network) controlDown(ctx context.Context) error {
	err := n.ask(ctx, "/down")
	var f *fault.Error
	if errors.As(err, &f) && f.Code == fault.Unreachable {
		return nil // nothing runs
	}
	return err
}

// AwaitHost waits until the process that hosts the network can be asked, or has
// ended, as its channel tells.
func (n *Network) AwaitHost(ctx context.Context, ended <-chan struct{}) error {
	t := time.NewTicker(poll)
	defer t.Stop()
	for !n.Hosted() {
		select {
		case <-t.C:
		case <-ended:
			return fault.New("DEV012", "the process of the nodes ended while it started").Because(lines(filepath.Join(n.dir, logFile), 5)...)
		case <-ctx.Done():
			return fmt.Errorf("waiting for the process of the nodes: %w", ctx.Err())
		}
	}
	return nil
}

// Hosted says whether a process hosts the network's nodes.
func (n *Network) Hosted() bool { return answers(admin.Socket(filepath.Join(n.dir, controlDir))) }

func (n *Network) ask(ctx context.Context, path string) error {
	c := admin.Dial(filepath.Join(n.dir, controlDir))
	defer c.Close()
	return c.Post(ctx, path)
}

package dev

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"grapevine/cmd/grapevine/admin"
	"grapevine/cmd/grapevine/fault"
)

const (
	pidFile  = "pid"
	logFile  = "log"
	stopTime = 10 * time.Second // between SIGTERM and SIGKILL
	// poll is how often a process that is not our child is looked at.
	poll = 10 * time.Millisecond
)

// A State is a process's, not what others believe of it.
type State string

// States of a process.
const (
	Alive   State = "alive"
	Dead    State = "dead"
	Stopped State = "stopped" // suspended
)

// Process says whether a node runs, and under which pid (0 if dead).
func (n *Network) Process(v *Node) (State, int) {
	if n.InProcess {
		pid := readPid(n.dir)
		if pid == 0 || processState(pid, "") == Dead || !answers(admin.Socket(n.Folder(v))) {
			return Dead, 0
		}
		return Alive, pid
	}
	pid := readPid(n.Folder(v))
	if pid == 0 {
		return Dead, 0
	}
	s := processState(pid, n.mark(v))
	if s == Dead {
		return Dead, 0
	}
	return s, pid
}

// readPid reads the pid that a folder records; 0 if it has none.
func readPid(dir string) int {
	raw, err := os.ReadFile(filepath.Join(dir, pidFile))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil || pid < 0 {
		return 0
	}
	return pid
}

// answers says whether somebody listens on a socket: a node inside a process
// that was dropped has none.
func answers(socket string) bool {
	c, err := net.DialTimeout("unix", socket, time.Second)
	if err != nil {
		return false
	}
	return c.Close() == nil
}

// mark is the argument by which a node's process is known: pids are used again.
func (n *Network) mark(v *Node) string { return n.ConfigFiles(v)[0] }

// spawn starts a node's process in a session of its own, so that it outlives
// the command; its output goes to its log.
func (n *Network) spawn(v *Node) error {
	if s, pid := n.Process(v); s != Dead {
		return fault.Newf("DEV010", "%s runs already (pid %d)", v.Name, pid).Do(n.verb("restart " + v.Name))
	}
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	role := "peer"
	if v.Orderer {
		role = "orderer"
	}
	args := []string{role, "start"}
	for _, f := range n.ConfigFiles(v) {
		args = append(args, "--config", f)
	}
	out, err := os.OpenFile(n.LogFile(v), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }() // the node has its own
	c := exec.Command(exe, args...)
	c.Dir = n.Folder(v)
	c.Env = cleanEnv(os.Environ())
	c.Stdout, c.Stderr = out, out
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := c.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", v.Name, err)
	}
	pid := c.Process.Pid
	if err := os.WriteFile(filepath.Join(n.Folder(v), pidFile), fmt.Appendln(nil, pid), 0o644); err != nil {
		return errors.Join(err, c.Process.Kill())
	}
	// Our child for as long as this command lives: it must be reaped.
	go func() { _ = c.Wait() }()
	return nil
}

// LogFile is where a node's output goes.
func (n *Network) LogFile(v *Node) string { return filepath.Join(n.Folder(v), logFile) }

// cleanEnv keeps the caller's node settings from changing every node.
func cleanEnv(env []string) []string {
	var out []string
	for _, e := range env {
		switch {
		case strings.HasPrefix(e, "CORE_"), strings.HasPrefix(e, "ORDERER_"), strings.HasPrefix(e, "GRAPEVINE_"), strings.HasPrefix(e, "FABRIC_CFG_PATH="):
		default:
			out = append(out, e)
		}
	}
	return out
}

// Kill ends a node with SIGKILL and returns when its process is gone.
func (n *Network) Kill(ctx context.Context, v *Node) error { return n.end(ctx, v, syscall.SIGKILL) }

// Stop ends a node with SIGTERM, and with SIGKILL if it doesn't obey in time.
func (n *Network) Stop(ctx context.Context, v *Node) error {
	s, pid := n.Process(v)
	if s == Dead {
		return nil
	}
	if s == Stopped { // a suspended process doesn't hear SIGTERM
		if err := signal(pid, syscall.SIGCONT); err != nil {
			return err
		}
	}
	soft, cancel := context.WithTimeout(ctx, stopTime)
	defer cancel()
	err := n.end(soft, v, syscall.SIGTERM)
	if err != nil && ctx.Err() == nil {
		return n.end(ctx, v, syscall.SIGKILL)
	}
	return err
}

// Pause suspends a node.
func (n *Network) Pause(v *Node) error { return n.signalAlive(v, syscall.SIGSTOP) }

// Resume lets a suspended node go on.
func (n *Network) Resume(v *Node) error { return n.signalAlive(v, syscall.SIGCONT) }

func (n *Network) signalAlive(v *Node, s syscall.Signal) error {
	if n.InProcess {
		return fault.New("DEV015", "a node inside one process can't be suspended alone").Do("make the network without --in-process")
	}
	state, pid := n.Process(v)
	if state == Dead {
		return fault.Newf("DEV011", "%s does not run", v.Name).Do(n.verb("restart " + v.Name))
	}
	return signal(pid, s)
}

func (n *Network) end(ctx context.Context, v *Node, s syscall.Signal) error {
	state, pid := n.Process(v)
	if state == Dead {
		return nil
	}
	if err := signal(pid, s); err != nil {
		return err
	}
	t := time.NewTicker(poll)
	defer t.Stop()
	for processState(pid, n.mark(v)) != Dead {
		select {
		case <-t.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s (pid %d) to end: %w", v.Name, pid, ctx.Err())
		}
	}
	return os.Remove(filepath.Join(n.Folder(v), pidFile))
}

func signal(pid int, s syscall.Signal) error {
	if err := syscall.Kill(pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signalling process %d: %w", pid, err)
	}
	return nil
}

// processState looks at a process. One whose arguments lack the mark is
// another program under a used pid.
func processState(pid int, mark string) State {
	if syscall.Kill(pid, 0) != nil {
		return Dead
	}
	if !haveProc() {
		return psState(pid, mark)
	}
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return Dead
	}
	// pid (name) state …: the name may hold anything, so look behind its end.
	i := bytes.LastIndexByte(stat, ')')
	if i < 0 || i+2 >= len(stat) {
		return Dead
	}
	state := stateOf(stat[i+2])
	args, err := os.ReadFile(filepath.Join(dir, "cmdline"))
	// A program that is just being loaded has no arguments yet: it is ours.
	if err != nil || (len(args) > 0 && !bytes.Contains(args, []byte(mark))) {
		return Dead
	}
	return state
}

func haveProc() bool {
	_, err := os.Stat("/proc/self/stat")
	return err == nil
}

// psState is processState where there is no /proc.
func psState(pid int, mark string) State {
	out, err := exec.Command("ps", "-o", "state=,command=", "-p", strconv.Itoa(pid)).Output()
	if err != nil || len(out) == 0 || !bytes.Contains(out, []byte(mark)) {
		return Dead
	}
	return stateOf(bytes.TrimSpace(out)[0])
}

func stateOf(c byte) State {
	switch c {
	case 'Z', 'X', 'x':
		return Dead
	case 'T', 't':
		return Stopped
	}
	return Alive
}

// tail returns the last lines of a node's log.
func (n *Network) tail(v *Node, count int) []string { return lines(n.LogFile(v), count) }

// lines returns the last lines of a file.
func lines(file string, count int) []string {
	raw, err := os.ReadFile(file)
	text := strings.TrimSpace(string(raw))
	if err != nil || text == "" {
		return nil
	}
	all := strings.Split(text, "\n")
	return all[max(0, len(all)-count):]
}

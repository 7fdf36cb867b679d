// Command grapevine runs peers, orderers and development networks, and speaks to
// them. Each group of verbs has a file of its own, whose constructor stands in
// the list in root.go; sub-packages hold what needs no command line: fault (coded
// errors), conf (configuration), admin (the objects and the socket of a node),
// serve (a node as a process) and dev (the development network).
package main

import (
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	// A reader that goes away is an error to report, not a signal to die of.
	signal.Ignore(syscall.SIGPIPE)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	os.Exit(run(world{
		args: os.Args[1:], env: os.Environ(), in: os.Stdin, out: os.Stdout, err: os.Stderr, signals: signals, now: time.Now,
	}))
}

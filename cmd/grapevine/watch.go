package main

import (
	"context"
	"maps"
	"time"
)

// watchKey annotates a command that --watch makes sense for.
const watchKey = "watch"

// watchEvery is how often a watched verb looks again.
const watchEvery = time.Second

// watched adds the annotation of watchKey to others.
func watched(others map[string]string) map[string]string {
	out := map[string]string{watchKey: "yes"}
	maps.Copy(out, others)
	return out
}

// A screen is one answer of a verb: what emit prints.
type screen struct {
	obj   any
	show  func(t *table)
	names func() []string
	key   string // equal on two answers that tell the same; "": what is printed
	exit  error  // of the verb when it isn't watched
}

// watch prints an answer; with --watch it goes on, and prints each that differs
// from the last, until it is interrupted: anew on a terminal, else one below the
// other. A node that goes away meanwhile is said once, and looked for again.
func (a *app) watch(ctx context.Context, look func(context.Context) (*screen, error)) error {
	ask := func() (*screen, error) {
		ctx, cancel := a.within(ctx, askTime)
		defer cancel()
		return look(ctx)
	}
	s, err := ask()
	if err != nil {
		return err
	}
	if !a.flags.watch {
		if err := a.emit(s.obj, s.show, s.names); err != nil {
			return err
		}
		return s.exit
	}
	a.long.Store(true)
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for last, gone := "", false; ; s, err = ask() {
		switch {
		case err == nil:
			if last, err = a.again(s, last); err != nil {
				return err
			}
			gone = false
		case !gone && ctx.Err() == nil:
			a.report(err)
			last, gone = "", true // it may be another one when it comes back
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// again prints an answer unless it tells what the last told, and returns by what
// the next is compared.
func (a *app) again(s *screen, last string) (string, error) {
	text, err := a.form(s.obj, s.show, s.names)
	if err != nil {
		return "", err
	}
	key := s.key
	if key == "" {
		key = string(text)
	}
	if key == last {
		return key, nil
	}
	switch a.flags.output {
	case "json", "name":
	case "yaml":
		text = append([]byte("---\n"), text...)
	default:
		if terminal(a.out) {
			text = append([]byte("\x1b[H\x1b[2J"), text...)
		} else if last != "" {
			text = append([]byte("\n"), text...)
		}
	}
	return key, a.write(text)
}

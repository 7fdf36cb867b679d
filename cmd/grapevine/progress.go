package main

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"grapevine/cmd/grapevine/admin"
)

// How often progress is shown: on a terminal the one line changes, elsewhere a
// new line is written.
const (
	barEvery  = 200 * time.Millisecond
	lineEvery = 10 * time.Second
)

// barWidth is that of the bar itself, in characters.
const barWidth = 24

// A bar shows on stderr how long work goes, unless -q or --no-progress.
type bar struct {
	a        *app
	what     string
	terminal bool
	every    time.Duration
	next     time.Time
	shown    int // characters on the terminal's line
}

func (a *app) newBar(what string) *bar {
	b := &bar{a: a, what: what, terminal: terminal(a.err), every: lineEvery}
	if b.terminal {
		b.every = barEvery
	}
	b.next = a.now()
	if !b.terminal {
		b.next = b.next.Add(b.every)
	}
	return b
}

// show tells how it goes, if that is due. Share is how much of it is done, 0 to
// 1; negative if nobody knows.
func (b *bar) show(p admin.Progress, share float64) {
	if b.a.flags.quiet || b.a.flags.noProgress || !p.Active || b.a.now().Before(b.next) {
		return
	}
	b.next = b.a.now().Add(b.every)
	line := progressLine(b.what, p, share)
	if !b.terminal {
		b.a.say("%s\n", line)
		return
	}
	b.write(gauge(share) + line)
}

// write replaces the terminal's line.
func (b *bar) write(line string) {
	n := utf8.RuneCountInString(line)
	b.a.say("\r%s%s", line, strings.Repeat(" ", max(0, b.shown-n)))
	b.shown = n
}

// done takes the line away.
func (b *bar) done() {
	if b.shown > 0 {
		b.write("")
		b.a.say("\r")
		b.shown = 0
	}
}

// gauge draws how much is done.
func gauge(share float64) string {
	if share < 0 {
		return ""
	}
	full := int(min(share, 1) * barWidth)
	return "[" + strings.Repeat("=", full) + strings.Repeat(" ", barWidth-full) + "] "
}

// soFar is the progress of work that began at since, of whose target blocks some are
// done, and their share.
func (a *app) soFar(since time.Time, done, target, bytes uint64) (admin.Progress, float64) {
	p := admin.Progress{Active: true, Since: admin.Time{Time: since}, Height: done, Target: target, Blocks: done, Bytes: bytes}
	if s := a.now().Sub(since).Seconds(); s > 0 && done > 0 {
		p.BlocksPerSec, p.BytesPerSec = float64(done)/s, float64(bytes)/s
		p.LeftSec = s * float64(target-min(done, target)) / float64(done)
	}
	return p, float64(done) / float64(max(target, 1))
}

// progressLine says how long work goes.
func progressLine(what string, p admin.Progress, share float64) string {
	parts := []string{what}
	if share >= 0 {
		parts = append(parts, fmt.Sprintf("%.0f %%", 100*min(share, 1)))
	}
	blocks := fmt.Sprintf("%s blocks", grouped(p.Blocks))
	if p.Target > p.FromHeight {
		blocks = fmt.Sprintf("%s of %s blocks", grouped(p.Blocks), grouped(p.Target-p.FromHeight))
	}
	parts = append(parts, blocks)
	if p.Bytes > 0 {
		parts = append(parts, size(float64(p.Bytes)))
	}
	if p.BytesPerSec > 0 {
		parts = append(parts, size(p.BytesPerSec)+"/s")
	}
	left := ""
	if p.LeftSec > 0 {
		left = ", " + max(time.Duration(p.LeftSec*float64(time.Second)).Round(time.Second), time.Second).String() + " left"
	}
	from := ""
	if len(p.Sources) > 0 {
		from = ", from " + strings.Join(p.Sources, " ")
	}
	return strings.Join(parts, "  ") + left + from
}

// shareOf is how much of catching up is done.
func shareOf(p admin.Progress) float64 {
	if p.Target <= p.FromHeight {
		return -1
	}
	return float64(p.Height-min(p.Height, p.FromHeight)) / float64(p.Target-p.FromHeight)
}

// grouped writes a number with a comma between thousands.
func grouped(n uint64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// size writes a number of bytes in decimal units.
func size(n float64) string {
	units := []string{"B", "kB", "MB", "GB", "TB"}
	i := 0
	for n >= 1000 && i < len(units)-1 {
		n /= 1000
		i++
	}
	if i == 0 || n >= 100 {
		return fmt.Sprintf("%.0f %s", n, units[i])
	}
	return fmt.Sprintf("%.1f %s", n, units[i])
}

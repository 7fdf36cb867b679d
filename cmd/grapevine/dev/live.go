package dev

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"

	"grapevine/cmd/grapevine/admin"
)

const redraw = 250 * time.Millisecond

// View shows the network in a terminal, redrawn as it changes, until ctx ends
// or somebody presses q, which leaves the nodes running: left is then true.
func (n *Network) View(ctx context.Context, in io.Reader, out io.Writer, color bool) (left bool, err error) {
	m := &view{net: n, ctx: ctx, color: color}
	opts := []tea.ProgramOption{tea.WithContext(ctx), tea.WithInput(in), tea.WithOutput(out), tea.WithoutSignalHandler()}
	_, err = tea.NewProgram(m, opts...).Run()
	if ctx.Err() != nil {
		err = nil
	}
	return m.left, err
}

// view is the screen. Its fields belong to the program's one loop.
type view struct {
	net    *Network
	ctx    context.Context // of View, which runs the program to its end
	color  bool
	state  *admin.DevState
	at     time.Time
	height uint64  // at the last redraw
	rate   float64 // blocks a second
	left   bool
}

type looked struct {
	state *admin.DevState
	at    time.Time
}

func (v *view) Init() tea.Cmd { return v.look }

// look asks the network; it runs beside the loop.
func (v *view) look() tea.Msg { return looked{v.net.Status(v.ctx), time.Now()} }

func (v *view) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.KeyPressMsg:
		switch msg.String() {
		case "q":
			v.left = true
			return v, tea.Quit
		case "ctrl+c":
			return v, tea.Quit
		}
	case looked:
		v.take(msg)
		return v, tea.Tick(redraw, func(time.Time) tea.Msg { return v.look() })
	}
	return v, nil
}

func (v *view) take(l looked) {
	h := l.state.Channels[0].Height
	if dt := l.at.Sub(v.at).Seconds(); v.state != nil && dt > 0 {
		now := float64(h-min(h, v.height)) / dt
		v.rate += 0.3 * (now - v.rate) // smoothed: a block comes whole
	}
	v.state, v.at, v.height = l.state, l.at, h
}

func (v *view) View() tea.View {
	var b strings.Builder
	if v.state == nil {
		b.WriteString("looking at the network…\n")
		return tea.NewView(b.String())
	}
	fmt.Fprintf(&b, "Grapevine dev network  %s\n", v.net.dir)
	fmt.Fprintf(&b, "channel %s  height %d  %.1f blocks/s  %s\n\n", v.state.Channels[0].Name, v.height, v.rate, v.readiness())
	b.WriteString(Table(v.state))
	b.WriteString("\nq leave (nodes go on)   ctrl+c stop all nodes\n")
	return tea.NewView(b.String())
}

func (v *view) readiness() string {
	text, color := "ready", lipgloss.Color("2")
	if !v.state.Ready {
		text, color = "not ready", lipgloss.Color("3")
	}
	if !v.color {
		return text
	}
	return lipgloss.NewStyle().Foreground(color).Bold(true).Render(text)
}

// Table is the network as text: a line for each node.
func Table(s *admin.DevState) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-12s %-8s %-9s %8s %6s %8s  %-8s %s\n", "NODE", "ORG", "ROLE", "HEIGHT", "LAG", "MEMBERS", "STATE", "TIP")
	for _, o := range s.Orderers {
		role := "orderer"
		if o.Leader {
			role = "★ orderer"
		}
		fmt.Fprintf(&b, "%-12s %-8s %-9s %8d %6s %8s  %-8s\n", o.Name, "-", role, o.Height, "-", "-", o.State)
	}
	for _, p := range s.Peers {
		role := "member"
		if p.Leader {
			role = "★ leader"
		}
		lag := s.Channels[0].Height - min(p.Height, s.Channels[0].Height)
		fmt.Fprintf(&b, "%-12s %-8s %-9s %8d %6d %8d  %-8s %s\n", p.Name, p.Org, role, p.Height, lag, p.Members, p.State, short(p.TipHash))
	}
	return b.String()
}

func short(hash string) string { return hash[:min(16, len(hash))] }

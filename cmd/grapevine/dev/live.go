package dev

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
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
	height uint64            // at the last redraw
	rate   float64           // blocks a second
	leads  map[string]string // who led which organisation last
	moves  []string          // the last changes of leaders
	left   bool
}

// maxMoves is how many changes of leaders are shown.
const maxMoves = 4

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
	v.follow(l)
}

// follow notes whom leadership has moved to.
func (v *view) follow(l looked) {
	if v.leads == nil {
		v.leads = map[string]string{}
	}
	for _, p := range l.state.Peers {
		was := v.leads[p.Org]
		if !p.Leader || p.Name == was || slices.ContainsFunc(l.state.Peers, func(q admin.DevPeer) bool { return q.Leader && q.Name == was }) {
			continue // two at once: the one before is shown until it steps down
		}
		if was != "" {
			v.moves = append(v.moves, fmt.Sprintf("%s  %s: leader %s → %s", l.at.Format(time.TimeOnly), p.Org, was, p.Name))
			v.moves = v.moves[max(0, len(v.moves)-maxMoves):]
		}
		v.leads[p.Org] = p.Name
	}
}

func (v *view) View() tea.View {
	if v.state == nil {
		return tea.NewView("looking at the network…\n")
	}
	paint := plain
	if v.color {
		paint = coloured
	}
	var b strings.Builder
	ready := paint(string(Alive), "ready")
	if !v.state.Ready {
		ready = paint(string(Stopped), "not ready")
	}
	fmt.Fprintf(&b, "%s  %s\n", paint("head", "Grapevine dev network"), v.net.dir)
	fmt.Fprintf(&b, "channel %s   height %d   %.1f blocks/s   %s\n\n", v.state.Channels[0].Name, v.height, v.rate, ready)
	b.WriteString(draw(v.state, paint))
	if len(v.moves) > 0 {
		fmt.Fprintf(&b, "\n%s\n", strings.Join(v.moves, "\n"))
	}
	keys := "q leave (nodes go on)   ctrl+c stop all nodes"
	if v.net.hosting {
		keys = "q or ctrl+c stop all nodes"
	}
	fmt.Fprintf(&b, "\n%s\n", paint("dim", keys))
	return tea.NewView(b.String())
}

// A painter gives a text the look of its kind, which is a State, or "head",
// "leader", "dim" or "".
type painter func(kind, text string) string

func plain(_, text string) string { return text }

var looks = map[string]lipgloss.Style{
	"head": lipgloss.NewStyle().Bold(true), "dim": lipgloss.NewStyle().Faint(true),
	"leader": lipgloss.NewStyle().Foreground(lipgloss.Color("6")), "lag": lipgloss.NewStyle().Foreground(lipgloss.Color("3")),
	string(Alive): lipgloss.NewStyle().Foreground(lipgloss.Color("2")), string(Dead): lipgloss.NewStyle().Foreground(lipgloss.Color("1")),
	string(Stopped): lipgloss.NewStyle().Foreground(lipgloss.Color("3")),
}

func coloured(kind, text string) string {
	if s, ok := looks[kind]; ok {
		return s.Render(text)
	}
	return text
}

// Table is the network as text: a line for each node.
func Table(s *admin.DevState) string { return draw(s, plain) }

func draw(s *admin.DevState, paint painter) string {
	var b strings.Builder
	row := func(kinds [4]string, name, org, role, height, lag, members, state, tip string) {
		fmt.Fprintf(&b, "%-12s  %-8s  %s  %s  %s  %7s  %s  %s\n", name, org,
			paint(kinds[0], fmt.Sprintf("%-9s", role)), paint(kinds[1], fmt.Sprintf("%7s", height)), paint(kinds[2], fmt.Sprintf("%5s", lag)),
			members, paint(kinds[3], fmt.Sprintf("%-7s", state)), tip)
	}
	number := func(n uint64) string { return strconv.FormatUint(n, 10) }
	head := fmt.Sprintf("%-12s  %-8s  %-9s  %7s  %5s  %7s  %-7s  %s", "NODE", "ORG", "ROLE", "HEIGHT", "LAG", "MEMBERS", "STATE", "TIP")
	b.WriteString(paint("head", head) + "\n")
	for _, o := range s.Orderers {
		role, kind := "orderer", ""
		if o.Leader {
			role, kind = "★ orderer", "leader"
		}
		row([4]string{kind, "", "", o.State}, o.Name, "-", role, number(o.Height), "-", "-", o.State, "")
	}
	for _, p := range s.Peers {
		role, kind := "member", ""
		if p.Leader {
			role, kind = "★ leader", "leader"
		}
		lag, late := s.Channels[0].Height-min(p.Height, s.Channels[0].Height), ""
		if lag > 0 {
			late = "lag"
		}
		row([4]string{kind, "", late, p.State}, p.Name, p.Org, role, number(p.Height), number(lag), strconv.Itoa(p.Members), p.State, short(p.TipHash))
	}
	return b.String()
}

func short(hash string) string { return hash[:min(16, len(hash))] }

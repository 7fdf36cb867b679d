package blocksync

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/libp2p/go-libp2p/core/peer"
)

// TestPlays runs the scheduler through scripts. Each line is an event; what
// follows it is what the scheduler wants. "pass D" lets time go by, waking it
// whenever it wanted that.
func TestPlays(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		p := &play{t: t}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			p.out.Reset()
			p.do(d)
			if p.out.Len() == 0 {
				return "ok"
			}
			return p.out.String()
		})
	})
}

type play struct {
	t    *testing.T
	s    *scheduler
	now  time.Time
	wake time.Time
	out  strings.Builder
}

func (p *play) do(d *datadriven.TestData) {
	num := func(key string, def uint64) uint64 {
		d.MaybeScanArgs(p.t, key, &def)
		return def
	}
	who := func() peer.ID {
		var s string
		d.MaybeScanArgs(p.t, "peer", &s)
		return peer.ID(s)
	}
	switch d.Cmd {
	case "new":
		p.now = epoch
		p.s = newScheduler(testTerms(num("reach", 1024), int64(num("budget", 64<<20))), num("height", 0))
	case "height":
		p.step(evHeight{who(), num("h", 0)})
	case "held":
		p.step(evHeld{num("n", 0), int64(num("size", 1000)), who(), 0})
	case "dropped":
		p.step(evDropped{num("n", 0)})
	case "committed":
		p.step(evCommitted{num("h", 0)})
	case "announced":
		p.step(evAnnounced{num("n", 0), int64(num("size", 1<<20)), []peer.ID{who()}})
	case "gone":
		p.step(evGone{who()})
	case "bad":
		p.step(evBad{who()})
	case "block": // of a slice: it comes, and goes to the window
		id, n, size := num("id", 0), num("n", 0), int64(num("size", 1000))
		from := who()
		if f := p.s.slices[id]; f != nil {
			from = f.peer
		}
		p.step(evMoved{id, size})
		p.step(evArrived{id, n})
		p.step(evHeld{n, size, from, id})
	case "moved":
		p.step(evMoved{num("id", 0), int64(num("bytes", 1))})
	case "parked":
		p.step(evParked{num("id", 0), num("on", 1) == 1})
	case "read":
		p.step(evRead{num("id", 0)})
	case "hurry":
		p.step(evHurry{})
	case "done":
		p.step(evDone{num("id", 0)})
	case "failed":
		faults := map[string]fault{"ours": ours, "broken": broken, "lacking": lacking, "busy": busy, "wrong": wrong}
		var fault string
		d.ScanArgs(p.t, "fault", &fault)
		p.step(evFailed{id: num("id", 0), fault: faults[fault], lowest: num("lowest", 0), height: num("h", 0)})
	case "pass":
		p.pass(d.CmdArgs[0].Key)
	default:
		d.Fatalf(p.t, "unknown command %s", d.Cmd)
	}
}

func (p *play) pass(duration string) {
	by, err := time.ParseDuration(duration)
	if err != nil {
		p.t.Fatal(err)
	}
	end := p.now.Add(by)
	for !p.wake.IsZero() && !p.wake.After(end) {
		p.now = p.wake
		p.step(evTick{})
	}
	p.now = end
	p.step(evTick{})
}

// step writes the effects, but for wake-ups.
func (p *play) step(e event) {
	for _, fx := range p.s.step(e, p.now) {
		at := p.now.Sub(epoch).Round(time.Millisecond)
		switch fx := fx.(type) {
		case fxFetch:
			fmt.Fprintf(&p.out, "%v: #%d asks %s for %d to %d", at, fx.id, string(fx.peer), fx.from, fx.to-1)
			if fx.wait > 0 {
				fmt.Fprintf(&p.out, ", to wait %v", fx.wait)
			}
			p.out.WriteByte('\n')
		case fxCancel:
			fmt.Fprintf(&p.out, "%v: #%d cancelled", at, fx.id)
			if fx.slow {
				p.out.WriteString(", too slow")
			}
			p.out.WriteByte('\n')
		case fxBan:
			fmt.Fprintf(&p.out, "%v: %s barred for %v\n", at, string(fx.peer), fx.d)
		case fxLied:
			fmt.Fprintf(&p.out, "%v: %s lied about its height\n", at, string(fx.peer))
		case fxLowered:
			fmt.Fprintf(&p.out, "%v: %s lowered its height\n", at, string(fx.peer))
		case fxWake:
			p.wake = fx.at
		}
	}
}

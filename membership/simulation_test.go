package membership

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"grapevine/itest/figures"
)

// measured gathers what the parallel cells of one simulation measure, and saves
// it when all have ended.
type measured struct {
	mu  sync.Mutex
	all figures.Records // guarded by mu
}

func newMeasured(t *testing.T, name string) *measured {
	m := new(measured)
	t.Cleanup(func() { figures.Save(t, "membership."+name, m.all) })
	return m
}

func (m *measured) note(f func(r *figures.Records)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f(&m.all)
}

// sizes are how many peers the simulations have, the large ones only in full,
// and the largest, which take an hour of processor time and more, in make soak.
func sizes() []int {
	if figures.Long() {
		return []int{200, 50, 10} // so that the longest begin first
	}
	return []int{50, 10}
}

var largest = []int{1000}

func soak(t *testing.T) {
	if os.Getenv("GRAPEVINE_SOAK") == "" {
		t.Skip("it takes half an hour and more: make soak")
	}
}

// TestSimCrash: from a crash that nothing tells of (no connection breaks) to
// dead at the others.
func TestSimCrash(t *testing.T) {
	crashes := func(int) int { return 4 }
	if figures.Long() {
		crashes = func(n int) int { return min(600, 30_000/n) }
	}
	crash(t, "crash", sizes(), crashes)
}

// TestSoakCrash is TestSimCrash for the largest networks.
func TestSoakCrash(t *testing.T) {
	soak(t)
	crash(t, "crash.soak", largest, func(int) int { return 200 }) // a hundredth of them is two
}

func crash(t *testing.T, name string, sizes []int, howMany func(peers int) int) {
	m := newMeasured(t, name)
	for _, n := range sizes {
		crashes := howMany(n)
		for _, loss := range []float64{0, .1, .3} {
			t.Run(fmt.Sprintf("%d peers, %.0f%% loss", n, 100*loss), func(t *testing.T) {
				t.Parallel()
				var all []time.Duration
				wrong := 0
				each := min(20, max(1, n/10), crashes) // one after the other, in one network
				for k := 0; k < crashes; k += each {
					s := newSimulator(uint64(k+1), n, mostPeers)
					s.loss = loss
					s.run(20*time.Second + time.Duration(s.rng.Int64N(int64(5*time.Second))))
					for c := range each {
						s.run(time.Duration(s.rng.Int64N(int64(time.Second))))
						s.crash(c * n / each)
						s.run(15*time.Second + time.Duration(50*loss)*time.Second)
						require.Equal(t, n-1-c, len(s.died), "others that believe it dead")
						all = slices.AppendSeq(all, maps.Values(s.died))
						s.part(c * n / each)
					}
					wrong += s.falseDeaths
				}
				sorted := figures.Sorted(all)
				p99 := figures.At(sorted, .99)
				t.Logf("crash to dead at %d others: p50 %v p99 %v max %v; %d false deaths", len(all), figures.At(sorted, .5), p99, figures.At(sorted, 1), wrong)
				m.note(func(r *figures.Records) {
					p := map[string]any{"peers": n, "loss": loss, "crashes": crashes}
					r.Spread("membership.crash_to_dead", p, all)
					r.Add("membership.crash_to_dead.false", p, "deaths of peers that ran", float64(wrong))
				})
				if loss == 0 {
					require.LessOrEqual(t, p99, 4*time.Second)
				}
			})
		}
	}
}

// TestSimFalseDeaths counts turns to dead of a peer that runs, at any other.
func TestSimFalseDeaths(t *testing.T) {
	peerHours := 5.0
	if figures.Long() {
		peerHours = 1000
	}
	falseDeaths(t, "false_deaths", sizes(), peerHours)
}

// TestSoakFalseDeaths does so for ten times as long, and for the largest
// networks.
func TestSoakFalseDeaths(t *testing.T) {
	soak(t)
	falseDeaths(t, "false_deaths.soak", sizes(), 10_000)
	falseDeaths(t, "false_deaths.largest", largest, 1000)
}

func falseDeaths(t *testing.T, name string, sizes []int, peerHours float64) {
	m := newMeasured(t, name)
	for _, n := range sizes {
		for _, k := range []struct{ loss, most float64 }{{.3, 1e-2}, {.1, 1e-4}, {0, 0}} {
			t.Run(fmt.Sprintf("%d peers, %.0f%% loss", n, 100*k.loss), func(t *testing.T) {
				t.Parallel()
				s := newSimulator(7, n, mostPeers)
				s.loss = k.loss
				s.run(time.Duration(peerHours / float64(n) * float64(time.Hour)))
				perHour := func(n int) float64 { return float64(n) / peerHours }
				t.Logf("%.0f peer-hours: %d false deaths, %d suspicions (%.2g a peer-hour), %d refutations, %.1f words a second and peer",
					peerHours, s.falseDeaths, s.suspicions, perHour(s.suspicions), s.refutations, perHour(s.words)/3600)
				m.note(func(r *figures.Records) {
					p := map[string]any{"peers": n, "loss": k.loss, "peer_hours": peerHours}
					r.Add("membership.false_deaths", p, "in all", float64(s.falseDeaths))
					r.Add("membership.false_suspicions", p, "per peer-hour", perHour(s.suspicions))
					r.Add("membership.refutations", p, "per peer-hour", perHour(s.refutations))
					r.Add("membership.words", p, "pings, answers and accusations per second and peer", perHour(s.words)/3600)
				})
				require.LessOrEqual(t, float64(s.falseDeaths), k.most*peerHours)
			})
		}
	}
}

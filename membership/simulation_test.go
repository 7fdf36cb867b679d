package membership

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// long says whether the simulations run in full: make sim.
func long() bool { return os.Getenv("GRAPEVINE_SIM") != "" }

// TestSimCrash: from a crash that nothing tells of (no connection breaks) to
// dead at the others.
func TestSimCrash(t *testing.T) {
	crashes := 6
	if long() {
		crashes = 60
	}
	for _, n := range []int{10, 50, 200, 1000} {
		for _, loss := range []float64{0, .1, .3} {
			if n == 1000 && !long() && loss > 0 {
				continue
			}
			t.Run(fmt.Sprintf("%d peers, %.0f%% loss", n, 100*loss), func(t *testing.T) {
				var all []time.Duration
				wrong := 0
				for k := range max(2, crashes*50/(n+40)) {
					s := newSimulator(uint64(k+1), n, 64)
					s.loss = loss
					s.run(20*time.Second + time.Duration(s.rng.Int64N(int64(5*time.Second))))
					at := s.crash(n / 2)
					s.run(15 * time.Second)
					// Who hears of it from nobody learns it at the next exchange of views,
					// which isn't simulated here.
					require.GreaterOrEqual(t, len(s.died), n-1-n/500, "some still believe that it lives")
					for _, d := range s.died {
						all = append(all, d.Sub(at))
					}
					wrong += s.falseDeaths
					if loss < .3 {
						require.Zero(t, s.falseDeaths)
					}
				}
				p50, p99, most := quantile(all, .5), quantile(all, .99), quantile(all, 1)
				t.Logf("crash to dead at %d others: p50 %v p99 %v max %v; %d false deaths", len(all), p50.Round(time.Millisecond), p99.Round(time.Millisecond), most.Round(time.Millisecond), wrong)
				if loss == 0 {
					require.LessOrEqual(t, p99, 4*time.Second)
				}
			})
		}
	}
}

// TestSimFalseDeaths counts turns to dead of a peer that runs, at any other.
func TestSimFalseDeaths(t *testing.T) {
	const n = 50
	hours := 0.2
	if long() {
		hours = 21
	}
	for _, k := range []struct {
		loss float64
		most float64
	}{{0, 0}, {.1, 1e-4}, {.3, 1e-2}} {
		t.Run(fmt.Sprintf("%.0f%% loss", 100*k.loss), func(t *testing.T) {
			s := newSimulator(7, n, 64)
			s.loss = k.loss
			s.run(time.Duration(hours * float64(time.Hour)))
			peerHours := hours * n
			t.Logf("%.0f peer-hours: %d false deaths, %d suspicions (%.2g a peer-hour), %d refutations, %.1f words and %.2g checks a second and peer",
				peerHours, s.falseDeaths, s.suspicions, float64(s.suspicions)/peerHours, s.refutations,
				float64(s.words)/peerHours/3600, float64(s.checks)/peerHours/3600)
			require.LessOrEqual(t, float64(s.falseDeaths), max(k.most*peerHours, 0))
		})
	}
}

package membership

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"grapevine/itest/figures"
)

// TestSimCrash: from a crash that nothing tells of (no connection breaks) to
// dead at the others.
func TestSimCrash(t *testing.T) {
	crashes := 4
	if figures.Long() {
		crashes = 60
	}
	for _, n := range []int{10, 50, 200, 1000} {
		for _, loss := range []float64{0, .1, .3} {
			if n >= 200 && !figures.Long() {
				continue
			}
			t.Run(fmt.Sprintf("%d peers, %.0f%% loss", n, 100*loss), func(t *testing.T) {
				var all []time.Duration
				wrong := 0
				each := max(1, n/10) // one after the other, in one network
				if n >= 200 {
					each = 20
				}
				each = min(each, crashes)
				for k := 0; k < crashes; k += each {
					s := newSimulator(uint64(k+1), n, mostPeers)
					s.loss = loss
					s.run(20*time.Second + time.Duration(s.rng.Int64N(int64(5*time.Second))))
					for c := range each {
						s.run(time.Duration(s.rng.Int64N(int64(time.Second))))
						s.crash(c * n / each)
						s.run(15 * time.Second)
						// Who hears of it from nobody learns it at the next exchange of views,
						// which isn't simulated here.
						require.GreaterOrEqual(t, len(s.died), n-1-c-n/200-1, "some still believe that it lives")
						all = append(all, s.died...)
						s.part(c * n / each)
					}
					wrong += s.falseDeaths
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
	for _, n := range []int{10, 50, 200, 1000} {
		peerHours := 5.0
		if figures.Long() {
			peerHours = 1000
		}
		if n == 1000 {
			peerHours /= 10 // a soak's work
		}
		if n >= 200 && !figures.Long() {
			continue
		}
		for _, k := range []struct{ loss, most float64 }{{0, 0}, {.1, 1e-4}, {.3, 1e-2}} {
			t.Run(fmt.Sprintf("%d peers, %.0f%% loss", n, 100*k.loss), func(t *testing.T) {
				s := newSimulator(7, n, mostPeers)
				s.loss = k.loss
				s.run(time.Duration(peerHours / float64(n) * float64(time.Hour)))
				t.Logf("%.0f peer-hours: %d false deaths, %d suspicions (%.2g a peer-hour), %d refutations, %.1f words a second and peer",
					peerHours, s.falseDeaths, s.suspicions, float64(s.suspicions)/peerHours, s.refutations, float64(s.words)/peerHours/3600)
				require.LessOrEqual(t, float64(s.falseDeaths), k.most*peerHours)
			})
		}
	}
}

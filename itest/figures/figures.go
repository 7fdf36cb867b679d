// Package figures collects what simulations, benchmarks and soak runs measure,
// and writes it as JSON: a list of records, each with name, parameters, unit and
// value. Any package's tests may use it.
package figures

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Dir is the environment variable that names the folder for what simulations
// measure. That it is set asks for their long runs.
const Dir = "GRAPEVINE_SIM"

// Long says whether simulations are to run in full: make sim.
func Long() bool { return os.Getenv(Dir) != "" }

// Save writes what a simulation measured to the folder that Dir names, in a file
// of its own, which name must be unique for; without a folder it does nothing.
func Save(tb testing.TB, name string, r Records) {
	tb.Helper()
	dir := os.Getenv(Dir)
	if dir == "" {
		return
	}
	if err := r.Write(filepath.Join(dir, name+".json")); err != nil {
		tb.Fatalf("saving what %s measured: %v", name, err)
	}
}

// Gather reads all that simulations saved in a folder, by file name.
func Gather(dir string) (all Records, err error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".json") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			return nil, err
		}
		var r Records
		if err := json.Unmarshal(b, &r); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name(), err)
		}
		all = append(all, r...)
	}
	return all, nil
}

// Record is one measured figure.
type Record struct {
	Name   string         `json:"name"`
	Params map[string]any `json:"params"`
	Unit   string         `json:"unit"`
	Value  float64        `json:"value"`
}

// Records are the figures of one run.
type Records []Record

// Add adds a figure.
func (r *Records) Add(name string, params map[string]any, unit string, value float64) {
	*r = append(*r, Record{name, params, unit, value})
}

// Spread adds the percentiles of durations, each as a record of its own, in
// milliseconds.
func (r *Records) Spread(name string, params map[string]any, ds []time.Duration) {
	s := Sorted(ds)
	for _, p := range []struct {
		name string
		at   float64
	}{{"p50", .5}, {"p95", .95}, {"p99", .99}, {"max", 1}} {
		r.Add(name+"."+p.name, params, "ms", Millis(At(s, p.at)))
	}
}

// Write writes the records to a file as a JSON list.
func (r Records) Write(path string) error {
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return fmt.Errorf("encoding the records: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

// Sorted returns a sorted copy.
func Sorted(ds []time.Duration) []time.Duration {
	s := slices.Clone(ds)
	slices.SortFunc(s, cmp.Compare[time.Duration])
	return s
}

// At returns the value of sorted durations below which a share of them lies;
// 0 if there are none.
func At(sorted []time.Duration, share float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	i := int(share*float64(len(sorted))+.5) - 1
	return sorted[min(max(i, 0), len(sorted)-1)]
}

// Millis returns d in milliseconds.
func Millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }

package itest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

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

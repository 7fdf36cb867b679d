// Package planted asks whether tests notice bugs: a checker that can't find
// those that were planted is none. Any package's tests may use it.
package planted

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"grapevine/itest/figures"
)

// A Bug breaks the code of the package under test in one place.
type Bug struct {
	Name     string
	File     string // of the package
	From, To string // From occurs once
	Tests    string // one of these is to fail: a pattern as of go test -run
}

// Find builds the package once for each bug, in the folder that the test runs
// in, and fails for those that no test notices. The package's long simulations
// don't run there. How many were planted and noticed is saved as figures.
func Find(t *testing.T, bugs []Bug) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	noticed := 0
	for _, b := range bugs {
		t.Run(b.Name, func(t *testing.T) {
			overlay := plant(t, here, b)
			c := exec.CommandContext(t.Context(), "go", "test", "-overlay", overlay, "-count=1", "-vet=off", "-short", "-timeout", "60s", "-run", b.Tests, ".")
			c.Env = append(os.Environ(), figures.Dir+"=", "RAPID_NOFAILFILE=true") // what a planted bug makes fail is no finding
			out, err := c.CombinedOutput()
			if err == nil {
				t.Errorf("not noticed by %s", b.Tests)
			}
			if strings.Contains(string(out), "build failed") || !strings.Contains(string(out), "FAIL") && !strings.Contains(string(out), "panic") {
				t.Errorf("the tests didn't run: %s", out)
			}
			if !t.Failed() {
				noticed++
			}
		})
	}
	var r figures.Records
	room := filepath.Base(here)
	r.Add(room+".planted", nil, "bugs", float64(len(bugs)))
	r.Add(room+".planted.noticed", nil, "bugs", float64(noticed))
	figures.Save(t, room+"-planted", r)
}

// plant writes the broken file, and what puts it in the place of the right one.
func plant(t *testing.T, here string, b Bug) (overlay string) {
	t.Helper()
	dir := t.TempDir()
	right, err := os.ReadFile(b.File)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(right), b.From); n != 1 {
		t.Fatalf("%s has the place to break %d times: look for it anew", b.File, n)
	}
	broken := filepath.Join(dir, filepath.Base(b.File))
	swap, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(here, b.File): broken}})
	if err != nil {
		t.Fatal(err)
	}
	overlay = filepath.Join(dir, "overlay.json")
	for file, text := range map[string]string{broken: strings.Replace(string(right), b.From, b.To, 1), overlay: string(swap)} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return overlay
}

package membership

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"grapevine/itest/figures"
)

// TestSimPlantedBugs breaks the code in one place at a time, and asks whether
// the tests notice: a checker that doesn't is none. It alone:
//
//	go run ./itest/runsim -only membership -run TestSimPlantedBugs
func TestSimPlantedBugs(t *testing.T) {
	m, planted, caught := newMeasured(t, "planted"), 0, 0
	defer func() {
		m.note(func(r *figures.Records) {
			r.Add("membership.planted", nil, "bugs", float64(planted))
			r.Add("membership.planted.caught", nil, "bugs", float64(caught))
		})
	}()
	if !figures.Long() {
		t.Skip("it builds the package many times: make sim")
	}
	for _, k := range []struct{ name, file, from, to, tests string }{
		{"12 tombstone lost at death", "view.go", "m.member.State, m.member.Since = to, now\n", "m.member.State, m.member.Since = to, now\n\tif to == Dead {\n\t\tdelete(v.marks, id)\n\t}\n", "TestReplays"},
		{"13 tombstone lost at restart", "marks.go", "out = append(out, id[:]...)", "out = append(out, id[:]...)\n\t\tm = &mark{notAfter: m.notAfter, sentAt: m.sentAt}", "TestMaxRegister|TestReplays"},
		{"14 no bound on the incarnation", "view.go", "[]time.Time{started(incarnation), sentAt}", "[]time.Time{sentAt}", "TestMaxRegister|TestHostileAlive"},
		{"15 no check of the incarnation", "view.go", "cmp.Or(cmp.Compare(incarnation, m.incarnation), cmp.Compare(sequence, m.sequence))", "cmp.Or(0, cmp.Compare(sequence, m.sequence))", "TestMaxRegister|TestHostileAlive"},
		{"25 signature not verified", "alive.go", "err != nil {\n\t\treturn fmt.Errorf(\"alive of %s: %w: %w\"", "err == nil && false {\n\t\treturn fmt.Errorf(\"alive of %s: %w: %w\"", "TestHostileAlive"},
		{"26 own audience given to all", "view.go", "k.own != nil && k.member.MSPID == mspID", "k.own != nil", "TestDisclosure"},
		{"27 an accusation is believed", "hear.go", "\tif s.connected {\n\t\td.lookAfter(s, 1, now)\n\t} else if", "\tif s.connected {\n\t\td.lookAfter(s, 1, now)\n\t\td.suspect(s, now)\n\t} else if", "TestDetectorSteps|TestAccuserOfAll"},
		{"28 an answer doesn't end suspicion", "detector.go", "\td.become(s, Alive)\n\td.rest(s)\n}", "\td.rest(s)\n}", "TestDetectorSteps"},
		{"29 death without time to refute", "probe.go", "now.Sub(s.suspected) >= due", "true", "TestDetectorSteps"},
		{"30 no indirect pings", "probe.go", "d.send(h.id, say{ping: p.nonce, target: &s.id})", "_ = h", "TestSimPartition"},
		{"31 a standstill counts", "detector.go", "s.suspected = s.suspected.Add(gap)", "s.suspected = s.suspected.Add(0)", "TestStandstill|TestDetectorSteps"},
		{"33 turns that miss aren't noticed", "probe.go", "now.Sub(d.pinged) > slowPings*d.period/4", "false", "TestClocksApart"},
		{"32 what is old is refuted", "hear.go", "if a.number.less(d.number) {\n\t\treturn\n\t}\n\tif now.Sub(d.firstAccused)", "if now.Sub(d.firstAccused)", "TestDetectorSteps"},
	} {
		t.Run(k.name, func(t *testing.T) {
			planted++
			dir := t.TempDir()
			here, err := os.Getwd()
			require.NoError(t, err)
			b, err := os.ReadFile(k.file)
			require.NoError(t, err)
			require.Equal(t, 1, strings.Count(string(b), k.from), "the place to break has changed: look for it anew")
			broken := filepath.Join(dir, k.file)
			require.NoError(t, os.WriteFile(broken, []byte(strings.Replace(string(b), k.from, k.to, 1)), 0o600))
			overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(here, k.file): broken}})
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600))
			c := exec.CommandContext(t.Context(), "go", "test", "-overlay", filepath.Join(dir, "overlay.json"), "-count=1", "-vet=off", "-short", "-run", k.tests, ".")
			c.Env = append(os.Environ(), "GRAPEVINE_SIM=")
			out, err := c.CombinedOutput()
			require.Error(t, err, "not noticed: %s", k.name)
			require.NotContains(t, string(out), "build failed", "%s", out)
			caught++
		})
	}
}

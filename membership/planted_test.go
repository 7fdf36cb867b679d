package membership

import (
	"testing"

	"grapevine/itest/figures"
	"grapevine/itest/planted"
)

// TestSimPlantedBugs breaks the code in one place at a time, and asks whether
// the tests notice: a checker that doesn't is none. It alone:
//
//	go run ./itest/runsim -only membership -run TestSimPlantedBugs
func TestSimPlantedBugs(t *testing.T) {
	if !figures.Long() {
		t.Skip("it builds the package many times: make sim")
	}
	planted.Find(t, []planted.Bug{
		{Name: "12 tombstone lost at death", File: "view.go", From: "m.member.State, m.member.Since = to, now\n", To: "m.member.State, m.member.Since = to, now\n\tif to == Dead {\n\t\tdelete(v.marks, id)\n\t}\n", Tests: "TestReplays"},
		{Name: "13 tombstone lost at restart", File: "marks.go", From: "out = append(out, id[:]...)", To: "out = append(out, id[:]...)\n\t\tm = &mark{notAfter: m.notAfter, sentAt: m.sentAt}", Tests: "TestMaxRegister|TestReplays"},
		{Name: "14 no bound on the incarnation", File: "view.go", From: "[]time.Time{started(incarnation), sentAt}", To: "[]time.Time{sentAt}", Tests: "TestMaxRegister|TestHostileAlive"},
		{Name: "15 no check of the incarnation", File: "view.go", From: "cmp.Or(cmp.Compare(incarnation, m.incarnation), cmp.Compare(sequence, m.sequence))", To: "cmp.Or(0, cmp.Compare(sequence, m.sequence))", Tests: "TestMaxRegister|TestHostileAlive"},
		{Name: "25 signature not verified", File: "alive.go", From: "err != nil {\n\t\treturn fmt.Errorf(\"alive of %s: %w: %w\"", To: "err == nil && false {\n\t\treturn fmt.Errorf(\"alive of %s: %w: %w\"", Tests: "TestHostileAlive"},
		{Name: "26 own audience given to all", File: "view.go", From: "k.own != nil && k.member.MSPID == mspID", To: "k.own != nil", Tests: "TestDisclosure"},
		{Name: "27 an accusation is believed", File: "hear.go", From: "\tif s.connected {\n\t\td.lookAfter(s, 1, now)\n\t} else if", To: "\tif s.connected {\n\t\td.lookAfter(s, 1, now)\n\t\td.suspect(s, now)\n\t} else if", Tests: "TestDetectorSteps|TestAccuserOfAll"},
		{Name: "28 an answer doesn't end suspicion", File: "detector.go", From: "\td.become(s, Alive)\n\td.rest(s)\n}", To: "\td.rest(s)\n}", Tests: "TestDetectorSteps"},
		{Name: "29 death without time to refute", File: "probe.go", From: "now.Sub(s.suspected) >= due", To: "true", Tests: "TestDetectorSteps"},
		{Name: "30 no indirect pings", File: "probe.go", From: "d.send(h.id, say{ping: p.nonce, target: &s.id})", To: "_ = h", Tests: "TestSimPartition"},
		{Name: "31 a standstill counts", File: "detector.go", From: "s.suspected = s.suspected.Add(gap)", To: "s.suspected = s.suspected.Add(0)", Tests: "TestStandstill|TestDetectorSteps"},
		{Name: "32 what is old is refuted", File: "hear.go", From: "if a.number.less(d.number) {\n\t\treturn\n\t}\n\tif now.Sub(d.firstAccused)", To: "if now.Sub(d.firstAccused)", Tests: "TestDetectorSteps"},
		{Name: "33 turns that miss aren't noticed", File: "turns.go", From: "if d.missed++; d.missed == missedTurns {", To: "if d.missed++; false {", Tests: "TestClocksApart"},
		{Name: "34 the refused aren't asked for again", File: "members.go", From: "if len(t.refused) == 0 {", To: "if true {", Tests: "TestRejudge"},
		{Name: "35 turns of a period coincide", File: "turns.go", From: "r.again+i*r.next)", To: "r.again)", Tests: "TestTurns"},
		{Name: "36 a turn that is missed is suffered", File: "turns.go", From: "\td.lookAfter(s, steps, now)\n}\n\n// hasten", To: "\t_ = steps\n}\n\n// hasten", Tests: "TestMissedTurns"},
	})
}

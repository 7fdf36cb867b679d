package cast

import (
	"testing"

	"grapevine/itest/figures"
	"grapevine/itest/planted"
)

// TestSimPlantedBugs breaks the code in one place at a time: the tests notice.
func TestSimPlantedBugs(t *testing.T) {
	if !figures.Long() {
		t.Skip("it builds the package many times: make sim")
	}
	planted.Find(t, []planted.Bug{
		{Name: "chunks aren't proven", File: "tree.go", From: "if t.nodes[node] != h {", To: "if false {", Tests: "TestHostileFrames|TestSteps"},
		{Name: "a chunk is passed on again", File: "relay.go", From: "	s.segs[at.segment].passed.set(at.index)\n", To: "", Tests: "TestSteps|TestRandomPlays"},
		{Name: "anyone may have chunks passed on", File: "relay.go", From: "if !slices.Contains(s.announcers, from) {\n\t\treturn false, NotOrigin", To: "if false {\n\t\treturn false, NotOrigin", Tests: "TestHostileFrames"},
		{Name: "no limit to what is passed on", File: "relay.go", From: "if s.passed >= shareFactor*", To: "if false && s.passed >= shareFactor*", Tests: "TestShareOfWork"},
		{Name: "anchor peers pass on all they get", File: "relay.go", From: "if s.entered <= c.fair(s) ||", To: "if true ||", Tests: "TestSimSparse"},
		{Name: "nobody is asked for what lacks", File: "repair.go", From: "if len(s.asked) < asksMost {", To: "if false {", Tests: "TestChunksOfAWholeBody"},
		{Name: "a session that lacks chunks is never pulled", File: "repair.go", From: "	s.pulled = true\n", To: "	s.pulled = true\n	return\n", Tests: "TestRandomPlays"},
		{Name: "a false body is the announcer's lie", File: "run.go", From: "e.lie, e.wrong = false, fx.direct.from", To: "_ = e", Tests: "TestWrongBody"},
		{Name: "parts in any order", File: "whole.go", From: "|| d.next != offset {", To: "{", Tests: "TestHostileParts"},
		{Name: "anyone may send a body", File: "whole.go", From: "	case !slices.Contains(s.announcers, from):\n		return nil, NotOrigin, nil\n", To: "", Tests: "TestHostileParts"},
		{Name: "sessions without a limit", File: "core.go", From: "if all >= perChannel || of >= perAnnouncer {", To: "if false {", Tests: "TestHostileLeaders"},
		{Name: "chunks that nobody announced are kept without a limit", File: "park.go", From: "if c.parked.of[e.from]+n > parkBytes || c.parked.bytes+n > parkMost {", To: "if false {", Tests: "TestShareOfWork"},
	})
}

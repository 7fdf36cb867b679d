package election

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
		{Name: "rank without reach", File: "claim.go", From: "case r != r2:", To: "case false:", Tests: "TestRanks"},
		{Name: "a dead term counts", File: "hear.go", From: "case c.term == l.term && r.dead:", To: "case false:", Tests: "TestHostileTerms"},
		{Name: "any term counts", File: "hear.go", From: "return term > m.seen+maxJump", To: "return false", Tests: "TestHostileTerms"},
		{Name: "the worse leader stays", File: "hear.go", From: "\tif c.term > l.term && !m.record(c.id, now).spend(now) {", To: "\tif m.role == leader {\n\t\treturn nil\n\t}\n\tif c.term > l.term && !m.record(c.id, now).spend(now) {", Tests: "TestOfTwoLeaders|TestElection/halves"},
		{Name: "deposing costs nothing", File: "hear.go", From: "if len(r.deposed) >= depositions {", To: "if false {", Tests: "TestHostileTerms"},
		{Name: "a candidate counts its own vote alone", File: "roles.go", From: "if lives && !m.votes[id] && (m.top == nil || m.top.id != id) {", To: "if false && lives && !m.votes[id] {", Tests: "TestACandidateWithdraws|TestSilenceIsNoVeto"},
		{Name: "no yielding without an orderer", File: "roles.go", From: "case now.Sub(m.linked) >= m.yield:", To: "case false:", Tests: "TestALeaderWithoutAnOrderer|TestElection/all_cut"},
		{Name: "a standstill is forgotten", File: "machine.go", From: "if gap < m.alive {", To: "if true {", Tests: "TestAStandstill|TestElection/leader_pause"},
		{Name: "starving is suffered", File: "watch.go", From: "if !w.overdue(m.facts.height, patience, now) {", To: "if true {", Tests: "TestAStarvedFollower|TestElection/drip"},
		{Name: "a leader is always calm", File: "roles.go", From: "if now.Before(m.calmAt) {", To: "if false {", Tests: "TestBeats"},
		{Name: "a late beat isn't asked for", File: "roles.go", From: "m.tell(m.top.id, true) // a beat is late", To: "_ = f", Tests: "TestLostWords"},
		{Name: "nothing is passed on", File: "roles.go", From: "\tm.pass(from, now)\n", To: "", Tests: "TestWhoAsks|TestElection/(one_way|ring)"},
		{Name: "claims aren't verified", File: "serve.go", From: "if err := by.Verify(sum[:], s.Signature); err != nil {", To: "if err := by.Verify(sum[:], s.Signature); err != nil && false {", Tests: "TestHostile"},
		{Name: "who proved one claim needn't prove others", File: "serve.go", From: "if judged && direct && c.repeats(p.claim) {", To: "if judged && direct {", Tests: "TestSignaturesThatAreSkipped"},
		{Name: "unproven claims are passed on", File: "serve.go", From: "\tif c.by == nil {\n", To: "\tif true {\n", Tests: "TestUnprovenClaimsStay"},
		{Name: "another organisation's claims count", File: "serve.go", From: "\tif who.MSPID() != e.mspID {\n\t\treturn nil, ", To: "\tif false {\n\t\treturn nil, ", Tests: "TestHostile"},
		{Name: "no limit to what is said", File: "serve.go", From: "if b.tokens < 1 {\n\t\treturn false", To: "if b.tokens < 1 {\n\t\treturn true", Tests: "TestClaimsAtOneKilohertz"},
		{Name: "two pulls of one peer", File: "pull.go", From: "\t\t<-before\n", To: "\t\t_ = before\n", Tests: "TestPullsDontOverlap"},
		{Name: "a leader goes without a word", File: "machine.go", From: "\t\tif m.role == leader {\n\t\t\tm.abdicate(\"stopped\", now)\n\t\t}\n", To: "", Tests: "TestCompany"},
	})
}

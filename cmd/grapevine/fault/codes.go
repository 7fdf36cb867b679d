package fault

import "sort"

// Codes that other packages name in their code. A code is a family and three
// digits and never gets another meaning; all are in the registry below.
const (
	Usage       = "API001"
	BadFile     = "API002"
	BadNumber   = "API003"
	Interrupted = "API004"
	StdoutGone  = "API005"
	TimedOut    = "API006"
	NotFound    = "API007"
	NotHere     = "API008"
	NoContext   = "API009"
	NoTarget    = "API010"
	Internal    = "API099"
	WrongPEM    = "CERT001"
	Unreachable = "NET001"

	Unreadable    = "CFG001"
	BadYAML       = "CFG002"
	UnknownKey    = "CFG003"
	WrongType     = "CFG004"
	DuplicateKey  = "CFG005"
	Contradiction = "CFG006"
	BadBootstrap  = "CFG007"
	NoExternal    = "CFG008"
	BadPort       = "CFG009"
	BadDuration   = "CFG010"
	BothLeader    = "CFG012"
	SkipVerify    = "CFG013"
	ZeroDefault   = "CFG014"
	PullTooShort  = "CFG015"
	CannotFollow  = "CFG016"
	NoRepair      = "CFG017"
	BackoffCapped = "CFG018"
	ForeignStore  = "CFG019"
	FewFiles      = "CFG020"
	ClockOff      = "CFG021"
	StoreLocked   = "CFG022"
	NoIdentity    = "CFG023"
	SpreadOff     = "CFG031"
	UnusedKey     = "CFG032"
	NotBuilt      = "CFG033"
)

// An Entry is what a code means, whatever the occasion.
type Entry struct {
	Code    string
	Title   string   // what, without the occasion's names
	Why     string   // what it usually comes from
	Fix     []string // what to do; names only verbs that exist
	Exit    int
	Reasons []string // reason codes that become this code; "block." stands for all of them
}

// Lookup returns a code's entry.
func Lookup(code string) (Entry, bool) {
	e, ok := registry[code]
	return e, ok
}

// Entries returns the whole registry, sorted by code.
func Entries() []Entry {
	out := make([]Entry, 0, len(entries))
	out = append(out, entries...)
	sort.Slice(out, func(i, j int) bool { return out[i].Code < out[j].Code })
	return out
}

// reason returns the reason code that a fresh error of this entry carries.
func (e Entry) reason() string {
	if len(e.Reasons) > 0 && e.Reasons[0][len(e.Reasons[0])-1] != '.' {
		return e.Reasons[0]
	}
	return ""
}

// registry finds an entry by its code, byReason one by a reason code.
var registry, byReason = index(entries)

func index(es []Entry) (byCode, byReason map[string]Entry) {
	byCode, byReason = map[string]Entry{}, map[string]Entry{}
	for _, e := range es {
		if _, twice := byCode[e.Code]; twice {
			panic("fault: code " + e.Code + " is registered twice")
		}
		byCode[e.Code] = e
		for _, r := range e.Reasons {
			if _, twice := byReason[r]; twice {
				panic("fault: reason " + r + " is mapped twice")
			}
			byReason[r] = e
		}
	}
	return byCode, byReason
}

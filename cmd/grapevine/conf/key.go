package conf

import (
	"sort"
	"strings"
)

// A Kind is the type of a key's value, and how it is written.
type Kind int

// The kinds. Text in brackets is the Go type of Value.Parsed.
const (
	String    Kind = iota // [string]
	Bool                  // true or false [bool]
	Int                   // a whole number [int64]
	Bytes                 // a whole number, or with k, m, g [int64]
	Duration              // 10s, 500ms [time.Duration]
	List                  // a list, or a string with spaces or commas [[]string]
	Dial                  // host:port to be reached by others, or empty [string]
	Endpoint              // host:port or multiaddr, or several, to be reached by others; or empty [string]
	Listen                // host:port to listen on; port 0 takes a free one [string]
	Dials                 // a list of host:port or multiaddrs [[]string]
	Multi                 // a list of multiaddrs to listen on [[]string]
	Path                  // a file or folder; relative to the file that names it [string]
	Paths                 // a list of them [[]string]
	Overrides             // peer.deliveryclient.addressOverrides [[]Override]
	Fronts                // relay.orderers [[]Front]
	Anything              // not looked at [string]
)

var kindNames = [...]string{
	"string", "true or false", "whole number", "size in bytes", "duration", "list", "host:port", "host:port or multiaddr, or several", "host:port",
	"list of host:port or multiaddr", "list of multiaddrs", "path", "list of paths", "list of {from, to, caCertsFile}", "list of {from, listenAddress}", "anything",
}

func (k Kind) String() string { return kindNames[k] }

// A Treatment is what Grapevine does with a key.
type Treatment string

// The treatments.
const (
	Honoured Treatment = "honoured" // as Fabric means it
	Mapped   Treatment = "mapped"   // by meaning: config show prints the mapping
	Accepted Treatment = "accepted" // read, without effect, as in Fabric
	Ignored  Treatment = "ignored"  // known of Fabric, without meaning here; noted once
	Refused  Treatment = "refused"  // one value of it is refused
)

// A zero says what becomes of a number or duration that is zero or negative.
type zero int

const (
	zeroRefused zero = iota // out of range
	zeroDefault             // Fabric silently takes its default, so do we, aloud
	zeroFine                // zero means something; negative is refused
)

// A Key is one name of the configuration and all there is to say about it.
type Key struct {
	Path      string // canonical spelling; keys match without regard to case. A trailing ".*" stands for all below
	Kind      Kind
	Treatment Treatment
	Default   string // when absent; "" if there is none
	Absent    string // said instead of an empty Default: "by the number of members"
	Fabric    string // the value in Fabric's sample file, or its code's where the sample is silent
	Meaning   string // one or two sentences
	Enum      []string
	Secret    bool // never shown
	env       string
	zero      zero
}

// Env returns the environment variable of the key, "CORE_PEER_GOSSIP_BOOTSTRAP".
func (k *Key) Env() string { return k.env }

// A schema is the set of keys that one program reads.
type schema struct {
	role   Role
	keys   []*Key          // sorted by path
	byPath map[string]*Key // lower case
	byEnv  map[string]*Key
	wild   []*Key // the ones that end in ".*"
}

// newSchema indexes the keys of a role. Own keys get GRAPEVINE_ variables.
func newSchema(role Role, prefix string, theirs, own []Key) *schema {
	s := &schema{role: role, byPath: map[string]*Key{}, byEnv: map[string]*Key{}}
	add := func(prefix string, ks []Key) {
		for i := range ks {
			k := ks[i]
			if k.env == "" {
				k.env = prefix + strings.ToUpper(strings.ReplaceAll(strings.TrimSuffix(k.Path, ".*"), ".", "_"))
			}
			low := strings.ToLower(k.Path)
			if s.byPath[low] != nil || s.byEnv[k.env] != nil {
				panic("conf: key " + k.Path + " is declared twice")
			}
			s.keys = append(s.keys, &k)
			if strings.HasSuffix(low, ".*") {
				s.wild = append(s.wild, &k)
				continue
			}
			s.byPath[low], s.byEnv[k.env] = &k, &k
		}
	}
	add(prefix, theirs)
	add("GRAPEVINE_", own)
	sort.Slice(s.keys, func(i, j int) bool {
		return strings.ToLower(s.keys[i].Path) < strings.ToLower(s.keys[j].Path)
	})
	return s
}

// find returns the key of a path in lower case: the key itself or the ".*" above it.
func (s *schema) find(low string) *Key {
	if k := s.byPath[low]; k != nil {
		return k
	}
	for _, k := range s.wild {
		stem := strings.ToLower(strings.TrimSuffix(k.Path, "*"))
		if strings.HasPrefix(low, stem) || low == strings.TrimSuffix(stem, ".") {
			return k
		}
	}
	return nil
}

// findEnv returns the key of a variable.
func (s *schema) findEnv(name string) *Key {
	if k := s.byEnv[name]; k != nil {
		return k
	}
	for _, k := range s.wild {
		if strings.HasPrefix(name, k.env+"_") || name == k.env {
			return k
		}
	}
	return nil
}

// isSection reports whether a path in lower case has keys below it.
func (s *schema) isSection(low string) bool {
	for p := range s.byPath {
		if strings.HasPrefix(p, low+".") {
			return true
		}
	}
	return false
}

// nearestKey returns the known path most like an unknown one, or "".
func (s *schema) nearestKey(low string) string {
	best, found := farthest(low), ""
	last := low[strings.LastIndexByte(low, '.')+1:]
	for _, k := range s.keys {
		p := strings.ToLower(k.Path)
		if strings.HasSuffix(p, ".*") {
			continue
		}
		d := Distance(low, p, 2*best)
		if d > 1 && p[strings.LastIndexByte(p, '.')+1:] == last {
			d /= 2 // the right word in the wrong place
		}
		if d < best {
			best, found = d, k.Path
		}
	}
	return found
}

// nearestEnv returns the known variable most like an unknown one, or "".
func (s *schema) nearestEnv(name string) string {
	best, found := farthest(name), ""
	for _, k := range s.keys {
		if d := Distance(name, k.env, best); d < best && !strings.HasSuffix(k.Path, ".*") {
			best, found = d, k.env
		}
	}
	return found
}

// farthest is the distance from which on two names are no longer alike.
func farthest(name string) int { return 2 + len(name)/6 }

// Distance is the number of single-character edits and swaps of neighbours that
// turn a into b (optimal string alignment); limit or more is returned as limit.
func Distance(a, b string, limit int) int {
	if len(a) > 200 || len(b) > 200 || len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	before, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], before[j-2]+1)
			}
		}
		before, prev, cur = prev, cur, before
	}
	return min(prev[len(b)], limit)
}

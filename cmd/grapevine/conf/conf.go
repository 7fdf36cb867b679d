// Package conf reads a node's configuration: Fabric's core.yaml and orderer.yaml,
// Grapevine's own overlay, and their environment, strictly and with the source of
// every value.
//
// Load never fails; it judges. What is wrong with a configuration is in its
// Findings, and Err is the first that forbids a start. Keys match without regard
// to case; a flag goes before the environment, that before the files, a later
// file before an earlier one, and those before the defaults.
package conf

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"go.yaml.in/yaml/v3"

	"grapevine/cmd/grapevine/fault"
)

// A Role is the program that a configuration is for.
type Role int

// The roles. AnyRole lets the files decide, and is a peer without them.
const (
	AnyRole Role = iota
	RolePeer
	RoleOrderer
)

// maxUnknown bounds how many unknown names are reported one by one.
const maxUnknown = 50

// systemDir is where Fabric's packages keep their configuration.
const systemDir = "/etc/hyperledger/fabric"

var (
	peerSchema    = newSchema(RolePeer, "CORE_", append(append([]Key(nil), gossipKeys...), coreKeys...), ownKeys)
	ordererSchema = newSchema(RoleOrderer, "ORDERER_", ordererKeys, ownKeys)
)

// An Input is all that a configuration is made from. Nothing else is read.
type Input struct {
	Role   Role
	Files  []string // --config, in order; none: the usual places
	Env    []string // "NAME=value", as of os.Environ
	Dir    string   // the working folder; "" is the process's
	Flags  []Flag
	System string // replaces /etc/hyperledger/fabric, for tests
}

// A Flag is a key's value from the command line.
type Flag struct{ Name, Key, Value string }

// A Value is the effective value of a key.
type Value struct {
	Key    *Key
	Parsed any    // of the Go type that Key.Kind names; nil: absent without a default
	Text   string // for people
	Mapped string // what a mapped value becomes, "mesh degree 3"
	Source Source
	Set    bool // by a flag, a variable or a file
	dir    string
}

// Settings is a judged configuration. It doesn't change after Load.
type Settings struct {
	Role     Role
	Files    []string // those that were read
	findings []*Finding
	schema   *schema
	values   map[string]*Value // by path in lower case
	unused   map[string][]entry
	unknown  int
}

// Load reads and judges a configuration.
func Load(in Input) *Settings {
	s := &Settings{values: map[string]*Value{}, unused: map[string][]entry{}}
	if in.Dir == "" {
		in.Dir, _ = os.Getwd() // "" leaves relative paths relative
	}
	files, fs := locate(in)
	s.findings = append(s.findings, fs...)
	raws := map[string][]byte{}
	for _, name := range files {
		raw, err := readFile(name)
		if err != nil {
			s.findings = append(s.findings, unreadable("", name, Source{Kind: "file", Name: name}, err))
			continue
		}
		s.Files = append(s.Files, name)
		raws[name] = raw
	}
	s.Role = in.Role
	if s.Role == AnyRole {
		s.Role = roleOf(s.Files, raws)
	}
	s.schema = peerSchema
	if s.Role == RoleOrderer {
		s.schema = ordererSchema
	}
	s.defaults()
	for _, name := range s.Files {
		entries, fs := parseFile(name, raws[name], s.schema)
		s.findings = append(s.findings, fs...)
		for _, e := range entries {
			s.fromFile(e)
		}
	}
	base := in.Dir // of relative paths in variables: beside the main file, as in Fabric
	if len(s.Files) > 0 {
		base = filepath.Dir(s.Files[0])
	}
	s.fromEnv(in.Env, base)
	for _, f := range in.Flags {
		if k := s.schema.byPath[strings.ToLower(f.Key)]; k != nil {
			s.take(k, f.Value, nil, Source{Kind: "flag", Name: f.Name}, in.Dir)
		}
	}
	if s.unknown > maxUnknown {
		s.add(found(fault.UnknownKey, SeverityWarning, "", "", Source{Kind: "default"}, fmt.Sprintf("%d more unknown names", s.unknown-maxUnknown)))
	}
	s.noteUnused()
	s.judge()
	sort.SliceStable(s.findings, func(i, j int) bool {
		return s.findings[i].Severity == SeverityError && s.findings[j].Severity != SeverityError
	})
	return s
}

// locate returns the files to read, by the rules for where they lie.
func locate(in Input) ([]string, []*Finding) {
	abs := func(p string) string {
		if filepath.IsAbs(p) {
			return filepath.Clean(p)
		}
		return filepath.Join(in.Dir, p)
	}
	if len(in.Files) > 0 {
		var out []string
		for _, f := range in.Files {
			out = append(out, abs(f))
		}
		return out, nil
	}
	exists := func(p string) bool { _, err := os.Stat(p); return err == nil }
	name, system := "core.yaml", systemDir
	if in.Role == RoleOrderer {
		name = "orderer.yaml"
	}
	if in.System != "" {
		system = in.System
	}
	var out []string
	var findings []*Finding
	if dir, set := lookup(in.Env, "FABRIC_CFG_PATH"); set && dir != "" {
		src := Source{Kind: "env", Name: "FABRIC_CFG_PATH"}
		if _, err := os.Stat(abs(dir)); err != nil {
			findings = append(findings, unreadable("", abs(dir), src, err))
		} else if p := filepath.Join(abs(dir), name); exists(p) {
			out = append(out, p)
		}
	} else if p := abs(name); exists(p) {
		out = append(out, p)
	} else if p := filepath.Join(system, name); exists(p) {
		out = append(out, p)
	}
	if p := abs("grapevine.yaml"); exists(p) {
		out = append(out, p)
	}
	return out, findings
}

// roleOf tells an orderer's file by its General section.
func roleOf(files []string, raws map[string][]byte) Role {
	for _, name := range files {
		root, f := parseYAML(name, raws[name])
		if f != nil || root == nil {
			if strings.HasPrefix(filepath.Base(name), "orderer") {
				return RoleOrderer
			}
			continue
		}
		for i := 0; i+1 < len(root.Content); i += 2 {
			low := strings.ToLower(root.Content[i].Value)
			if low == "general" || strings.HasPrefix(low, "general.") || low == "fileledger" {
				return RoleOrderer
			}
		}
	}
	return RolePeer
}

func (s *Settings) defaults() {
	for _, k := range s.schema.keys {
		if strings.HasSuffix(k.Path, ".*") {
			continue
		}
		v := &Value{Key: k, Source: Source{Kind: "default"}}
		if k.Default != "" {
			v.Parsed, _ = parseText(k, k.Default) // a test parses every default
			v.Text = text(v.Parsed)
		} else {
			v.Text = k.Absent
		}
		s.values[strings.ToLower(k.Path)] = v
	}
}

// fromFile takes one value of a file.
func (s *Settings) fromFile(e entry) {
	k := s.schema.find(e.low)
	switch {
	case k == nil && s.schema.isSection(e.low):
		s.add(&Finding{
			Code: fault.WrongType, Reason: "config.type", Severity: SeverityError, Key: e.path, Source: e.src,
			Message: e.path + " is a section, not a value", Fix: []string{"put its keys below it, indented"},
		})
	case k == nil:
		f := found(fault.UnknownKey, SeverityWarning, e.path, "", e.src, "unknown key "+e.path+" at "+e.src.String())
		s.suggest(f, s.schema.nearestKey, e.low)
	case k.Treatment == Ignored:
		s.unused[k.Path] = append(s.unused[k.Path], e)
	case k.env == "FABRIC_LOGGING_SPEC" || k.env == "FABRIC_LOGGING_FORMAT":
		f := found(fault.UnknownKey, SeverityWarning, e.path, "", e.src, "unknown key "+e.path+" at "+e.src.String())
		s.suggest(f, func(string) string { return k.env }, "")
	default:
		s.take(k, "", e.node, e.src, filepath.Dir(e.src.Name))
	}
}

// fromEnv takes the variables of this program.
func (s *Settings) fromEnv(env []string, base string) {
	prefixes := []string{"CORE_", "GRAPEVINE_", "FABRIC_LOGGING_"}
	if s.Role == RoleOrderer {
		prefixes[0] = "ORDERER_"
	}
	known := map[string]bool{"GRAPEVINE_FIXTURES": true}
	sorted := append([]string(nil), env...)
	sort.Strings(sorted)
	for _, pair := range sorted {
		name, value, _ := strings.Cut(pair, "=")
		src := Source{Kind: "env", Name: name}
		if known[name] || !hasPrefix(name, prefixes) {
			continue
		}
		k := s.schema.findEnv(name)
		switch {
		case k == nil:
			f := found(fault.UnknownKey, SeverityWarning, "", "", src, "unknown env "+name)
			s.suggest(f, s.schema.nearestEnv, name)
		case k.Treatment == Ignored:
			s.unused[k.Path] = append(s.unused[k.Path], entry{path: name, src: src, node: &yaml.Node{}})
		default:
			s.take(k, value, nil, src, base)
		}
	}
}

// take judges one value and, unless it is refused, makes it the effective one.
func (s *Settings) take(k *Key, txt string, n *yaml.Node, src Source, dir string) {
	var parsed any
	var b *badValue
	if n != nil {
		parsed, b = parseNode(k, n)
		txt = n.Value
	} else if txt == "" && (k.Kind == Bool || k.Kind == Int || k.Kind == Bytes || k.Kind == Duration) {
		b = bad("an empty value counts as set, and is not a %s", k.Kind)
	} else if k.Kind == String && len(k.Enum) > 0 && txt == "" {
		parsed = k.Default
	} else {
		parsed, b = parseText(k, txt)
	}
	if b != nil {
		f := wrong(k, txt, src, b.what)
		if b.code != "" {
			reason, why := f.Reason, f.Why
			f = found(b.code, SeverityError, k.Path, f.Value, src, k.Path+": "+b.what)
			f.Why = append(why, f.Why...)
			if src.Kind == "env" {
				f.Reason = reason
			}
		} else if k.Kind == Duration && src.Kind != "env" {
			f.Reason = "config.duration"
		}
		s.add(f)
		return
	}
	if isZero, negative := zeroOf(parsed); isZero || negative {
		switch {
		case k.zero == zeroDefault:
			f := found(fault.ZeroDefault, SeverityWarning, k.Path, txt, src, k.Path+": "+quote(txt)+" is taken as the default, "+defaultText(k))
			s.add(f)
			d := s.schema.byPath[strings.ToLower(k.Path)]
			v := &Value{Key: d, Source: Source{Kind: "default"}, Text: k.Absent}
			if k.Default != "" {
				v.Parsed, _ = parseText(k, k.Default)
				v.Text = text(v.Parsed)
			}
			s.values[strings.ToLower(k.Path)] = v
			return
		case negative || k.zero == zeroRefused:
			f := wrong(k, txt, src, quote(txt)+" is out of range")
			if k.Kind == Duration && src.Kind != "env" {
				f.Reason = "config.duration"
			}
			s.add(f)
			return
		}
	}
	v := &Value{Key: k, Parsed: parsed, Text: fault.Clean(text(parsed)), Source: src, Set: true, dir: dir}
	if k.Secret && txt != "" {
		v.Text = "[secret]"
	}
	s.values[strings.ToLower(k.Path)] = v
}

func (s *Settings) add(f *Finding) { s.findings = append(s.findings, f) }

// suggest adds a finding of an unknown name, with the one it probably meant.
// Beyond maxUnknown the file is another program's, and they are only counted.
func (s *Settings) suggest(f *Finding, nearest func(string) string, name string) {
	if s.unknown++; s.unknown > maxUnknown {
		return
	}
	if name = nearest(name); name != "" {
		f.Message += " (did you mean " + name + "?)"
		f.Suggestion = name
	}
	s.add(f)
}

package conf

import (
	"fmt"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"grapevine/cmd/grapevine/fault"
)

// Findings returns what the judge said: refusals first, then warnings.
func (s *Settings) Findings() []*Finding { return s.findings }

// Count returns how many findings are refusals and how many warnings.
func (s *Settings) Count() (errors, warnings int) {
	for _, f := range s.findings {
		if f.Severity == SeverityError {
			errors++
		} else {
			warnings++
		}
	}
	return errors, warnings
}

// Err returns the first refusal as a coded error; the others are told in its
// Why. nil if a node may start with this configuration.
func (s *Settings) Err() error {
	var first *fault.Error
	for _, f := range s.findings {
		switch {
		case f.Severity != SeverityError:
		case first == nil:
			first = f.Err()
		default:
			first.Why = append(first.Why, "also "+f.Err().Error())
		}
	}
	if first == nil {
		return nil
	}
	return first
}

// Values returns the effective values, sorted by key: those at or below prefix,
// or all for "". Ignored keys aren't among them.
func (s *Settings) Values(prefix string) []*Value {
	low := strings.ToLower(strings.TrimSuffix(prefix, "."))
	low = strings.TrimPrefix(low, "core.")
	var out []*Value
	for p, v := range s.values {
		if v.Key.Treatment != Ignored && (low == "" || p == low || strings.HasPrefix(p, low+".")) {
			out = append(out, v)
		}
	}
	sort.Slice(out, func(i, j int) bool { return strings.ToLower(out[i].Key.Path) < strings.ToLower(out[j].Key.Path) })
	return out
}

// Explain returns the key of that name, in any case, or as a variable. Without
// one: the nearest name, or "".
func Explain(name string) (k *Key, nearest string) {
	low := strings.TrimPrefix(strings.ToLower(name), "core.")
	for _, sc := range []*schema{peerSchema, ordererSchema} {
		if k := sc.find(low); k != nil {
			return k, ""
		}
		if k := sc.findEnv(strings.ToUpper(name)); k != nil {
			return k, ""
		}
	}
	for _, sc := range []*schema{peerSchema, ordererSchema} {
		if n := sc.nearestKey(low); n != "" {
			return nil, n
		}
	}
	return nil, ""
}

// Keys returns every key of a role, sorted.
func Keys(r Role) []*Key {
	if r == RoleOrderer {
		return ordererSchema.keys
	}
	return peerSchema.keys
}

// value returns the effective value of a key that the schema holds.
func (s *Settings) value(path string) *Value {
	v := s.values[strings.ToLower(path)]
	if v == nil {
		panic("conf: no key " + path) // a name misspelt in this package
	}
	return v
}

// DataDir is a peer's data folder. Named says that a file or a variable gives
// it, not the default.
func (s *Settings) DataDir() (dir string, named bool) {
	return s.path("peer.fileSystemPath"), s.set("peer.fileSystemPath")
}

// OrdererDir is an ordering node's data folder. Named says that a file or a
// variable gives it, not the default.
func (s *Settings) OrdererDir() (dir string, named bool) {
	return s.path("FileLedger.Location"), s.set("FileLedger.Location")
}

// ClientTLS names the files that a TLS client shows and trusts, as far as a file
// or a variable does.
func (s *Settings) ClientTLS() (cert, key, roots string) {
	named := func(paths ...string) string {
		for _, p := range paths {
			if s.set(p) {
				return s.path(p)
			}
		}
		return ""
	}
	return named("peer.tls.clientCert.file", "peer.tls.cert.file"), named("peer.tls.clientKey.file", "peer.tls.key.file"), named("peer.tls.rootcert.file")
}

func (s *Settings) set(path string) bool { return s.value(path).Set }

func (s *Settings) str(path string) string {
	v, _ := s.value(path).Parsed.(string)
	return v
}

func (s *Settings) flag(path string) bool {
	v, _ := s.value(path).Parsed.(bool)
	return v
}

func (s *Settings) num(path string) int {
	v, _ := s.value(path).Parsed.(int64)
	return int(v)
}

func (s *Settings) dur(path string) time.Duration {
	v, _ := s.value(path).Parsed.(time.Duration)
	return v
}

func (s *Settings) list(path string) []string {
	v, _ := s.value(path).Parsed.([]string)
	return v
}

// path returns a file's absolute path: relative ones are relative to the file
// that names them.
func (s *Settings) path(path string) string {
	v := s.value(path)
	p, _ := v.Parsed.(string)
	return s.resolve(v, p)
}

func (s *Settings) paths(path string) []string {
	v := s.value(path)
	var out []string
	list, _ := v.Parsed.([]string)
	for _, p := range list {
		out = append(out, s.resolve(v, p))
	}
	return out
}

func (s *Settings) resolve(v *Value, p string) string {
	if p == "" || filepath.IsAbs(p) {
		return p
	}
	dir := v.dir
	if !v.Set && len(s.Files) > 0 {
		dir = filepath.Dir(s.Files[0])
	}
	return filepath.Join(dir, p)
}

// noteUnused reports the Fabric keys that have no meaning here: one finding for
// each key, or for all below a section together.
func (s *Settings) noteUnused() {
	var paths []string
	for p := range s.unused {
		paths = append(paths, p)
	}
	sort.Strings(paths)
	for _, p := range paths {
		es := s.unused[p]
		f := found(fault.UnusedKey, SeverityWarning, es[0].path, "", es[0].src, "")
		if len(es) == 1 {
			f.Message = es[0].path + " has no meaning here" // its value may be a password
		} else {
			f.Key = p
			f.Message = fmt.Sprintf("%s: %d keys of Fabric's have no meaning here", p, len(es))
		}
		if k := s.schema.find(strings.ToLower(strings.TrimSuffix(p, ".*"))); k != nil && k.Meaning != "" {
			f.Why = []string{k.Meaning}
		}
		if es[0].src.Kind == "env" {
			f.Key = p
		}
		s.add(f)
	}
}

// unreadable is the refusal of a file that is named but can't be read.
func unreadable(key, path string, src Source, err error) *Finding {
	f := found(fault.Unreadable, SeverityError, key, path, src, "cannot read "+path)
	f.Why = []string{err.Error()}
	if key != "" {
		f.Why = append(f.Why, fmt.Sprintf("%s  from %s", key, src))
	}
	return f
}

func lookup(env []string, name string) (string, bool) {
	for i := len(env) - 1; i >= 0; i-- {
		if v, ok := strings.CutPrefix(env[i], name+"="); ok {
			return v, true
		}
	}
	return "", false
}

func hasPrefix(s string, prefixes []string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	return false
}

// zeroOf reports whether a number or duration is zero or negative.
func zeroOf(v any) (zero, negative bool) {
	switch v := v.(type) {
	case int64:
		return v == 0, v < 0
	case time.Duration:
		return v == 0, v < 0
	}
	return false, false
}

func defaultText(k *Key) string {
	if k.Default != "" {
		return k.Default
	}
	return k.Absent
}

package conf

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"grapevine/cmd/grapevine/fault"
)

// Limits of a configuration file. Fabric's samples have 40 KB, some hundred
// keys and seven levels; these leave room and keep a hostile file under 50 ms.
const (
	maxFile  = 256 << 10
	maxNodes = 20_000 // after aliases are followed
	maxDepth = 32
)

// An entry is one value of a file, as it stands there.
type entry struct {
	path string // as written, without a leading "core."
	low  string // the same in lower case
	node *yaml.Node
	src  Source
}

var yamlLine = regexp.MustCompile(`line (\d+): `)

// readFile reads a file within the limit. The error says what kept it from being read.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, errors.New("it is a folder")
	case !info.Mode().IsRegular() && info.Mode()&(os.ModeNamedPipe|os.ModeCharDevice) == 0:
		return nil, errors.New("it is no file")
	case info.Size() > maxFile:
		return nil, fmt.Errorf("it has %d bytes, %d is the most", info.Size(), maxFile)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("it has more than %d bytes", maxFile)
	}
	return b, nil
}

// parseFile returns the values of a file. s tells which paths are values though
// they hold a list or map. The findings are refusals.
func parseFile(name string, raw []byte, s *schema) ([]entry, []*Finding) {
	root, f := parseYAML(name, raw)
	if f != nil {
		return nil, []*Finding{f}
	}
	if root == nil {
		return nil, nil
	}
	w := &walker{name: name, schema: s, seen: map[string]int{}, budget: maxNodes}
	if !w.walk("", root, 0) {
		return nil, w.findings
	}
	return w.entries, w.findings
}

// parseYAML parses one document and refuses YAML's traps. A nil node: nothing in it.
func parseYAML(name string, raw []byte) (*yaml.Node, *Finding) {
	raw = bytes.TrimPrefix(raw, []byte("\xef\xbb\xbf"))
	if len(raw) > maxFile {
		return nil, badYAML(name, 1, 1, "too large")
	}
	lines := bytes.Split(raw, []byte("\n"))
	for i, l := range lines {
		if !utf8.Valid(l) {
			return nil, badYAML(name, i+1, firstInvalid(l)+1, "not UTF-8")
		}
		if len(l) > 0 && l[0] == '\t' && len(bytes.TrimSpace(l)) > 0 {
			return nil, badYAML(name, i+1, 1, "a tab in the indentation")
		}
	}
	var doc yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(raw))
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		line, what := 1, strings.TrimPrefix(err.Error(), "yaml: ")
		if m := yamlLine.FindStringSubmatch(what); m != nil {
			line, _ = strconv.Atoi(m[1]) // digits by the expression
			what = strings.Replace(what, m[0], "", 1)
		}
		column := 1
		if line <= len(lines) {
			l := lines[line-1]
			column = len(l) - len(bytes.TrimLeft(l, " \t")) + 1
			if bytes.Contains(l[:column-1], []byte("\t")) {
				what = "a tab in the indentation"
			}
		}
		return nil, badYAML(name, line, column, what)
	}
	var second yaml.Node
	if err := dec.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, badYAML(name, max(second.Line, 1), 1, "a second document")
	}
	if len(doc.Content) == 0 {
		return nil, nil
	}
	root := doc.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return nil, nil
	}
	if root.Kind == yaml.ScalarNode || root.Kind == yaml.SequenceNode {
		return nil, badYAML(name, root.Line, root.Column, "not a map of keys and values")
	}
	return root, nil
}

func badYAML(name string, line, column int, what string) *Finding {
	src := Source{Kind: "file", Name: name, Line: line}
	if name == "" {
		src = Source{}
	}
	return found(fault.BadYAML, SeverityError, "", "", src, fmt.Sprintf("%s:%d:%d: %s", name, line, column, what))
}

// firstInvalid returns the offset of the first byte that isn't UTF-8.
func firstInvalid(b []byte) int {
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return len(b)
}

// A walker flattens a file's tree into values.
type walker struct {
	name     string
	schema   *schema
	seen     map[string]int // lower-case path → line
	budget   int
	entries  []entry
	findings []*Finding
}

// walk visits a node; false ends the walk.
func (w *walker) walk(path string, n *yaml.Node, depth int) bool {
	for n.Kind == yaml.AliasNode {
		if w.budget--; w.budget < 0 || n.Alias == nil {
			return w.stop(n, "aliases that unfold without end")
		}
		n = n.Alias
	}
	if w.budget--; w.budget < 0 {
		return w.stop(n, "too many values (aliases are counted each time)")
	}
	if depth > maxDepth {
		return w.stop(n, "nested too deep")
	}
	low := strings.ToLower(path)
	key := w.schema.byPath[low]
	if n.Kind != yaml.MappingNode || (key != nil && (key.Kind == Overrides || key.Kind == Fronts || key.Kind == Anything)) {
		return w.value(path, low, n)
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		if name.Tag == "!!merge" {
			return w.stop(name, "merge keys (<<) are not allowed")
		}
		if name.Kind != yaml.ScalarNode {
			return w.stop(name, "a key is not a word")
		}
		below := name.Value
		if path != "" {
			below = path + "." + below
		} else if strings.EqualFold(below, "core") {
			below = "" // a leading "core." is dropped
		} else if len(below) > 5 && strings.EqualFold(below[:5], "core.") {
			below = below[5:]
		}
		if len(below) > 400 {
			return w.stop(name, "a key is too long")
		}
		if !w.walk(below, value, depth+1) {
			return false
		}
	}
	return true
}

// value keeps one value, unless it is empty or there twice.
func (w *walker) value(path, low string, n *yaml.Node) bool {
	src := Source{Kind: "file", Name: w.name, Line: n.Line}
	if before, twice := w.seen[low]; twice {
		f := found(fault.DuplicateKey, SeverityError, path, "", src, fmt.Sprintf("%s stands twice in %s, lines %d and %d", path, w.name, before, n.Line))
		w.findings = append(w.findings, f)
		return true
	}
	w.seen[low] = n.Line
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return true // an empty key counts as absent
	}
	w.entries = append(w.entries, entry{path: path, low: low, node: n, src: src})
	return true
}

func (w *walker) stop(n *yaml.Node, what string) bool {
	w.findings = append(w.findings, badYAML(w.name, max(n.Line, 1), max(n.Column, 1), what))
	return false
}

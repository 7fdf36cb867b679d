package conf

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// An Override replaces an orderer's address.
type Override struct {
	From        string // host:port in the channel configuration
	To          string // host:port to dial instead
	CACertsFile string // PEM roots for To, absolute; "" keeps From's
	Line        int    // in the file; 0 in the environment
}

// A Front is an address of the relay that stands for one orderer.
type Front struct {
	From   string // host:port in the channel configuration
	Listen string // host:port
	Line   int    // in the file; 0 in the environment
}

// parseOverrides reads a list of {from, to, caCertsFile}.
func parseOverrides(n *yaml.Node) (any, *badValue) {
	var out []Override
	err := parseEntries(n, "{from, to, caCertsFile}", func(i, line int, read func(map[string]*string) *badValue) *badValue {
		o := Override{Line: line}
		if b := read(map[string]*string{"from": &o.From, "to": &o.To, "cacertsfile": &o.CACertsFile}); b != nil {
			return b
		}
		for _, a := range []struct{ name, v string }{{"from", o.From}, {"to", o.To}} {
			if b := checkDial(a.v); b != nil || a.v == "" {
				return bad("%s of entry %d: %s is not host:port", a.name, i, quote(a.v))
			}
		}
		out = append(out, o)
		return nil
	})
	return out, err
}

// parseFronts reads a list of {from, listenAddress}.
func parseFronts(n *yaml.Node) (any, *badValue) {
	var out []Front
	err := parseEntries(n, "{from, listenAddress}", func(i, line int, read func(map[string]*string) *badValue) *badValue {
		f := Front{Line: line}
		if b := read(map[string]*string{"from": &f.From, "listenaddress": &f.Listen}); b != nil {
			return b
		}
		if b := checkDial(f.From); b != nil || f.From == "" {
			return bad("from of entry %d: %s is not host:port", i, quote(f.From))
		}
		if b := checkListen(f.Listen); b != nil || f.Listen == "" {
			return bad("listenAddress of entry %d: %s is not host:port", i, quote(f.Listen))
		}
		out = append(out, f)
		return nil
	})
	return out, err
}

// parseEntries reads a list of mappings from words to words: each is told its
// number from 1 on, its line, and how to read its fields, by lower-case name.
func parseEntries(n *yaml.Node, form string, each func(i, line int, read func(map[string]*string) *badValue) *badValue) *badValue {
	if n.Kind == yaml.ScalarNode && strings.TrimSpace(n.Value) == "" {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		return bad("a list of %s was expected", form)
	}
	if len(n.Content) > maxItems {
		return bad("%d entries; %d is the most", len(n.Content), maxItems)
	}
	for i, item := range n.Content {
		if item.Kind == yaml.AliasNode {
			item = item.Alias
		}
		if item.Kind != yaml.MappingNode {
			return bad("entry %d is not %s", i+1, form)
		}
		if b := each(i+1, item.Line, func(fields map[string]*string) *badValue { return readFields(item, i, fields) }); b != nil {
			return b
		}
	}
	return nil
}

// readFields reads the words of one entry.
func readFields(item *yaml.Node, i int, fields map[string]*string) *badValue {
	seen := map[string]bool{}
	for j := 0; j+1 < len(item.Content); j += 2 {
		name, value := item.Content[j], item.Content[j+1]
		low := strings.ToLower(name.Value)
		field, ok := fields[low]
		switch {
		case !ok:
			return bad("entry %d has an unknown field %s", i+1, quote(name.Value))
		case seen[low]:
			return bad("entry %d names %s twice", i+1, name.Value)
		case value.Kind != yaml.ScalarNode:
			return bad("%s of entry %d is no word", name.Value, i+1)
		}
		seen[low] = true
		if value.Tag != "!!null" {
			*field = value.Value
		}
	}
	return nil
}

// parseListText reads the environment's form of such a list, an inline YAML one.
func parseListText(s string, parse func(*yaml.Node) (any, *badValue)) (any, *badValue) {
	if strings.TrimSpace(s) == "" {
		return parse(&yaml.Node{Kind: yaml.ScalarNode})
	}
	// The list is parsed as the value of a key, so that the file's rules apply.
	root, f := parseYAML("", fmt.Appendf(nil, "list: %s\n", strings.TrimSpace(s)))
	if f != nil || root == nil || len(root.Content) != 2 {
		return nil, bad("not an inline YAML list")
	}
	noLines(root.Content[1])
	return parse(root.Content[1])
}

// noLines forgets where in the environment's text a list stands.
func noLines(n *yaml.Node) {
	n.Line = 0
	for _, c := range n.Content {
		noLines(c)
	}
}

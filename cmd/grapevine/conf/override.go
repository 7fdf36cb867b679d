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

// parseOverrides reads a list of {from, to, caCertsFile}.
func parseOverrides(n *yaml.Node) (any, *badValue) {
	if n.Kind == yaml.ScalarNode && strings.TrimSpace(n.Value) == "" {
		return []Override(nil), nil
	}
	if n.Kind != yaml.SequenceNode {
		return nil, bad("a list of {from, to, caCertsFile} was expected")
	}
	if len(n.Content) > maxItems {
		return nil, bad("%d entries; %d is the most", len(n.Content), maxItems)
	}
	var out []Override
	for i, item := range n.Content {
		if item.Kind == yaml.AliasNode {
			item = item.Alias
		}
		if item.Kind != yaml.MappingNode {
			return nil, bad("entry %d is not {from, to, caCertsFile}", i+1)
		}
		o := Override{Line: item.Line}
		fields := map[string]*string{"from": &o.From, "to": &o.To, "cacertsfile": &o.CACertsFile}
		seen := map[string]bool{}
		for j := 0; j+1 < len(item.Content); j += 2 {
			name, value := item.Content[j], item.Content[j+1]
			low := strings.ToLower(name.Value)
			field, ok := fields[low]
			switch {
			case !ok:
				return nil, bad("entry %d has an unknown field %s", i+1, quote(name.Value))
			case seen[low]:
				return nil, bad("entry %d names %s twice", i+1, name.Value)
			case value.Kind != yaml.ScalarNode:
				return nil, bad("%s of entry %d is no word", name.Value, i+1)
			}
			seen[low] = true
			if value.Tag != "!!null" {
				*field = value.Value
			}
		}
		for _, a := range []struct{ name, v string }{{"from", o.From}, {"to", o.To}} {
			if b := checkDial(a.v); b != nil || a.v == "" {
				return nil, bad("%s of entry %d: %s is not host:port", a.name, i+1, quote(a.v))
			}
		}
		out = append(out, o)
	}
	return out, nil
}

// parseOverridesText reads the environment's form, an inline YAML list.
func parseOverridesText(s string) (any, *badValue) {
	if strings.TrimSpace(s) == "" {
		return []Override(nil), nil
	}
	// The list is parsed as the value of a key, so that the file's rules apply.
	root, f := parseYAML("", fmt.Appendf(nil, "list: %s\n", strings.TrimSpace(s)))
	if f != nil || root == nil || len(root.Content) != 2 {
		return nil, bad("not an inline YAML list")
	}
	v, b := parseOverrides(root.Content[1])
	if b == nil {
		for i := range v.([]Override) {
			v.([]Override)[i].Line = 0
		}
	}
	return v, b
}

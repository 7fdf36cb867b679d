package conf

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// A Dropped key is one that a converted configuration doesn't have.
type Dropped struct{ Key, Why string }

// spreadKeys are those by which Fabric's own samples switch dissemination off.
var spreadKeys = []string{
	"peer.gossip.useLeaderElection", "peer.gossip.orgLeader", "peer.gossip.state.enabled", "peer.deliveryclient.blockGossipEnabled",
}

// Convert returns the YAML of a configuration that says what s says, and only
// what counts here: keys that Fabric alone reads, and values that are the
// default anyway, are dropped. With enable, so are those that switch
// dissemination off. Paths stay as they were written: the result belongs into
// the folder of the first file.
func (s *Settings) Convert(enable bool) ([]byte, []Dropped, error) {
	root := &yaml.Node{Kind: yaml.MappingNode}
	var dropped []Dropped
	for path := range s.unused {
		dropped = append(dropped, Dropped{path, "Fabric's alone"})
	}
	for _, v := range s.Values("") {
		switch {
		case !v.Set:
			continue
		case v.Key.Treatment == Accepted:
			dropped = append(dropped, Dropped{v.Key.Path, "it has no effect, in Fabric neither"})
		case enable && slices.ContainsFunc(spreadKeys, func(k string) bool { return strings.EqualFold(k, v.Key.Path) }):
			dropped = append(dropped, Dropped{v.Key.Path, "dissemination is enabled: " + v.Text + " would switch it off or change how"})
		case sameAsDefault(v):
			dropped = append(dropped, Dropped{v.Key.Path, v.Text + " is the default"})
		default:
			n, err := nodeOf(v)
			if err != nil {
				return nil, nil, err
			}
			put(root, strings.Split(v.Key.Path, "."), n)
		}
	}
	slices.SortFunc(dropped, func(a, b Dropped) int { return strings.Compare(a.Key, b.Key) })
	if len(root.Content) == 0 {
		return []byte("# every key has its default\n"), dropped, nil
	}
	var out bytes.Buffer
	e := yaml.NewEncoder(&out)
	e.SetIndent(2)
	if err := e.Encode(root); err != nil {
		return nil, nil, fmt.Errorf("writing the configuration: %w", err)
	}
	return out.Bytes(), dropped, e.Close()
}

// nodeOf is a value as YAML; what it becomes here stands behind it.
func nodeOf(v *Value) (*yaml.Node, error) {
	n := &yaml.Node{}
	from := v.Parsed
	switch p := v.Parsed.(type) {
	case time.Duration:
		from = p.String()
	case []Override:
		var list []map[string]string
		for _, o := range p {
			m := map[string]string{"from": o.From, "to": o.To}
			if o.CACertsFile != "" {
				m["caCertsFile"] = o.CACertsFile
			}
			list = append(list, m)
		}
		from = list
	case []Front:
		var list []map[string]string
		for _, f := range p {
			list = append(list, map[string]string{"from": f.From, "listenAddress": f.Listen})
		}
		from = list
	case nil:
		from = v.Text
	}
	if err := n.Encode(from); err != nil {
		return nil, fmt.Errorf("%s: %w", v.Key.Path, err)
	}
	if v.Mapped != "" {
		n.LineComment = v.Mapped
	}
	return n, nil
}

// put sets a value at a path below m, making sections on the way.
func put(m *yaml.Node, path []string, value *yaml.Node) {
	for i := 0; i+1 < len(m.Content); i += 2 {
		if strings.EqualFold(m.Content[i].Value, path[0]) && len(path) > 1 {
			put(m.Content[i+1], path[1:], value)
			return
		}
	}
	if len(path) > 1 {
		section := &yaml.Node{Kind: yaml.MappingNode}
		put(section, path[1:], value)
		value = section
	}
	m.Content = append(m.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: path[0]}, value)
}

package channel

import (
	"fmt"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"google.golang.org/protobuf/proto"

	"grapevine/block"
)

// An element is a group, value or policy of a configuration, with its place.
// Exactly one of the three is set.
type element struct {
	at     string // path of the group it lies in, or, for a group, of itself
	group  *common.ConfigGroup
	value  *common.ConfigValue
	policy *common.ConfigPolicy
}

func (e element) version() uint64 {
	switch {
	case e.group != nil:
		return e.group.Version
	case e.value != nil:
		return e.value.Version
	}
	return e.policy.GetVersion()
}

func (e element) modPolicy() string {
	switch {
	case e.group != nil:
		return e.group.ModPolicy
	case e.value != nil:
		return e.value.ModPolicy
	}
	return e.policy.GetModPolicy()
}

// policyPath returns the absolute path of the element's mod_policy; a relative
// one is taken from the group it lies in, or is. Empty, it names no policy.
func (e element) policyPath() string {
	name := e.modPolicy()
	if name == "" || name[0] == '/' {
		return name
	}
	return e.at + "/" + name
}

// keys of elements: the kind keeps a group from being taken for a value.
func groupKey(path string) string        { return "group " + path }
func valueKey(path, name string) string  { return "value " + path + "/" + name }
func policyKey(path, name string) string { return "policy " + path + "/" + name }

// flatten lists the elements of a channel group by key.
func flatten(root *common.ConfigGroup) (map[string]element, error) {
	if root == nil {
		return nil, fmt.Errorf("no channel group: %w", block.BadConfig)
	}
	all := make(map[string]element)
	return all, flattenGroup(all, "/"+groupChannel, groupChannel, root, 0)
}

func flattenGroup(all map[string]element, path, name string, g *common.ConfigGroup, depth int) error {
	if g == nil || !validElement(name) || depth > maxDepth {
		return fmt.Errorf("group %s: %w", path, block.BadConfig)
	}
	all[groupKey(path)] = element{at: path, group: g}
	for name, sub := range g.Groups {
		if err := flattenGroup(all, path+"/"+name, name, sub, depth+1); err != nil {
			return err
		}
	}
	for name, v := range g.Values {
		if v == nil || !validElement(name) {
			return fmt.Errorf("value %q in %s: %w", name, path, block.BadConfig)
		}
		all[valueKey(path, name)] = element{at: path, value: v}
	}
	for name, p := range g.Policies {
		if p == nil || !validElement(name) {
			return fmt.Errorf("policy %q in %s: %w", name, path, block.BadConfig)
		}
		all[policyKey(path, name)] = element{at: path, policy: p}
	}
	return nil
}

// compose builds the group at a path from its elements, and notes which it
// used: what a group holds is what its own element lists.
func compose(all map[string]element, used map[string]bool, path string) (*common.ConfigGroup, error) {
	key := groupKey(path)
	e, ok := all[key]
	if !ok {
		return nil, fmt.Errorf("%s is listed, but nowhere written: %w", key, block.BadConfig)
	}
	used[key] = true
	g := &common.ConfigGroup{
		Version:   e.group.Version,
		ModPolicy: e.group.ModPolicy,
		Groups:    make(map[string]*common.ConfigGroup, len(e.group.Groups)),
		Values:    make(map[string]*common.ConfigValue, len(e.group.Values)),
		Policies:  make(map[string]*common.ConfigPolicy, len(e.group.Policies)),
	}
	for name := range e.group.Groups {
		sub, err := compose(all, used, path+"/"+name)
		if err != nil {
			return nil, err
		}
		g.Groups[name] = sub
	}
	for name := range e.group.Values {
		key := valueKey(path, name)
		v, ok := all[key]
		if !ok {
			return nil, fmt.Errorf("%s is listed, but nowhere written: %w", key, block.BadConfig)
		}
		used[key] = true
		g.Values[name] = proto.CloneOf(v.value)
	}
	for name := range e.group.Policies {
		key := policyKey(path, name)
		p, ok := all[key]
		if !ok {
			return nil, fmt.Errorf("%s is listed, but nowhere written: %w", key, block.BadConfig)
		}
		used[key] = true
		g.Policies[name] = proto.CloneOf(p.policy)
	}
	return g, nil
}

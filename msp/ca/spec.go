package ca

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"text/template"
	"text/template/parse"

	"go.yaml.in/yaml/v3"
)

// Bounds of a crypto-config.yaml, against a slip of the finger.
const (
	maxSpec  = 1 << 20 // bytes
	maxNames = 10_000  // nodes and users of one organisation
)

// A Spec is a crypto-config.yaml: the organisations whose trees [Generate]
// writes. Field names are cryptogen's keys.
type Spec struct {
	OrdererOrgs []OrgSpec `yaml:"OrdererOrgs"`
	PeerOrgs    []OrgSpec `yaml:"PeerOrgs"`
}

// An OrgSpec is one organisation. Domain names its folder.
type OrgSpec struct {
	Name          string     `yaml:"Name"`
	Domain        string     `yaml:"Domain"`
	EnableNodeOUs bool       `yaml:"EnableNodeOUs"`
	CA            NodeSpec   `yaml:"CA"`
	Template      Template   `yaml:"Template"`
	Specs         []NodeSpec `yaml:"Specs"`
	Users         Users      `yaml:"Users"`

	line int // in the file; 0 if made in code
}

// A NodeSpec is one node, or the organisation's CA. CommonName and SANS are
// templates over Hostname, Domain and (SANS only) CommonName. The subject
// fields have a meaning for a CA alone, whose certificates inherit them.
type NodeSpec struct {
	Hostname           string   `yaml:"Hostname"`
	CommonName         string   `yaml:"CommonName"`
	Country            string   `yaml:"Country"`
	Province           string   `yaml:"Province"`
	Locality           string   `yaml:"Locality"`
	OrganizationalUnit string   `yaml:"OrganizationalUnit"`
	StreetAddress      string   `yaml:"StreetAddress"`
	PostalCode         string   `yaml:"PostalCode"`
	SANS               []string `yaml:"SANS"`
	PublicKeyAlgorithm string   `yaml:"PublicKeyAlgorithm"`
}

// A Template stands for Count nodes, numbered from Start. Hostname is a
// template over Prefix, Index and Domain.
type Template struct {
	Count              int      `yaml:"Count"`
	Start              int      `yaml:"Start"`
	Hostname           string   `yaml:"Hostname"`
	SANS               []string `yaml:"SANS"`
	PublicKeyAlgorithm string   `yaml:"PublicKeyAlgorithm"`
}

// Users is how many users an organisation has besides its Admin.
type Users struct {
	Count              int    `yaml:"Count"`
	PublicKeyAlgorithm string `yaml:"PublicKeyAlgorithm"`
}

// ParseSpec reads a crypto-config.yaml. It is strict: an unknown or doubled
// key, a wrong type, a clash of names or a name that is no file name is an
// error that names the line.
func ParseSpec(b []byte) (*Spec, error) {
	if len(b) > maxSpec {
		return nil, fmt.Errorf("crypto-config: %d bytes: at most %d", len(b), maxSpec)
	}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	s := &Spec{}
	if err := d.Decode(s); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("crypto-config: %w", explain(err))
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("crypto-config: more than one YAML document")
	}
	s.number(b)
	if err := s.Validate(); err != nil {
		return nil, fmt.Errorf("crypto-config: %w", err)
	}
	return s, nil
}

// Validate checks what [Generate] relies on.
func (s *Spec) Validate() error {
	if len(s.OrdererOrgs)+len(s.PeerOrgs) == 0 {
		return errors.New("neither OrdererOrgs nor PeerOrgs names an organisation")
	}
	for _, k := range []struct {
		key, prefix string
		orgs        []OrgSpec
	}{{"OrdererOrgs", "orderer", s.OrdererOrgs}, {"PeerOrgs", "peer", s.PeerOrgs}} {
		seen := map[string]bool{}
		for i := range k.orgs {
			o := &k.orgs[i]
			at := fmt.Sprintf("%s[%d]", k.key, i)
			if o.line > 0 {
				at = fmt.Sprintf("line %d: %s", o.line, at)
			}
			if _, err := o.render(k.prefix); err != nil {
				return fmt.Errorf("%s: %w", at, err)
			}
			if seen[o.Domain] {
				return fmt.Errorf("%s: a second organisation with Domain %s", at, o.Domain)
			}
			seen[o.Domain] = true
		}
	}
	return nil
}

// A node is a NodeSpec with its templates filled in.
type node struct {
	name string
	sans []string
	alg  Algorithm
}

// A plan is everything that an organisation's tree will hold.
type plan struct {
	ca           node
	subject      Subject
	nodes, users []node // users: the Admin first
}

// render fills in the templates. prefix is peer or orderer.
func (o *OrgSpec) render(prefix string) (*plan, error) {
	if o.Domain == "" {
		return nil, errors.New("Domain missing") //nolint:staticcheck // the key is called so
	}
	if err := fileName("Domain", o.Domain); err != nil {
		return nil, err
	}
	if n := o.Template.Count; n < 0 || n > maxNames {
		return nil, fmt.Errorf("Template.Count %d: must be 0 to %d", n, maxNames)
	}
	if n := o.Users.Count; n < 0 || n > maxNames {
		return nil, fmt.Errorf("Users.Count %d: must be 0 to %d", n, maxNames)
	}
	if o.Template.Start < 0 {
		return nil, fmt.Errorf("Template.Start %d: must not be negative", o.Template.Start)
	}
	p := &plan{subject: Subject{
		Country: o.CA.Country, Province: o.CA.Province, Locality: o.CA.Locality,
		Unit: o.CA.OrganizationalUnit, Street: o.CA.StreetAddress, PostalCode: o.CA.PostalCode,
	}}
	all := append([]NodeSpec{}, o.Specs...)
	for i := range o.Template.Count {
		host, err := fill("Template.Hostname", o.Template.Hostname, "{{.Prefix}}{{.Index}}", map[string]any{
			"Prefix": prefix, "Index": i + o.Template.Start, "Domain": o.Domain,
		})
		if err != nil {
			return nil, err
		}
		all = append(all, NodeSpec{Hostname: host, SANS: o.Template.SANS, PublicKeyAlgorithm: o.Template.PublicKeyAlgorithm})
	}
	seen := map[string]bool{}
	for _, n := range all {
		r, err := n.render(o.Domain)
		if err != nil {
			return nil, err
		}
		if seen[r.name] {
			return nil, fmt.Errorf("two nodes are named %s", r.name)
		}
		seen[r.name] = true
		p.nodes = append(p.nodes, r)
	}
	ca := o.CA
	if ca.Hostname == "" {
		ca.Hostname = "ca"
	}
	var err error
	if p.ca, err = ca.render(o.Domain); err != nil {
		return nil, fmt.Errorf("CA: %w", err)
	}
	alg, err := ParseAlgorithm(o.Users.PublicKeyAlgorithm)
	if err != nil {
		return nil, fmt.Errorf("Users.PublicKeyAlgorithm: %w", err)
	}
	p.users = []node{{name: "Admin@" + o.Domain, alg: alg}}
	if prefix == "peer" { // cryptogen gives orderer organisations an Admin alone
		for i := range o.Users.Count {
			p.users = append(p.users, node{name: fmt.Sprintf("User%d@%s", i+1, o.Domain), alg: alg})
		}
	}
	return p, nil
}

func (n NodeSpec) render(domain string) (node, error) {
	if n.Hostname == "" && n.CommonName == "" {
		return node{}, errors.New("a node has neither Hostname nor CommonName")
	}
	data := map[string]any{"Hostname": n.Hostname, "Domain": domain}
	cn, err := fill("CommonName", n.CommonName, "{{.Hostname}}.{{.Domain}}", data)
	if err != nil {
		return node{}, err
	}
	if err := fileName("CommonName", cn); err != nil {
		return node{}, err
	}
	data["CommonName"] = cn
	r := node{name: cn, sans: []string{cn}}
	if n.Hostname != "" {
		r.sans = append(r.sans, n.Hostname)
	}
	for _, s := range n.SANS {
		san, err := fill("SANS", s, "", data)
		if err != nil {
			return node{}, fmt.Errorf("%s: %w", cn, err)
		}
		r.sans = append(r.sans, san)
	}
	if r.alg, err = ParseAlgorithm(n.PublicKeyAlgorithm); err != nil {
		return node{}, fmt.Errorf("%s: PublicKeyAlgorithm: %w", cn, err)
	}
	return r, nil
}

// fill executes a template; key names it in errors.
func fill(key, text, otherwise string, data map[string]any) (string, error) {
	if text == "" {
		text = otherwise
	}
	t, err := template.New(key).Option("missingkey=error").Parse(text)
	if err != nil {
		return "", fmt.Errorf("%s %q: %w", key, text, err)
	}
	if t.Tree == nil || !plain(t.Root) {
		return "", fmt.Errorf("%s %q: only text and {{.Name}} are known here", key, text)
	}
	var out strings.Builder
	if err := t.Execute(&out, data); err != nil {
		return "", fmt.Errorf("%s %q: %w", key, text, err)
	}
	if out.Len() == 0 {
		return "", fmt.Errorf("%s %q: empty", key, text)
	}
	return out.String(), nil
}

// plain says whether a template is of text and fields alone: no loop, no
// function that could take for ever.
func plain(l *parse.ListNode) bool {
	for _, n := range l.Nodes {
		switch n := n.(type) {
		case *parse.TextNode:
		case *parse.ActionNode:
			if len(n.Pipe.Decl) > 0 || len(n.Pipe.Cmds) != 1 || len(n.Pipe.Cmds[0].Args) != 1 {
				return false
			}
			if _, ok := n.Pipe.Cmds[0].Args[0].(*parse.FieldNode); !ok {
				return false
			}
		default:
			return false
		}
	}
	return true
}

// fileName refuses a name that would leave its folder.
func fileName(key, s string) error {
	if !filepath.IsLocal(s) || s == "." || strings.ContainsAny(s, "/\\\x00\n") || len(s) > 200 {
		return fmt.Errorf("%s %q: no file name", key, s)
	}
	return nil
}

// number records the lines of the organisations, which a strict decoder keeps
// to itself.
func (s *Spec) number(b []byte) {
	var doc yaml.Node
	if yaml.Unmarshal(b, &doc) != nil || len(doc.Content) != 1 {
		return
	}
	top := doc.Content[0]
	for i := 0; i+1 < len(top.Content); i += 2 {
		orgs := map[string][]OrgSpec{"OrdererOrgs": s.OrdererOrgs, "PeerOrgs": s.PeerOrgs}[top.Content[i].Value]
		for j, n := range top.Content[i+1].Content {
			if j < len(orgs) {
				orgs[j].line = n.Line
			}
		}
	}
}

var unknownKey = regexp.MustCompile(`field (\S+) not found in type ca\.(\w+)`)

// explain turns the decoder's words about Go types into words about keys.
func explain(err error) error {
	types := map[string]any{"Spec": Spec{}, "OrgSpec": OrgSpec{}, "NodeSpec": NodeSpec{}, "Template": Template{}, "Users": Users{}}
	msg := unknownKey.ReplaceAllStringFunc(err.Error(), func(m string) string {
		f := unknownKey.FindStringSubmatch(m)
		var keys []string
		if v, ok := types[f[2]]; ok {
			for i := range reflect.TypeOf(v).NumField() {
				if k := reflect.TypeOf(v).Field(i).Tag.Get("yaml"); k != "" {
					keys = append(keys, k)
				}
			}
		}
		return fmt.Sprintf("unknown key %s (known here: %s)", f[1], strings.Join(keys, ", "))
	})
	msg = strings.TrimPrefix(msg, "yaml: ")
	msg = strings.TrimPrefix(msg, "unmarshal errors:\n")
	return errors.New(strings.Join(strings.Fields(msg), " "))
}

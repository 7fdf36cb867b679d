package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"text/tabwriter"

	"go.yaml.in/yaml/v3"

	"grapevine/cmd/grapevine/admin"
	"grapevine/cmd/grapevine/fault"
)

// A table writes rows of aligned columns.
type table struct {
	tabwriter.Writer
	wide bool // -o wide: more columns
}

// row writes one row; the cells are aligned with those above and below.
func (t *table) row(cells ...any) {
	for i, c := range cells {
		if i > 0 {
			_, _ = t.Write([]byte{'\t'}) // into memory
		}
		_, _ = fmt.Fprint(t, c)
	}
	_, _ = t.Write([]byte{'\n'})
}

// flush ends a block of rows: those below are aligned by themselves.
func (t *table) flush() { _ = t.Flush() } // into memory

// emit prints an object in the form that -o asks for. Show writes its table, and
// names the names for -o name; nil names prints the table's.
func (a *app) emit(obj any, show func(t *table), names func() []string) error {
	text, err := a.form(obj, show, names)
	if err != nil {
		return err
	}
	return a.write(text)
}

// form is what emit prints.
func (a *app) form(obj any, show func(t *table), names func() []string) ([]byte, error) {
	var b bytes.Buffer
	switch a.flags.output {
	case "json", "yaml":
		raw, err := admin.Marshal(obj)
		if err != nil {
			return nil, err
		}
		if a.flags.output == "yaml" {
			if raw, err = toYAML(raw); err != nil {
				return nil, err
			}
		}
		b.Write(bytes.TrimRight(raw, "\n"))
		b.WriteByte('\n')
	case "name":
		if names != nil {
			for _, n := range names() {
				b.WriteString(n + "\n")
			}
			break
		}
		fallthrough
	default:
		t := &table{wide: a.flags.output == "wide"}
		t.Init(&b, 0, 8, 2, ' ', 0)
		show(t)
		if err := t.Flush(); err != nil {
			return nil, fmt.Errorf("write table: %w", err)
		}
	}
	return trimLines(b.Bytes()), nil
}

// write puts data on stdout.
func (a *app) write(b []byte) error {
	if _, err := a.out.Write(b); err != nil {
		if gone(err) {
			return fault.New(fault.StdoutGone, "").Because(err.Error()).From(err)
		}
		return fault.New(fault.BadFile, "cannot write to standard output").Because(err.Error()).Do("see what stands behind it").From(err)
	}
	return nil
}

// gone reports whether stdout has nobody at its other end. A full disk behind
// stdout is another thing.
func gone(err error) bool {
	return fault.Of(err).Code == fault.StdoutGone || errors.Is(err, fs.ErrClosed)
}

// trimLines drops the blanks that alignment leaves at the end of lines.
func trimLines(b []byte) []byte {
	lines := strings.Split(string(b), "\n")
	for i, l := range lines {
		lines[i] = strings.TrimRight(l, " ")
	}
	return []byte(strings.Join(lines, "\n"))
}

// toYAML turns JSON into YAML, fields in the same order.
func toYAML(raw []byte) ([]byte, error) {
	var n yaml.Node
	if err := yaml.Unmarshal(raw, &n); err != nil { // JSON is YAML
		return nil, fmt.Errorf("turn into YAML: %w", err)
	}
	plain(&n)
	out, err := yaml.Marshal(&n)
	if err != nil {
		return nil, fmt.Errorf("turn into YAML: %w", err)
	}
	return out, nil
}

// plain takes JSON's braces away, but for empty ones. Strings stay quoted where
// they would read as something else.
func plain(n *yaml.Node) {
	if n.Kind == yaml.ScalarNode || len(n.Content) > 0 {
		n.Style = 0 // the encoder quotes where it must
	}
	for _, c := range n.Content {
		plain(c)
	}
}
